"""A real ssh-agent for tests, in a folder of its own and gone at the end."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.releases import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAgent:
    """An agent, known by the path of its socket."""

    socket: str

    def add(self, key: Path, *options: str) -> None:
        """Load a private key."""
        self._ssh_add(*options, key)

    def remove(self, key: Path) -> None:
        """Take a key out again."""
        self._ssh_add("-d", key)

    def _ssh_add(self, *words: str | Path) -> None:
        environment = os.environ | {"SSH_AUTH_SOCK": self.socket}
        subprocess.run(["ssh-add", "-q", *words], env=environment, check=True, capture_output=True)


def _listens(path: str) -> bool:
    """Whether somebody answers there: a socket is there a moment before anybody listens to it."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


@contextmanager
def running_agent(**environment: str) -> Iterator[RunningAgent]:
    """Yield an ssh-agent that lives as long as the block."""
    # Not below a test's own folder: the path of a socket has a hundred characters at most.
    with TemporaryDirectory(prefix="agent-") as folder:
        path = f"{folder}/socket"
        with subprocess.Popen(
            ["ssh-agent", "-D", "-a", path],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_for(lambda: _listens(path))
                yield RunningAgent(socket=path)
            finally:
                process.terminate()
