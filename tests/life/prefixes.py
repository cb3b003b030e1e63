"""Every beginning of a script, piped into a shell that has nothing but alarms to run."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.installer_site import BASE_TOOLS, DEFAULT_TOOLS, VERIFIERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# The words that start each shell, and the program to look for.
SHELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "dash": ("dash",),
    "bash": ("bash",),
    "bash --posix": ("bash", "--posix"),
    "busybox ash": ("busybox", "ash"),
    "mksh": ("mksh",),
    "ksh93": ("ksh93",),
    "yash": ("yash",),
    "posh": ("posh",),
    "zsh --emulate sh": ("zsh", "--emulate", "sh"),
}
# From a pipe most shells read byte by byte; a file they read in blocks, five times as fast.
PIPE: Final = "pipe"
WAYS: Final = (PIPE, "file")
_ALARMS: Final = (*BASE_TOOLS, *DEFAULT_TOOLS, *VERIFIERS, "uname", "id", "fetch", "ftp", "getconf")
_BATCH: Final = 200
# ksh93u+m 1.0.4 turns for ever when its input ends behind the line that starts a here-document.
_ENDLESS: Final = "never ended"
_CPU_SECONDS: Final = 1
# What a shell says of a script that is cut off, and nothing else.
_COMPLAINT: Final = re.compile(
    rb"""
    syntax\ error | Syntax\ error | parse\ error | [Uu]nmatched | unterminated | brace\ expected
    | looking\ for\ matching | no\ closing\ quote | here.?document | must\ use\ compound\ command
    | bash:\ line\ \d+:\ `  # it quotes the line
    | ^\s*$
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A prefix that did more than fail, and how that was seen."""

    shell: str
    cut: int
    what: str

    @property
    def is_endless(self) -> bool:
        """Whether the shell did nothing at all, and that for ever."""
        return self.what == _ENDLESS


def start_of_command(script: bytes) -> int:
    """Return the length of the comment at the top: up to there nothing can fail."""
    return script.index(b"\n{") + 1


def play(
    script: bytes, cuts: Mapping[str, Sequence[int]], *, jobs: int, through: str = PIPE
) -> Iterator[tuple[str, int, list[Finding]]]:
    """Pipe the first N bytes into each shell for each of its cuts.

    Yield the shell, how many prefixes were tried, and those that did more than fail.
    """
    with ThreadPoolExecutor(jobs) as pool:
        parts = [
            pool.submit(_play_some, shell, script, part, through=through)
            for shell, chosen in cuts.items()
            for part in _chunked(chosen, 10 * _BATCH)
        ]
        for part in as_completed(parts):
            yield part.result()


def _play_some(
    shell: str, script: bytes, cuts: Sequence[int], *, through: str = PIPE
) -> tuple[str, int, list[Finding]]:
    with tempfile.TemporaryDirectory(prefix="prefixes-") as folder:
        cage = _Cage(Path(folder), shell, script, through=through)
        found = [finding for batch in _chunked(cuts, _BATCH) for finding in cage.try_all(batch)]
    return shell, len(cuts), found


def rings(shell: str, script: bytes) -> bool:
    """Whether the alarms go off for a whole script: without that no silence means anything."""
    *_, found = _play_some(shell, script, [len(script)])
    return any("effect" in finding.what for finding in found)


def _chunked(values: Iterable[int], size: int) -> Iterator[list[int]]:
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk


class _Cage:
    """A folder to be in, homes to write to and tools that only tell that they were called."""

    def __init__(self, folder: Path, shell: str, script: bytes, *, through: str) -> None:
        self.shell = shell
        self.through = through
        self.script = script
        self.start = start_of_command(script)
        program, *options = SHELLS[shell]
        self.words = [shutil.which(program) or program, *options]
        self.folder = folder
        self.inside = folder / "inside"
        self.log = self.inside / "log"
        for name in ("home", "tmp", "here"):
            (self.inside / name).mkdir(parents=True)
        tools = folder / "tools"
        tools.mkdir()
        for name in _ALARMS:
            tool = tools / name
            tool.write_text(f'#!/bin/sh\necho {name} >>"{self.log}"\n')
            tool.chmod(0o755)
        self.environment = {
            "HOME": str(self.inside / "home"),
            "PATH": str(tools),
            "SHELL": "/bin/sh",
            "TMPDIR": str(self.inside / "tmp"),
        }
        self.before = self._tree()

    def try_all(self, cuts: Sequence[int]) -> list[Finding]:
        """Try them, look once, and only if something is to be seen look after each."""
        if not self._seen(cuts):
            return []
        return [
            Finding(shell=self.shell, cut=cut, what=what)
            for cut in cuts
            if (what := self._seen([cut]))
        ]

    def _seen(self, cuts: Sequence[int]) -> str:
        with ExitStack() as files:
            out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            codes = [self._run(cut, out.fileno(), err.fileno()) for cut in cuts]
            said, complaints = (os.pread(file.fileno(), 1 << 20, 0) for file in (out, err))
        wrong = [
            _ENDLESS if code == -signal.SIGXCPU else f"exit status {code}"
            for cut, code in zip(cuts, codes, strict=True)
            if (code == 0) != (cut <= self.start) or code < 0
        ]
        if said:
            wrong.append(f"effect: printed {said[:80]!r}")
        wrong += [
            f"effect: complained {line[:120]!r}"
            for line in complaints.split(b"\n")
            if not _COMPLAINT.search(line)
        ]
        wrong += self._effects()
        return "; ".join(dict.fromkeys(wrong))

    def _effects(self) -> list[str]:
        after = self._tree()
        if after == self.before:
            return []
        changed = sorted({path for path, _ in self.before ^ after})
        called = self.log.read_text().split() if self.log.exists() else []
        for path in sorted(after - self.before, reverse=True):
            place = Path(path[0])
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        names = [path.removeprefix(f"{self.inside}/") for path in changed]
        return [f"effect: changed {names}, called {called}"]

    def _tree(self) -> set[tuple[str, int]]:
        return {
            (entry, os.lstat(entry).st_mtime_ns if not os.path.isdir(entry) else 0)  # noqa: PTH112 -- 100,000 times
            for top, folders, files in os.walk(self.inside)
            for entry in (f"{top}/{name}" for name in (*folders, *files))
        }

    def _run(self, cut: int, out: int, err: int) -> int:
        """Do what `curl … | sh` does when no more than this arrives; return the exit status."""
        reading = self._as_pipe(cut) if self.through == PIPE else self._as_file(cut)
        with subprocess.Popen(
            self.words,
            stdin=reading,
            stdout=out,
            stderr=err,
            cwd=self.inside / "here",
            env=self.environment,
        ) as process:
            os.close(reading)
            _limit(process.pid)
            return process.wait()

    def _as_pipe(self, cut: int) -> int:
        reading, writing = os.pipe()
        # All of it has to fit before there is a reader.
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, max(1 << 16, 2 * len(self.script)))
        os.write(writing, self.script[:cut])
        os.close(writing)
        return reading

    def _as_file(self, cut: int) -> int:
        file = os.memfd_create("script")
        os.write(file, self.script[:cut])
        os.lseek(file, 0, os.SEEK_SET)
        return file


def _limit(process: int) -> None:
    # It may be over already.
    with suppress(ProcessLookupError):
        resource.prlimit(process, resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 2))
