"""Whether what is published is what was signed: what was looked at, and what came of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestrator.core.archive import sha256_line
from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Status
from orchestrator.core.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from orchestrator.core.index import Index, Row

# The parts that a trusted key vouches for.
SSH_SIGNATURE: Final = "SSH signature"
MINISIGN_SIGNATURE: Final = "minisign signature"
PROVENANCE: Final = "provenance"
INDEX: Final = "index"
CHECKSUM: Final = "checksum file"
SBOM: Final = "bill of materials"
INSTALLER: Final = "signature of the installer"
_VOUCHING: Final = frozenset({SSH_SIGNATURE, MINISIGN_SIGNATURE, PROVENANCE, INDEX})


class Verdict(StrEnum):
    """What came of a look; only what is wrong makes a failure."""

    GOOD = "good"
    UNKNOWN = "not checked"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part of something that was looked at."""

    subject: str
    part: str
    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Everything that was looked at, in order."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong, and a trusted key vouches for it."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        found = tuple(
            f"{check.subject}: {check.part}: {check.message}"
            for check in self.checks
            if check.verdict is Verdict.WRONG
        )
        is_vouched = any(
            check.verdict is Verdict.GOOD and check.part in _VOUCHING for check in self.checks
        )
        if found or is_vouched:
            return found
        return (f"{self.subject}: nothing that a trusted key has signed vouches for it",)


def good(subject: str, part: str, message: str = "") -> Check:
    """Return the check of what is as it should be."""
    return Check(subject=subject, part=part, verdict=Verdict.GOOD, message=message)


def unknown(subject: str, part: str, message: str = "not there") -> Check:
    """Return the check of what could not be looked at."""
    return Check(subject=subject, part=part, verdict=Verdict.UNKNOWN, message=message)


def wrong(subject: str, part: str, message: str) -> Check:
    """Return the check of what is not as it should be."""
    return Check(subject=subject, part=part, verdict=Verdict.WRONG, message=message)


def verification_as_data(found: Verification) -> Mapping[str, object]:
    """Return what `verify --json` prints."""
    return {
        "subject": found.subject,
        "verdict": "good" if found.is_good else "wrong",
        "problems": list(found.problems),
        "checks": [
            {
                "subject": check.subject,
                "part": check.part,
                "verdict": str(check.verdict),
                "message": check.message,
            }
            for check in found.checks
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveName:
    """What the name of an archive says; `target` is a triple, with the OS release if it counts."""

    project: str
    version: str
    target: str


def split_archive_name(name: str) -> ArchiveName | None:
    """Return what the file name says, None if it is not the name of a published archive."""
    match = _ARCHIVE.fullmatch(name)
    return ArchiveName(**match.groupdict()) if match else None


_TRIPLES: Final = "|".join(map(re.escape, TARGETS))
_ARCHIVE: Final = re.compile(
    r"(?P<project>[A-Za-z0-9][A-Za-z0-9._-]*?)"
    r"-(?P<version>[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+?)?)"
    rf"-(?P<target>(?:{_TRIPLES})(?:[0-9]+(?:\.[0-9]+)*)?)\.tar\.gz"
)


def judge_checksum(subject: str, sha256: str, text: bytes | None) -> Check:
    """Return whether a .sha256 file is what `sha256sum -c` accepts for this file."""
    if text is None:
        return unknown(subject, CHECKSUM)
    try:
        expected = sha256_line(sha256, subject).encode()
    except ConfigError as error:
        return wrong(subject, CHECKSUM, error.message)
    if text == expected:
        return good(subject, CHECKSUM)
    if sha256.encode() in text:
        return wrong(subject, CHECKSUM, "it is not a line that `sha256sum -c` accepts for it")
    return wrong(subject, CHECKSUM, "it has the digest of another file")


def judge_comment(comment: str, name: str, version: str) -> str | None:
    """Return what is wrong about the signed comment of an archive, None if nothing is."""
    said = dict(word.partition(":")[::2] for word in comment.split())
    if said.get("file") != name:
        return f"it was made for the file {said.get('file')}"
    if said.get("version") != version:
        return f"it was made for version {said.get('version')}"
    return None


def judge_row(name: str, index: Index, *, sha256: str, size_bytes: int, is_for_use: bool) -> Check:
    """Return what an index says of an archive with these bytes.

    `is_for_use`: somebody has it and asks whether to use it, so revoked is wrong. In a store,
    where what is revoked stays, it is as intended.
    """
    named = [row for row in index.rows if row.path and row.path.rpartition("/")[2] == name]
    row = next((row for row in named if row.sha256 == sha256), None)
    if row is None:
        what = "it lists other bytes under this name" if named else "it does not list this file"
        return wrong(name, INDEX, f"{what} (serial {index.serial})")
    if row.size_bytes != size_bytes:
        return wrong(name, INDEX, f"it says {row.size_bytes} bytes, and it has {size_bytes}")
    if row.status is Status.REVOKED and is_for_use:
        return wrong(name, INDEX, "it is revoked: do not use it")
    return good(name, INDEX, f"{row.status}{_NOTES.get(row.status, '')}, serial {index.serial}")


_NOTES: Final = {
    Status.YANKED: ", which is not offered any more",
    Status.REVOKED: ": nobody is to use it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRules:
    """What an index has to be, beside genuine; None is what is not known.

    `newest` is the highest serial that was published, as its history tells.
    """

    today: date
    project: str | None = None
    channel: str | None = None
    newest: int | None = None
    min_serial: int | None = None


def judge_index(subject: str, index: Index, rules: IndexRules) -> Iterator[Check]:
    """Yield what is wrong about an index whose signatures are good; nothing if nothing is."""
    for found, expected, what in (
        (index.project, rules.project, "project"),
        (index.channel, rules.channel, "channel"),
    ):
        if expected is not None and found != expected:
            yield wrong(subject, INDEX, f"mixed up: it is of the {what} {found}, not {expected}")
    if index.expires < rules.today:
        yield wrong(subject, INDEX, f"stale: it expired on {index.expires}")
    # A day of grace: clocks differ, and so do time zones.
    if (index.issued - rules.today).days > 1:
        yield wrong(subject, INDEX, f"it is dated {index.issued}, which is yet to come")
    for lowest, why in (
        (rules.newest, "was published"),
        (rules.min_serial, "is the least that is accepted"),
    ):
        if lowest is not None and index.serial < lowest:
            message = f"rolled back: it has serial {index.serial}, and {lowest} {why}"
            yield wrong(subject, INDEX, message)


def rows_of(index: Index, version: str) -> tuple[Row, ...]:
    """Return the rows of a version."""
    return tuple(row for row in index.rows if str(row.version) == version)


def judge_headers(
    subject: str, headers: Mapping[str, str], *, content_type: str, cache_control: str
) -> Iterator[Check]:
    """Yield each header that is not what an object of this kind is served with."""
    for name, expected in (("Content-Type", content_type), ("Cache-Control", cache_control)):
        found = headers.get(name.lower())
        if found is None or _parts(found) != _parts(expected):
            said = f"`{found}`" if found is not None else "missing"
            yield wrong(subject, name, f"it is {said}, and should be `{expected}`")


def is_recent_copy(headers: Mapping[str, str]) -> bool:
    """Whether a cache says that it holds a copy which its lifetime still allows."""
    age = headers.get("age", "")
    lifetime = re.search(r"\bmax-age=([0-9]{1,9})\b", headers.get("cache-control", ""))
    return bool(age.isdecimal() and lifetime and int(age) <= int(lifetime[1]))


def _parts(header: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in re.split("[,;]", header) if part.strip())
