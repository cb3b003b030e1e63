"""A fleet of real sshd on loopback: a server process, an address and a port for every node."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin:/sbin")
_PORT: Final = int(os.environ.get("FLEET_PORT", "2222"))
_START_SECONDS: Final = 60
_LOG: Final = "sshd.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNode:
    """A node of the fleet: its name, its loopback address, and a folder for what it builds."""

    name: str
    address: str
    port: int
    folder: Path

    @property
    def home(self) -> Path:
        """The home of its logins, where they have one of their own."""
        return self.folder / "home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The nodes, and what every client needs to reach them.

    `config` is an ssh_config in which each node is a Host by its name, with `known_hosts` and
    `identity`; it multiplexes nothing and sets no algorithms. `host_key` is the same for all.
    """

    nodes: tuple[FleetNode, ...]
    user: str
    identity: Path
    host_key: str
    known_hosts: Path
    config: Path

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self.nodes)


def loopback_address(number: int) -> str:
    """Return an address of this machine, another one for each number from 0 on."""
    # 127.0.0.1 is everybody's.
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


@contextmanager
def serving(
    folder: Path,
    count: int,
    *,
    port: int | None = None,
    prefix: Sequence[str] = (),
    address: Callable[[int], str] = loopback_address,
    has_homes: bool = False,
) -> Iterator[Fleet]:
    """Serve `count` nodes until the end of the block, with sshd's own limits.

    `prefix` is what goes before the servers' command, such as the far end of a link. `has_homes`
    gives every node a home of its own, in its folder.
    """
    if SSHD is None:
        raise FileNotFoundError("sshd is missing: it is in the package openssh-server")
    fleet = describe_fleet(folder, count, port=port or _PORT, address=address)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as servers:
        for node in fleet.nodes:
            home = node.home if has_homes else Path.home()
            servers.enter_context(_server(folder, node, prefix, home=home))
        for node in fleet.nodes:
            _await_listening_said(node.folder / _LOG)
        yield fleet


def describe_fleet(
    folder: Path, count: int, *, port: int = _PORT, address: Callable[[int], str] = loopback_address
) -> Fleet:
    """Make the keys and the files of a fleet that is not served yet."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = _key(folder / "client_key")
    host_key = Path(f"{_key(folder / 'host_key')}.pub").read_text().strip()
    nodes = tuple(
        FleetNode(
            name=f"node{number}",
            address=address(number),
            port=port,
            folder=folder / f"node{number}",
        )
        for number in range(count)
    )
    known_hosts, config = folder / "known_hosts", folder / "ssh_config"
    known_hosts.write_text("".join(f"[{node.address}]:{node.port} {host_key}\n" for node in nodes))
    user = getpass.getuser()
    config.write_text(
        "".join(f"Host {node.name}\n  HostName {node.address}\n" for node in nodes)
        + f"Host *\n  User {user}\n  Port {port}\n  IdentityFile {identity}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {known_hosts}\n"
        "  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n"
    )
    for node in nodes:
        node.folder.mkdir(exist_ok=True)
    return Fleet(
        nodes=nodes,
        user=user,
        identity=identity,
        host_key=host_key,
        known_hosts=known_hosts,
        config=config,
    )


@contextmanager
def _server(folder: Path, node: FleetNode, prefix: Sequence[str], *, home: Path) -> Iterator[None]:
    config = node.folder / "sshd_config"
    config.write_text(
        f"Port {node.port}\nListenAddress {node.address}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/client_key.pub\nStrictModes no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        # Below another shell, bash leaves out the user's .bashrc: no part of what is measured.
        f'SetEnv SHLVL=1 "PATH={os.environ["PATH"]}" "HOME={home}" "RUSTUP_HOME={_rustup()}"\n'
    )
    command = [*prefix, str(SSHD), "-D", "-e", "-f", str(config)]
    with (node.folder / _LOG).open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def _rustup() -> str:
    # In another home, rustup's proxies would find no toolchain.
    return os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")


def _await_listening_said(log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while b"Server listening" not in log.read_bytes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{log} does not say that the server listens")
        time.sleep(0.01)


def _key(path: Path) -> Path:
    if not path.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    return path
