"""What an index offers on each platform, for people: the newest build, and what became of others.

A platform is a target and, where binaries run on one OS release only, that release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.index import Status, release_order
from orchestrator.core.result import cpu_level
from orchestrator.core.target import TARGETS, platform_name, platform_title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.index import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """One platform and its rows, newest version first."""

    target: str
    os_release: str | None
    rows: tuple[Row, ...]
    # The level of the CPU that it needs, 0 for any.
    cpu: int = 0

    @property
    def name(self) -> str:
        """What names it in paths: `x86_64-unknown-openbsd7.8`."""
        return platform_name(self.target, self.os_release) + (f"-v{self.cpu}" if self.cpu else "")

    @property
    def title(self) -> str:
        """What people call it: `OpenBSD 7.8 amd64`."""
        title = platform_title(self.target, self.os_release)
        return f"{title}, x86-64-v{self.cpu}" if self.cpu else title

    @property
    def newest(self) -> Row | None:
        """The row of the newest version that can be installed, None if there is none."""
        return next((row for row in self.rows if row.status is Status.OK), None)

    @property
    def late(self) -> Row | None:
        """The newest row that is pending and not older than what can be installed."""
        for row in self.rows:
            if row.status is Status.OK:
                return None
            if row.status is Status.PENDING:
                return row
        return None

    def by_version(self) -> dict[str, Row]:
        """Return the row of each version that was announced here."""
        return {str(row.version): row for row in reversed(self.rows)}


def platforms_of(rows: Sequence[Row]) -> tuple[Platform, ...]:
    """Return the platforms of an index's rows, in the order of the target table.

    What is late without naming an OS release is late on each release of its target. A build for
    newer CPUs that is behind the one for all of them is none of a platform: nobody would get it.
    """
    by_place: dict[tuple[str, str | None, int], list[Row]] = {}
    for row in rows:
        place = (row.target, row.exact_release, cpu_level(row.floors))
        by_place.setdefault(place, []).append(row)
    has_releases = {target for target, release, _ in by_place if release is not None}
    platforms = [
        Platform(
            target=target,
            os_release=release,
            rows=_newest_first(own, by_place.get((target, None, 0), ()) if release else ()),
            cpu=cpu,
        )
        for (target, release, cpu), own in by_place.items()
        if release is not None or target not in has_releases
    ]
    plain = {(each.target, each.os_release): each for each in platforms if not each.cpu}
    current = (
        each
        for each in platforms
        if not each.cpu or not _is_behind(each, plain.get((each.target, each.os_release)))
    )
    return tuple(sorted(current, key=_place))


def _is_behind(platform: Platform, other: Platform | None) -> bool:
    own, others = platform.newest, other.newest if other else None
    return others is not None and (own is None or own.version < others.version)


def newest_builds(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the newest row that can be installed of each platform that has one."""
    return tuple(row for each in platforms_of(rows) if (row := each.newest))


def versions_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return every version of the rows, newest first."""
    newest_first = sorted(rows, key=lambda row: (row.version, str(row.version)), reverse=True)
    return tuple(dict.fromkeys(str(row.version) for row in newest_first))


_ORDER: Final = {triple: number for number, triple in enumerate(TARGETS)}


def _newest_first(own: Sequence[Row], of_any_release: Sequence[Row]) -> tuple[Row, ...]:
    decided = {str(row.version) for row in own}
    more = [row for row in of_any_release if str(row.version) not in decided]
    return tuple(
        sorted((*own, *more), key=lambda row: (row.version, str(row.version)), reverse=True)
    )


def _place(platform: Platform) -> tuple[int, str, tuple[int, ...], int]:
    # The newest release of an OS first; a target that is not in the table after all that are.
    release = release_order(platform.os_release) if platform.os_release else ()
    newest_first = tuple(-number for number in release)
    order = _ORDER.get(platform.target, len(_ORDER))
    return (order, platform.target, newest_first, platform.cpu)
