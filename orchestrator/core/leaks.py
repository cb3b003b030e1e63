"""What a program tells about the machine that built it: paths and names left in its bytes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.image import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_EXCERPT: Final = 60
MAX_COUNT: Final = 1000
_MIN_LENGTH: Final = 4
_CONTEXT_BEFORE: Final = 20
# Names that thousands of machines share, or that stand in any program: they give nobody away.
# fmt: off
_GENERIC: Final = frozenset(
    {
        "admin", "aarch64", "arm64", "armhf", "build", "builder", "buildbot", "cargo",
        "debian", "default", "fedora", "freebsd", "guest", "home", "host", "linux",
        "local", "localhost", "macos", "netbsd", "nobody", "node", "openbsd", "release",
        "root", "runner", "rust", "rustc", "server", "system", "target", "test", "ubuntu",
        "user", "users", "vagrant", "worker",
    }
)
# fmt: on
_WORD: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class _Hit(NamedTuple):
    at: int
    width: int  # bytes of one character: 1 for ASCII, 2 for UTF-16LE


def find_leaks(data: bytes, needles: Mapping[str, str]) -> tuple[str, ...]:
    """Return one readable line for each needle that is in the data, as ASCII or as UTF-16LE.

    `needles` maps what something is ("home path") to its text. A path of two or more components is
    looked for as it is, everything else as a whole word; generic names and texts shorter than four
    characters are not looked for.
    """
    lines = (_finding(data, label, text) for label, text in needles.items())
    return tuple(line for line in lines if line)


def _finding(data: bytes, label: str, text: str) -> str:
    needle = text.rstrip("/\\")
    if len(needle) < _MIN_LENGTH or needle.lower() in _GENERIC:
        return ""
    hits = tuple(islice(_hits(data, needle), MAX_COUNT))
    if not hits:
        return ""
    times = "once" if len(hits) == 1 else f"{len(hits)} times"
    more = " or more" if len(hits) == MAX_COUNT else ""
    before = 0 if _is_path(needle) else _CONTEXT_BEFORE
    excerpt = _excerpt(data, hits[0], before)
    return f"{label} `{readable(needle.encode())}` {times}{more}, first near `{excerpt}`"


def _hits(data: bytes, needle: str) -> Iterator[_Hit]:
    # A longer path may run into the next text: Rust's strings have no terminator.
    is_whole_word = not _is_path(needle) or needle.count("/") + needle.count("\\") == 1
    for encoding, width in (("utf-8", 1), ("utf-16-le", 2)):
        encoded = needle.encode(encoding)
        at = data.find(encoded)
        while at >= 0:
            end = at + len(encoded)
            if not is_whole_word or not (
                _is_word(data, at - width, width) or _is_word(data, end, width)
            ):
                yield _Hit(at, width)
            at = data.find(encoded, end)


def _is_path(needle: str) -> bool:
    return "/" in needle or "\\" in needle


def _is_word(data: bytes, at: int, width: int) -> bool:
    """Whether a character that continues a word stands there."""
    if at < 0 or at + width > len(data):
        return False
    return data[at] in _WORD and not any(data[at + 1 : at + width])


def _excerpt(data: bytes, hit: _Hit, before: int) -> str:
    """Return the printable text around a hit, cut to MAX_EXCERPT characters."""
    start = hit.at
    while start > hit.at - before * hit.width and _is_printable(data, start - hit.width, hit.width):
        start -= hit.width
    end = start
    while end < start + MAX_EXCERPT * hit.width and _is_printable(data, end, hit.width):
        end += hit.width
    text = readable(data[start : end : hit.width])
    is_cut = len(text) == MAX_EXCERPT
    return text[: MAX_EXCERPT - 3] + "..." if is_cut else text


def _is_printable(data: bytes, at: int, width: int) -> bool:
    if at < 0 or at + width > len(data):
        return False
    return 32 <= data[at] < 127 and not any(data[at + 1 : at + width])  # noqa: PLR2004 -- ASCII
