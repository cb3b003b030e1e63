"""What each guest needs of QEMU: one table, each row with its reason.

A row holds for the guests, architectures, releases and accelerators that it names; a column that it
leaves empty holds for all. The first row of a setting that fits is the one that counts, so the
special ones stand above the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator.core.vm import Accelerator, Guest, VmArch


class Setting(StrEnum):
    """A choice that the table makes; the value is its name in messages and documents."""

    MACHINE = "machine"
    ACCELERATOR = "accelerator"
    CPU = "cpu"
    CAUTIOUS_CPU = "cautious cpu"
    FIRMWARE = "firmware"
    DISK = "disk"
    MEDIUM = "medium"
    SCREEN = "screen"
    NIC = "nic"
    NETWORK = "network"
    REBOOT = "reboot"
    CONSOLE = "console"
    MEMORY_LIMIT = "memory limit"
    SHUTDOWN = "shutdown"


class Firmware(StrEnum):
    """What a machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a choice depends on; without an accelerator, only what depends on none is known."""

    guest: Guest
    arch: VmArch
    release: str
    accelerator: Accelerator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fact: a setting's value for the guests that it holds for, and why."""

    setting: Setting
    value: str
    because: str
    guest: Guest | None = None
    arch: VmArch | None = None
    accelerator: Accelerator | None = None
    releases: tuple[str, ...] = ()

    def fits(self, case: Case) -> bool:
        """Whether it holds there; without an accelerator, whether it does for every one."""
        return (
            self.guest in {None, case.guest}
            and self.arch in {None, case.arch}
            and self.accelerator in {None, case.accelerator}
            and (not self.releases or any(_is_of(case.release, each) for each in self.releases))
        )


def find_row(setting: Setting, case: Case) -> Row:
    """Return the row that counts for a guest."""
    return next(row for row in ROWS if row.setting is setting and row.fits(case))


def _is_of(release: str, branch: str) -> bool:
    """Whether a release is `branch` itself, or one of that branch: 9.4 is of 9, 10.1 not of 1."""
    return release == branch or release.startswith(f"{branch}.")


# With the machine's memory below the first 4 GiB of addresses, of which QEMU's `virt` has taken 1.
_THREE_GIB: Final = str(3 * 2**30)
_NO_LIMIT: Final = str(2**50)

_MACHINE: Final = (
    Row(
        setting=Setting.MACHINE,
        value="virt,gic-version=host,highmem=off,acpi=off",
        guest=Guest.OPENBSD,
        arch=VmArch.ARM64,
        accelerator=Accelerator.KVM,
        because="OpenBSD 7 hangs while it attaches QEMU's ACPI tables; KVM needs the host's GIC",
    ),
    Row(
        setting=Setting.MACHINE,
        value="virt,highmem=off,acpi=off",
        guest=Guest.OPENBSD,
        arch=VmArch.ARM64,
        because="OpenBSD 7 hangs while it attaches QEMU's ACPI tables",
    ),
    Row(
        setting=Setting.MACHINE,
        value="virt,gic-version=host,highmem=off",
        arch=VmArch.ARM64,
        accelerator=Accelerator.KVM,
        because="the firmware reaches a guest on small ARM boards only below 4 GiB of addresses",
    ),
    Row(
        setting=Setting.MACHINE,
        value="virt,highmem=off",
        guest=Guest.FREEBSD,
        arch=VmArch.ARM64,
        because="the machine that FreeBSD's arm64 guests are known to start on",
    ),
    Row(
        setting=Setting.MACHINE,
        value="virt",
        arch=VmArch.ARM64,
        because="QEMU's own board for ARM",
    ),
    Row(
        setting=Setting.MACHINE,
        value="virt",
        arch=VmArch.RISCV64,
        because="QEMU's own board for RISC-V",
    ),
    Row(
        setting=Setting.MACHINE,
        value="q35,graphics=off",
        arch=VmArch.AMD64,
        because="PCI Express; without graphics the BIOS and boot loaders speak on the serial line",
    ),
    Row(
        setting=Setting.MEMORY_LIMIT,
        value=_THREE_GIB,
        guest=Guest.OPENBSD,
        arch=VmArch.ARM64,
        because="with highmem=off there is room for 3 GiB",
    ),
    Row(
        setting=Setting.MEMORY_LIMIT,
        value=_THREE_GIB,
        guest=Guest.FREEBSD,
        arch=VmArch.ARM64,
        because="with highmem=off there is room for 3 GiB",
    ),
    Row(
        setting=Setting.MEMORY_LIMIT,
        value=_THREE_GIB,
        arch=VmArch.ARM64,
        accelerator=Accelerator.KVM,
        because="with highmem=off, which KVM on small boards needs, there is room for 3 GiB",
    ),
    Row(
        setting=Setting.MEMORY_LIMIT,
        value=_NO_LIMIT,
        because="no other machine has a limit that a build meets",
    ),
)

_ACCELERATOR: Final = (
    Row(
        setting=Setting.ACCELERATOR,
        value="kvm",
        accelerator=Accelerator.KVM,
        because="the host's CPU runs the guest",
    ),
    Row(
        setting=Setting.ACCELERATOR,
        value="hvf",
        accelerator=Accelerator.HVF,
        because="the Mac's CPU runs the guest",
    ),
    Row(
        setting=Setting.ACCELERATOR,
        value="tcg",
        arch=VmArch.AMD64,
        accelerator=Accelerator.TCG,
        because="QEMU takes a thread for each core itself where the host orders memory as x86 does",
    ),
    Row(
        setting=Setting.ACCELERATOR,
        value="tcg,thread=multi",
        accelerator=Accelerator.TCG,
        because="a thread for each core; it belongs here, QEMU refuses it behind -machine",
    ),
)

_CPU: Final = (
    Row(
        setting=Setting.CPU,
        value="host,-pdpe1gb",
        guest=Guest.OPENBSD,
        arch=VmArch.AMD64,
        accelerator=Accelerator.KVM,
        because="with pages of 1 GiB OpenBSD does not boot (qemu#1091)",
    ),
    Row(
        setting=Setting.CPU,
        value="host",
        accelerator=Accelerator.KVM,
        because="everything that the host's CPU has",
    ),
    Row(
        setting=Setting.CPU,
        value="host,-pdpe1gb",
        guest=Guest.OPENBSD,
        arch=VmArch.AMD64,
        accelerator=Accelerator.HVF,
        because="with pages of 1 GiB OpenBSD does not boot (qemu#1091)",
    ),
    Row(
        setting=Setting.CPU,
        value="host",
        accelerator=Accelerator.HVF,
        because="everything that the host's CPU has",
    ),
    Row(
        setting=Setting.CPU,
        value="max,-pdpe1gb",
        guest=Guest.OPENBSD,
        arch=VmArch.AMD64,
        because="with pages of 1 GiB OpenBSD does not boot (qemu#1091)",
    ),
    Row(
        setting=Setting.CPU,
        value="max,-avx2",
        guest=Guest.FREEBSD,
        arch=VmArch.AMD64,
        because="with AVX2 as QEMU 7.2 to 10.0 emulates it, FreeBSD 15.1 panics in ZFS",
    ),
    Row(
        setting=Setting.CPU,
        value="max",
        arch=VmArch.AMD64,
        because="everything that QEMU can emulate",
    ),
    Row(
        setting=Setting.CPU,
        value="cortex-a57",
        guest=Guest.OPENBSD,
        arch=VmArch.ARM64,
        because="with `max` OpenBSD panics: FP exception in kernel",
    ),
    Row(
        setting=Setting.CPU,
        value="cortex-a57",
        guest=Guest.FREEBSD,
        arch=VmArch.ARM64,
        because="the CPU that FreeBSD's arm64 guests are known to start on",
    ),
    Row(
        setting=Setting.CPU,
        value="cortex-a72",
        guest=Guest.NETBSD,
        arch=VmArch.ARM64,
        releases=("9", "10.1"),
        because="with `max` the sshd of NetBSD 9 and 10.1 is corrupted",
    ),
    Row(
        setting=Setting.CPU,
        value="max,pauth-impdef=on",
        arch=VmArch.ARM64,
        because="emulated pointer authentication triples the time to boot, this way of it does not",
    ),
    Row(
        setting=Setting.CPU,
        value="rv64",
        arch=VmArch.RISCV64,
        because="the CPU that every QEMU has",
    ),
    Row(
        setting=Setting.CAUTIOUS_CPU,
        value="qemu64",
        arch=VmArch.AMD64,
        because="an old CPU without anything that a kernel could trip over",
    ),
    Row(
        setting=Setting.CAUTIOUS_CPU,
        value="cortex-a57",
        guest=Guest.DEBIAN,
        arch=VmArch.ARM64,
        because="an old CPU without anything that a kernel could trip over",
    ),
    Row(
        setting=Setting.CAUTIOUS_CPU,
        value="cortex-a57",
        guest=Guest.NETBSD,
        arch=VmArch.ARM64,
        releases=("9", "10.1"),
        because="the first choice is cortex-a72 already",
    ),
    Row(
        setting=Setting.CAUTIOUS_CPU,
        value="cortex-a72",
        arch=VmArch.ARM64,
        because="the other CPU that BSD guests are known to start on",
    ),
    Row(
        setting=Setting.CAUTIOUS_CPU,
        value="rv64",
        arch=VmArch.RISCV64,
        because="there is no simpler one",
    ),
)

_FIRMWARE: Final = (
    Row(
        setting=Setting.FIRMWARE,
        value=Firmware.KERNEL,
        guest=Guest.DEBIAN,
        because="its disk is one file system, and QEMU loads the kernel beside it",
    ),
    Row(
        setting=Setting.FIRMWARE,
        value=Firmware.UEFI,
        arch=VmArch.ARM64,
        because="the images of the BSDs start through UEFI there",
    ),
    Row(
        setting=Setting.FIRMWARE,
        value=Firmware.BIOS,
        arch=VmArch.AMD64,
        because="every image starts on it, and it brings its own settings",
    ),
)

_DISK: Final = (
    Row(
        setting=Setting.DISK,
        value="scsi-hd",
        guest=Guest.OPENBSD,
        arch=VmArch.AMD64,
        because="its disk is sd0 whatever the release",
    ),
    Row(
        setting=Setting.DISK,
        value="scsi-hd",
        guest=Guest.NETBSD,
        arch=VmArch.AMD64,
        because="its disk is sd0, and dk0 in it",
    ),
    Row(
        setting=Setting.DISK,
        value="virtio-blk-pci",
        because="the fastest one that every other guest knows",
    ),
    Row(
        setting=Setting.MEDIUM,
        value="ide-cd",
        guest=Guest.NETBSD,
        arch=VmArch.AMD64,
        because="NetBSD installs from a CD image",
    ),
    Row(
        setting=Setting.MEDIUM,
        value="virtio-blk-pci",
        because="the other installers are images of a disk",
    ),
)

_SCREEN: Final = (
    Row(
        setting=Setting.SCREEN,
        value="",
        guest=Guest.DEBIAN,
        because="its kernel is told to speak on the serial line",
    ),
    Row(
        setting=Setting.SCREEN,
        value="VGA",
        arch=VmArch.AMD64,
        because="a kernel that nobody told of the serial line looks for a screen",
    ),
    Row(
        setting=Setting.SCREEN,
        value="",
        because="boards without a BIOS have only the serial line",
    ),
)

_NIC: Final = (
    Row(
        setting=Setting.NIC,
        value="e1000",
        guest=Guest.OPENBSD,
        arch=VmArch.AMD64,
        releases=("7.3", "7.4", "7.5", "7.6"),
        because="the NIC that works in OpenBSD 7.3 to 7.6; virtio does from 7.7",
    ),
    Row(
        setting=Setting.NIC,
        value="virtio-net-pci,ctrl_vq=off",
        guest=Guest.NETBSD,
        because="with the control queue 14 of 34 boots hung in vioif, without it none of 10",
    ),
    Row(
        setting=Setting.NIC,
        value="virtio-net-pci",
        because="the fastest one that every other guest knows",
    ),
    Row(
        setting=Setting.NETWORK,
        value="ipv6=off",
        guest=Guest.NETBSD,
        because="its address is usable at once, without waiting for IPv6",
    ),
    Row(
        setting=Setting.NETWORK,
        value="",
        because="QEMU's own user network as it is",
    ),
)

_BOOT: Final = (
    Row(
        setting=Setting.REBOOT,
        value="",
        guest=Guest.NETBSD,
        arch=VmArch.ARM64,
        because="its first boot grows the disk and reboots once",
    ),
    Row(
        setting=Setting.REBOOT,
        value="-no-reboot",
        because="a guest that reboots has crashed, or has been installed: both end here",
    ),
    Row(
        setting=Setting.SHUTDOWN,
        value="poweroff",
        guest=Guest.DEBIAN,
        because="a small guest may ignore its power button",
    ),
    Row(
        setting=Setting.SHUTDOWN,
        value="shutdown -p now",
        because="it also switches the machine off; without ACPI there is no power button",
    ),
    Row(
        setting=Setting.CONSOLE,
        value="ttyAMA0",
        guest=Guest.DEBIAN,
        arch=VmArch.ARM64,
        because="the serial line of ARM's board",
    ),
    Row(
        setting=Setting.CONSOLE,
        value="ttyS0",
        guest=Guest.DEBIAN,
        because="the serial line",
    ),
    Row(
        setting=Setting.CONSOLE,
        value="",
        because="its boot loader chooses the console",
    ),
)

ROWS: Final = (*_MACHINE, *_ACCELERATOR, *_CPU, *_FIRMWARE, *_DISK, *_SCREEN, *_NIC, *_BOOT)
