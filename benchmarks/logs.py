"""Logs of seven nodes at once, written line by line and in bulk: to the disk and to the screen."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import product
from benchmarks.fleet import serving
from benchmarks.machine import said_version, version_of
from benchmarks.masters import FAST_CIPHER, multiplexed
from benchmarks.measuring import in_turn, run_measured
from benchmarks.report import OURS, Goal, Report, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.fleet import Fleet
    from benchmarks.masters import Masters
    from benchmarks.measuring import Usage
    from benchmarks.options import Options

NODES: Final = 7
_BYTES: Final = 200_000_000
_QUICK_BYTES: Final = 5_000_000
_LINE_BYTES: Final = 80
_BULK_BYTES: Final = 800 * _LINE_BYTES
_SSH: Final = "ssh … > file, multiplexed"
_BY_LINE: Final = "asyncssh, line by line"

# A build is any program: this one says a line, waits until it may go on, and then makes a system
# call for each piece, and little else.
_WRITER: Final = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char piece[1 << 16];
static void say(long size) {
    for (long done = 0, part; done < size; done += part)
        if ((part = write(1, piece + done, size - done)) < 0) exit(1);
}
int main(int count, char **words) {
    long left = atol(words[1]), size = atol(words[2]), number = 0;
    for (int at = 0; at < sizeof piece - 79; at += 80) {
        memset(piece + at, '.', 79);
        memcpy(piece + at, "   Compiling crate", 18);
        piece[at + 79] = '\n';
    }
    say(80);
    while (access(words[3], F_OK)) usleep(1000);
    for (left -= 80; left > 0; left -= size) {
        char text[16];
        memcpy(piece + 20, text, snprintf(text, sizeof text, "%010ld", number++));
        say(left < size ? left : size);
    }
}
"""


def measure(options: Options) -> Report:
    """Run the writer on each node with each tool, and compare what arrives."""
    size = _QUICK_BYTES if options.is_quick else _BYTES
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        fleet = stack.enter_context(serving(folder / "fleet", NODES))
        masters = stack.enter_context(multiplexed(fleet, folder / "masters"))
        desk = _Desk(folder, fleet, masters, size=size)
        tables = tuple(
            _table(title, desk, piece, runs=options.runs)
            for title, piece in (
                ("One write for each line", _LINE_BYTES),
                ("In writes of 64 kB", _BULK_BYTES),
            )
        )
    lines, bulk = tables
    return Report(
        name="logs",
        title="Logs",
        about=f"{NODES} nodes write {size / 1e6:.0f} MB each, in lines of {_LINE_BYTES} bytes. "
        "Ours follows a job, whose log is a file on the node; the others keep none there. The time "
        "is from when all of them begin, each of which has said a line before, to the last byte in "
        "the files here. The CPU time is all that the tool has used on this side, with that of the "
        "connections which were open before.",
        tables=tables,
        goals=(
            _goal("line by line, of ssh's rate", lines, limit=0.8),
            Goal(
                what="CPU s/GB, line by line",
                value=lines.row(OURS).middle("cpu_seconds_per_gb"),
                limit=4,
            ),
            _goal("in bulk, of ssh's rate", bulk, limit=1),
        ),
        versions={"OpenSSH": said_version(["ssh", "-V"]), "asyncssh": version_of("asyncssh")},
        runs=options.runs,
    )


def _goal(what: str, table: Table, *, limit: float) -> Goal:
    ours, ssh = (table.row(tool).middle("bytes_per_second") for tool in (OURS, _SSH))
    return Goal(what=what, value=ours / ssh, limit=limit, is_least=True)


def _table(title: str, desk: _Desk, piece: int, *, runs: int) -> Table:
    results = in_turn(desk.tools(piece), runs=runs)
    gigabytes = NODES * desk.size / 1e9
    return Table(
        title=title,
        charted="bytes_per_second",
        rows=tuple(
            Row(
                tool=tool,
                samples={
                    "seconds": [usage.seconds for usage in usages],
                    "bytes_per_second": [gigabytes * 1e9 / usage.seconds for usage in usages],
                    "cpu_seconds_per_gb": [usage.cpu_seconds / gigabytes for usage in usages],
                },
            )
            for tool, usages in results.items()
        ),
    )


class _Desk:
    """Where the tools run, and what they have to bring."""

    def __init__(self, folder: Path, fleet: Fleet, masters: Masters, *, size: int) -> None:
        self.size = size
        self._into = folder / "into"
        self._go = folder / "go"
        self._fleet = fleet
        self._masters = masters
        self._writer = _compiled(folder)
        self._description = product.describe(fleet, folder / "product.json")

    def tools(self, piece: int) -> dict[str, Callable[[], Usage]]:
        """Return what runs each tool once; `piece` is what the build writes at a time."""
        words = [str(self._writer), str(self.size), str(piece), str(self._go)]
        self._go.touch()
        sha256 = _sha256_of_output(words)
        config, into = str(self._fleet.config), str(self._into)
        ours = [sys.executable, "-m", "benchmarks.product", "build", str(self._description), into]
        theirs = [sys.executable, "-m", "benchmarks.asyncssh_ways"]
        commands = {
            OURS: [*ours, *words],
            _SSH: self._ssh(self._masters.config, words),
            "ssh … > file": self._ssh(self._fleet.config, words),
            "asyncssh, redirected to a file": [*theirs, "redirect", config, into, *words],
            _BY_LINE: [*theirs, "lines", config, into, *words],
        }
        return {tool: partial(self._run, command, sha256) for tool, command in commands.items()}

    def _ssh(self, config: Path, words: Sequence[str]) -> list[str]:
        each = f"ssh -F {config} -o {FAST_CIPHER} $node {shlex.join(words)} >{self._into}/$node &"
        return ["sh", "-c", f"for node in {' '.join(self._fleet.names)}; do {each} done; wait"]

    def _run(self, command: Sequence[str], sha256: str) -> Usage:
        self._go.unlink()
        self._into.mkdir()
        with ThreadPoolExecutor(1) as clock:
            is_over = threading.Event()
            seconds = clock.submit(self._seconds, is_over)
            try:
                usage = self._masters.measured(lambda: run_measured(command))
            finally:
                is_over.set()
        for name in self._fleet.names:
            with (self._into / name).open("rb") as log:
                assert hashlib.file_digest(log, "sha256").hexdigest() == sha256, (command, name)  # noqa: S101
        for folder in (self._into, *map(product.workdir_of, self._fleet.nodes)):
            shutil.rmtree(folder, ignore_errors=True)
        return replace(usage, seconds=seconds.result())

    def _seconds(self, is_over: threading.Event) -> float:
        """Let the builds go on when a line of each is here; return how long the rest takes."""
        self._await_sizes(_LINE_BYTES, is_over)
        begun = time.perf_counter()
        self._go.touch()
        self._await_sizes(self.size, is_over)
        return time.perf_counter() - begun

    def _await_sizes(self, size: int, is_over: threading.Event) -> None:
        files = [self._into / name for name in self._fleet.names]
        while not all(file.exists() and file.stat().st_size >= size for file in files):
            if is_over.wait(0.002):
                return


def _sha256_of_output(words: Sequence[str]) -> str:
    with tempfile.TemporaryFile() as output:
        subprocess.run(words, stdout=output, check=True)
        output.seek(0)
        return hashlib.file_digest(output, "sha256").hexdigest()


def _compiled(folder: Path) -> Path:
    source, program = folder / "writer.c", folder / "writer"
    source.write_text(_WRITER)
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    return program
