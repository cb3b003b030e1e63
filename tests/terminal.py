"""A command at a terminal of its own, as a person would run it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.releases import PATIENCE_SECONDS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CTRL_C: Final = "\x03"


@dataclass(slots=True, kw_only=True)
class Terminal:
    """A command at a terminal of its own."""

    process: subprocess.Popen[bytes]
    descriptor: int
    said: bytearray = field(default_factory=bytearray)

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words.encode() not in self.said:
            self._read(deadline)

    def end(self) -> int:
        """Return the exit code, after all that it said was read."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def interrupt(self) -> int:
        """Press Ctrl-C until it ends, as a person does, and return the exit code.

        One that comes after Python has looked for signals, and before it waits for a line, is
        noticed when the line comes.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        self.type(CTRL_C)
        while True:
            if not self._has_more(1):
                assert time.monotonic() < deadline, self.said.decode(errors="replace")
                self.type(CTRL_C)
            elif not self._read(deadline):
                return self.process.wait(timeout=PATIENCE_SECONDS)

    def _has_more(self, seconds: float) -> bool:
        return bool(select.select([self.descriptor], [], [], max(0, seconds))[0])

    def _read(self, deadline: float) -> bool:
        assert self._has_more(deadline - time.monotonic()), self.said.decode(errors="replace")
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # the other end is closed
            return False
        self.said += data
        return bool(data)


@contextmanager
def at_terminal(inventory: Path, *words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))
    argv = [sys.executable, "-m", "orchestrator", words[0], "--inventory", str(inventory)]
    process = subprocess.Popen(
        # In a session of its own, so that the keys of the terminal are for it.
        ["setsid", "--ctty", *argv, *words[1:]],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "SHELL": "/bin/sh"},
    )
    os.close(theirs)
    try:
        yield Terminal(process=process, descriptor=ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
