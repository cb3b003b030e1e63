"""What a request asks of an object: conditions, a range, an encoding (RFC 9110) → what it gets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONDITIONAL_HEADERS: Final = (
    "If-Match",
    "If-Unmodified-Since",
    "If-None-Match",
    "If-Modified-Since",
    "If-Range",
    "Range",
)


class Verdict(IntEnum):
    """What an object is answered with, as the status of HTTP."""

    WHOLE = 200
    PART = 206
    UNCHANGED = 304
    CHANGED = 412
    NO_SUCH_PART = 416


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """The bytes from `first` on, `length_bytes` of them; none unless it is WHOLE or PART."""

    verdict: Verdict
    first: int = 0
    length_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One representation of an object: its strong entity tag with the quotes, its size and age."""

    tag: str
    size_bytes: int
    modified: datetime | None = None


def decide(headers: Mapping[str, str], version: Version) -> Portion:
    """Return which part of this version a GET or HEAD with these headers gets.

    `headers` are those of CONDITIONAL_HEADERS that were sent, repeated ones joined with a comma.
    What is not understood is as if it had not been sent.
    """
    if _is_changed(headers, version):
        return Portion(verdict=Verdict.CHANGED)
    if _is_known(headers, version):
        return Portion(verdict=Verdict.UNCHANGED)
    # A date as the condition counts as changed: two writes may share a second.
    if headers.get("If-Range", version.tag) == version.tag:
        portion = _parse_range(headers.get("Range", ""), version.size_bytes)
        if portion is not None:
            return portion
    return Portion(verdict=Verdict.WHOLE, length_bytes=version.size_bytes)


def _is_changed(headers: Mapping[str, str], version: Version) -> bool:
    wanted = headers.get("If-Match")
    if wanted is not None:
        return wanted.strip() != "*" and version.tag not in _tags(wanted, weak=False)
    since = _parse_date(headers.get("If-Unmodified-Since"))
    return bool(since and version.modified and version.modified > since)


def _is_known(headers: Mapping[str, str], version: Version) -> bool:
    known = headers.get("If-None-Match")
    if known is not None:
        return known.strip() == "*" or version.tag in _tags(known, weak=True)
    since = _parse_date(headers.get("If-Modified-Since"))
    return bool(since and version.modified and version.modified <= since)


_TAG: Final = re.compile(r'(W/)?("[^"]*")')


def _tags(text: str, *, weak: bool) -> Iterator[str]:
    return (tag for mark, tag in _TAG.findall(text) if weak or not mark)


def _parse_date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None


_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def _parse_range(text: str, size: int) -> Portion | None:
    """Return the one range that is asked for; None for none, several, or no sense (14.2)."""
    match = _RANGE.fullmatch(text)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    begin = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if begin > end:
        return Portion(verdict=Verdict.NO_SUCH_PART)
    return Portion(verdict=Verdict.PART, first=begin, length_bytes=end - begin + 1)


_CODING: Final = re.compile(
    r"\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*(?:;\s*[qQ]=([01](?:\.[0-9]{0,3})?)\s*)?"
)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is named, and is at least as welcome as no encoding.

    `*` is not enough: who cannot name an encoding may not know what to do with it.
    """
    quality = {
        match[1].lower(): float(match[2] or 1)
        for each in accept_encoding.split(",")
        if (match := _CODING.fullmatch(each))
    }
    gzip = quality.get("gzip", quality.get("x-gzip", 0.0))
    return gzip > 0 and gzip >= quality.get("identity", 0.0)
