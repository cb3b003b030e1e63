"""Orders in memory, as a queue keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.core.errors import StoreError
from orchestrator.core.order import Entry, Order, State
from orchestrator.service.intake import Submitted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass
class Book:
    """Orders that nobody carries out; the newest is the last of the list."""

    written: list[Entry] = field(default_factory=list)
    is_away: bool = False

    @property
    def orders(self) -> list[Order]:
        return [entry.order for entry in self.written]

    def write(
        self,
        order: Order,
        state: State = State.DONE,
        *,
        ended: datetime | None = None,
        **outcome: Any,
    ) -> None:
        """Write an order down as it stands now."""
        entry = Entry(order=order, state=state, ended=ended, outcome=outcome or None)
        self.written.append(entry)

    async def submit(self, order: Order) -> Submitted:
        self._answer()
        if order.key in {each.key for each in self.orders}:
            return Submitted(order=order, is_new=False)
        self.write(order, State.QUEUED)
        return Submitted(order=order, is_new=True)

    async def entries(self, *, version: str | None = None, limit: int = 50) -> Sequence[Entry]:
        self._answer()
        found = [each for each in self.written if version in {None, each.order.version}]
        return found[::-1][:limit]

    async def cancel(self, order: Order) -> None:
        self._answer()
        self.written = [
            replace(each, state=State.CANCELLED) if each.order == order else each
            for each in self.written
        ]

    def _answer(self) -> None:
        if self.is_away:
            raise StoreError("the database of the queue does not answer")
