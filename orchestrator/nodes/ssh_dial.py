"""Making an SSH connection: with which keys, to whom, and what it means when there is none.

The host key is always checked: against the inventory's `host_key` alone where there is one, else
against the user's known_hosts.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import gc
import hashlib
import socket
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import LinkError, NodeError
from orchestrator.nodes.address import host_of, place_of, reason_of, user_of
from orchestrator.nodes.host_keys import HostKeys, read_known_hosts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import asyncssh

    from orchestrator.core.inventory import Node
    from orchestrator.nodes.host_keys import ShownKey

# A silent compile drops NAT'd links, and a dead one would never be noticed: it is after 40 s, which
# is before a request is given up.
_KEEPALIVE_SECONDS: Final = 10
_KEEPALIVES_MISSED: Final = 3

# AES has its own instructions on all of these CPUs: twice the speed of the default. The curve goes
# first because a patched NetBSD sshd stalls on the hybrid exchange.
_CIPHERS: Final = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
_KEY_EXCHANGES: Final = "^curve25519-sha256,curve25519-sha256@libssh.org"

DEFAULT_PORT: Final = 22


# Below sshd's default: MaxStartups 10.
_HANDSHAKES_PER_HOST: Final = 8
# More at once would keep the event loop from everything else for long.
_HANDSHAKES: Final = 64
_HANDSHAKE_SECONDS: Final = 1.0


def load_ssh() -> None:
    """Load the SSH library, which takes a tenth of a second or two: beside something that waits."""
    import asyncssh  # noqa: F401, PLC0415 -- that is all


class Dialler:
    """Makes the connections of a run, so many at once; what they all need is read once."""

    def __init__(self) -> None:
        self._known_hosts = cache(read_known_hosts)
        self._login = cache(_read_login)
        self._turns = asyncio.Semaphore(_HANDSHAKES)
        self._turns_of_host: dict[str, asyncio.Semaphore] = {}

    async def dial(self, node: Node) -> asyncssh.SSHClientConnection:
        """Return a connection to a node; raise NodeError when there is no way to it."""
        turns_of_host = self._turns_of_host.setdefault(
            host_of(node), asyncio.Semaphore(_HANDSHAKES_PER_HOST)
        )
        host_keys = HostKeys(node, self._known_hosts)
        async with turns_of_host, _turn(self._turns):
            return await self.connect(node, host_keys)

    async def connect(self, node: Node, host_keys: HostKeys) -> asyncssh.SSHClientConnection:
        """Do the same with these host keys, and at once."""
        import asyncssh  # noqa: PLC0415 -- 0.2 s, which `--help` must not pay

        _spare_collector()
        options = _options(node, host_keys)
        try:
            if node.identity is not None:
                options |= self._login(node.identity).options()
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


@cache
def _spare_collector() -> None:
    """Leave what is loaded by now, for good, out of the garbage collector's rounds.

    Connections make it go round often, and a tenth of their time was spent on these modules.
    """
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    """Hold one of the turns, but not for long: what a silent host costs, it costs nobody else."""
    with ExitStack() as held:
        await turns.acquire()
        held.callback(turns.release)
        alarm = asyncio.get_running_loop().call_later(_HANDSHAKE_SECONDS, held.close)
        held.callback(alarm.cancel)
        yield


async def show_host_key(node: Node) -> ShownKey:
    """Return the key that a node's host shows; nothing is sent to a host whose key is not known.

    Raise NodeError when there is no way to it.
    """
    dialler = Dialler()
    host_keys = HostKeys(node, read_known_hosts)
    try:
        connection = await dialler.connect(node, host_keys)
    except NodeError:
        if host_keys.offered is None and host_keys.trust_none():
            with suppress(NodeError):
                await dialler.connect(node, host_keys)
        if host_keys.offered is None:
            raise
        return host_keys.shown(host_keys.offered)
    key = connection.get_server_host_key()
    connection.abort()
    assert key is not None  # noqa: S101 -- a connection without one was refused
    return host_keys.shown(key)


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
    if node.port != DEFAULT_PORT:
        options["port"] = node.port
    return options


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """What logs in with one key, be it in its file or, encrypted, in the agent.

    Each further key of a full agent would count as a failed login, and sshd locks out for those.
    """

    identity: Path
    keys: Sequence[asyncssh.SSHKeyPair]
    in_agent: Sequence[bytes]

    def options(self) -> dict[str, Any]:
        return {
            # Copies: each notes how its server wants signatures. None: the key is encrypted.
            "client_keys": [copy.copy(key) for key in self.keys] or [str(self.identity)],
            "ignore_encrypted": True,
            "agent_identities": self.in_agent,
        }


def _read_login(name: str) -> _Login:
    import asyncssh  # noqa: PLC0415 -- see Dialler.connect

    identity = Path(name).expanduser()
    public = Path(f"{identity}.pub")
    if not identity.is_file():
        raise NodeError(
            f"there is no key at {identity}", hint="correct the node's `identity` in the inventory"
        )
    read = asyncssh.SSHClientConnectionOptions(
        config=None,
        client_keys=[str(identity)],
        ignore_encrypted=True,
        # An empty list means every key of the agent.
        agent_identities=[str(public) if public.is_file() else b""],
    )
    keys, in_agent = read.client_keys or (), read.agent_identities or ()
    return _Login(identity=identity, keys=keys, in_agent=in_agent)


async def _offered(node: Node) -> str:
    """Describe the keys that a login was tried with."""
    import asyncssh  # noqa: PLC0415 -- see Dialler.connect

    if node.identity is not None:
        return f"{node.identity} (if it is encrypted: load it with ssh-add)"
    in_agent: list[str] = []
    with suppress(OSError, ValueError, asyncssh.Error):
        async with asyncssh.connect_agent() as agent:
            in_agent = [_fingerprint(key.public_data) for key in await agent.get_keys()]
    return f"the keys in ~/.ssh, and from the agent {', '.join(in_agent) or 'none'}"


def _fingerprint(public_data: bytes) -> str:
    digest = hashlib.sha256(public_data).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
