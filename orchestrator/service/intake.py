"""Where orders go, as those see it who have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.order import Entry, Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The attempt that an order led to: a new one, or one that was there before."""

    order: Order
    is_new: bool


class Intake(Protocol):
    """Takes orders."""

    async def submit(self, order: Order) -> Submitted:
        """Return the attempt that it led to, durable now; StoreError if it cannot be kept."""
        ...


class Orders(Intake, Protocol):
    """Takes orders, and knows those that there are."""

    async def entries(self, *, version: str | None = None, limit: int = 50) -> Sequence[Entry]:
        """Return the newest orders first, of all versions or of one; StoreError if it cannot."""
        ...

    async def cancel(self, order: Order) -> None:
        """Take an order back; what runs for it on the nodes is another's business."""
        ...
