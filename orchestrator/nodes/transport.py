"""Transport (Protocol): how a script and a file reach a node.

A script travels on standard input to the constant command `exec /bin/sh -s -- ARGUMENT…`. Command
strings, however well quoted, broke under csh, tcsh, fish and zsh; this form was exact under eleven
login shells. So arguments are words that no shell touches, and nothing is ever quoted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.inventory import Node

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

STDERR_TAIL_BYTES: Final = 64 * 1024
DEFAULT_MAX_BYTES: Final = 16 * 1024 * 1024


OnWritten = Callable[[int], None]


def ignore(_: int) -> None:
    """Do nothing: nobody asks how far a push has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a finished script left; a negative exit status is the signal that killed it."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class RemoteProcess(Protocol):
    """A script that runs on a node, as seen from here."""

    async def read(self) -> bytes:
        """Return the next bytes of its standard output, b"" at the end.

        Raise NodeError if the link is lost: that is never an end.
        """
        ...

    async def finish(self) -> Completed:
        """Return, after the end, its exit status and the last 64 KiB that it wrote to stderr.

        `stdout` is empty. Raise NodeError if the link was lost before the exit status came.
        """
        ...

    async def close(self) -> None:
        """Stop listening; the process is not signalled, and runs on if it writes nothing here."""
        ...


class Transport(Protocol):
    """A way to one node."""

    @property
    def round_trip_seconds(self) -> float:
        """How long the network needs to the node and back; 0 where that is not known."""
        ...

    async def open(self, script: str, *args: str) -> RemoteProcess:
        """Start a POSIX shell script in a session of its own, with `args` as $1, $2, ….

        None of it runs before all of it has arrived. Its standard input is empty. What it leaves
        behind must have its outputs redirected, and be a program that was exec'd: a mere subshell
        may hold the channel open through the shell's own copy of it.
        """
        ...

    async def push(
        self, source: Path, destination: str, *, offset: int = 0, on_written: OnWritten = ignore
    ) -> None:
        """Write a file to an absolute path on the node, over what is there, with mode 0600.

        A failure may leave a part of it: the caller pushes to a temporary name and moves it.
        `on_written` is told how many bytes are there for certain; a push that a lost link broke off
        goes on from there with `offset`.
        """
        ...

    async def close(self) -> None:
        """Give up the way; what runs on the node runs on."""
        ...


# Opens the way to a node; raises NodeError, with a hint, when there is none.
Connect = Callable[[Node], AbstractAsyncContextManager[Transport]]


async def run(
    transport: Transport,
    script: str,
    *args: str,
    timeout: timedelta,  # noqa: ASYNC109 -- a request's deadline and its message are one thing
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Completed:
    """Run a script to its end and return what it left; a non-zero status is a result, no error.

    Raise NodeError when the link is lost, when it takes longer, or when it writes more than
    `max_bytes`. What was started is then not signalled: scripts that may hang guard themselves.
    """
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            process = await transport.open(script, *args)
            try:
                return await _collect(process, max_bytes)
            finally:
                await process.close()
    except TimeoutError:
        raise NodeError(
            f"no answer to a request within {timeout.total_seconds():g} s",
            hint="the node accepts connections but is overloaded or hangs: look at it",
        ) from None


async def _collect(process: RemoteProcess, max_bytes: int) -> Completed:
    chunks: list[bytes] = []
    size_bytes = 0
    while chunk := await process.read():
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise NodeError(
                f"the node answered with more than the {max_bytes} bytes that are expected",
                hint="does its shell start-up print something? log in and look",
            )
        chunks.append(chunk)
    end = await process.finish()
    return Completed(exit_status=end.exit_status, stdout=b"".join(chunks), stderr=end.stderr)


# Every login shell passes these unchanged. A leading `=` is a path expansion in zsh, a leading `%`
# a job in fish.
_ARGUMENT: Final = re.compile(r"[A-Za-z0-9._/+:@,-][A-Za-z0-9._/+:=@,%-]*")


def shell_words(args: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that start the shell; raise ConfigError for one that would need quotes."""
    return ("/bin/sh", "-s", "--", *plain_words(args))


def plain_words(args: Sequence[str]) -> tuple[str, ...]:
    """Return the words, or raise ConfigError for one that would need quotes."""
    for arg in args:
        if not _ARGUMENT.fullmatch(arg):
            raise ConfigError(
                f"{arg[:80]!r} cannot be sent to a node as a word",
                hint="use only letters, digits and . _ / + : = @ , % - in paths and names",
            )
    return tuple(args)


def wrap(script: str) -> bytes:
    """Return the bytes for the shell's standard input.

    A shell parses a group to its closing brace before it runs any of it, so a stream that is cut
    off runs nothing. Children must not eat the script: they get an empty standard input, by
    `exec` and not by a redirection of the group, for which the shell would keep a second copy of
    the channel open in every subshell. `exit` keeps the status of the last command.
    """
    if "\0" in script:
        raise ConfigError("a script for a node holds a NUL character")
    return f"{{ exec </dev/null\n{script}\nexit\n}}\n".encode()


def absolute(destination: str) -> str:
    """Return a path on a node, or raise ConfigError if it depends on where one stands."""
    if not destination.startswith("/") or "\0" in destination:
        raise ConfigError(f"{destination[:80]!r} is not an absolute path on a node")
    return destination


class Tail:
    """The last `limit_bytes` of a stream."""

    def __init__(self, limit_bytes: int = STDERR_TAIL_BYTES) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()

    def append(self, data: bytes) -> None:
        """Add the next bytes, and forget as many of the oldest as is needed."""
        self._kept += data
        del self._kept[: -self._limit]

    def __bytes__(self) -> bytes:
        return bytes(self._kept)
