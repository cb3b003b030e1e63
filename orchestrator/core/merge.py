"""What is known from two sets of rows: whose row stands, and which versions an index keeps."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.index import Row, RowKey, Status, sort_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Versions of a target in an index: 30 for each of 14 targets are some 60 kB.
KEEP: Final = 30


def merge_rows(old: Sequence[Row], new: Sequence[Row], *, keep: int = KEEP) -> tuple[Row, ...]:
    """Return what is known from both; raise StoreError if they disagree about bytes.

    A row is known by target, version and edition. There, a higher revision takes the
    place of a lower one, whatever became of that. Of one revision the further status wins (pending,
    ok, yanked, revoked), so a merge never takes anything back. A pending row that names no OS
    release goes as soon as any release of that target and version is decided; one that does waits
    for its own release, because nodes on different ones are not alternatives.

    Of a target and edition the newest `keep` versions stay. Pending ones are no part of that
    count: a node that is late for long must not cost its users the last build that they have.
    """
    merged: dict[RowKey, Row] = {}
    for row in (*old, *new):
        merged[row.key] = _joined(merged[row.key], row) if row.key in merged else row
    decided = {key[:2] for key, row in merged.items() if row.status is not Status.PENDING}
    rows = sort_rows(
        row
        for key, row in merged.items()
        if row.status is not Status.PENDING or key.edition is not None or key[:2] not in decided
    )
    return tuple(_newest(rows, keep))


def row_of(rows: Iterable[Row], key: RowKey) -> Row | None:
    """Return the row that is known by the key, None if there is none."""
    return next((row for row in rows if row.key == key), None)


def why_not_offered(rows: Sequence[Row], row: Row) -> str | None:
    """Return why an artifact of this release is not what an index with `rows` offers, or None."""
    name = f"{row.version} for {row.label}"
    stands = row_of(rows, row.key)
    if stands is None or stands.status is Status.PENDING:
        return f"{name} is stored, and not offered: the index keeps {KEEP} versions, all newer"
    if stands.revision > row.revision:
        return f"{name} was re-issued in the meantime: r{stands.revision} is what people install"
    if stands.status is not Status.OK:
        return f"{name} is {stands.status}: publishing it again does not change that"
    return None


_PROGRESS: Final = tuple(Status)


def _joined(old: Row, new: Row) -> Row:
    if old.status is Status.PENDING:
        return new
    if new.status is Status.PENDING:
        return old
    if old.revision != new.revision:
        return max(old, new, key=lambda row: row.revision)
    if old.sha256 != new.sha256:
        raise StoreError(
            f"{old.target} {old.version} is already published with other bytes: "
            f"sha256 {old.sha256}, now {new.sha256}",
            hint="what is published never changes: release the new bytes as a new version, "
            "or beside the old ones with --reissue",
        )
    return replace(old, status=max(old.status, new.status, key=_PROGRESS.index))


def _newest(rows: Iterable[Row], keep: int) -> Iterator[Row]:
    """Yield the rows that stay, of rows in the order of an index.

    Only versions that were newer already count against a row, and none of those ever goes, so
    merging in any order ends with the same rows.
    """
    decided: Counter[tuple[str, str | None]] = Counter()
    newer: defaultdict[tuple[str, str | None], set[str]] = defaultdict(set)
    for row in rows:
        group, version = (row.target, row.edition), str(row.version)
        if row.status is Status.PENDING:
            is_kept = len(newer[group] - {version}) < keep
        else:
            decided[group] += 1
            is_kept = decided[group] <= keep
        # What names no OS release waits for all of them.
        newer[group].add(version)
        newer[row.target, None].add(version)
        if is_kept:
            yield row
