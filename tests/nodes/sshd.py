"""A real OpenSSH sshd on loopback, with a host key, a port and an authorized key of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# sshd insists on its absolute path, and is rarely on a user's PATH.
SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH')}:/usr/sbin:/usr/local/sbin:/sbin")

needs_sshd: Final = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh-keygen") is None, reason="needs sshd and ssh-keygen"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sshd:
    """A running server; `host` is for the current user."""

    host: str
    port: int
    host_key: str
    identity: Path
    pid: int

    def disconnect(self) -> None:
        """Kill the server's end of every link; what runs on the node is left alone."""
        table = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,args="], check=True, capture_output=True, text=True
        ).stdout
        rows = [line.split(maxsplit=2) for line in table.splitlines()]
        sessions = {str(self.pid)}
        for pid, parent, args in rows * 2:  # a login of another user than root has two levels
            if parent in sessions and args.startswith("sshd"):
                sessions.add(pid)
        for pid in sessions - {str(self.pid)}:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def running(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    has_sftp: bool = True,
) -> Iterator[Sshd]:
    """Serve until the end of the block; `environment` may move HOME and PATH."""
    assert SSHD is not None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host_key, identity = _key(folder / "host_key"), _key(folder / "client_key")
    if os.getuid() == 0:
        # A machine without a running sshd lacks the folder that root's must have.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = _free_port()
    config = folder / "sshd_config"
    more = [*options, *_set_env(environment or {})]
    config.write_text(_config(folder, port, more, has_sftp=has_sftp))
    # A file: what it says of hundreds of links would fill a pipe that nobody reads.
    log = folder / "sshd.log"
    with (
        log.open("wb") as said,
        subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=said) as server,
    ):
        try:
            _await_listening(server, log)
            yield Sshd(
                host=f"{getpass.getuser()}@127.0.0.1",
                port=port,
                host_key=Path(f"{host_key}.pub").read_text().strip(),
                identity=identity,
                pid=server.pid,
            )
        finally:
            server.terminate()


def _config(folder: Path, port: int, options: Sequence[str], *, has_sftp: bool) -> str:
    return "\n".join(
        (
            *options,  # sshd takes the first of several values
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host_key",
            f"AuthorizedKeysFile {folder}/client_key.pub",
            "StrictModes no",
            "PidFile none",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "Subsystem sftp internal-sftp" if has_sftp else "",
            "",
        )
    )


def _set_env(environment: Mapping[str, str]) -> list[str]:
    words = [f'"{name}={value}"' for name, value in environment.items()]
    return [" ".join(("SetEnv", *words))] if words else []


def _key(path: Path) -> Path:
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _await_listening(server: subprocess.Popen[bytes], log: Path) -> None:
    while b"listening on" not in (said := log.read_bytes()):
        if server.poll() is not None:
            raise AssertionError(f"sshd did not start: {said!r}")
        time.sleep(0.01)
