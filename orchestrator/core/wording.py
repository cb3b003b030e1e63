"""Values in words, for every way out: durations, sizes, results, text that nobody vouches for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, assert_never

from orchestrator.core.result import Built, Failed, Skipped

if TYPE_CHECKING:
    from datetime import timedelta

    from orchestrator.core.result import Artifact, Result

_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
# ECMA-48: control sequences, strings for the terminal (a title, a link), and what is shorter.
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)


def visible(text: str) -> str:
    """Return the text as one line that can neither move a cursor nor forge another line.

    A node's output is not trusted: escape sequences, carriage returns and direction marks are
    shown as Python would write them. Colours are dropped, tabs become spaces.
    """
    plain = _COLOUR.sub("", text).expandtabs(4)
    if plain.isprintable():
        return plain
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain
    )


def without_escapes(text: str) -> str:
    """Return the text of a terminal without what moves its cursor, colours it or sets it up."""
    return _ESCAPE.sub("", text)


def redacted(text: str) -> str:
    """Return the text with `user:password@` taken out of its URLs."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def human_time(duration: timedelta) -> str:
    """Return `0.4s`, `42s`, `3m07s` or `2h05m`."""
    seconds = duration.total_seconds()
    if seconds < 9.95:  # noqa: PLR2004 -- what is rounded to ten seconds needs no tenths
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def human_size(size_bytes: int) -> str:
    """Return `734 B`, `1.2 kB`, `10.4 MB` or `25.3 GB`, in powers of 1000."""
    kilo = 1000
    if size_bytes < kilo:
        return f"{size_bytes} B"
    size = size_bytes / kilo
    for unit in ("kB", "MB"):
        # What would be rounded up to `1000.0 kB` is a megabyte.
        if size < kilo - 0.05:
            return f"{size:.1f} {unit}"
        size /= kilo
    return f"{size:.1f} GB"


def floors_of(artifact: Artifact) -> str:
    """Return `glibc>=2.34`, several with commas, or `no floor`."""
    return ",".join(str(floor) for floor in artifact.floors) or "no floor"


def result_name(result: Result) -> str:
    """Return in a word or two what became of a node's task."""
    match result:
        case Built():
            return "attached" if result.was_attached else "built"
        case Failed():
            return f"failed ({result.failure_class.name.lower()})"
        case Skipped():
            return "skipped"
        case _:
            assert_never(result)


def result_detail(result: Result) -> str:
    """Return what there is to say about a result, on one line."""
    match result:
        case Built():
            return f"{human_size(result.artifact.size_bytes)}, {floors_of(result.artifact)}"
        case Failed():
            return visible(result.message.partition("\n")[0])
        case Skipped():
            return visible(result.reason)
        case _:
            assert_never(result)


def install_command(url: str) -> str:
    """Return the line that a user pastes; plain http exists only for a store on loopback."""
    if url.startswith("https:"):
        return f"curl --proto '=https' --tlsv1.2 -sSf {url}/install.sh | sh"
    return f"curl -sSf {url}/install.sh | sh"
