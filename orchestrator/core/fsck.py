"""Whether a store holds what its indexes say: judging what was found there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.index import is_aging

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from orchestrator.core.index import Index, Row


class State(StrEnum):
    """What is to be done about a finding."""

    DAMAGE = "damage"
    WARNING = "warning"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about one object that is not as it should be."""

    name: str
    state: State
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSummary:
    """A channel that was looked at; without an index that can be trusted, its serial is None."""

    name: str
    serial: int | None
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FsckReport:
    """Everything that was found in a store; `objects` counts those that were looked at."""

    store: str
    channels: tuple[ChannelSummary, ...]
    objects: int
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0, or that of a store error if anything is damaged still."""
        is_damaged = any(finding.state is State.DAMAGE for finding in self.findings)
        return StoreError.exit_code if is_damaged else 0

    @property
    def summary(self) -> str:
        """What was looked at and how it stands, in one line."""
        rows = sum(channel.rows for channel in self.channels)
        looked = f"{_count(len(self.channels), 'channel')}, {_count(rows, 'row')}, "
        looked += _count(self.objects, "object")
        counts = {
            "damaged": self._count_of(State.DAMAGE),
            "repaired": self._count_of(State.REPAIRED),
            "to look at": self._count_of(State.WARNING),
        }
        found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"{looked}: {found or 'all is well'}"

    def as_data(self) -> Mapping[str, object]:
        """Return what `fsck --json` prints."""
        return {
            "store": self.store,
            "exit_code": self.exit_code,
            "summary": self.summary,
            "channels": [
                {"name": channel.name, "serial": channel.serial, "rows": channel.rows}
                for channel in self.channels
            ],
            "objects": self.objects,
            "findings": [
                {"object": finding.name, "state": str(finding.state), "message": finding.message}
                for finding in self.findings
            ],
        }

    def _count_of(self, state: State) -> int:
        return sum(finding.state is state for finding in self.findings)


def damage(name: str, message: str) -> Finding:
    """Return the finding of an object that is not what it has to be."""
    return Finding(name=name, state=State.DAMAGE, message=message)


def warning(name: str, message: str) -> Finding:
    """Return the finding of something that a person should look at."""
    return Finding(name=name, state=State.WARNING, message=message)


def repaired(name: str, message: str) -> Finding:
    """Return the finding of something that was damaged, and was written again."""
    return Finding(name=name, state=State.REPAIRED, message=f"{message}: written again")


SIDE_FILES: Final = (".sha256", ".minisig", ".sshsig")


def channels_among(names: Iterable[str]) -> tuple[str, ...]:
    """Return the channels that have an index or copies of one among these objects, sorted."""
    found = set()
    for name in names:
        match name.split("/"):
            case [index] if index.endswith(".idx"):
                found.add(index.removesuffix(".idx"))
            case ["index", channel, copy] if copy.endswith(".idx"):
                found.add(channel)
            case _:
                pass
    return tuple(sorted(found))


def judge_serial(index: Index, newest_copy: int) -> str | None:
    """Return what is wrong if copies of later serials are kept, None if there are none."""
    if newest_copy <= index.serial:
        return None
    return (
        f"it is serial {index.serial}, and serial {newest_copy} was published: "
        f"copy index/{index.channel}/{newest_copy}.idx over it"
    )


def judge_expiry(name: str, index: Index, today: date) -> Finding | None:
    """Return a finding if installers refuse the index by now, or will soon."""
    if index.expires < today:
        return damage(name, f"it expired on {index.expires}: run `orchestrator renew`")
    if is_aging(index, today):
        return warning(name, f"it expires on {index.expires}: run `orchestrator renew`")
    return None


def judge_archive(row: Row, size_bytes: int, sha256: str) -> str | None:
    """Return how an object differs from its row, None if it does not."""
    if size_bytes != row.size_bytes:
        return f"it has {size_bytes} bytes, and its row says {row.size_bytes}"
    if sha256 != row.sha256:
        return f"its sha256 is {sha256}, and its row says {row.sha256}"
    return None


def unexplained(names: Iterable[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the objects that are neither an archive of these rows nor lie beside one as its own.

    Side files have the archive's name and an ending; statements are JSON in the same folder; a
    version has an install.sh of its own.
    """
    archives = {row.path for row in rows if row.path}
    folders = {path.rpartition("/")[0] for path in archives}
    scripts = {f"releases/{row.version}/install.sh{end}" for row in rows for end in ("", ".sig")}
    return tuple(
        name
        for name in names
        if not (
            name in archives
            or name in scripts
            or any(name.removesuffix(ending) in archives for ending in SIDE_FILES)
            or (name.endswith(".json") and name.rpartition("/")[0] in folders)
        )
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
