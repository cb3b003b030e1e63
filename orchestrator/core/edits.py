"""What a person does to an index: taking versions back, putting them back, passing them on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.core.index import Row
    from orchestrator.core.version import Version


class Flip(Enum):
    """A change of status, from any of some to one; nothing leads out of `revoked`."""

    YANK = ((Status.OK,), Status.YANKED)
    UNYANK = ((Status.YANKED,), Status.OK)
    REVOKE = ((Status.OK, Status.YANKED), Status.REVOKED)

    def __init__(self, sources: tuple[Status, ...], result: Status) -> None:
        self.sources = sources
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows of one version; without targets, all of them.

    A target is a triple, or a triple and an OS release as paths have them
    (`x86_64-unknown-openbsd7.8`).
    """

    version: Version
    targets: tuple[str, ...] = ()

    def has(self, row: Row) -> bool:
        """Return whether the row is one of them."""
        return str(row.version) == str(self.version) and (
            not self.targets or not {row.target, row.label}.isdisjoint(self.targets)
        )

    def of(self, rows: Iterable[Row]) -> tuple[Row, ...]:
        """Return those of the rows that are selected."""
        return tuple(row for row in rows if self.has(row))


def flip_rows(rows: Sequence[Row], selection: Selection, flip: Flip) -> tuple[Row, ...]:
    """Return all rows, with those selected flipped; rows that cannot be stay as they are."""
    return tuple(
        replace(row, status=flip.result)
        if selection.has(row) and row.status in flip.sources
        else row
        for row in rows
    )


def check_flip(rows: Sequence[Row], selection: Selection, flip: Flip) -> None:
    """Raise ConfigError if the selection has no row that could be flipped, or is flipped already.

    `rows` are those of every index that the flip is for.
    """
    check_known(rows, selection)
    found = {row.status for row in selection.of(rows)}
    if found == {Status.PENDING}:
        raise ConfigError(
            f"{_named(selection)} is pending: there is no build yet that could be taken back",
            hint="end its jobs with `orchestrator cancel`, or wait for the build",
        )
    if flip is Flip.UNYANK and found <= {Status.PENDING, Status.REVOKED}:
        raise ConfigError(
            f"{_named(selection)} was revoked, and that is for good",
            hint="build it again beside the old one: "
            f"orchestrator release --version {selection.version} --node NODE --reissue",
        )


def check_known(rows: Sequence[Row], selection: Selection) -> None:
    """Raise ConfigError, with what there is, if a part of the selection is not there."""
    same = Selection(version=selection.version).of(rows)
    if not same:
        known = ", ".join(_versions(rows)) or "none"
        raise ConfigError(
            f"the index has no version {selection.version}", hint=f"the versions are: {known}"
        )
    for target in selection.targets:
        if not Selection(version=selection.version, targets=(target,)).of(same):
            there = ", ".join(dict.fromkeys(f"{row.label} ({row.status})" for row in same))
            raise ConfigError(
                f"{selection.version} has no target {target[:80]}", hint=f"it has: {there}"
            )


def promoted_rows(rows: Sequence[Row], version: Version) -> tuple[Row, ...]:
    """Return the rows of a version that another channel may have; ConfigError if there are none."""
    selection = Selection(version=version)
    check_known(rows, selection)
    ready = tuple(row for row in selection.of(rows) if row.status is Status.OK)
    if not ready:
        there = ", ".join(f"{row.label} ({row.status})" for row in selection.of(rows))
        raise ConfigError(f"nothing of {version} is ok", hint=f"it has: {there}")
    return ready


def passed_on(rows: Sequence[Row], version: Version) -> tuple[Row, ...]:
    """Return the rows of a version that whoever follows this channel with another one gets too.

    What was yanked is not passed on: by the time it arrives, it may have been put back.
    """
    return tuple(
        row
        for row in Selection(version=version).of(rows)
        if row.status in {Status.OK, Status.PENDING}
    )


def withdrawn_rows(rows: Sequence[Row], passed: Iterable[Row]) -> tuple[Row, ...]:
    """Return those of the rows that were passed on, and are yanked or revoked by now."""
    keys = {row.key for row in passed}
    return tuple(
        row for row in rows if row.key in keys and row.status in {Status.YANKED, Status.REVOKED}
    )


def _versions(rows: Iterable[Row]) -> list[str]:
    newest_first = sorted({row.version for row in rows}, reverse=True)
    texts = dict.fromkeys(
        str(row.version) for version in newest_first for row in rows if row.version == version
    )
    return list(texts)


def _named(selection: Selection) -> str:
    targets = " and ".join(selection.targets)
    return f"{selection.version} for {targets}" if targets else str(selection.version)
