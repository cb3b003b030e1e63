"""Connections of `ssh` that are open already, and what they cost."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.fleet import Fleet
    from benchmarks.measuring import Usage

# What the product asks for; ssh's own choice is slower on CPUs that have AES.
FAST_CIPHER: Final = "Ciphers=aes128-gcm@openssh.com"
_START_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Masters:
    """Open connections to all nodes; `config` is an ssh_config that uses them."""

    config: Path
    pids: tuple[int, ...]

    def measured(self, run: Callable[[], Usage]) -> Usage:
        """Return what the run has used, with what the connections have used for it."""
        before = self._cpu_seconds()
        usage = run()
        return replace(usage, cpu_seconds=usage.cpu_seconds + self._cpu_seconds() - before)

    def _cpu_seconds(self) -> float:
        return sum(map(_cpu_seconds, self.pids))


@contextmanager
def multiplexed(fleet: Fleet, folder: Path, *, prefix: Sequence[str] = ()) -> Iterator[Masters]:
    """Have a connection to each node until the end of the block."""
    folder.mkdir(mode=0o700)
    config = folder / "ssh_config"
    config.write_text(f"ControlPath {folder}/%n\n{FAST_CIPHER}\n{fleet.config.read_text()}")
    with ExitStack() as masters:
        pids = []
        for name in fleet.names:
            process = subprocess.Popen(
                [*prefix, "ssh", "-F", str(config), "-MN", name], stdin=subprocess.DEVNULL
            )
            masters.callback(process.wait)
            masters.callback(process.terminate)
            pids.append(process.pid)
        deadline = time.monotonic() + _START_SECONDS
        while not all((folder / name).exists() for name in fleet.names):
            if time.monotonic() > deadline:
                raise TimeoutError("ssh opens no connection to the fleet")
            time.sleep(0.01)
        yield Masters(config=config, pids=tuple(pids))


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
