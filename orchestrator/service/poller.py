"""Ask GitHub for what its deliveries may have missed: releases, and tags that were moved."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.errors import ConfigError, OrchestratorError
from orchestrator.core.order import Order, Origin
from orchestrator.core.webhook import version_of_tag
from orchestrator.service.maker import moved

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from orchestrator.core.index import Index
    from orchestrator.core.order import Entry
    from orchestrator.core.version import Version
    from orchestrator.github.lookup import Lookup, Published
    from orchestrator.service.intake import Orders

_log = logging.getLogger(__name__)
# A release of an older line is no newer version, but it may have been published a moment ago.
_RECENT: Final = timedelta(days=3)
_WATCHED: Final = timedelta(days=90)
_LONGEST_PAUSE: Final = timedelta(hours=1)


class Alarm(Protocol):
    """Tells a person of something, once for each subject."""

    def __call__(self, subject: str, *, title: str, text: str) -> None:
        """Tell it."""
        ...


@dataclass(slots=True, kw_only=True)
class Poller:
    """Who asks, as often as `every` says; `tag` has `{version}` in it."""

    lookup: Lookup
    queue: Orders
    tag: str
    every: timedelta
    channel_of: Callable[[Version, bool], str]
    read_index: Callable[[str], Awaitable[Index | None]]
    alarm: Alarm
    _next_watched: int = 0
    _told: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Ask for ever; what goes wrong is logged, and asked again later and later."""
        pause = self.every
        while True:
            try:
                await self.look()
                pause = self.every
            except OrchestratorError as error:
                _log.warning("GitHub cannot be asked for releases: %s", error.message)
                pause = min(pause * 2, max(_LONGEST_PAUSE, self.every))
            except Exception:  # noqa: BLE001 -- the next look may be luckier
                _log.exception("a bug of ours in the poller")
            await asyncio.sleep(pause.total_seconds())

    async def look(self) -> None:
        """Queue every release that nobody told us of; raise StoreError if it cannot be known."""
        try:
            found = await self.lookup.releases()
            entries = await self.queue.entries(limit=200)
            if found is not None:
                await self._queue_missing(found, {entry.order.version for entry in entries})
        except BaseException:
            # What was not dealt with is news next time, too.
            self.lookup.forget()
            raise
        await self._watch_tags(entries)

    async def _queue_missing(self, found: Sequence[Published], known: set[str]) -> None:
        for version, release in sorted(self._ours(found), key=lambda each: each[0]):
            if str(version) in known:
                continue
            channel = self.channel_of(version, release.is_prerelease)
            if await self._is_missing(version, channel, release):
                _log.warning("found a release whose delivery is missing: %s", version)
                await self.queue.submit(
                    Order(
                        version=str(version),
                        channel=channel,
                        asked=datetime.now(UTC),
                        origin=Origin.POLLER,
                        tag=release.tag,
                        page=release.page,
                    )
                )

    def _ours(self, found: Sequence[Published]) -> list[tuple[Version, Published]]:
        ours = []
        for release in found:
            try:
                version = version_of_tag(release.tag, self.tag)
            except ConfigError:
                continue
            if version is not None:
                ours.append((version, release))
        return ours

    async def _is_missing(self, version: Version, channel: str, release: Published) -> bool:
        """Whether nothing of it is published although it is new: the past stays as it is."""
        index = await self.read_index(channel)
        rows = index.rows if index else ()
        if any(row.version == version for row in rows):
            return False
        is_recent = datetime.now(UTC) - release.published < _RECENT
        return is_recent or bool(rows and version > max(row.version for row in rows))

    async def _watch_tags(self, entries: Sequence[Entry]) -> None:
        """See whether one of the tags that were released was moved; another one each time."""
        since = datetime.now(UTC) - _WATCHED
        watched = [
            entry.order
            for entry in entries
            if entry.order.tag and entry.order.commit and entry.order.asked > since
        ]
        if not watched:
            return
        order = watched[self._next_watched % len(watched)]
        self._next_watched += 1
        try:
            commit = (await self.lookup.tag(order.tag or "")).commit
        except ConfigError:
            commit = "nothing"
        if commit != order.commit and order.version not in self._told:
            self._told.add(order.version)
            error = moved(order, commit)
            _log.error("%s", error.message)
            title = f"the tag {order.tag} was moved"
            self.alarm(f"tag {order.tag}", title=title, text=f"{error.message}. {error.hint}")
