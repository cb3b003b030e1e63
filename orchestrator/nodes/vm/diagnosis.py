"""Why a guest did not come up: what its serial line, its monitor and QEMU itself say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import NodeError
from orchestrator.nodes.vm.folder import PATHS, QEMU_LOG
from orchestrator.nodes.vm.qmp import open_monitor

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm
    from orchestrator.nodes.vm.folder import VmFolder

_SHOWN_LINES: Final = 8


class BootError(NodeError):
    """A guest did not come up in time, or its QEMU ended before it did."""


async def boot_error(vm: Vm, folder: VmFolder) -> BootError:
    """Return the error of a machine that cannot be logged into."""
    serial = folder.tail(PATHS.serial_log)
    if not folder.is_running:
        said = _last_lines(folder.tail(QEMU_LOG) or serial)
        return BootError(f"the QEMU of {vm.name} has ended{said}", hint=_hint(vm))
    status = await _monitor_says(folder)
    seconds = vm.boot_timeout.total_seconds()
    lines = _last_lines(serial) if serial else "; its serial line is silent"
    return BootError(
        f"{vm.name} cannot be logged into after {seconds:g} s; QEMU says: {status}{lines}",
        hint=_hint(vm),
    )


def _hint(vm: Vm) -> str:
    return f"look at it: orchestrator vm start {vm.name}, and orchestrator vm console {vm.name}"


async def _monitor_says(folder: VmFolder) -> str:
    try:
        async with open_monitor(folder.file(PATHS.monitor)) as monitor:
            answer: Any = await monitor.execute("query-status")
            return str(answer["status"])
    except (NodeError, KeyError, TypeError) as error:
        return str(error)


def _last_lines(text: str) -> str:
    printable = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
    lines = [line.rstrip() for line in printable.splitlines() if line.strip()][-_SHOWN_LINES:]
    return ":\n" + "\n".join(f"  {line[:200]}" for line in lines) if lines else ""
