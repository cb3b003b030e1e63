"""What the service was asked for, and what became of it: an order is a release that somebody wants.

An order is intent only. What is built is on the nodes, what is published is in the store, and an
order that is carried out twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class Origin(StrEnum):
    """Who asked for it."""

    WEBHOOK = "webhook"
    POLLER = "poller"
    PERSON = "person"
    RETRY = "retry"


class State(StrEnum):
    """How far an order is; only the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come of this attempt."""
        return self in {State.DONE, State.FAILED, State.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One attempt to release one version.

    `channel` is the index that it joins. `tag` is None where nobody named one; `commit` is what the
    tag named when it was first looked up, and `reference` what it pointed to: the commit, or an
    annotated tag. `page` is where the release is described.
    """

    version: str
    channel: str
    asked: datetime
    origin: Origin
    attempt: int = 1
    tag: str | None = None
    commit: str | None = None
    reference: str | None = None
    page: str | None = None

    @property
    def key(self) -> str:
        """What names this attempt: the same for all who ask for it."""
        return f"{self.version}#{self.attempt}"

    def again(self, *, asked: datetime, origin: Origin) -> Order:
        """Return the next attempt, of the same commit."""
        return replace(self, attempt=self.attempt + 1, asked=asked, origin=origin)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "version": self.version,
            "channel": self.channel,
            "asked": self.asked.isoformat(),
            "origin": str(self.origin),
            "attempt": self.attempt,
            "tag": self.tag,
            "commit": self.commit,
            "reference": self.reference,
            "page": self.page,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Order:
        """Return the order that `as_data` told."""
        asked, origin = datetime.fromisoformat(data["asked"]), Origin(data["origin"])
        return cls(**{**data, "asked": asked, "origin": origin})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An order in the queue, or in its history.

    `outcome` is what `Board.as_data` said at its end, None before. `coordinator` names the process
    that works on it, or did.
    """

    order: Order
    state: State
    began: datetime | None = None
    ended: datetime | None = None
    outcome: Mapping[str, Any] | None = None
    coordinator: str | None = None

    def as_data(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "order": self.order.as_data(),
            "state": str(self.state),
            "began": self.began.isoformat() if self.began else None,
            "ended": self.ended.isoformat() if self.ended else None,
            "outcome": self.outcome,
            "coordinator": self.coordinator,
        }
