"""What an offline bundle holds: a part of a store that an installer reads from a folder."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime, time
from shlex import quote
from typing import TYPE_CHECKING

from orchestrator.core.downloads import newest_builds
from orchestrator.core.edits import Selection, check_known
from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from orchestrator.core.index import Index, Row
    from orchestrator.core.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """What is asked for: of one version, or without it the newest; some targets, or all.

    `installer_channel` is the one that the store's install.sh follows unless told otherwise.
    """

    installer_channel: str
    version: Version | None = None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file, below the bundle's own folder; an executable one may be run by its name."""

    name: str
    data: bytes
    is_executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What was written where; `command` is what its user types, beside the folder."""

    index: Index
    output: str
    folder: str
    rows: tuple[Row, ...]
    files: tuple[str, ...]
    size_bytes: int
    command: str

    def as_data(self) -> Mapping[str, object]:
        """Return what `bundle --json` prints."""
        return {
            "project": self.index.project,
            "channel": self.index.channel,
            "serial": self.index.serial,
            "expires": self.index.expires.isoformat(),
            "output": self.output,
            "folder": self.folder,
            "builds": [
                {"version": str(row.version), "target": row.label, "path": row.path}
                for row in self.rows
            ],
            "files": list(self.files),
            "size": self.size_bytes,
            "command": self.command,
        }


def bundled_rows(rows: Sequence[Row], request: BundleRequest) -> tuple[Row, ...]:
    """Return the builds that are asked for; raise ConfigError for what is not there.

    Each target has to have one: who carries a bundle away cannot fetch what is missing.
    """
    found = newest_builds(rows)
    if request.version is not None:
        check_known(rows, Selection(version=request.version, targets=request.targets))
        own = Selection(version=request.version).of(rows)
        found = tuple(row for row in own if row.status is Status.OK)
    for target in request.targets:
        if not any(_is_of(row, target) for row in found):
            known = [row for row in rows if _is_of(row, target)]
            raise ConfigError(
                f"there is no build for {target[:80]} that can be installed",
                hint=f"{_told(known)}; there are builds for {_labels(found) or 'nothing'}",
            )
    if not found:
        raise ConfigError("there is no build that can be installed", hint=_told(rows))
    return tuple(
        row
        for row in found
        if not request.targets or any(_is_of(row, target) for target in request.targets)
    )


def bundle_folder(index: Index, request: BundleRequest) -> str:
    """Return the name of the folder that a bundle unpacks to."""
    what = request.version or f"{index.channel}-{index.serial}"
    return f"{index.project}-{what}-offline"


def bundle_command(index: Index, request: BundleRequest, *, output: str, is_tar: bool) -> str:
    """Return what installs from the bundle, where it was written; `tar` unpacks it here."""
    name = bundle_folder(index, request)
    folder = quote(name if is_tar else f"{output.rstrip('/')}/{name}")
    words = [f"sh {folder}/install.sh --from {folder}"]
    if index.channel != request.installer_channel:
        words.append(f"--channel {index.channel}")
    if request.version is not None:
        words.append(f"--version {request.version}")
    command = " ".join(words)
    return f"tar -xf {quote(output)} && {command}" if is_tar else command


def parent_folders(path: str) -> tuple[str, ...]:
    """Return the folders above a path, outermost first, each with a / at its end."""
    parts = path.split("/")[:-1]
    return tuple("/".join(parts[: depth + 1]) + "/" for depth in range(len(parts)))


def bundle_member(
    name: str, index: Index, *, size_bytes: int = 0, is_executable: bool = False
) -> tarfile.TarInfo:
    """Return the head of a file in the tar: the same for the same index, on any machine.

    A name that ends in / is a folder. ConfigError for a name that a plain tar has no room for.
    """
    member = tarfile.TarInfo(name.rstrip("/"))
    if name.endswith("/"):
        member.type = tarfile.DIRTYPE
    member.size = size_bytes
    member.mode = 0o755 if is_executable or name.endswith("/") else 0o644
    member.mtime = _midnight(index.issued)
    try:
        member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise ConfigError(
            f"a tar has no room for the name {name}: {error}",
            hint="write the bundle into a folder: --output DIR",
        ) from None
    return member


def _midnight(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())


def _is_of(row: Row, target: str) -> bool:
    return target in {row.target, row.label}


def _labels(rows: Iterable[Row]) -> str:
    return ", ".join(dict.fromkeys(row.label for row in rows))


def _told(rows: Iterable[Row]) -> str:
    lines = [f"{row.version} {row.label} is {row.status}" for row in rows]
    return ", ".join(lines[:5]) or "no index row names it"
