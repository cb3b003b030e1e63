"""How old is what each platform gets, and which platform waits for a version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.core.downloads import Platform, platforms_of
from orchestrator.core.index import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from orchestrator.core.index import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """What one platform gets.

    `version` is the newest that can be installed there and `released` when that version was first
    published anywhere; `newest` is the newest that can be installed on any platform, and `behind`
    how many versions are newer than the platform's own. It waits for `awaited` since `since`: the
    oldest version that was announced for it and is not there. None is what there is not, or what
    nobody knows.
    """

    name: str
    title: str
    target: str
    version: str | None
    released: datetime | None
    newest: str | None
    behind: int
    awaited: str | None
    since: datetime | None
    is_late: bool

    def as_data(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "platform": self.name,
            "title": self.title,
            "target": self.target,
            "version": self.version,
            "released": self.released.isoformat() if self.released else None,
            "newest": self.newest,
            "behind": self.behind,
            "awaited": self.awaited,
            "since": self.since.isoformat() if self.since else None,
            "late": self.is_late,
        }


def freshness_of(
    rows: Sequence[Row],
    targets: Collection[str],
    *,
    published: Mapping[str, datetime],
    now: datetime,
    late_after: timedelta,
) -> tuple[Freshness, ...]:
    """Return what each platform of the rows gets, then the targets that no row is for.

    `published` says when a version was first published; one that it does not have was published at
    an unknown time, and nobody is late for that alone.
    """
    offered = {str(row.version): row.version for row in rows if row.status is Status.OK}
    newest = max(offered.values(), default=None)
    platforms = list(platforms_of(rows))
    known = {each.target for each in platforms}
    platforms += [
        Platform(target=target, os_release=None, rows=())
        for target in dict.fromkeys(targets)
        if target not in known
    ]
    return tuple(
        _freshness(
            each,
            newest=str(newest) if newest else None,
            behind=sum(
                each.newest is None or each.newest.version < version for version in offered.values()
            ),
            published=published,
            late_at=now - late_after,
        )
        for each in platforms
    )


def _freshness(
    platform: Platform,
    *,
    newest: str | None,
    behind: int,
    published: Mapping[str, datetime],
    late_at: datetime,
) -> Freshness:
    own = platform.newest
    awaited = _awaited(platform)
    since = published.get(str(awaited.version)) if awaited else None
    return Freshness(
        name=platform.name,
        title=platform.title,
        target=platform.target,
        version=str(own.version) if own else None,
        released=published.get(str(own.version)) if own else None,
        newest=newest,
        behind=behind,
        awaited=str(awaited.version) if awaited else None,
        since=since,
        is_late=since is not None and since <= late_at,
    )


def _awaited(platform: Platform) -> Row | None:
    """Return the oldest pending row above what can be installed."""
    awaited = None
    for row in platform.rows:
        if row.status is Status.OK:
            break
        if row.status is Status.PENDING:
            awaited = row
    return awaited
