"""Files that lie here: an archive with what lies beside it, or an index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.provenance import PROVENANCE_NAME
from orchestrator.core.sbom import SBOM_NAME
from orchestrator.core.verification import INDEX, Verification, split_archive_name, unknown
from orchestrator.stores.channel import TEXT_LIMIT
from orchestrator.stores.evidence import EVIDENCE_LIMIT
from orchestrator.verification.judge import ArchiveFiles, Judge

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.index import Index
    from orchestrator.core.signature import PublicKey
    from orchestrator.core.verification import Check, IndexRules

_ARCHIVE_LIMIT: Final = 4 << 30
_SIDE_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose word counts; `project` is None where the file itself has to say what it is of.

    `past` are keys whose word counted once (`Judge`).
    """

    keys: tuple[PublicKey, ...]
    project: str | None
    past: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """An index that lies somewhere, as bytes; None: there is none, and why."""

    name: str
    data: bytes | None
    why: str = "not there"


def verify_archive(
    path: Path, trust: Trust, *, index: IndexFile, rules: IndexRules
) -> Verification:
    """Return what vouches for an archive; raise ConfigError if it is none of this project."""
    said = split_archive_name(path.name)
    if said is None or trust.project not in {None, said.project}:
        whose = f" of {trust.project}" if trust.project else ""
        raise ConfigError(
            f"{path.name} is not the name of an archive{whose}",
            hint="it is checked under the name that it was published with: "
            "PROJECT-VERSION-TARGET.tar.gz",
        )
    judge = Judge(project=said.project, keys=trust.keys, past=trust.past)
    files = ArchiveFiles(
        name=path.name,
        version=said.version,
        data=read_file(path, _ARCHIVE_LIMIT),
        sha256=_beside(path, f"{path.name}.sha256"),
        sshsig=_beside(path, f"{path.name}.sshsig"),
        minisig=_beside(path, f"{path.name}.minisig"),
        provenance=_beside(path, f"{path.name}.{PROVENANCE_NAME}", PROVENANCE_NAME),
        sbom=_beside(path, f"{path.name}.{SBOM_NAME}", SBOM_NAME),
    )
    checks: list[Check] = []
    known: Index | None = None
    if index.data is None:
        checks.append(unknown(index.name, INDEX, index.why))
    else:
        known, checks = judge.index(index.name, index.data, rules)
    found = judge.archive(files, known, is_for_use=True)
    return Verification(subject=path.name, checks=(*found, *checks))


def verify_index(path: Path, trust: Trust, rules: IndexRules) -> Verification:
    """Return whether an index is genuine, whole and fresh."""
    data = read_file(path, TEXT_LIMIT)
    # Unless somebody says whose it is to be, it says so itself: the key vouches for that too.
    project = trust.project or _project_of(data)
    _, checks = Judge(project=project, keys=trust.keys).index(path.name, data, rules)
    return Verification(subject=path.name, checks=tuple(checks))


def read_file(path: Path, limit_bytes: int) -> bytes:
    """Return a regular file's content; raise ConfigError if it cannot be read, or is too large."""
    try:
        # O_NONBLOCK: a FIFO is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 -- a descriptor, not a path
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise ConfigError(f"{path}: is larger than {limit_bytes} bytes, too large for what it is")
    return data


def _beside(path: Path, *names: str) -> bytes | None:
    for name in names:
        place = path.with_name(name)
        if place.exists():
            return read_file(place, EVIDENCE_LIMIT if name.endswith(".json") else _SIDE_LIMIT)
    return None


def _project_of(data: bytes) -> str:
    for line in data.splitlines()[:6]:
        if line.startswith(b"#project "):
            return line.removeprefix(b"#project ").decode(errors="replace")
    return "unknown"
