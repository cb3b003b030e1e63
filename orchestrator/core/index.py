"""The version index: rows and text (docs/index-format.md describes it for readers)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.result import Floor, cpu_level, edition_of
from orchestrator.core.version import Version, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta


class Status(StrEnum):
    """What a row promises; a later one wins over an earlier one when rows are merged."""

    PENDING = "pending"
    OK = "ok"
    YANKED = "yanked"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One version for one target; a pending row has no size, hash and path yet.

    On an OS whose binaries run on one release only, `floors` holds that release with `==`, and
    several rows may stand for one version and target; so they may for several levels of a CPU.
    """

    target: str
    version: Version
    status: Status
    size_bytes: int | None = None
    sha256: str | None = None
    floors: tuple[Floor, ...] = ()
    path: str | None = None

    @property
    def exact_release(self) -> str | None:
        """The only OS release that it runs on, or None if it runs on many or is not known."""
        return next((floor.release for floor in self.floors if floor.operator == "=="), None)

    @property
    def edition(self) -> str | None:
        """What tells it from other builds of its version and target (`result.edition_of`)."""
        return edition_of(self.floors)

    @property
    def key(self) -> RowKey:
        """What the row is known by."""
        return RowKey(self.target, str(self.version), self.edition)

    @property
    def label(self) -> str:
        """The target as paths have it: with its edition, such as the OS release of OpenBSD."""
        return f"{self.target}{self.edition or ''}"

    @property
    def revision(self) -> int:
        """Which issue of its version and target it is: 1, or the number in a path with `/rN/`."""
        match = _REISSUE.fullmatch(self.path or "")
        return int(match[1]) if match else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Everything that one channel of a project offers, in the order of `sort_rows`."""

    project: str
    channel: str
    serial: int
    issued: date
    expires: date
    rows: tuple[Row, ...]


class RowKey(NamedTuple):
    """What a row is known by: an index has one row for each."""

    target: str
    # The text: Version ignores build metadata, but 1.0.0+a and 1.0.0+b are different files.
    version: str
    edition: str | None


class SignedIndex(NamedTuple):
    """An index file, split: `text` is what the two signatures were made over."""

    text: str
    sshsig: str
    minisig: str


def render_index(index: Index) -> str:
    """Return the text to sign; raise StoreError if a value does not fit the format."""
    rows = sort_rows(index.rows)
    lines = (
        "#orchestrator-index 1",
        f"#project {index.project}",
        f"#channel {index.channel}",
        f"#serial {index.serial}",
        f"#issued {index.issued:%Y%m%d}",
        f"#expires {index.expires:%Y%m%d}",
        *map(render_row, rows),
        f"#end {len(rows)}",
    )
    text = "".join(f"{line}\n" for line in lines)
    # Nothing is written that could not be read back: the reader's rules are the only ones.
    parse_index(text)
    return text


def render_row(row: Row) -> str:
    """Return the line of a row."""
    return "\t".join(_fields(row))


def parse_index(text: str) -> Index:
    """Return the index; raise StoreError with the line of the first thing that is not right.

    `text` is the verified part of an index file, from the first byte to the newline after `#end`.
    """
    *lines, rest = text.split("\n")
    if rest or len(lines) <= len(_HEADER):
        raise _malformed(len(lines) + bool(rest), "the index is cut off")
    values = [_header_value(number, lines[number - 1]) for number in range(1, len(_HEADER) + 1)]
    _, project, channel, serial, issued_text, expires_text = values
    issued = _parse_date(5, issued_text)
    expires = _parse_date(6, expires_text)
    if expires < issued:
        raise _malformed(6, "it expires before it was issued")
    rows = tuple(_parse_rows(lines))
    return Index(
        project=project,
        channel=channel,
        serial=int(serial),
        issued=issued,
        expires=expires,
        rows=rows,
    )


def join_signed(text: str, sshsig: str, minisig: str) -> str:
    """Return the index file: the signed text, then both signatures."""
    joined = text + sshsig + minisig
    if split_signed(joined) != SignedIndex(text, sshsig, minisig):
        raise StoreError("a signature block does not have the form of one")
    return joined


def split_signed(text: str) -> SignedIndex:
    """Split an index file; raise StoreError if a part is missing; ignore what follows the parts.

    Nothing in the result is verified yet: check both signatures before `parse_index`.
    """
    match = _SIGNED.match(text)
    if match is None:
        raise StoreError(
            "the index file has no `#end` line with two signatures after it",
            hint="it is cut off or not an index: restore it from the index/ history in the store",
        )
    return SignedIndex(*match.groups())


def sort_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return rows as the index lists them: by target, newest version first, newest OS first.

    Of one version and OS, the build for the most demanding CPU comes first: a host takes the first
    row that fits.
    """
    newest_first = sorted(rows, key=_age, reverse=True)
    return tuple(sorted(newest_first, key=lambda row: row.target))


def is_aging(index: Index, today: date) -> bool:
    """Return whether less than half of its lifetime is left: then whatever is done renews it."""
    return (index.expires - today) * 2 < index.expires - index.issued


def advance(
    previous: Index | None,
    rows: Sequence[Row],
    *,
    project: str,
    channel: str,
    today: date,
    lifetime: timedelta,
) -> Index:
    """Return the index with these rows that follows `previous` (None: there is none yet)."""
    if previous and (previous.project, previous.channel) != (project, channel):
        raise StoreError(
            f"the store holds the index of {previous.project} {previous.channel}, "
            f"not of {project} {channel}",
            hint="give each project and channel a store or a path of its own",
        )
    return Index(
        project=project,
        channel=channel,
        serial=previous.serial + 1 if previous else 1,
        issued=today,
        expires=today + lifetime,
        rows=sort_rows(rows),
    )


def parse_channel(text: str) -> str:
    """Return the name of a channel; raise ConfigError if no index could have it."""
    if not re.fullmatch(_NAME, text):
        raise ConfigError(
            f"not a channel: {text[:80]!r}",
            hint="a channel is letters, digits, `.`, `_` and `-`, such as stable",
        )
    return text


def parse_floor(text: str) -> Floor:
    """Return a floor such as `glibc>=2.34`; raise StoreError if it is not one."""
    match = _FLOOR.fullmatch(text)
    if match is None:
        raise StoreError(f"not a floor: {text[:80]!r}", hint="a floor is NAME>=N.N or NAME==N.N")
    name, operator, release = match.groups()
    return Floor(name=name, operator=operator, release=release)


def release_order(release: str) -> tuple[int, ...]:
    """Return what a dotted release sorts by: numbers, and 11 is the same as 11.0."""
    numbers = [int(part) for part in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _age(row: Row) -> tuple[Version, str, tuple[int, ...], str, int]:
    release = row.exact_release or ""
    order = release_order(release) if release else ()
    return (row.version, str(row.version), order, release, cpu_level(row.floors))


_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
# At most nine digits: mksh, an installer's shell on some systems, counts with 32 bits.
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,8})"
_HEADER: Final = (
    ("#orchestrator-index", re.compile("1")),
    ("#project", re.compile(_NAME)),
    ("#channel", re.compile(_NAME)),
    ("#serial", re.compile(r"[1-9][0-9]{0,8}")),
    ("#issued", re.compile(r"[0-9]{8}")),
    ("#expires", re.compile(r"[0-9]{8}")),
)
_FLOOR: Final = re.compile(
    rf"(cpu|glibc|freebsd|openbsd|netbsd|macos)(>=|==)({_NUMBER}(?:\.{_NUMBER}){{0,3}})"
)
_TARGET: Final = re.compile(_NAME)
_SIZE: Final = re.compile(r"[1-9][0-9]{0,14}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,999}")
_REISSUE: Final = re.compile(r"releases/[^/]+/[^/]+/r([2-9]|[1-9][0-9]{1,3})/[^/]+")
_FIELD: Final = re.compile(r"[A-Za-z0-9._+/:=<>,-]+")
_SIGNED: Final = re.compile(
    r"((?:(?!#end ).*\n)*#end [0-9]+\n)"
    r"(-----BEGIN SSH SIGNATURE-----\n(?:[A-Za-z0-9+/=]+\n)+-----END SSH SIGNATURE-----\n)"
    r"(untrusted comment: .*\n[A-Za-z0-9+/=]+\ntrusted comment: .*\n[A-Za-z0-9+/=]+\n)"
)


def _fields(row: Row) -> tuple[str, ...]:
    return (
        row.target,
        str(row.version),
        row.status,
        "-" if row.size_bytes is None else str(row.size_bytes),
        row.sha256 or "-",
        ",".join(map(str, row.floors)) or "-",
        row.path or "-",
    )


def _malformed(number: int, problem: str) -> StoreError:
    return StoreError(f"index line {number}: {problem}")


def _header_value(number: int, line: str) -> str:
    name, pattern = _HEADER[number - 1]
    found, _, value = line.partition(" ")
    if found != name or not pattern.fullmatch(value):
        raise _malformed(number, f"expected `{name}` and its value, found {line[:80]!r}")
    return value


def _parse_date(number: int, text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 -- a day has no time zone
    except ValueError:
        raise _malformed(number, f"not a day: {text!r}") from None


def _parse_rows(lines: Sequence[str]) -> Iterator[Row]:
    first = len(_HEADER) + 1
    seen: set[RowKey] = set()
    previous: Row | None = None
    for number, line in enumerate(lines[first - 1 : -1], start=first):
        row = _parse_row(number, line)
        if row.key in seen:
            raise _malformed(number, f"a second row for {row.target} {row.version}")
        if previous and sort_rows((row, previous))[0] is row:
            raise _malformed(number, "the row is not in its place: by target, then newest first")
        seen.add(row.key)
        previous = row
        yield row
    if lines[-1] != f"#end {len(seen)}":
        raise _malformed(len(lines), f"expected `#end {len(seen)}`, found {lines[-1][:80]!r}")


def _parse_row(number: int, line: str) -> Row:
    fields = line.split("\t")
    if len(fields) != len(Row.__slots__) or not all(map(_FIELD.fullmatch, fields)):
        raise _malformed(number, f"not seven fields with one tab between: {line[:80]!r}")
    target, version, status, size, sha256, floors, path = fields
    try:
        row = Row(
            target=_checked("target", _TARGET, target),
            version=parse_version(version),
            status=Status(_checked("status", _STATUS, status)),
            size_bytes=int(_checked("size", _SIZE, size)) if size != "-" else None,
            sha256=_checked("sha256", _SHA256, sha256) if sha256 != "-" else None,
            floors=tuple(map(parse_floor, floors.split(","))) if floors != "-" else (),
            path=_checked("path", _PATH, path) if path != "-" else None,
        )
    except (ConfigError, StoreError) as error:
        raise _malformed(number, error.message) from None
    problem = _contradiction(row)
    if problem:
        raise _malformed(number, problem)
    return row


_STATUS: Final = re.compile("|".join(Status))


def _checked(name: str, pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise StoreError(f"not a {name}: {text[:80]!r}")
    return text


def _contradiction(row: Row) -> str | None:
    facts = (row.size_bytes, row.sha256, row.path)
    names = [floor.name for floor in row.floors]
    exact = [floor for floor in row.floors if floor.operator == "=="]
    problems = {
        "a pending row has no size, sha256 and path": any(facts),
        "a pending row has no measured floor": len(exact) < len(names),
    }
    if row.status is not Status.PENDING:
        parts = (row.path or "").split("/")
        problems = {
            f"a row that is {row.status} has a size, a sha256 and a path": not all(facts),
            f"the path leaves its place: {row.path!r}": not {"", ".", ".."}.isdisjoint(parts),
        }
    problems["two floors of one name"] = len(set(names)) < len(names)
    problems["two exact releases"] = len(exact) > 1
    return next((problem for problem, found in problems.items() if found), None)
