"""What there is to say of a virtual machine that does not do what it should."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.vm import Accelerator
from orchestrator.nodes.vm.accelerator import choose_accelerator
from orchestrator.nodes.vm.diagnosis import diagnose, last_lines
from orchestrator.nodes.vm.folder import PATHS, QEMU_LOG
from orchestrator.nodes.vm.tools import require_tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.nodes.vm.machine import Machine


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that was looked at."""

    subject: str
    message: str
    is_fine: bool = True

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_fine else 'look'}  {self.subject}: {self.message}"


async def examine(machine: Machine) -> tuple[Observation, ...]:
    """Return what was found of the tools, accelerator, state and logs; changes nothing."""
    state = await machine.status()
    return (
        _tools(machine),
        _accelerator(machine),
        Observation("state", _state(machine, state), is_fine=state in {"running", "stopped"}),
        _port(machine, is_running=machine.folder.is_running),
        *await _boot(machine),
        *_logs(machine),
    )


def _state(machine: Machine, state: str) -> str:
    if machine.folder.is_created:
        return state
    return f"{state} yet; make it, once: orchestrator vm create {machine.vm.name}"


def _tools(machine: Machine) -> Observation:
    try:
        require_tools(machine.vm.arch.qemu, "qemu-img", "ssh-keygen", "mformat", "mcopy")
    except OrchestratorError as error:
        return Observation("tools", f"{error.message} ({error.hint})", is_fine=False)
    return Observation("tools", "QEMU, qemu-img, mtools and ssh-keygen are there")


def _accelerator(machine: Machine) -> Observation:
    chosen = choose_accelerator(machine.vm, machine.accelerators, lambda _: None)
    if chosen is Accelerator.TCG:
        return Observation("accelerator", "tcg: the guest is emulated, 20 to 30 times slower")
    return Observation("accelerator", str(chosen))


async def _boot(machine: Machine) -> tuple[Observation, ...]:
    """Return whether its last start led to a login; nothing of one that was never started."""
    log = machine.folder.file(QEMU_LOG)
    if not log.exists():
        return ()
    if machine.folder.came_up.exists():
        return (Observation("boot", "somebody could log in after its last start"),)
    waited = timedelta(seconds=max(0.0, time.time() - log.stat().st_ctime))
    found = await diagnose(machine.vm, machine.folder, waited=waited)
    return (Observation("boot", f"{found}; {found.hint}", is_fine=False),)


def _port(machine: Machine, *, is_running: bool) -> Observation:
    port = machine.vm.ssh_port
    with socket.socket() as probe:
        is_open = probe.connect_ex(("127.0.0.1", port)) == 0
    if is_open == is_running:
        return Observation("port", f"{port} of 127.0.0.1 is {'its own' if is_running else 'free'}")
    what = "somebody else listens on" if is_open else "QEMU does not listen on"
    return Observation("port", f"{what} {port} of 127.0.0.1", is_fine=False)


def _logs(machine: Machine) -> Iterator[Observation]:
    for name in (QEMU_LOG, PATHS.serial_log):
        if said := last_lines(machine.folder.tail(name)):
            yield Observation(name, f"{machine.folder.file(name)} ends with{said}")
