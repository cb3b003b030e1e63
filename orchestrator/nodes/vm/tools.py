"""The programs of this machine that virtual machines need, and what to install for them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# The package of Debian and its relatives; elsewhere the name is the same or nearly so.
PACKAGES: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-riscv64": "qemu-system-misc",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "mformat": "mtools",
    "mcopy": "mtools",
    "xorriso": "xorriso",
    "ssh-keygen": "openssh-client",
    "ssh": "openssh-client",
}
_SHOWN_LINES: Final = 8


def require_tools(*names: str) -> None:
    """Raise ConfigError, with what to install, if this machine lacks one of the programs."""
    missing = [name for name in names if find_tool(name) is None]
    if not missing:
        return
    packages = " ".join(dict.fromkeys(PACKAGES.get(name, name) for name in missing))
    raise ConfigError(
        f"this machine has no {', '.join(missing)}",
        hint=f"on Debian: apt-get install --no-install-recommends {packages}; "
        "on macOS: brew install qemu mtools xorriso",
    )


def find_tool(name: str) -> str | None:
    """Return the path of a program, None if there is none."""
    # mke2fs is for everybody, and lies where only root looks.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def run_tool(
    *words: str,
    folder: Path,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 120,
) -> bytes:
    """Run a program in a folder and return what it printed; raise NodeError with what it says."""
    require_tools(words[0])
    command: Sequence[str] = (find_tool(words[0]) or words[0], *words[1:])
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            input=stdin,
            env=environment,
            capture_output=True,
            check=False,
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        raise NodeError(f"{words[0]} did not end within {timeout_seconds:g} s") from None
    if ended.returncode != 0:
        text = (ended.stderr.strip() or ended.stdout.strip()).decode(errors="replace")
        how = f"{words[0]} failed ({_status(ended.returncode)})"
        lines = text.splitlines()[-_SHOWN_LINES:]
        raise NodeError("\n  ".join((f"{how}:", *lines)) if lines else f"{how}, and said nothing")
    return ended.stdout


def _status(code: int) -> str:
    if code >= 0:
        return f"status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def free_port() -> int:
    """Return a port of the loopback that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
