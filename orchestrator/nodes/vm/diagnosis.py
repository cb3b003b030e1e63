"""Why a guest did not come up: what its serial line, its monitor, QEMU and its sshd say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import NodeError
from orchestrator.core.vm import Accelerator
from orchestrator.core.vm_diagnosis import BootDiagnosis, Evidence, diagnose_boot
from orchestrator.core.wording import without_escapes
from orchestrator.nodes.vm.folder import PATHS, QEMU_LOG
from orchestrator.nodes.vm.qmp import open_monitor

if TYPE_CHECKING:
    from datetime import timedelta

    from orchestrator.core.vm import Vm
    from orchestrator.nodes.vm.folder import VmFolder

_SHOWN_LINES: Final = 8


class BootError(NodeError):
    """A guest did not come up in time, or its QEMU ended before it did."""

    def __init__(self, message: str, *, hint: str, diagnosis: BootDiagnosis) -> None:
        super().__init__(message, hint=hint)
        self.diagnosis = diagnosis


async def boot_error(vm: Vm, folder: VmFolder, *, waited: timedelta, ssh: str) -> BootError:
    """Return the error of a machine that cannot be logged into; `ssh` is what the last try said."""
    found = await diagnose(vm, folder, waited=waited, ssh=ssh)
    serial = folder.tail(PATHS.serial_log)
    return BootError(
        f"the virtual machine {vm.name} did not come up: {found}{last_lines(serial)}",
        hint=f"{found.hint}; all of it: {folder.file(PATHS.serial_log)}",
        diagnosis=found,
    )


async def diagnose(vm: Vm, folder: VmFolder, *, waited: timedelta, ssh: str = "") -> BootDiagnosis:
    """Return why a machine that was started so long ago has not come up, as far as it tells."""
    is_running = folder.is_running
    evidence = Evidence(
        serial=folder.tail(PATHS.serial_log),
        monitor=await monitor_status(folder) if is_running else None,
        accelerator=folder.accelerator or Accelerator.TCG,
        elapsed=waited,
        qemu_log=None if is_running else folder.tail(QEMU_LOG),
        ssh=ssh,
    )
    return diagnose_boot(vm, evidence)


async def monitor_status(folder: VmFolder) -> str | None:
    """Return how QEMU says that the guest is; None if it does not answer."""
    try:
        async with open_monitor(folder.file(PATHS.monitor)) as monitor:
            answer: Any = await monitor.execute("query-status")
            return str(answer["status"])
    except (NodeError, KeyError, TypeError):
        return None


def last_lines(text: str) -> str:
    """Return the last lines of a log, indented below a colon; "" if it is empty."""
    plain = without_escapes(text)
    printable = "".join(char if char.isprintable() or char == "\n" else " " for char in plain)
    lines = [line.rstrip() for line in printable.splitlines() if line.strip()][-_SHOWN_LINES:]
    return ":\n" + "\n".join(f"  {line[:200]}" for line in lines) if lines else ""
