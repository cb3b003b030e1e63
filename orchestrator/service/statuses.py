"""Show each target's state at the commit on GitHub; what goes wrong there is only logged."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.commit_status import (
    StatusState,
    final_statuses,
    pending_statuses,
    published_statuses,
)
from orchestrator.core.errors import StoreError
from orchestrator.core.events import Published, ReleaseStarted
from orchestrator.github.statuses import Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from orchestrator.core.board import Board
    from orchestrator.core.commit_status import TargetStatus
    from orchestrator.core.events import Event
    from orchestrator.core.order import Order
    from orchestrator.core.plan import BuildPlan
    from orchestrator.github.statuses import Statuses

_log = logging.getLogger(__name__)
_HINT: Final = "the token needs `commit statuses: write`, or set `service.statuses: false`"


@dataclass(slots=True, kw_only=True)
class CommitStatuses:
    """A watcher of releases that tells GitHub; `run` has to run beside them.

    Of a target it tells once in an attempt that work begins, and once how it ended. What GitHub
    shows already is not told again, also after a restart.
    """

    statuses: Statuses
    project: str
    page: str | None
    _plan: BuildPlan | None = None
    _ended: set[str] = field(default_factory=set)
    _changes: asyncio.Queue[tuple[str, Status]] = field(default_factory=asyncio.Queue)
    _commit: str | None = None
    _shown: dict[str, Status] = field(default_factory=dict)

    def begin(self, order: Order, board: Board) -> None:  # noqa: ARG002 -- a watcher's
        """Begin another attempt."""
        self._plan = None
        self._ended.clear()

    def observe(self, order: Order, event: Event, at: datetime) -> None:  # noqa: ARG002
        """Tell that work begins, and which targets can be installed."""
        match event:
            case ReleaseStarted():
                self._plan = event.plan
                self._tell(order, pending_statuses(event.plan))
            case Published() if self._plan is not None:
                self._tell(order, published_statuses(self._plan, event.targets, order.version))
            case _:
                pass

    def end(self, order: Order, outcome: dict[str, Any]) -> None:
        """Tell how it ended for each target that was not told of yet."""
        if self._plan is not None:
            self._tell(order, final_statuses(self._plan, outcome))

    async def run(self) -> None:
        """Send what there is to be told, until cancelled."""
        while True:
            commit, status = await self._changes.get()
            try:
                await self._send(commit, status)
            except StoreError as error:
                _log.warning("%s", error.message, extra={"fields": {"hint": _HINT}})
            except Exception:  # noqa: BLE001 -- no status is worth a release
                _log.exception("a bug of ours in commit statuses")
            finally:
                self._changes.task_done()

    async def sent(self) -> None:
        """Return when everything was sent, or given up; `run` has to run meanwhile."""
        await self._changes.join()

    def _tell(self, order: Order, told: Iterable[TargetStatus]) -> None:
        for each in told:
            if order.commit is None or each.target in self._ended:
                continue
            if each.state is not StatusState.PENDING:
                self._ended.add(each.target)
            status = Status(
                context=f"{self.project}/{each.target}",
                state=each.state,
                description=each.description,
                page=self.page,
            )
            self._changes.put_nowait((order.commit, status))

    async def _send(self, commit: str, status: Status) -> None:
        if commit != self._commit:
            self._shown = await self._read(commit)
            self._commit = commit
        if self._shown.get(status.context) == status:
            return
        await self.statuses.set(commit, status)
        self._shown[status.context] = status

    async def _read(self, commit: str) -> dict[str, Status]:
        try:
            return await self.statuses.of(commit)
        except StoreError as error:
            # A token may be allowed to set what it may not read.
            _log.info("%s", error.message)
            return {}
