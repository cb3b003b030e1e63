"""What is said when a virtual machine does not come up: one table, special rows first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from orchestrator.core.vm import Accelerator, Guest, VmArch


class Voice(Enum):
    """Where it is said: by QEMU at its end, near the end of the serial log, or as its last line."""

    QEMU = "QEMU's own messages"
    SERIAL = "the serial log"
    LAST = "the last line of the serial log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """One thing that is said, what it means, and what to do.

    `is_cpu` says that another CPU may help; `is_passing` that another start may, as it is.
    """

    name: str
    voice: Voice
    pattern: re.Pattern[str]
    message: str
    hint: str
    guest: Guest | None = None
    arch: VmArch | None = None
    accelerator: Accelerator | None = None
    is_cpu: bool = False
    is_passing: bool = False


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_QEMU: Final = (
    Symptom(
        name="port taken",
        voice=Voice.QEMU,
        pattern=_says(r"could not set up host forwarding rule"),
        message="its SSH port is taken on this host",
        hint="end what listens there, or choose another `ssh_port` in vm.yaml",
    ),
    Symptom(
        name="kvm not allowed",
        voice=Voice.QEMU,
        pattern=_says(r"could not access kvm.*permission denied"),
        message="this user may not use KVM",
        hint="add the user to the group kvm and log in again, or take kvm out of `accelerators`",
    ),
    Symptom(
        name="kvm not there",
        voice=Voice.QEMU,
        pattern=_says(r"could not access kvm|invalid accelerator|failed to initialize (?:kvm|hvf)"),
        message="this host has no such accelerator for that guest",
        hint="KVM needs a host of the guest's own architecture: let `accelerators` end with tcg",
    ),
    Symptom(
        name="cpu refused",
        voice=Voice.QEMU,
        pattern=_says(
            r"failed to set msr|unable to find cpu model|does(?:n't| not) support .*cpuid"
        ),
        message="this host does not give the guest that CPU",
        hint="take `cpu` out of vm.yaml, or let the guest be translated: accelerators: [tcg]",
        is_cpu=True,
    ),
    Symptom(
        name="in use",
        voice=Voice.QEMU,
        pattern=_says(r"failed to get .*lock"),
        message="its disk is in use: another QEMU runs with it",
        hint="stop the other one; a disk with two users is lost",
    ),
    Symptom(
        name="host memory",
        voice=Voice.QEMU,
        pattern=_says(r"cannot set up guest memory|cannot allocate memory"),
        message="this host has not enough memory for it",
        hint="end something else, or give it less `memory` in vm.yaml",
    ),
    Symptom(
        name="host disk",
        voice=Voice.QEMU,
        pattern=_says(r"no space left on device"),
        message="this host's disk is full",
        hint="make room where the state and the images of virtual machines are",
    ),
)

_FIRMWARE: Final = (
    Symptom(
        name="firmware exception",
        voice=Voice.SERIAL,
        pattern=_says(r"synchronous exception at 0x"),
        message="the UEFI firmware crashed before the guest started",
        hint="start it again: on some ARM boards it works about every second time; pin it to cores "
        "of one kind with `pinned_cpus`",
        arch=VmArch.ARM64,
        is_passing=True,
    ),
    Symptom(
        name="nothing to start",
        voice=Voice.LAST,
        pattern=_says(r"no bootable device|no bootable option|bdsdxe: failed to load boot"),
        message="the firmware finds nothing to start on its disk",
        hint="the disk is empty, not installed yet, or for another firmware: make it anew",
    ),
    Symptom(
        name="firmware shell",
        voice=Voice.LAST,
        pattern=_says(r"^(?:uefi interactive shell|shell>)"),
        message="the firmware waits at its own prompt",
        hint="the disk has no boot loader for UEFI: make it anew",
    ),
)

_LOADER: Final = (
    Symptom(
        name="not installed",
        voice=Voice.LAST,
        pattern=_says(r"\(i\)nstall, \(u\)pgrade|would you like to begin an installation"),
        message="the installer waits for somebody to answer it",
        hint="its system is not installed yet: docs/vms.md says how that is done unattended",
    ),
    Symptom(
        name="loader waits",
        voice=Voice.LAST,
        pattern=_says(r"^(?:boot>|ok|grub>|grub rescue>|>)\s*$|any other key for boot menu"),
        message="the boot loader waits at its prompt",
        hint="somebody typed on its console, or it finds no kernel: look with `vm console`",
        is_passing=True,
    ),
    Symptom(
        name="silent after the loader",
        voice=Voice.LAST,
        pattern=_says(r"^entry point at "),
        message="the boot loader started the kernel, which says nothing",
        hint="its console is not the serial line (`set tty com0` in /etc/boot.conf), or its CPU "
        "has pages of 1 GiB and needs `-pdpe1gb`",
        guest=Guest.OPENBSD,
        is_cpu=True,
    ),
    Symptom(
        name="silent after the loader",
        voice=Voice.LAST,
        pattern=_says(
            r"^efi stub: exiting boot services|^starting kernel|^booting \["
            r"|^loading initial ramdisk|^decompressing linux|^start @ 0x"
        ),
        message="the kernel was started and says nothing",
        hint="its console is not the serial line (NetBSD: consdev=com0 in /boot.cfg; FreeBSD: "
        'console="comconsole" in /boot/loader.conf), or it does not like its CPU',
        is_cpu=True,
    ),
)

_ROOT: Final = (
    Symptom(
        name="no root",
        voice=Voice.SERIAL,
        pattern=_says(
            r"^mountroot>|^root device(?: \(default .*\))?:|unable to mount root fs"
            r"|cannot open root device|dropping to a shell|^\(initramfs\)|cannot mount root"
            r"|mounting from .* failed"
        ),
        message="the kernel runs, and does not find its root file system",
        hint="the disk has another name than its fstab says, or lacks the driver: compare the "
        "device in the serial log with `disk` in docs/vms.md, then make the disk anew",
    ),
    Symptom(
        name="damaged file system",
        voice=Voice.SERIAL,
        pattern=_says(r"run fsck.* manually|unexpected inconsistency"),
        message="its file system is damaged",
        hint="make the disk anew; with `fresh: true` every start begins with a good one",
    ),
)

_PANICS: Final = (
    Symptom(
        name="fp exception",
        voice=Voice.SERIAL,
        pattern=_says(r"fp exception in kernel"),
        message="its kernel met an instruction for numbers that this CPU model has and it has not",
        hint="OpenBSD on arm64 needs an older model: cpu: cortex-a57, or neoverse-n1",
        guest=Guest.OPENBSD,
        is_cpu=True,
    ),
    Symptom(
        name="heartbeat",
        voice=Voice.SERIAL,
        pattern=_says(r"heart stopped beating|panic:.*heartbeat"),
        message="its kernel took a slow host for a dead CPU",
        hint="kern.heartbeat.max_period=0 in the guest's /etc/sysctl.conf",
        guest=Guest.NETBSD,
        is_passing=True,
    ),
    Symptom(
        name="avx2 in zfs",
        voice=Voice.SERIAL,
        pattern=_says(r"panic:.*(?:zfs|avx|fpu)|zfs.*panic"),
        message="its kernel panicked in ZFS",
        hint="QEMU 7.2 to 10.0 emulates AVX2 in a way that FreeBSD 15.1 does not survive: let the "
        "CPU have `-avx2`, which is what it gets without `cpu` in vm.yaml",
        guest=Guest.FREEBSD,
        arch=VmArch.AMD64,
        accelerator=Accelerator.TCG,
        is_cpu=True,
    ),
    Symptom(
        name="panic",
        voice=Voice.SERIAL,
        pattern=_says(
            r"\bpanic: |kernel panic - not syncing|^(?:ddb|db)(?:\{\d+\})?>|fatal trap \d+"
            r"|^stopped at\s"
        ),
        message="its kernel panicked",
        hint="a second start with a plainer CPU may tell whether the CPU model is to blame",
        is_cpu=True,
    ),
    Symptom(
        name="stall",
        voice=Voice.SERIAL,
        pattern=_says(r"self-detected stall|soft lockup|blocked for more than \d+ seconds"),
        message="its CPUs stood still for too long",
        hint="the host is too busy: run fewer guests at once (`group` and `slots`), or raise "
        "`boot_timeout`",
        is_passing=True,
    ),
)

_LATE: Final = (
    Symptom(
        name="relinking",
        voice=Voice.SERIAL,
        pattern=_says(r"relinking to create unique kernel|reorder(?:ing)?[_ ](?:kernel|libs)"),
        message="it still links its kernel anew, which takes minutes when it is emulated",
        hint="raise `boot_timeout`; do not end it by force while it does that",
        guest=Guest.OPENBSD,
        is_passing=True,
    ),
    Symptom(
        name="entropy",
        voice=Voice.SERIAL,
        pattern=_says(
            r"waiting for .*entropy|entropy: .*(?:blocked|not ready|need)|not enough entropy"
            r"|waiting for .*random|random: .*waiting|entropy is (?:low|insufficient)"
        ),
        message="it waits for random numbers",
        hint="it must have the device virtio-rng, and a kernel with its driver",
    ),
    Symptom(
        name="acpi",
        voice=Voice.LAST,
        pattern=_says(r"^acpi\w* at |^acpi0"),
        message="it hangs while it attaches ACPI",
        hint="OpenBSD on arm64 needs a machine without it: acpi=off, as boot.sh has it",
        guest=Guest.OPENBSD,
        arch=VmArch.ARM64,
    ),
    Symptom(
        name="vioif",
        voice=Voice.LAST,
        pattern=_says(r"vioif\d"),
        message="it hangs in its network driver",
        hint="the device must not have a control queue: virtio-net-pci,ctrl_vq=off, as boot.sh "
        "has it",
        guest=Guest.NETBSD,
        is_passing=True,
    ),
)

SYMPTOMS: Final = (*_QEMU, *_FIRMWARE, *_ROOT, *_PANICS, *_LOADER, *_LATE)
