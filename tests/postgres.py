"""A real PostgreSQL server on loopback, in a folder of its own and gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import psycopg

from tests.releases import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian keeps each version's programs in a folder that is in nobody's PATH.
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
_ACCOUNT = "postgres"


@dataclass(slots=True)
class Postgres:
    """A server that can be stopped and started again."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"postgresql://{_ACCOUNT}@127.0.0.1:{self.port}/{_ACCOUNT}"

    def start(self) -> None:
        options = ["-D", "data", "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._run_as(), f"{PROGRAMS}/postgres", *options, "-c", "fsync=off"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        wait_for(self._answers)

    def stop(self) -> None:
        """End it as an administrator does who does not wait for anybody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def make(self) -> None:
        """Make the files of a new server."""
        if self._run_as():
            shutil.chown(self.folder, _ACCOUNT)
        words = ["-D", "data", "-U", _ACCOUNT, "--auth=trust", "--no-sync"]
        subprocess.run(
            [*self._run_as(), f"{PROGRAMS}/initdb", *words],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )

    def _run_as(self) -> list[str]:
        # It refuses to run as root.
        if os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups"]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yield a server with an empty database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not below a test's own folder, which another account cannot enter.
    folder = Path(mkdtemp(prefix="postgres-"))
    server = Postgres(folder, port)
    try:
        server.make()
        server.start()
        yield server
        server.stop()
    finally:
        if server._process is not None and server._process.poll() is None:
            server._process.kill()
        shutil.rmtree(folder, ignore_errors=True)
