"""What a whole program costs: its time on the clock, its processor time, its memory."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one run of a program took.

    `cpu_seconds` is its own and its children's that it waited for; `peak_bytes` is the largest
    resident size that any one of them had. `output` is what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: bytes


_SECONDS: Final = re.compile(rb"^seconds (\d+\.\d+)$", re.MULTILINE)


def print_seconds(seconds: float) -> None:
    """Say how long the work took that a program was started for, without its own start."""
    print(f"seconds {seconds:.6f}")


def of_the_work(usage: Usage) -> Usage:
    """Return the usage with the time that the program has said, if it has said one."""
    found = _SECONDS.search(usage.output)
    return replace(usage, seconds=float(found[1])) if found else usage


class RunFailedError(Exception):
    """A program that was to be measured has failed."""


def run_measured(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    accepts: frozenset[int] = frozenset({0}),
) -> Usage:
    """Run the program to its end; raise RunFailedError, with what it said, for another status."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode not in accepts:
        tail = said.decode(errors="replace")[-2000:]
        raise RunFailedError(f"{command[0]} ended with {process.returncode}: {tail}")
    return Usage(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
        output=said,
    )


def in_turn(
    tools: Mapping[str, Callable[[], _T]], *, runs: int, warm_up: int = 0
) -> dict[str, list[_T]]:
    """Return what each tool gave in each round.

    The tools run one after the other in every round, each round beginning with another one, so
    that a machine that gets slower meanwhile slows them all.
    """
    names = list(tools)
    results: dict[str, list[_T]] = {name: [] for name in names}
    for number in range(warm_up + runs):
        shift = number % len(names)
        for name in (*names[shift:], *names[:shift]):
            result = tools[name]()
            if number >= warm_up:
                results[name].append(result)
    return results
