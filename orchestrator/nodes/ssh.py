"""The Transport over SSH: one connection to a host, shared by its nodes.

The host key is always checked: against the inventory's `host_key` alone where there is one, else
against the user's known_hosts. Facts about sshd and asyncssh: OpenSSH's session.c and servconf.c,
asyncssh 2.24 (ssh-keepalive, MaxSessions, the lost link that looks like an exit).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeVar, cast

from orchestrator.core.errors import NodeError
from orchestrator.nodes.address import option_of, place_of, reason_of
from orchestrator.nodes.open_files import allow_many_open_files
from orchestrator.nodes.ssh_dial import DEFAULT_PORT, Dialler
from orchestrator.nodes.ssh_process import SshProcess, lost
from orchestrator.nodes.transport import (
    absolute,
    ignore,
    plain_words,
    shell_words,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import asyncssh

    from orchestrator.core.inventory import Node
    from orchestrator.nodes.transport import OnWritten, Transport

# Below sshd's default: MaxSessions 10.
_CHANNELS_PER_CONNECTION: Final = 8
# A job holds a session for as long as it runs, its follower another, and short requests need room.
_USERS_PER_CONNECTION: Final = 6

# sshd frees a session some time after its channel: 0.1 s, doubled, 6 s in all.
_SESSION_RETRIES: Final = 6
_SESSION_RETRY_SECONDS: Final = 0.1

# Together less than a channel's window of 2 MiB; no SFTP server takes less in one request.
_SEND_BYTES: Final = 32 * 1024
_SENDS_UNDER_WAY: Final = 40

# asyncssh's own number, which no server sends.
_NO_SUCH_SUBSYSTEM: Final = 0xFFFFFFFF

_CLOSING_SECONDS: Final = 1.0

# Linux's struct tcp_info, up to the smoothed round trip in microseconds.
_TCP_INFO_RTT: Final = 68
_TCP_INFO_BYTES: Final = 72


def interactive_command(node: Node, known_hosts: Path, words: Sequence[str]) -> list[str]:
    """Return the `ssh` command that runs the words on a node, in this terminal.

    `known_hosts` is a file with `known_hosts_line(node)`; without a pinned key it is not used, and
    the user's own files decide. The words are none that a login shell would change.
    """
    command = ["ssh", "-t", "-o", "StrictHostKeyChecking=yes", "-o", "ForwardAgent=no"]
    if node.port != DEFAULT_PORT:
        command += ["-p", str(node.port)]
    if node.identity is not None:
        identity = str(Path(node.identity).expanduser())
        command += ["-i", identity, "-o", "IdentitiesOnly=yes"]
    if node.host_key is not None:
        # The pinned key alone: by another name, the user's files know nothing of it.
        command += ["-o", option_of("UserKnownHostsFile", known_hosts)]
        command += ["-o", f"HostKeyAlias={_ALIAS}"]
        command += ["-o", "GlobalKnownHostsFile=none", "-o", "UpdateHostKeys=no"]
        # Nor does anything else vouch for it: DNS, or a connection that is open already.
        command += ["-o", "VerifyHostKeyDNS=no", "-o", "ControlPath=none"]
    return [*command, node.host, "exec", *plain_words(words)]


def known_hosts_line(node: Node) -> str:
    """Return the line that lets `interactive_command` accept the node's pinned key alone."""
    return f"{_ALIAS} {node.host_key}\n"


_ALIAS: Final = "the-node"


class SshConnections:
    """The connections of a run; leaving it closes them, and what runs on the nodes runs on."""

    def __init__(self) -> None:
        self._links: dict[_LinkKey, _Link] = {}
        self._dialler = Dialler()

    async def __aenter__(self) -> Self:
        allow_many_open_files()
        return self

    async def __aexit__(self, *_: object) -> None:
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*(_hang_up(link) for link in links))

    @asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[Transport]:
        """Open the way to a node, or share the one that its host has; a lost one is made anew.

        Raise NodeError when there is no way: refused, silent, another host key, no login.
        """
        link = self._link(node)
        link.users += 1
        try:
            connection = await asyncio.shield(link.dialling)
            transport = SshTransport(connection, link.channels, place_of(node))
            try:
                yield transport
            finally:
                await transport.close()
        finally:
            link.users -= 1
            if not link.users:
                await self._drop(link)

    def _link(self, node: Node) -> _Link:
        # A node's own pin must hold even where another node of the host has none.
        place = (node.host, node.port, node.identity, node.host_key)
        key = next(
            key
            for key in ((*place, number) for number in count())
            if key not in self._links or self._links[key].has_room
        )
        link = self._links.get(key)
        if link is None or link.is_dead:
            dialling = asyncio.create_task(self._dialler.dial(node))
            link = _Link(key=key, dialling=dialling)
            self._links[key] = link
        return link

    async def _drop(self, link: _Link) -> None:
        if self._links.get(link.key) is link:
            del self._links[link.key]
        await _hang_up(link)


_LinkKey = tuple[str, int, str | None, str | None, int]


@dataclass(slots=True, kw_only=True, eq=False)
class _Link:
    """A connection that is made or being made, and how many use it."""

    key: _LinkKey
    dialling: asyncio.Task[asyncssh.SSHClientConnection]
    users: int = 0
    channels: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_CHANNELS_PER_CONNECTION)
    )

    @property
    def has_room(self) -> bool:
        """Whether one more node can use it, or take its place because it is dead."""
        return self.users < _USERS_PER_CONNECTION or self.is_dead

    @property
    def is_dead(self) -> bool:
        """Whether nobody can be served by it any more."""
        if not self.dialling.done():
            return False
        if self.dialling.cancelled() or self.dialling.exception() is not None:
            return True
        return self.dialling.result().is_closed()


async def _hang_up(link: _Link) -> None:
    link.dialling.cancel()
    # Not `await`: whoever waited for it was told of its failure already.
    await asyncio.wait((link.dialling,))
    if link.dialling.cancelled() or link.dialling.exception() is not None:
        return
    connection = link.dialling.result()
    connection.close()
    try:
        async with asyncio.timeout(_CLOSING_SECONDS):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


_Opened = TypeVar("_Opened")


class SshTransport:
    """A node's share of its host's connection."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, channels: asyncio.Semaphore, place: str
    ) -> None:
        self._connection = connection
        self._channels = channels
        self._place = place
        self._processes: set[SshProcess] = set()

    @property
    def round_trip_seconds(self) -> float:
        """What TCP has measured; 0 where the system does not tell."""
        tcp_info = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
        connected = self._connection.get_extra_info("socket")
        # Behind a jump host there is no socket of this connection.
        if tcp_info is None or connected is None:
            return 0
        with suppress(OSError):
            info: bytes = connected.getsockopt(socket.IPPROTO_TCP, tcp_info, _TCP_INFO_BYTES)
            (microseconds,) = struct.unpack_from("=I", info, _TCP_INFO_RTT)
            return float(microseconds) / 1e6
        return 0

    async def open(self, script: str, *args: str) -> SshProcess:
        """Start the script; waits for one of the connection's channels."""
        command = f"exec {' '.join(shell_words(args))}"
        stdin = wrap(script)
        await self._channels.acquire()
        process = SshProcess(self._place, on_close=self._forget)
        self._processes.add(process)
        try:
            channel = await self._session(process, command)
        except BaseException:
            self._forget(process)
            raise
        with suppress(BrokenPipeError):  # the link is lost already: `read` says so
            channel.write(stdin)
            channel.write_eof()
        return process

    async def push(
        self, source: Path, destination: str, *, offset: int = 0, on_written: OnWritten = ignore
    ) -> None:
        """Write the file by SFTP, with mode 0600."""
        import asyncssh  # noqa: PLC0415 -- see Dialler.connect

        target = absolute(destination)
        async with self._channels:
            try:
                async with await self._sftp() as sftp:
                    private = asyncssh.SFTPAttrs(permissions=0o600)
                    # Without a block size, asyncssh leaves to us what is under way at once.
                    async with sftp.open(
                        target, "r+b" if offset else "wb", private, block_size=0
                    ) as file:
                        # While it is empty: nobody else may open it to read.
                        await file.chmod(0o600)
                        with source.open("rb") as reader:
                            reader.seek(offset)
                            await _send(reader, file, on_written)
            except (asyncssh.ConnectionLost, asyncssh.SFTPConnectionLost) as error:
                raise lost(self._place, error) from error
            except (asyncssh.Error, OSError) as error:
                if self._connection.is_closed():
                    raise lost(self._place, error) from error
                raise NodeError(
                    f"cannot write {target} on {self._place}: {reason_of(error)}",
                    hint="is its disk full, or the folder another user's?",
                ) from error

    async def _sftp(self) -> asyncssh.SFTPClient:
        import asyncssh  # noqa: PLC0415 -- see Dialler.connect

        start = self._connection.start_sftp_client
        try:
            return await self._retried(start, asyncssh.SFTPClient.exit)
        except (asyncssh.ChannelOpenError, asyncssh.SFTPConnectionLost) as error:
            # The channel was opened, and the link is there: nobody answers at its other end.
            if self._connection.is_closed():
                raise
            raise NodeError(
                f"the SSH server at {self._place} takes no files: it has no SFTP",
                hint="`Subsystem sftp internal-sftp` in its sshd_config, and no forced command",
            ) from error

    async def close(self) -> None:
        """Stop listening to everything that was opened through it."""
        for process in tuple(self._processes):
            await process.close()

    def _forget(self, process: SshProcess) -> None:
        if process in self._processes:
            self._processes.remove(process)
            self._channels.release()

    async def _session(self, process: SshProcess, command: str) -> asyncssh.SSHClientChannel[bytes]:
        import asyncssh  # noqa: PLC0415 -- see Dialler.connect

        # Its methods are what asyncssh calls; a subclass would need asyncssh at import time.
        session = cast("asyncssh.SSHClientSession[bytes]", process)

        async def create() -> asyncssh.SSHClientChannel[bytes]:
            channel, _ = await self._connection.create_session(lambda: session, command)
            return channel

        try:
            return await self._retried(create, asyncssh.SSHClientChannel.abort)
        except (asyncssh.Error, OSError) as error:
            raise lost(self._place, error) from error

    async def _retried(
        self, opening: Callable[[], Awaitable[_Opened]], abandon: Callable[[_Opened], None]
    ) -> _Opened:
        """Open a channel; sshd counts a session for a while after its channel is closed."""
        import asyncssh  # noqa: PLC0415 -- see Dialler.connect

        attempt = 0
        while True:
            try:
                return await _whole(opening, abandon)
            except asyncssh.ChannelOpenError as error:
                if self._connection.is_closed():
                    raise lost(self._place, error) from error
                if error.code == _NO_SUCH_SUBSYSTEM:
                    raise
                if attempt == _SESSION_RETRIES:
                    raise NodeError(
                        f"{self._place} refuses another session: {error.reason}",
                        hint="raise MaxSessions in its sshd_config",
                    ) from error
            await asyncio.sleep(_SESSION_RETRY_SECONDS * 2**attempt)
            attempt += 1


async def _send(reader: BinaryIO, file: asyncssh.SFTPClientFile, on_written: OnWritten) -> None:
    """Write the rest of the reader, several chunks under way, and say how far it is complete.

    Not asyncssh's `put`: it writes out of order, so what a broken one left cannot be gone on with.
    It begins with one chunk, so that even a link that breaks early has brought something.
    """
    under_way: deque[tuple[asyncio.Task[int], int]] = deque()
    limit = 1

    def note_written(_: object = None) -> None:
        nonlocal limit
        while under_way and _has_succeeded(under_way[0][0]):
            on_written(under_way.popleft()[1])
            limit = min(limit + 1, _SENDS_UNDER_WAY)

    async def until_fewer_than(count: int) -> None:
        while len(under_way) >= count:
            await under_way[0][0]
            note_written()

    end = reader.tell()
    try:
        while chunk := reader.read(_SEND_BYTES):
            await until_fewer_than(limit)
            write = asyncio.ensure_future(file.write(chunk, end))
            end += len(chunk)
            under_way.append((write, end))
            write.add_done_callback(note_written)
        await until_fewer_than(1)
    finally:
        rest = [write for write, _ in under_way]
        for write in rest:
            write.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def _has_succeeded(task: asyncio.Task[int]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _whole(
    opening: Callable[[], Awaitable[_Opened]], abandon: Callable[[_Opened], None]
) -> _Opened:
    """Open a channel; when cancelled, abandon what opens later: it would hold a session."""

    def abandon_late(task: asyncio.Future[_Opened]) -> None:
        if not task.cancelled() and task.exception() is None:
            abandon(task.result())

    task = asyncio.ensure_future(opening())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(abandon_late)
        raise
