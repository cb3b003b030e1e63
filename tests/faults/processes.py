"""The processes of a lab: found by the lab's folder, which nothing else on the machine names."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A living process, and what it was started with."""

    pid: int
    arguments: str
    # A request whose script has not arrived does nothing, and ends with its session: of a link that
    # is gone without a word, sshd keeps that.
    is_waiting_for_its_script: bool
    # Where its job puts its binaries: the mark that all that a build starts inherits.
    mark: str

    @property
    def is_marked(self) -> bool:
        """Whether a build started it."""
        return bool(self.mark)

    @property
    def is_of_a_job(self) -> bool:
        """Whether it belongs to a job, and not to the server or the coordinator."""
        is_other = "-m orchestrator" in self.arguments or "sshd" in self.arguments
        return not is_other and not self.is_waiting_for_its_script


def find(folder: Path) -> list[Process]:
    """Return the processes that name the folder in their arguments or as their job's mark."""
    return [process for process in _all(folder) if process.pid != os.getpid()]


def of_jobs(folder: Path) -> list[Process]:
    """Return those that belong to jobs: wrappers, what they run, and who follows them."""
    return [process for process in find(folder) if process.is_of_a_job]


def kill_together(victims: list[Process]) -> None:
    """End processes as a power cut does: none of them sees another one go."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in victims:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
    for process in victims:
        kill(process.pid)


def kill(pid: int) -> None:
    """End a process that may be gone already, and return when it is."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _all(folder: Path) -> Iterator[Process]:
    needle = str(folder).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            arguments = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
            variables = environment.split(b"\0")
            start = b"ORCHESTRATOR_OUT=" + needle
            mark = next((one for one in variables if one.startswith(start)), b"")
            if (needle in arguments or mark) and is_alive(int(entry.name)):
                has_begun = str((entry / "fd" / "0").readlink()) == os.devnull
                yield Process(
                    pid=int(entry.name),
                    arguments=arguments.replace(b"\0", b" ").decode(errors="replace").strip(),
                    is_waiting_for_its_script=b"\0-s\0--\0" in arguments and not has_begun,
                    mark=mark.decode(errors="replace"),
                )
