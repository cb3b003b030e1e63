"""The Transport over SSH: one connection to a host, shared by its nodes.

The host key is always checked: against the inventory's `host_key` alone where there is one, else
against the user's known_hosts. Facts about sshd and asyncssh: OpenSSH's session.c and servconf.c,
asyncssh 2.24 (ssh-keepalive, MaxSessions, the lost link that looks like an exit).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
import socket
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeVar, cast

from orchestrator.core.errors import LinkError, NodeError
from orchestrator.nodes.address import host_of, option_of, place_of, reason_of, user_of
from orchestrator.nodes.host_keys import HostKeys
from orchestrator.nodes.transport import (
    Completed,
    Tail,
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
    from orchestrator.nodes.host_keys import ShownKey
    from orchestrator.nodes.transport import OnWritten, Transport

# Below sshd's defaults: MaxStartups 10, MaxSessions 10.
_HANDSHAKES_PER_HOST: Final = 8
_CHANNELS_PER_CONNECTION: Final = 8
# A job holds a session for as long as it runs, its follower another, and short requests need room.
_USERS_PER_CONNECTION: Final = 6

# A silent compile drops NAT'd links, and a dead one would never be noticed: it is after 40 s, which
# is before a request is given up.
_KEEPALIVE_SECONDS: Final = 10
_KEEPALIVES_MISSED: Final = 3

# AES has its own instructions on all of these CPUs: twice the speed of the default. The curve goes
# first because a patched NetBSD sshd stalls on the hybrid exchange.
_CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
_KEY_EXCHANGES: Final = "^curve25519-sha256,curve25519-sha256@libssh.org"

# sshd frees a session some time after its channel: 0.1 s, doubled, 6 s in all.
_SESSION_RETRIES: Final = 6
_SESSION_RETRY_SECONDS: Final = 0.1

# Together less than a channel's window of 2 MiB; no SFTP server takes less in one request.
_SEND_BYTES: Final = 32 * 1024
_SENDS_UNDER_WAY: Final = 40

# asyncssh's own number, which no server sends.
_NO_SUCH_SUBSYSTEM: Final = 0xFFFFFFFF

_DEFAULT_PORT: Final = 22
_HIGH_WATER_BYTES: Final = 256 * 1024
_CLOSING_SECONDS: Final = 1.0


def interactive_command(node: Node, known_hosts: Path, words: Sequence[str]) -> list[str]:
    """Return the `ssh` command that runs the words on a node, in this terminal.

    `known_hosts` is a file with `known_hosts_line(node)`; without a pinned key it is not used, and
    the user's own files decide. The words are none that a login shell would change.
    """
    command = ["ssh", "-t", "-o", "StrictHostKeyChecking=yes", "-o", "ForwardAgent=no"]
    if node.port != _DEFAULT_PORT:
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
        self._handshakes: dict[str, asyncio.Semaphore] = {}

    async def __aenter__(self) -> Self:
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
            handshakes = self._handshakes.setdefault(
                host_of(node), asyncio.Semaphore(_HANDSHAKES_PER_HOST)
            )
            link = _Link(key=key, dialling=asyncio.create_task(_dialled(node, handshakes)))
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


async def _dialled(node: Node, handshakes: asyncio.Semaphore) -> asyncssh.SSHClientConnection:
    return await _dial(node, HostKeys(node), handshakes)


async def show_host_key(node: Node) -> ShownKey:
    """Return the key that a node's host shows; nothing is sent to a host whose key is not known.

    Raise NodeError when there is no way to it.
    """
    host_keys = HostKeys(node)
    try:
        connection = await _dial(node, host_keys, asyncio.Semaphore())
    except NodeError:
        if host_keys.offered is None and host_keys.trust_none():
            with suppress(NodeError):
                await _dial(node, host_keys, asyncio.Semaphore())
        if host_keys.offered is None:
            raise
        return host_keys.shown(host_keys.offered)
    key = connection.get_server_host_key()
    connection.abort()
    assert key is not None  # noqa: S101 -- a connection without one was refused
    return host_keys.shown(key)


async def _dial(
    node: Node, host_keys: HostKeys, handshakes: asyncio.Semaphore
) -> asyncssh.SSHClientConnection:
    import asyncssh  # noqa: PLC0415 -- 0.2 s, which `--help` must not pay

    options = _options(node, host_keys)
    async with handshakes:
        try:
            return await asyncssh.connect(**options)
        except TimeoutError as error:
            seconds = node.connect_timeout.total_seconds()
            raise LinkError(
                f"no answer from {place_of(node)} within {seconds:g} s",
                hint="is it switched on, and is the address right? try `ssh` to it",
            ) from error
        except asyncssh.HostKeyNotVerifiable as error:
            raise host_keys.refusal(error) from error
        except asyncssh.PermissionDenied as error:
            raise NodeError(
                f"{place_of(node)} refuses the login of {user_of(node) or 'the local user'}",
                hint=f"offered: {await _offered(node)}; one of them belongs into "
                "its ~/.ssh/authorized_keys",
            ) from error
        except (asyncssh.Error, ConnectionResetError) as error:
            # What fails the same way again counts as a failed login, and sshd locks out for those.
            is_final = isinstance(error, (asyncssh.KeyExchangeFailed, asyncssh.IllegalUserName))
            is_final = is_final or "authentication failures" in reason_of(error)
            raise (NodeError if is_final else LinkError)(
                f"{place_of(node)} broke off the SSH handshake: {reason_of(error)}",
                hint="is it an SSH server? it may also be overloaded, or be refusing this "
                "machine for some minutes after failed logins: look at its log",
            ) from error
        except OSError as error:
            raise LinkError(
                f"cannot connect to {place_of(node)}: {reason_of(error)}",
                hint=_NO_SUCH_NAME
                if isinstance(error, socket.gaierror)
                else "is sshd running there, and are address and port right?",
            ) from error
        except ValueError as error:
            raise NodeError(
                f"cannot connect to {place_of(node)}: {reason_of(error)}",
                hint="does ~/.ssh/config say something strange about it?",
            ) from error


_NO_SUCH_NAME: Final = (
    "is the name right? an address does as well, and so does a `Host` of ~/.ssh/config"
)


def _options(node: Node, host_keys: HostKeys) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": host_of(node),
        "known_hosts": host_keys.trusted,
        "client_factory": host_keys.client,
        "connect_timeout": node.connect_timeout.total_seconds(),
        # connect_timeout covers it.
        "login_timeout": 0,
        "keepalive_interval": _KEEPALIVE_SECONDS,
        "keepalive_count_max": _KEEPALIVES_MISSED,
        "encryption_algs": _CIPHERS,
        "kex_algs": _KEY_EXCHANGES,
        "encoding": None,
        # The user's ~/.ssh/config may name aliases, jump hosts and keys. It may not ask for a
        # terminal (its hang-up kills jobs), lend our agent or environment to a node, or let
        # a certificate or Kerberos stand in for the host key.
        "request_pty": False,
        "agent_forwarding": False,
        "x11_forwarding": False,
        "env": None,
        "send_env": None,
        "x509_trusted_certs": None,
        "gss_kex": False,
        "gss_auth": False,
    }
    if user := user_of(node):
        options["username"] = user
    if node.port != _DEFAULT_PORT:
        options["port"] = node.port
    if node.identity is not None:
        options |= _only(Path(node.identity).expanduser())
    return options


def _only(identity: Path) -> dict[str, Any]:
    """Return the options that offer one key, be it in the file or, encrypted, in the agent.

    Each further key of a full agent would count as a failed login, and sshd locks out for those.
    """
    public = Path(f"{identity}.pub")
    if not identity.is_file():
        raise NodeError(
            f"there is no key at {identity}", hint="correct the node's `identity` in the inventory"
        )
    in_agent = [str(public)] if public.is_file() else []
    return {
        "client_keys": [str(identity)],
        "ignore_encrypted": True,
        # An empty list means every key of the agent.
        "agent_identities": in_agent or [b""],
    }


async def _offered(node: Node) -> str:
    """Describe the keys that a login was tried with."""
    import asyncssh  # noqa: PLC0415 -- see _dial

    if node.identity is not None:
        return f"{node.identity} (if it is encrypted: load it with ssh-add)"
    in_agent: list[str] = []
    with suppress(OSError, ValueError, asyncssh.Error):
        async with asyncssh.connect_agent() as agent:
            in_agent = [_fingerprint(key.public_data) for key in await agent.get_keys()]
    return f"the keys in ~/.ssh, and from the agent {', '.join(in_agent) or 'none'}"


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
        import asyncssh  # noqa: PLC0415 -- see _dial

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
                raise _lost(self._place, error) from error
            except (asyncssh.Error, OSError) as error:
                if self._connection.is_closed():
                    raise _lost(self._place, error) from error
                raise NodeError(
                    f"cannot write {target} on {self._place}: {reason_of(error)}",
                    hint="is its disk full, or the folder another user's?",
                ) from error

    async def _sftp(self) -> asyncssh.SFTPClient:
        import asyncssh  # noqa: PLC0415 -- see _dial

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
        import asyncssh  # noqa: PLC0415 -- see _dial

        # Its methods are what asyncssh calls; a subclass would need asyncssh at import time.
        session = cast("asyncssh.SSHClientSession[bytes]", process)

        async def create() -> asyncssh.SSHClientChannel[bytes]:
            channel, _ = await self._connection.create_session(lambda: session, command)
            return channel

        try:
            return await self._retried(create, asyncssh.SSHClientChannel.abort)
        except (asyncssh.Error, OSError) as error:
            raise _lost(self._place, error) from error

    async def _retried(
        self, opening: Callable[[], Awaitable[_Opened]], abandon: Callable[[_Opened], None]
    ) -> _Opened:
        """Open a channel; sshd counts a session for a while after its channel is closed."""
        import asyncssh  # noqa: PLC0415 -- see _dial

        attempt = 0
        while True:
            try:
                return await _whole(opening, abandon)
            except asyncssh.ChannelOpenError as error:
                if self._connection.is_closed():
                    raise _lost(self._place, error) from error
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


class SshProcess:
    """A running script on a node, and the session that asyncssh reports to.

    What is not read stays on the node: at most a window of 2 MiB is under way.
    """

    def __init__(self, place: str, on_close: Callable[[SshProcess], None]) -> None:
        self._place = place
        self._on_close = on_close
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._tail = Tail()
        self._changed = asyncio.Event()
        self._has_ended = False
        self._is_closed = False
        self._failure: Exception | None = None
        self._exit_status: int | None = None

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end; raise NodeError if the link is lost before."""
        await self._until(lambda: bool(self._chunks) or self._has_ended or self._is_closed)
        if self._chunks:
            return self._next_chunk()
        if not self._has_ended and self._failure is not None:
            raise _lost(self._place, self._failure)
        return b""

    async def finish(self) -> Completed:
        """Return the exit status and the end of stderr."""
        await self._until(lambda: self._exit_status is not None or self._is_closed)
        if self._exit_status is None:
            raise _lost(self._place, self._failure)
        # The rest of stderr, unless something that was left behind holds it open.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self._until(lambda: self._is_closed)
        return Completed(exit_status=self._exit_status, stdout=b"", stderr=bytes(self._tail))

    async def close(self) -> None:
        """Close the channel; the process is not signalled."""
        if not self._is_closed and self._channel is not None:
            self._channel.close()
        self._end(None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _next_chunk(self) -> bytes:
        chunk = self._chunks.popleft()
        self._buffered_bytes -= len(chunk)
        if self._buffered_bytes < _HIGH_WATER_BYTES and self._channel is not None:
            self._channel.resume_reading()
        return chunk

    def _end(self, failure: Exception | None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._failure = failure
            self._changed.set()
            self._on_close(self)

    # The rest is what asyncssh calls.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Remember the channel."""
        self._channel = chan

    def session_started(self) -> None:
        """Do nothing: `open` sends the script."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep what came; ask for no more while the reader is behind."""
        if datatype is not None:
            self._tail.append(data)
            return
        self._chunks.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes >= _HIGH_WATER_BYTES and self._channel is not None:
            self._channel.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        """Both outputs are closed; True: the exit status is still to come."""
        self._has_ended = True
        self._changed.set()
        return True

    def exit_status_received(self, status: int) -> None:
        """Keep the status."""
        self._exit_status = status
        self._changed.set()

    def exit_signal_received(self, name: str, *_: object) -> None:
        """Keep the signal as a negative status."""
        number = getattr(signal, f"SIG{name}", None)
        self._exit_status = -(number or _UNKNOWN_SIGNAL)
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the channel is closed; with an exception, that the link is lost."""
        if exc is None and self._exit_status is not None:
            self._has_ended = True
        self._end(exc or _Unanswered())

    def pause_writing(self) -> None:
        """Leave the script in asyncssh's buffer."""

    def resume_writing(self) -> None:
        """Do nothing: asyncssh sends on."""

    def xon_xoff_requested(self, client_can_do: bool) -> None:  # noqa: FBT001 -- asyncssh's signature
        """Do nothing: there is no terminal."""


# Signals that RFC 4254 does not name come as one word for all of them; no system has this number.
_UNKNOWN_SIGNAL: Final = 127


class _Unanswered(Exception):  # noqa: N818 -- it completes a sentence
    def __str__(self) -> str:
        return "the session was closed without an exit status"


def _lost(place: str, cause: BaseException | None) -> LinkError:
    why = "it was closed here" if cause is None else reason_of(cause)
    return LinkError(
        f"lost the link to {place}: {why}",
        hint="what runs there goes on: run the same command again to go on from there",
    )


def _fingerprint(public_data: bytes) -> str:
    digest = hashlib.sha256(public_data).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
