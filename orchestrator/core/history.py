"""What happened to an index: from one serial to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.core.index import Index, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row that came (`before` is None), went (`after` is None), or is another now."""

    before: Row | None
    after: Row | None

    @property
    def row(self) -> Row:
        """The row as it is now, or was before it went."""
        row = self.after or self.before
        assert row is not None  # noqa: S101 -- nothing is no change
        return row

    def __str__(self) -> str:
        name = f"{self.row.version} {self.row.label}"
        if self.before is None:
            return f"+ {name} {_state(self.row)}"
        if self.after is None:
            return f"- {name} {_state(self.row)}"
        return f"{name} {_state(self.before)} -> {_state(self.after)}"

    def as_data(self) -> Mapping[str, object]:
        """Return what `history --json` prints of it."""
        return {
            "version": str(self.row.version),
            "target": self.row.label,
            "from": str(self.before.status) if self.before else None,
            "to": str(self.after.status) if self.after else None,
            "revision": self.row.revision,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One serial of a channel: its index, or why there is none that can be believed.

    `since` is the serial that `changes` are counted from: not the one before, where that is lost.
    """

    serial: int
    index: Index | None
    problem: str | None = None
    since: int | None = None
    changes: tuple[Change, ...] = ()

    def as_data(self) -> Mapping[str, object]:
        """Return what `history --json` prints of it."""
        return {
            "serial": self.serial,
            "issued": self.index.issued.isoformat() if self.index else None,
            "expires": self.index.expires.isoformat() if self.index else None,
            "problem": self.problem,
            "since": self.since,
            "changes": [change.as_data() for change in self.changes],
            "lines": self.lines(),
        }

    def lines(self) -> list[str]:
        """Return what happened, a line for each change."""
        if self.index is None:
            return []
        return [str(change) for change in self.changes] or ["renewed"]


def differences(before: Sequence[Row], after: Sequence[Row]) -> tuple[Change, ...]:
    """Return what changed: first what is in `after`, in its order, then what has gone."""
    was = {row.key: row for row in before}
    changed = [Change(before=old, after=row) for row in after if (old := was.get(row.key)) != row]
    stays = {row.key for row in after}
    gone = [Change(before=row, after=None) for row in before if row.key not in stays]
    return (*changed, *gone)


def tell_history(copies: Mapping[int, Index | str], count: int) -> tuple[Entry, ...]:
    """Return the newest `count` serials, newest first; a serial that is not there is one too.

    `copies` has an index for each serial, or what is wrong with its copy; also of older ones, so
    that the last entry has something to be compared with.
    """
    newest = max(copies, default=0)
    entries = []
    for serial in range(newest, max(newest - count, 0), -1):
        copy = copies.get(serial, "there is no copy of this serial")
        if isinstance(copy, str):
            entries.append(Entry(serial=serial, index=None, problem=copy))
            continue
        since = max(
            (n for n, old in copies.items() if n < serial and not isinstance(old, str)), default=0
        )
        old = copies.get(since)
        rows = () if old is None or isinstance(old, str) else old.rows
        entries.append(
            Entry(
                serial=serial, index=copy, since=since or None, changes=differences(rows, copy.rows)
            )
        )
    return tuple(entries)


def _state(row: Row) -> str:
    return f"{row.status} (r{row.revision})" if row.revision > 1 else str(row.status)
