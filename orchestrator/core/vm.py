"""A virtual machine that builds: what its definition says, and the files of its state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestrator.core.target import TARGETS

if TYPE_CHECKING:
    from orchestrator.core.kinds import Bytes
    from orchestrator.core.target import Target


class Guest(StrEnum):
    """The system of a virtual machine."""

    FREEBSD = "freebsd"
    OPENBSD = "openbsd"
    NETBSD = "netbsd"
    DEBIAN = "debian"

    @property
    def proper_name(self) -> str:
        """What people call it."""
        return _PROPER_NAMES[self]


class VmArch(StrEnum):
    """The CPU architecture of a virtual machine, in the words of the systems' download pages."""

    AMD64 = "amd64"
    ARM64 = "arm64"
    RISCV64 = "riscv64"

    @property
    def qemu(self) -> str:
        """The program that is such a machine."""
        return f"qemu-system-{self.machine}"

    @property
    def machine(self) -> str:
        """What `uname -m` says on a Linux host that can run it with KVM."""
        return _MACHINES[self]


class Accelerator(StrEnum):
    """What runs the guest's instructions: the host's CPU (Linux, macOS), or a translator."""

    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadedImage:
    """A disk of a project's download server; without a digest, whoever downloads it must say it.

    `installer` says that it is the medium that installs onto an empty disk.
    """

    url: str
    sha256: str | None = None
    installer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenImage:
    """A disk that the maintainer has installed once: a file on the coordinator, never written to.

    Without a digest it is believed as it is.
    """

    file: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagesImage:
    """A disk that is made from the packages of a Debian suite, and whose kernel QEMU loads."""

    suite: str
    # Where the packages come from; without it, from where this machine's own do.
    mirror: str | None = None


Image = DownloadedImage | GoldenImage | PackagesImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A virtual machine's definition: `vm_parser.parse_vm` makes it from `vms/NAME/vm.yaml`.

    `accelerators` is in order of preference; which of them the host really has is found out when
    it starts. `fresh` means that every start begins with the disk as it was made. With `host`, the
    machine runs there as the systemd unit `unit`, and QEMU is not started here.
    """

    name: str
    guest: Guest
    arch: VmArch
    release: str
    cores: int
    memory_bytes: Bytes
    disk_bytes: Bytes
    ssh_port: int
    image: Image
    accelerators: tuple[Accelerator, ...] = (Accelerator.KVM, Accelerator.HVF, Accelerator.TCG)
    cpu: str | None = None
    pinned_cpus: str | None = None
    user: str = "builder"
    packages: tuple[str, ...] = ()
    fresh: bool = True
    offline: bool = False
    boot_timeout: timedelta = timedelta(minutes=10)
    host: str | None = None
    host_key: str | None = None
    unit: str | None = None

    @property
    def target(self) -> Target:
        """The Rust target that it builds."""
        return TARGETS[_TRIPLES[self.guest, self.arch]]

    @property
    def title(self) -> str:
        """What people call it: `FreeBSD 15.1 arm64`."""
        return f"{self.guest.proper_name} {self.release} {self.arch}"

    @property
    def memory_mib(self) -> int:
        """Its memory in MiB, rounded down."""
        return self.memory_bytes // 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPaths:
    """The files of a virtual machine's state, as QEMU is told of them.

    Relative names are meant for a QEMU that is started in the folder of the state: a Unix socket's
    path may have 108 bytes only. A guest without firmware of its own ignores those two, and one
    that brings its own kernel ignores `kernel` and `initrd`.
    """

    disk: str = "disk.qcow2"
    # A volume with answers for the first boot, and the medium that installs: only while needed.
    seed: str | None = None
    medium: str | None = None
    kernel: str = "kernel"
    initrd: str = "initrd"
    firmware_code: str = "firmware-code.fd"
    firmware_vars: str = "firmware-vars.fd"
    monitor: str = "monitor.sock"
    console: str = "console.sock"
    serial_log: str = "serial.log"
    pid_file: str = "qemu.pid"


_PROPER_NAMES: Final = {
    Guest.FREEBSD: "FreeBSD",
    Guest.OPENBSD: "OpenBSD",
    Guest.NETBSD: "NetBSD",
    Guest.DEBIAN: "Debian",
}
_MACHINES: Final = {
    VmArch.AMD64: "x86_64",
    VmArch.ARM64: "aarch64",
    VmArch.RISCV64: "riscv64",
}
_TRIPLES: Final = {
    (Guest.FREEBSD, VmArch.AMD64): "x86_64-unknown-freebsd",
    (Guest.FREEBSD, VmArch.ARM64): "aarch64-unknown-freebsd",
    (Guest.OPENBSD, VmArch.AMD64): "x86_64-unknown-openbsd",
    (Guest.OPENBSD, VmArch.ARM64): "aarch64-unknown-openbsd",
    (Guest.NETBSD, VmArch.AMD64): "x86_64-unknown-netbsd",
    (Guest.NETBSD, VmArch.ARM64): "aarch64-unknown-netbsd",
    (Guest.DEBIAN, VmArch.AMD64): "x86_64-unknown-linux-gnu",
    (Guest.DEBIAN, VmArch.ARM64): "aarch64-unknown-linux-gnu",
    (Guest.DEBIAN, VmArch.RISCV64): "riscv64gc-unknown-linux-gnu",
}
# Every pair of system and architecture that there is a recipe for.
RECIPES: Final = tuple(_TRIPLES)
