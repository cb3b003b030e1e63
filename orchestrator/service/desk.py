"""What the pages show and what people may do there, of the real queue, store and nodes."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from orchestrator.channels import flip_version
from orchestrator.core.edits import Flip, Selection
from orchestrator.core.errors import ConfigError, NodeError, OrchestratorError
from orchestrator.core.freshness import freshness_of
from orchestrator.core.index import Status
from orchestrator.core.order import Origin, State
from orchestrator.core.version import parse_version
from orchestrator.jobs import Cancelled, SilentNode, cancel_jobs, log_file
from orchestrator.stores.history import read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.core.freshness import Freshness
    from orchestrator.core.index import Index
    from orchestrator.core.order import Entry
    from orchestrator.service.intake import Orders
    from orchestrator.wiring import Operator

_log = logging.getLogger(__name__)
# How long a look at the store is shown again; pages are asked for more often than it changes.
_KEPT_SECONDS: Final = 10.0
_SERIALS: Final = 30
# The engine notices within a second that an order was taken back.
_PREEMPTION_SECONDS: Final = 2.0


@dataclass(slots=True, kw_only=True)
class ReleaseDesk:
    """The desk of a running service; the inventory is read again for each thing that is done."""

    read_operator: Callable[[], Operator]
    queue: Orders
    # Told when somebody has changed what there is to be done.
    changed: Callable[[], None]
    _platforms: tuple[Freshness, ...] = ()
    _indexes: tuple[Index, ...] = ()
    _looked: float | None = None
    _serial: int | None = None
    _days: dict[str, datetime] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def entries(self, limit: int) -> Sequence[Entry]:
        """Return the newest orders first."""
        return await self.queue.entries(limit=limit)

    async def attempts(self, version: str) -> Sequence[Entry]:
        """Return the orders of one version, the newest first."""
        return await self.queue.entries(version=version)

    async def freshness(self) -> Sequence[Freshness]:
        """Return what each platform gets, as it was seconds ago; nothing before the first key."""
        async with self._looking:
            if self._looked is None or time.monotonic() - self._looked > _KEPT_SECONDS:
                try:
                    self._platforms = await self._look()
                except OrchestratorError as error:
                    # What was known before is better than nothing, and the rest goes on.
                    _log.warning("cannot see what each platform gets: %s", error.message)
                self._looked = time.monotonic()
            return self._platforms

    async def index(self, channel: str) -> Index | None:
        """Return the index of a channel, None before its first release or without a key."""
        operator = self.read_operator()
        if not operator.public_keys():
            return None
        return await operator.index(operator.trusted_channel(channel))

    async def indexes(self) -> Sequence[Index]:
        """Return the index of each channel that has one, as it was seconds ago."""
        await self.freshness()
        return self._indexes

    async def retry(self, version: str) -> None:
        """Queue another attempt; ConfigError if the newest is not over, or was a success."""
        newest = await self._newest(version)
        if not newest.state.is_final:
            raise ConfigError(f"{version} is {newest.state} already")
        if newest.state is State.DONE and not (newest.outcome or {}).get("pending"):
            raise ConfigError(f"{version} was released: there is nothing to try again")
        order = newest.order.again(asked=datetime.now(UTC), origin=Origin.PERSON)
        await self.queue.submit(order)
        self.changed()

    async def cancel(self, version: str) -> None:
        """Take the order back and end its jobs; NodeError if a node cannot be asked to."""
        newest = await self._newest(version)
        if newest.state.is_final:
            raise ConfigError(f"{version} is over: there is nothing to cancel")
        await self.queue.cancel(newest.order)
        self.changed()
        operator = self.read_operator()
        search = operator.search(parse_version(version))
        async with operator.connections(starts_guests=False) as connect:
            left = await cancel_jobs(connect, operator.nodes_at_work(), search)
            # What was about to be started a moment ago runs by now.
            await asyncio.sleep(_PREEMPTION_SECONDS)
            left = await cancel_jobs(connect, operator.nodes_at_work(), search)
        going_on = [each for each in left if isinstance(each, SilentNode) or each.survivors]
        if going_on:
            names = ", ".join(_node_of(each) for each in going_on)
            raise NodeError(
                f"{version} is cancelled, but it cannot be said that its jobs ended on {names}",
                hint=f"when they can be reached: orchestrator cancel {version}",
            )

    async def yank(self, version: str) -> None:
        """Take the version back on every channel that has it."""
        selection = Selection(version=parse_version(version))
        await flip_version(self.read_operator(), selection, Flip.YANK)
        self._looked = None
        self.changed()

    def log_path(self, version: str, node: str) -> Path | None:
        """Return where the log of a node's newest build is, None if there is none here."""
        operator = self.read_operator()
        try:
            path = log_file(operator.dist, parse_version(version), operator.node(node))
        except OrchestratorError:
            return None
        return path if path.is_file() else None

    async def _newest(self, version: str) -> Entry:
        found = await self.queue.entries(version=version, limit=1)
        if not found:
            raise ConfigError(f"nobody asked for {version[:80]!r} here")
        return found[0]

    async def _look(self) -> tuple[Freshness, ...]:
        operator = self.read_operator()
        if not operator.public_keys():
            return ()
        found = [await self.index(name) for name in operator.channel_names()]
        self._indexes = tuple(index for index in found if index)
        index = found[0]
        if index and index.serial != self._serial:
            copies = await read_history(
                operator.store(), operator.trusted_channel(), count=_SERIALS
            )
            self._days = _first_days(copies)
            self._serial = index.serial
        nodes = operator.inventory.nodes
        return freshness_of(
            index.rows if index else (),
            {node.target.triple for node in nodes if node.enabled},
            published=await self._published(),
            now=datetime.now(UTC),
            late_after=operator.inventory.service.late_after,
        )

    async def _published(self) -> dict[str, datetime]:
        """Return when each version was first published: by its order, or else by the history."""
        moments: dict[str, datetime] = {}
        for entry in await self.queue.entries(limit=200):
            order, outcome = entry.order, entry.outcome or {}
            if entry.state is State.RUNNING:
                moments[order.version] = entry.began or order.asked
            elif entry.ended and outcome.get("published"):
                # Newest first, so that the first attempt of a version has the last word.
                moments[order.version] = entry.ended
        # The history knows the day only.
        earlier = {
            version: day
            for version, day in self._days.items()
            if version not in moments or day.date() < moments[version].date()
        }
        return moments | earlier


def _node_of(each: Cancelled | SilentNode) -> str:
    return each.node.name if isinstance(each, SilentNode) else each.found.node.name


def _first_days(copies: Mapping[int, Index | str]) -> dict[str, datetime]:
    days: dict[str, datetime] = {}
    seen: set[str] = set()
    for number, serial in enumerate(sorted(copies)):
        index = copies[serial]
        if isinstance(index, str):
            continue
        versions = {str(row.version) for row in index.rows if row.status is Status.OK}
        # What the oldest copy has may be older than it, unless it is the very first.
        if number or serial == 1:
            day = datetime(index.issued.year, index.issued.month, index.issued.day, tzinfo=UTC)
            days |= dict.fromkeys(versions - seen, day)
        seen |= versions
    return days
