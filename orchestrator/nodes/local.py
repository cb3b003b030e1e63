"""The Transport to this machine: the same shell, the same bare environment, without the network."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from orchestrator.core.errors import NodeError
from orchestrator.nodes.transport import Completed, Tail, absolute, ignore, shell_words, wrap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.core.inventory import Node
    from orchestrator.nodes.transport import Connect, OnWritten, Transport

_CHUNK_BYTES: Final = 64 * 1024


def connect_local(environment: Mapping[str, str]) -> Connect:
    """Return the Connect for `local` nodes; `environment` is the coordinator's own."""

    @asynccontextmanager
    async def connect(_node: Node) -> AsyncIterator[Transport]:
        yield LocalTransport(environment)

    return connect


# A process, and the ends of its output and error pipes that are read here.
_Started = tuple[subprocess.Popen[bytes], int, int]


class LocalTransport:
    """A way to this machine."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = login_environment(environment)

    @property
    def round_trip_seconds(self) -> float:
        """0: there is no network."""
        return 0

    async def open(self, script: str, *args: str) -> LocalProcess:
        """Start the script as sshd would: in a new session, in the home directory."""
        words = shell_words(args)
        try:
            return LocalProcess(*self._start(words, wrap(script)))
        except OSError as error:
            raise NodeError(
                f"this machine cannot start /bin/sh: {error.strerror}",
                hint="too many processes or too little memory or disk: free some",
            ) from error

    async def push(
        self, source: Path, destination: str, *, offset: int = 0, on_written: OnWritten = ignore
    ) -> None:
        """Copy the file over `destination`, with mode 0600."""
        try:
            end = await asyncio.to_thread(_copy, source, absolute(destination), offset)
        except OSError as error:
            raise NodeError(
                f"cannot write {destination}: {error.strerror}",
                hint="is the disk full, or the folder another user's?",
            ) from error
        on_written(end)

    async def close(self) -> None:
        """There is nothing to give up."""

    def _start(self, words: tuple[str, ...], stdin: bytes) -> _Started:
        with ExitStack() as ours, tempfile.TemporaryFile() as script:
            script.write(stdin)
            script.seek(0)
            stdout, stdout_end = _pipe(ours)
            stderr, stderr_end = _pipe(ours)
            # asyncio's own subprocesses are killed when their transport is closed.
            popen = subprocess.Popen(
                words,
                stdin=script,
                stdout=stdout_end,
                stderr=stderr_end,
                env=self._environment,
                cwd=_existing(self._environment["HOME"]),
                start_new_session=True,
            )
            ours.pop_all()
            os.close(stdout_end)
            os.close(stderr_end)
        return popen, stdout, stderr


def login_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a login over SSH would give.

    Nothing else of the coordinator's environment may steer a build: RUSTFLAGS, CARGO_*, GIT_*.
    Where the toolchain lies is no setting: rustup's `cargo` does not start without it.
    """
    user = pwd.getpwuid(os.getuid())
    login = {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/sh",
        "PATH": os.defpath,
    }
    kept = (*login, "LANG", "RUSTUP_HOME", "CARGO_HOME")
    return login | {name: environment[name] for name in kept if environment.get(name)}


def _existing(home: str) -> str:
    return home if Path(home).is_dir() else "/"


def _pipe(on_failure: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        on_failure.callback(os.close, end)
    os.set_blocking(ends[0], False)
    return ends


def _copy(source: Path, destination: str, offset: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    with source.open("rb") as reader, os.fdopen(os.open(destination, flags, 0o600), "wb") as writer:
        os.fchmod(writer.fileno(), 0o600)
        writer.truncate(offset)
        writer.seek(offset)
        reader.seek(offset)
        shutil.copyfileobj(reader, writer)
        return writer.tell()


class LocalProcess:
    """A running script on this machine.

    The pipe's own buffer is the flow control: nothing is read before `read` asks for it.
    """

    def __init__(self, popen: subprocess.Popen[bytes], stdout: int, stderr: int) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._tail = Tail()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(stderr, self._read_stderr)
        # A daemon thread: the coordinator must be able to end while the process runs on.
        threading.Thread(target=self._await_exit, args=(popen,), daemon=True).start()

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end.

        The end of the script is an end even if a child of it still holds the pipe: whatever the
        script wrote is in the pipe by then.
        """
        while not self._is_closed:
            has_exited = self._exited.done()
            try:
                return os.read(self._stdout, _CHUNK_BYTES)
            except BlockingIOError:
                if has_exited:
                    break
            await self._wait_for_output()
        return b""

    async def finish(self) -> Completed:
        """Return the exit status and the end of stderr."""
        status = await asyncio.shield(self._exited)
        if not self._is_closed:
            self._read_stderr()
        return Completed(exit_status=status, stdout=b"", stderr=bytes(self._tail))

    async def close(self) -> None:
        """Close the pipes; the process is not signalled."""
        if not self._is_closed:
            self._is_closed = True
            _resolve(self._readable, None)
            for descriptor in (self._stdout, self._stderr):
                self._loop.remove_reader(descriptor)
                os.close(descriptor)

    async def _wait_for_output(self) -> None:
        self._readable = self._loop.create_future()
        self._loop.add_reader(self._stdout, _resolve, self._readable, None)
        try:
            await asyncio.wait((self._readable, self._exited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Once closed, the number may already be another file's.
            if not self._is_closed:
                self._loop.remove_reader(self._stdout)

    def _read_stderr(self) -> None:
        # One read per wake-up: a flood must not starve the loop. It is as large as a pipe's
        # buffer, so the one after the exit takes all that the script left.
        with suppress(BlockingIOError):
            data = os.read(self._stderr, _CHUNK_BYTES)
            self._tail.append(data)
            if not data:
                self._loop.remove_reader(self._stderr)

    def _await_exit(self, popen: subprocess.Popen[bytes]) -> None:
        status = popen.wait()
        # The loop may be gone by then: nobody is left to be told.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve, self._exited, status)


_T = TypeVar("_T")


def _resolve(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)
