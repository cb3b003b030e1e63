"""Host keys: which ones a node may show, which one it shows, and who vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import NodeError
from orchestrator.nodes.address import place_of, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import asyncssh

    from orchestrator.core.inventory import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownKey:
    """The public key that a host showed: as the inventory writes it, and its fingerprint.

    `expected` has the fingerprints of the keys that the inventory or known_hosts has for it.
    """

    line: str
    fingerprint: str
    expected: tuple[str, ...] = ()

    @property
    def check(self) -> str:
        """The command that prints this key's fingerprint on the machine itself."""
        return _check(self.line)

    @property
    def is_known(self) -> bool:
        """Whether it is one of those that were expected."""
        return self.fingerprint in self.expected

    @property
    def has_changed(self) -> bool:
        """Whether others were expected, and not this one."""
        return bool(self.expected) and not self.is_known


class HostKeys:
    """Which host keys a node may show, and which one it showed.

    `known_hosts` is asked about a node without a pinned key.
    """

    def __init__(self, node: Node, known_hosts: Callable[[], asyncssh.SSHKnownHosts]) -> None:
        self._place = place_of(node)
        self._pinned = None if node.host_key is None else _parsed(node.host_key, self._place)
        self._known = known_hosts() if self._pinned is None else None
        self._expected: Sequence[asyncssh.SSHKey] = ()
        self._trusts_none = False
        self.offered: asyncssh.SSHKey | None = None

    def trust_none(self) -> bool:
        """Let the host show any kind of key, and be refused; return whether that is of use.

        One that is known is asked for keys of the known kinds only: after a reinstallation, it may
        have none of those.
        """
        self._trusts_none = bool(self._expected)
        return self._trusts_none

    def trusted(
        self, host: str, address: str, port: int | None
    ) -> tuple[Sequence[asyncssh.SSHKey], ...]:
        """Return the keys, CA keys and revoked keys for a host."""
        if self._known is None:
            self._expected = [self._pinned] if self._pinned is not None else []
            return ([] if self._trusts_none else self._expected), [], []
        self._expected, authorities, revoked, *_ = self._known.match(host, address, port)
        if port is not None:
            # With no key for the port, asyncssh looks up the bare host, and forgets these.
            for name in (host, address):
                revoked = [*revoked, *self._known.match(f"[{name}]:{port}", "", None)[2]]
        if self._trusts_none:
            return [], [], revoked
        return self._expected, authorities, revoked

    def client(self) -> asyncssh.SSHClient:
        """Return what asyncssh asks about a key that `trusted` did not name."""
        return _client(self)

    def shown(self, key: asyncssh.SSHKey) -> ShownKey:
        """Return what the host showed, beside what was expected of it."""
        return ShownKey(
            line=_line(key),
            fingerprint=key.get_fingerprint(),
            # By name and by address, known_hosts may have it twice.
            expected=tuple(dict.fromkeys(known.get_fingerprint() for known in self._expected)),
        )

    def refusal(self, error: asyncssh.HostKeyNotVerifiable) -> NodeError:
        """Return what to tell: nobody ever accepts a key by continuing."""
        if self.offered is None:
            return NodeError(
                f"the host key of {self._place} is not accepted: {error.reason}",
                hint="look at the lines for it, and for a jump host before it, in known_hosts",
            )
        line = _line(self.offered)
        fingerprint = self.offered.get_fingerprint()
        check = _check(line)
        if not self._expected:
            return NodeError(
                f"the host key of {self._place} is not known: it shows {fingerprint}",
                hint=f"compare with what `{check}` prints on the machine itself, then add to the "
                f"node in the inventory:\n    host_key: {line}",
            )
        where = "~/.ssh/known_hosts" if self._pinned is None else "the inventory's `host_key`"
        known = " or ".join(key.get_fingerprint() for key in self._expected)
        return NodeError(
            f"THE HOST KEY OF {self._place} HAS CHANGED: it shows {fingerprint}, "
            f"but {where} says {known}",
            hint="somebody may be pretending to be this machine. If it was reinstalled: compare "
            f"with what `{check}` prints on the machine itself, then: orchestrator nodes rekey "
            f"NODE, or replace the old key by:\n    host_key: {line}",
        )


def _parsed(host_key: str, place: str) -> asyncssh.SSHKey:
    import asyncssh  # noqa: PLC0415 -- 0.2 s, which `--help` must not pay

    try:
        return asyncssh.import_public_key(host_key)
    except asyncssh.KeyImportError as error:
        raise NodeError(
            f"the `host_key` for {place} is not a public key: {error}",
            hint="it looks like `ssh-ed25519 AAAA…`, as in /etc/ssh/ssh_host_ed25519_key.pub",
        ) from error


def read_known_hosts() -> asyncssh.SSHKnownHosts:
    """Return what the user's and the machine's files know; raise NodeError if one is no such."""
    import asyncssh  # noqa: PLC0415 -- 0.2 s, which `--help` must not pay

    files = (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts"))
    try:
        return asyncssh.read_known_hosts([str(path) for path in files if path.is_file()])
    except (OSError, ValueError) as error:
        raise NodeError(
            f"cannot read the known host keys: {reason_of(error)}",
            hint=f"mend {files[0]} or {files[1]}, or pin the node's key with `host_key`",
        ) from error


def _line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


def _check(line: str) -> str:
    # `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`: each kind of key has a file of its own.
    kind = line.partition(" ")[0].removeprefix("ssh-").partition("-")[0]
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"


def _client(host_keys: HostKeys) -> asyncssh.SSHClient:
    import asyncssh  # noqa: PLC0415 -- 0.2 s, which `--help` must not pay

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(  # noqa: PLR0917 -- asyncssh's signature
            self, host: str, addr: str, port: int, key: asyncssh.SSHKey
        ) -> bool:
            """Refuse: nobody ever accepts a key by continuing."""
            del host, addr, port
            host_keys.offered = key
            return False

    return Client()
