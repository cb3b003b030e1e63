"""An SSH node on loopback, for the demo and the tests: an SSH server that runs real processes.

It behaves as sshd does where jobs depend on it: every command runs in a session of its own, and
goes on when the connection is lost. As a program it prints one JSON line and serves until it ends:

    python -m examples.loopback_node --folder DIR
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import signal
import subprocess
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import asyncssh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK_BYTES: Final = 64 * 1024


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve an SSH node on loopback.")
    parser.add_argument("--folder", type=Path, required=True, help="where its keys are kept")
    parser.add_argument("--home", type=Path, help="its home directory (default: FOLDER/home)")
    parser.add_argument("--path", help="its PATH (default: this one)")
    parser.add_argument("--port", type=int, default=0, help="its port (default: a free one)")
    args = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(args))


async def _serve(args: argparse.Namespace) -> None:
    start = LoopbackNode.start(args.folder, home=args.home, path=args.path, port=args.port)
    async with start as node:
        print(json.dumps(node.description()), flush=True)
        await asyncio.Event().wait()


class LoopbackNode:
    """A running node; its keys stay in `folder`, so the next one there is the same machine."""

    def __init__(self, folder: Path, home: Path, path: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.identity = _key(folder / "client_key")
        self.port = 0
        self._host_key = _key(folder / "host_key")
        self._environment = _environment(home, path)
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._server: asyncssh.SSHAcceptor | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls, folder: Path, *, home: Path | None = None, path: str | None = None, port: int = 0
    ) -> AsyncIterator[Self]:
        """Listen on 127.0.0.1, on a free port unless one is named."""
        node = cls(folder, home or folder / "home", path or os.environ["PATH"])
        await node.listen(port)
        try:
            yield node
        finally:
            await node.stop()

    @property
    def host_key(self) -> str:
        """The line for `host_key` in an inventory."""
        return Path(f"{self._host_key}.pub").read_text("ascii").strip()

    def description(self) -> dict[str, str | int]:
        """Return what an inventory needs to know, as plain data."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "host_key": self.host_key,
            "identity": str(self.identity),
            "home": str(self.home),
        }

    async def listen(self, port: int = 0) -> None:
        """Come up, for the first time or again."""
        self._server = await asyncssh.listen(
            "127.0.0.1",
            port or self.port,
            server_factory=lambda: _Server(self.connections),
            server_host_keys=[str(self._host_key)],
            authorized_client_keys=f"{self.identity}.pub",
            process_factory=self._run,
            sftp_factory=True,
            encoding=None,
            gss_host=None,
        )
        self.port = self._server.get_port()

    async def stop(self) -> None:
        """Go down: links are cut, and new ones refused; what runs, runs on."""
        if self._server is not None:
            self._server.close()
            self.disconnect()
            await self._server.wait_closed()
            self._server = None

    def disconnect(self) -> None:
        """Cut every link, and go on serving."""
        for connection in tuple(self.connections):
            connection.abort()

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        popen = _spawn(process.command or "exec /bin/sh", self.home, self._environment)
        relaying = asyncio.ensure_future(_relay(process, popen))
        gone = asyncio.ensure_future(process.channel.wait_closed())
        await asyncio.wait((relaying, gone), return_when=asyncio.FIRST_COMPLETED)
        # A lost link closes the pipes, and nothing else: the process is not signalled.
        relaying.cancel()
        await asyncio.wait((relaying,))
        await process.wait_closed()


async def _relay(process: asyncssh.SSHServerProcess[bytes], popen: subprocess.Popen[bytes]) -> None:
    exited = _exit_of(popen)
    feeding = asyncio.ensure_future(_feed(popen.stdin, process.stdin))
    try:
        with suppress(asyncssh.Error, OSError):
            await asyncio.gather(
                _drain(popen.stdout, process.stdout), _drain(popen.stderr, process.stderr)
            )
            process.stdout.write_eof()
            _report(process, await exited)
    finally:
        feeding.cancel()
        await asyncio.wait((feeding,))


def _report(process: asyncssh.SSHServerProcess[bytes], status: int) -> None:
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def _feed(pipe: IO[bytes] | None, source: asyncssh.SSHReader[bytes]) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(_protocol, pipe)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        # A cut link ends the input like an end of file, and the process may end before its input.
        with suppress(asyncssh.Error, OSError):
            while data := await source.read(_CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


async def _drain(pipe: IO[bytes] | None, target: asyncssh.SSHWriter[bytes]) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        while data := await reader.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
    finally:
        transport.close()


def _protocol() -> asyncio.StreamReaderProtocol:
    return asyncio.StreamReaderProtocol(asyncio.StreamReader())


def _spawn(command: str, home: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", command],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=home,
        start_new_session=True,
    )


class _Server(asyncssh.SSHServer):
    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self.connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._connection is not None:
            self.connections.discard(self._connection)


def _exit_of(popen: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """Return the exit status to come; a daemon thread waits, so that the node itself can end."""
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()

    def tell(status: int) -> None:
        if not exited.done():
            exited.set_result(status)

    def wait() -> None:
        status = popen.wait()
        with suppress(RuntimeError):  # the loop has ended before the process
            loop.call_soon_threadsafe(tell, status)

    threading.Thread(target=wait, daemon=True).start()
    return exited


def _key(path: Path) -> Path:
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519")
        path.touch(mode=0o600)
        key.write_private_key(path)
        key.write_public_key(f"{path}.pub")
    return path


def _environment(home: Path, path: str) -> dict[str, str]:
    user = pwd.getpwuid(os.getuid()).pw_name
    login = {"HOME": str(home), "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "PATH": path}
    # rustup's `cargo` looks for its toolchains below HOME, which is another one here.
    kept = ("LANG", "RUSTUP_HOME", "CARGO_HOME")
    return login | {name: os.environ[name] for name in kept if name in os.environ}


if __name__ == "__main__":
    main()
