"""The smallest machine that tells whether an accelerator really runs a guest: it switches off.

KVM that is there may still hang, or abort on the host's own CPU. So the CPU that the guest would
get runs a few instructions. A machine that ends with status 0 within `PROBE_SECONDS` has run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import VmArch
from orchestrator.core.vm_argv import accelerator_options

if TYPE_CHECKING:
    from orchestrator.core.vm import Accelerator, Vm

PROBE_SECONDS: Final = 15

# The whole program: switch the machine off, and stay there. Not on amd64, whose BIOS does it.
PROBE_KERNELS: Final = {
    # movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0 (PSCI SYSTEM_OFF); b .
    VmArch.ARM64: bytes.fromhex("00018052 0080b072 020000d4 00000014"),
    # li a7, 8; ecall (SBI shutdown); j .
    VmArch.RISCV64: bytes.fromhex("93088000 73000000 6f000000"),
}


def probe_argv(vm: Vm, accelerator: Accelerator, *, kernel: str | None = None) -> tuple[str, ...]:
    """Return the command that tries an accelerator with the CPU that the guest would get.

    `kernel` is the file that holds the architecture's `PROBE_KERNELS`, where it has one.
    """
    options = accelerator_options(vm, accelerator)
    # A BIOS that finds nothing to start reboots at once, which ends the machine.
    switches_off = ("-kernel", kernel) if kernel else ("-boot", "reboot-timeout=1")
    return (
        vm.arch.qemu,
        "-nodefaults",
        *(word for option in options for word in option.words),
        *("-m", "128M", "-display", "none", "-no-reboot"),
        *switches_off,
    )
