"""Carry out an order: look up what its tag names, make the release, tell who watches."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.core.board import Board
from orchestrator.core.errors import ConfigError, OrchestratorError
from orchestrator.core.plan import ReleaseRequest
from orchestrator.core.version import parse_version
from orchestrator.release import release_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.core.events import Event
    from orchestrator.core.order import Order
    from orchestrator.core.report import Report
    from orchestrator.github.lookup import Lookup
    from orchestrator.wiring import Operator

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Somebody who is told how an order goes, on the loop: it must not block or raise."""

    def begin(self, order: Order, board: Board) -> None:
        """Take note that work begins; the board changes as it goes on."""
        ...

    def observe(self, order: Order, event: Event, at: datetime) -> None:
        """Take note of an event, which the board knows already."""
        ...

    def end(self, order: Order, outcome: dict[str, Any]) -> None:
        """Take note of the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Who carries out orders; the inventory is read again for each of them."""

    read_operator: Callable[[], Operator]
    lookup: Lookup | None
    watchers: Sequence[Watcher]

    async def pin(self, order: Order) -> Order:
        """Return the order with what its tag names now, unless that was looked up before.

        Raises ConfigError if there is no such tag.
        """
        if self.lookup is None or order.tag is None or order.commit:
            return order
        tag = await self.lookup.tag(order.tag)
        return replace(order, commit=tag.commit, reference=tag.reference)

    async def make(self, order: Order) -> dict[str, Any]:
        """Return how the release went, as Board.as_data tells it: a failure is no exception.

        Cancelling it leaves the jobs on the nodes as they are.
        """
        board = Board(order, datetime.now(UTC))
        self._tell(lambda watcher: watcher.begin(order, board))

        def observe(event: Event) -> None:
            at = datetime.now(UTC)
            board.observe(event, at)
            self._tell(lambda watcher: watcher.observe(order, event, at))

        report: Report | None = None
        error: OrchestratorError | str | None = None
        try:
            await self._require_unmoved(order)
            operator = self.read_operator()
            request = ReleaseRequest(version=parse_version(order.version))
            _, report = await release_for(
                operator, request, observe, channel=order.channel, commit=order.commit
            )
        except OrchestratorError as known:
            error = known
        except Exception as unknown:  # noqa: BLE001 -- one release ends with it, not the service
            _log.exception("a bug of ours ended the release of %s", order.version)
            error = f"a bug of ours: {type(unknown).__name__}: {unknown}"
        board.finish(datetime.now(UTC), report, error)
        outcome = board.as_data()
        self._tell(lambda watcher: watcher.end(order, outcome))
        return outcome

    async def _require_unmoved(self, order: Order) -> None:
        """Raise ConfigError if the tag names another commit than when it was first looked up."""
        if self.lookup is None or order.tag is None or order.commit is None or order.attempt == 1:
            return
        now = await self.lookup.tag(order.tag)
        if now.commit != order.commit:
            raise moved(order, now.commit)

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        for watcher in self.watchers:
            try:
                what(watcher)
            except Exception:  # noqa: BLE001 -- see below
                # Who only watches must not stop a release.
                _log.exception("a bug of ours in who watches a release")


def moved(order: Order, commit: str) -> ConfigError:
    """Return the alarm of a tag that is not what it was."""
    return ConfigError(
        f"the tag {order.tag} was moved: it named {order.commit} when {order.version} was asked "
        f"for, and names {commit} now",
        hint="find out who moved it: what was released stays as it is, and new code needs a new "
        "version",
    )
