"""The programs of this machine that virtual machines need, and what to install for them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
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
_CLEANING_SECONDS: Final = 5
_GLANCE_SECONDS: Final = 0.05


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
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own, so that what it starts can be ended with it.
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate(stdin, timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            _end_group(process)
            raise NodeError(f"{words[0]} did not end within {timeout_seconds:g} s") from None
        except BaseException:
            _end_group(process)
            raise
    if process.returncode != 0:
        text = (complained.strip() or said.strip()).decode(errors="replace")
        how = f"{words[0]} failed ({_status(process.returncode)})"
        lines = text.splitlines()[-_SHOWN_LINES:]
        raise NodeError("\n  ".join((f"{how}:", *lines)) if lines else f"{how}, and said nothing")
    return said


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started: with a word first, so that it can clean up."""
    # Until it is waited for, the number of the group is nobody else's.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _CLEANING_SECONDS
    without_waiting = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, process.pid, without_waiting) is None:
        if time.monotonic() > deadline:
            break
        time.sleep(_GLANCE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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
