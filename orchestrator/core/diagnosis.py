"""Why a build failed: for want of disk or memory, or because of the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Strain:
    """What a node was short of when a build failed; None where its system does not say.

    `oom_kills` counts the processes that its kernel killed for want of memory during the build.
    """

    free_kib: int | None = None
    free_inodes: int | None = None
    oom_kills: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineReason:
    """A reason of the machine: what was wrong, with the evidence, and what to do.

    `may_pass` says that the same build may well succeed there the next time.
    """

    message: str
    hint: str
    may_pass: bool = False


def diagnose(*, exit_status: int, log_tail: bytes, strain: Strain) -> MachineReason | None:
    """Return why the machine failed the build, or None when it may have been the code.

    `log_tail` is the end of the build's log. In doubt it is the code: a build that would fail
    everywhere must not be tried everywhere.
    """
    lines = _last_lines(log_tail)
    if exit_status == 0 or _is_refused_by_a_compiler(lines):
        return None
    return (
        _disk_is_full(exit_status, lines, strain)
        or _memory_is_short(exit_status, lines, strain)
        or _was_killed(exit_status, lines)
    )


# What ended a build is near the end of its log; further up stand things that it has survived.
_LINES: Final = 60
_SHOWN: Final = 240
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# `12 |     let text = "...";` is the code, as a compiler shows it.
_SURVIVED: Final = re.compile(r"\s*\d*\s*\||warning\b")

_HEADER: Final = re.compile(r"(error|warning)\b")
_PLACE: Final = re.compile(r"\s*--> \S")
_ERROR_CODE: Final = re.compile(r"error\[E\d{4}\]")
_C_ERROR: Final = re.compile(r"\S:\d+:\d+: (?:fatal )?error: ")

# In the words of the C library, as every program ends its own message with them.
_NO_ROOM: Final = re.compile(
    r"(?:^|: )['\"]?(?:No space left on device|Disk quota exceeded)"
    r"(?: \(os error \d+\))?(?: at path .*)?\W*$"
    r"|\(os error 28\)|code: 28, kind: StorageFull"
)
# What a full disk may cause, and other things too.
_FAILED_WRITE: Final = re.compile(
    r"SIGBUS|\b[Bb]us error|[Ww]rite error|[Ee]rror writing|[Ss]hort write|IO failure on output"
    r"|(?:[Ff]ailed to|[Cc]ould(?:n't| not)|[Cc]an(?:not|'t)) (?:write|create)"
)
_ANY_FAILURE: Final = re.compile(
    r"error|fail|panic|fatal|cannot|can't|could|unable|undefined|denied|abort|signal|killed"
    r"|no such|not found|invalid|missing|unexpected|refused",
    re.IGNORECASE,
)
_BUS_ERROR: Final = 128 + 7

_NO_MEMORY: Final = re.compile(
    r"LLVM ERROR: out of memory|^memory allocation of \d+ bytes failed"
    r"|\(os error 12\)|code: 12, kind: OutOfMemory"
    r"|(?:^|: )Cannot allocate memory\W*$|virtual memory exhausted|: memory exhausted\W*$"
    r"|out of memory allocating \d+ bytes|instance of 'std::bad_alloc'"
)
_KILLED: Final = re.compile(r"SIGKILL|signal: 9\b|signal 9\b|\bKilled\b")
_SIGKILL: Final = re.compile(r"\(signal: 9, SIGKILL")
_KILL: Final = 128 + 9


def _last_lines(log_tail: bytes) -> list[str]:
    text = _ESCAPES.sub("", log_tail.decode(errors="replace"))
    return [line.rstrip() for line in text.splitlines() if line.strip()][-_LINES:]


def _is_refused_by_a_compiler(lines: list[str]) -> bool:
    """Whether a compiler has said what is wrong, and in which line of the code."""
    kind = ""
    for line in lines:
        if header := _HEADER.match(line):
            kind = header[1]
        is_place = kind == "error" and _PLACE.match(line)
        if is_place or _ERROR_CODE.match(line) or _is_c_error(line):
            return True
    return False


def _is_c_error(line: str) -> bool:
    is_ours = _NO_ROOM.search(line) or _NO_MEMORY.search(line)
    return bool(_C_ERROR.search(line)) and not is_ours


def _disk_is_full(exit_status: int, lines: list[str], strain: Strain) -> MachineReason | None:
    said = _find(_NO_ROOM, lines)
    if said is None and 0 in {strain.free_kib, strain.free_inodes}:
        said = _find(_FAILED_WRITE, lines)
        # A log on that disk ends before its last words.
        if said is None and not any(map(_ANY_FAILURE.search, lines)):
            said = f"the build ended with status {exit_status} and no word of why"
        if exit_status == _BUS_ERROR:
            said = said or "a bus error"
    if said is None:
        return None
    free = [
        f"{amount} {what}"
        for amount, what in ((strain.free_kib, "KiB"), (strain.free_inodes, "inodes"))
        if amount is not None
    ]
    left = f"; {' and '.join(free)} were free in its workdir afterwards" if free else ""
    return MachineReason(
        message=f"the node's disk is full: {said}{left}",
        hint="make room on it, or give it another `workdir`",
    )


def _memory_is_short(exit_status: int, lines: list[str], strain: Strain) -> MachineReason | None:
    said = _find(_NO_MEMORY, lines)
    if said is None and strain.oom_kills:
        killed = "the build was killed" if exit_status == _KILL else None
        said = _find(_KILLED, lines) or killed
    if said is None:
        return None
    count = (
        f"; its kernel killed for want of memory: {strain.oom_kills}" if strain.oom_kills else ""
    )
    return MachineReason(
        message=f"the node ran out of memory: {said}{count}",
        hint="give it more memory or swap, or fewer `jobs`",
    )


def _was_killed(exit_status: int, lines: list[str]) -> MachineReason | None:
    """Whether the system did it, for want of memory where it does not say so, or a person."""
    said = _find(_SIGKILL, lines) or ("status 137" if exit_status == _KILL else None)
    if said is None:
        return None
    return MachineReason(
        message=f"something on the node killed it (SIGKILL): {said}",
        hint="it may have run out of memory, or a person did it: look at the node",
        may_pass=True,
    )


def _find(pattern: re.Pattern[str], lines: list[str]) -> str | None:
    """Return the last line that says it, fit to be shown."""
    for line in reversed(lines):
        if pattern.search(line) and not _SURVIVED.match(line):
            shown = "".join(each if each.isprintable() else "?" for each in line.strip())
            return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return None
