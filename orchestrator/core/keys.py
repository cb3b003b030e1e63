"""keys.txt: which keys may sign, as the rotation key says (docs/keys.md describes it)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.index import SignedIndex, join_signed, split_signed
from orchestrator.core.signature import PublicKey, parse_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexMark:
    """An index that was signed before its key was revoked; `sha256` is of the text that was signed.

    It is the only one that a revoked key still speaks for, until it is signed anew.
    """

    channel: str
    serial: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatement:
    """Which keys of a project may sign, and which may never again."""

    project: str
    serial: int
    issued: date
    active: tuple[PublicKey, ...]
    revoked: tuple[PublicKey, ...] = ()
    indexes: tuple[IndexMark, ...] = ()


def render_keys(statement: KeyStatement) -> str:
    """Return the text to sign; raise StoreError if a value does not fit the format."""
    rows = (
        *(_key_row("active", key) for key in statement.active),
        *(_key_row("revoked", key) for key in statement.revoked),
        *(f"index\t{mark.channel}\t{mark.serial}\t{mark.sha256}" for mark in statement.indexes),
    )
    lines = (
        "#orchestrator-keys 1",
        f"#project {statement.project}",
        f"#serial {statement.serial}",
        f"#issued {statement.issued:%Y%m%d}",
        *rows,
        f"#end {len(rows)}",
    )
    text = "".join(f"{line}\n" for line in lines)
    # Nothing is written that could not be read back: the reader's rules are the only ones.
    parse_keys(text)
    return text


def parse_keys(text: str) -> KeyStatement:
    """Return the statement; raise StoreError with the line of the first thing that is not right.

    `text` is the verified part of keys.txt, from the first byte to the newline after `#end`.
    """
    *lines, rest = text.split("\n")
    if rest or len(lines) <= len(_HEADER):
        raise _malformed(len(lines) + bool(rest), "it is cut off")
    _, project, serial, issued = (
        _header_value(number, line) for number, line in enumerate(lines[: len(_HEADER)], start=1)
    )
    active: list[PublicKey] = []
    revoked: list[PublicKey] = []
    marks: list[IndexMark] = []
    for number, line in enumerate(lines[len(_HEADER) : -1], start=len(_HEADER) + 1):
        kind, *fields = line.split("\t")
        # In this order, each kind after the one before.
        if kind == "active" and not (revoked or marks):
            active.append(_parse_key(number, fields, (*active, *revoked)))
        elif kind == "revoked" and not marks:
            revoked.append(_parse_key(number, fields, (*active, *revoked)))
        elif kind == "index":
            marks.append(_parse_mark(number, fields, marks))
        else:
            raise _malformed(number, f"not a row, or not in its place: {line[:80]!r}")
    count = len(active) + len(revoked) + len(marks)
    if lines[-1] != f"#end {count}":
        raise _malformed(len(lines), f"expected `#end {count}`, found {lines[-1][:80]!r}")
    if not active:
        raise _malformed(len(lines), "no key is active")
    return KeyStatement(
        project=project,
        serial=int(serial),
        issued=_parse_date(issued),
        active=tuple(active),
        revoked=tuple(revoked),
        indexes=tuple(marks),
    )


def join_keys(text: str, sshsig: str, minisig: str) -> str:
    """Return keys.txt: the signed text, then both signatures."""
    return join_signed(text, sshsig, minisig)


def split_keys(text: str) -> SignedIndex:
    """Split keys.txt as an index is split; raise StoreError if a part is missing.

    Nothing in the result is verified yet: check both signatures before `parse_keys`.
    """
    try:
        return split_signed(text)
    except StoreError:
        raise StoreError("it has no `#end` line with two signatures after it") from None


def says_the_same(statement: KeyStatement, keys: Iterable[PublicKey]) -> bool:
    """Return whether these keys, in whatever order, are the active ones."""
    return set(keys) == set(statement.active)


def follow(
    previous: KeyStatement | None,
    *,
    project: str,
    active: Sequence[PublicKey],
    indexes: Iterable[IndexMark],
    today: date,
) -> KeyStatement:
    """Return the statement that makes these keys the active ones; `previous` if they are already.

    Whatever was active before and is not now is revoked, and stays so: ConfigError for a revoked
    key among these.
    """
    if previous is None:
        return KeyStatement(
            project=project, serial=1, issued=today, active=tuple(active), indexes=tuple(indexes)
        )
    for key in active:
        if key in previous.revoked:
            raise ConfigError(
                f"{key.fingerprint} is revoked, and a revoked key is never active again",
                hint="take it out of `publication.signing`, and make another one with "
                "`orchestrator keygen --output FILE`",
            )
    if says_the_same(previous, active):
        return previous
    gone = tuple(key for key in previous.active if key not in active)
    return KeyStatement(
        project=project,
        serial=previous.serial + 1,
        issued=today,
        active=tuple(active),
        revoked=(*previous.revoked, *gone),
        indexes=tuple(indexes),
    )


def widen(
    previous: KeyStatement | None, *, project: str, active: Sequence[PublicKey], today: date
) -> KeyStatement:
    """Return the statement that makes these keys active, and leaves active whatever was.

    It is what stands before keys are revoked; `previous` if these are active already. ConfigError
    for a revoked key among these.
    """
    still = tuple(key for key in previous.active if key not in active) if previous else ()
    return follow(
        previous,
        project=project,
        active=(*active, *still),
        indexes=previous.indexes if previous else (),
        today=today,
    )


def remark(statement: KeyStatement, mark: IndexMark, *, today: date) -> KeyStatement:
    """Return the statement that says the same of keys, and lets revoked ones have this index."""
    return replace(statement, serial=statement.serial + 1, issued=today, indexes=(mark,))


def keys_as_data(
    keys: Sequence[PublicKey], rotation: PublicKey | None, statement: KeyStatement | None
) -> Mapping[str, object]:
    """Return which keys an inventory names, the signing one first, and what the store says of them.

    `agrees` is None where no rotation key vouches for any.
    """
    named = [("signs", keys[0]), *(("trusted", key) for key in keys[1:])]
    said = dict.fromkeys(statement.active, "active") if statement else {}
    said |= dict.fromkeys(statement.revoked, "revoked") if statement else {}
    others = [("", key) for key in said if key not in keys]
    return {
        "keys": [
            {**_as_data(key), "here": here or None, "in_store": said.get(key)}
            for here, key in (*named, *others)
        ],
        "rotation": _as_data(rotation) if rotation else None,
        "serial": statement.serial if statement else None,
        "issued": statement.issued.isoformat() if statement else None,
        "agrees": None if rotation is None else bool(statement and says_the_same(statement, keys)),
    }


def _as_data(key: PublicKey) -> Mapping[str, str]:
    return {"fingerprint": key.fingerprint, "ssh": key.ssh, "minisign": key.minisign}


_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_SERIAL: Final = r"[1-9][0-9]{0,8}"
_HEADER: Final = (
    ("#orchestrator-keys", re.compile("1")),
    ("#project", re.compile(_NAME)),
    ("#serial", re.compile(_SERIAL)),
    ("#issued", re.compile(r"[0-9]{8}")),
)
_MARK: Final = re.compile(rf"({_NAME})\t({_SERIAL})\t([0-9a-f]{{64}})")


def _key_row(state: str, key: PublicKey) -> str:
    algorithm, blob = key.ssh.split()
    return f"{state}\t{algorithm}\t{blob}\t{key.minisign}"


def _parse_key(number: int, fields: Sequence[str], known: Sequence[PublicKey]) -> PublicKey:
    try:
        key = parse_public_key(" ".join(fields[:2]))
    except ConfigError as error:
        raise _malformed(number, error.message) from None
    # The whole row again, so that both forms are of one key and nothing stands beside them.
    if "\t".join(fields) != _key_row("", key).removeprefix("\t"):
        raise _malformed(number, "the two forms of the key are not of one key")
    if key in known:
        raise _malformed(number, f"a second row for {key.fingerprint}")
    return key


def _parse_mark(number: int, fields: Sequence[str], known: Sequence[IndexMark]) -> IndexMark:
    match = _MARK.fullmatch("\t".join(fields))
    if match is None:
        raise _malformed(number, f"not the mark of an index: {fields!r:.80}")
    channel, serial, sha256 = match.groups()
    if known and channel <= known[-1].channel:
        raise _malformed(number, f"{channel} is not in its place, or there twice")
    return IndexMark(channel=channel, serial=int(serial), sha256=sha256)


def _header_value(number: int, line: str) -> str:
    name, pattern = _HEADER[number - 1]
    found, _, value = line.partition(" ")
    if found != name or not pattern.fullmatch(value):
        raise _malformed(number, f"expected `{name}` and its value, found {line[:80]!r}")
    return value


def _parse_date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 -- a day has no time zone
    except ValueError:
        raise _malformed(len(_HEADER), f"not a day: {text!r}") from None


def _malformed(number: int, problem: str) -> StoreError:
    return StoreError(f"keys.txt line {number}: {problem}")
