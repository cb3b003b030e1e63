"""The command line of QEMU for a virtual machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.vm_facts import Case, Firmware, Setting, find_row

if TYPE_CHECKING:
    from orchestrator.core.vm import Accelerator, Vm, VmPaths
    from orchestrator.core.vm_facts import Row

# Where the host's packages put the firmware for arm64; the second of a pair is for its settings.
FIRMWARE_FILES: Final = (
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    (
        "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
        "/usr/share/edk2/aarch64/vars-template-pflash.raw",
    ),
    ("/opt/homebrew/share/qemu/edk2-aarch64-code.fd", "/opt/homebrew/share/qemu/edk2-arm-vars.fd"),
    ("/usr/local/share/qemu/edk2-aarch64-code.fd", "/usr/local/share/qemu/edk2-arm-vars.fd"),
)


class Option(NamedTuple):
    """One option of QEMU, and why it is there; its value is empty if it has none."""

    name: str
    value: str
    because: str

    @property
    def words(self) -> tuple[str, ...]:
        """It as arguments."""
        return (self.name, self.value) if self.value else (self.name,)


SANDBOX: Final = Option(
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "QEMU may start no program and gain no rights",
)


def qemu_argv(
    vm: Vm,
    paths: VmPaths,
    accelerator: Accelerator,
    *,
    cautious: bool = False,
    sandboxed: bool = True,
) -> tuple[str, ...]:
    """Return the command that runs the virtual machine in the foreground, its program first.

    `cautious` takes the CPU for a second try, after the first one did not boot. `sandboxed` must be
    false for a QEMU without seccomp, as on macOS; with it, QEMU cannot put itself into the
    background.
    """
    options = qemu_options(vm, paths, accelerator, cautious=cautious, sandboxed=sandboxed)
    return (vm.arch.qemu, *(word for option in options for word in option.words))


def qemu_options(
    vm: Vm,
    paths: VmPaths,
    accelerator: Accelerator,
    *,
    cautious: bool = False,
    sandboxed: bool = True,
) -> tuple[Option, ...]:
    """Return what `qemu_argv` does, one by one and each with its reason."""
    return (
        Option("-name", vm.name, "its name in the list of processes"),
        Option("-nodefaults", "", "no device but these"),
        *accelerator_options(vm, accelerator, cautious=cautious),
        Option("-smp", str(vm.cores), "cores"),
        Option("-m", f"{vm.memory_mib}M", "memory"),
        *_firmware(vm, paths),
        *_disks(vm, paths),
        *_network(vm),
        Option("-device", "virtio-rng-pci", "random numbers: without them sshd may wait for hours"),
        *_reach(vm, paths),
        *((SANDBOX,) if sandboxed else ()),
    )


def accelerator_options(
    vm: Vm, accelerator: Accelerator, *, cautious: bool = False
) -> tuple[Option, ...]:
    """Return the options that depend on the accelerator: machine, accelerator and CPU."""
    chosen = Setting.CAUTIOUS_CPU if cautious else Setting.CPU
    said = {"-machine": Setting.MACHINE, "-accel": Setting.ACCELERATOR, "-cpu": chosen}
    rows = {name: _row(setting, vm, accelerator) for name, setting in said.items()}
    options = tuple(Option(name, row.value, row.because) for name, row in rows.items())
    if vm.cpu and not cautious:
        return (*options[:-1], Option("-cpu", vm.cpu, "the definition says so"))
    return options


def firmware_of(vm: Vm) -> Firmware:
    """Return what the virtual machine starts with."""
    return Firmware(_value(Setting.FIRMWARE, vm))


def shutdown_command(vm: Vm) -> str:
    """Return the command by which root ends the guest from within."""
    return _value(Setting.SHUTDOWN, vm)


def _row(setting: Setting, vm: Vm, accelerator: Accelerator | None = None) -> Row:
    case = Case(guest=vm.guest, arch=vm.arch, release=vm.release, accelerator=accelerator)
    return find_row(setting, case)


def _value(setting: Setting, vm: Vm) -> str:
    return _row(setting, vm).value


def _firmware(vm: Vm, paths: VmPaths) -> tuple[Option, ...]:
    match firmware_of(vm):
        case Firmware.BIOS:
            return ()
        case Firmware.UEFI:
            flash = "if=pflash,format=raw"
            code, settings = _escaped(paths.firmware_code), _escaped(paths.firmware_vars)
            return (
                Option("-drive", f"{flash},unit=0,readonly=on,file={code}", "the firmware"),
                Option("-drive", f"{flash},unit=1,file={settings}", "its settings"),
            )
        case _:
            console = _value(Setting.CONSOLE, vm)
            append = f"root=/dev/vda rw console={console}"
            return (
                Option("-kernel", paths.kernel, "the guest's own kernel"),
                Option("-initrd", paths.initrd, "the modules that find its disk"),
                Option("-append", append, "the disk is the root, and the kernel speaks"),
            )


def _disks(vm: Vm, paths: VmPaths) -> tuple[Option, ...]:
    row = _row(Setting.DISK, vm)
    # A disk that is thrown away need not survive a power cut.
    cache = "unsafe" if vm.fresh else "writeback"
    drive = f"if=none,id=disk,file={_escaped(paths.disk)},format=qcow2,cache={cache},discard=unmap"
    # Behind an installer's medium, which is only there while it installs.
    first = "" if firmware_of(vm) is Firmware.KERNEL else ",bootindex=1"
    bus: tuple[Option, ...] = ()
    if row.value.startswith("scsi"):
        bus = (Option("-device", "virtio-scsi-pci", "the bus of the disk"),)
    return (
        Option("-drive", drive, "the disk"),
        *bus,
        Option("-device", f"{row.value},drive=disk{first}", row.because),
        *_medium(vm, paths),
        *_seed(paths),
    )


def _medium(vm: Vm, paths: VmPaths) -> tuple[Option, ...]:
    if paths.medium is None:
        return ()
    file = _escaped(paths.medium)
    row = _row(Setting.MEDIUM, vm)
    return (
        Option(
            "-drive", f"if=none,id=medium,file={file},format=raw,readonly=on", "what installs it"
        ),
        Option("-device", f"{row.value},drive=medium,bootindex=0", row.because),
    )


def _seed(paths: VmPaths) -> tuple[Option, ...]:
    if paths.seed is None:
        return ()
    file = _escaped(paths.seed)
    return (
        Option("-drive", f"if=none,id=seed,file={file},format=raw,readonly=on", "its first boot"),
        Option("-device", "virtio-blk-pci,drive=seed", "a second disk"),
    )


def _network(vm: Vm) -> tuple[Option, ...]:
    # Without the address, the port would be open on every interface of the host.
    forward = f"hostfwd=tcp:127.0.0.1:{vm.ssh_port}-:22"
    more = _value(Setting.NETWORK, vm)
    parts = ["user", "id=net", more, "restrict=on" if vm.offline else "", forward]
    nic = _row(Setting.NIC, vm)
    return (
        Option("-netdev", ",".join(filter(None, parts)), "SSH on the host's loopback only"),
        Option("-device", f"{nic.value},netdev=net", nic.because),
    )


def _reach(vm: Vm, paths: VmPaths) -> tuple[Option, ...]:
    console, log = _escaped(paths.console), _escaped(paths.serial_log)
    serial = f"socket,id=serial,path={console},server=on,wait=off,logfile={log}"
    monitor = f"unix:{_escaped(paths.monitor)},server=on,wait=off"
    screen, reboot = _row(Setting.SCREEN, vm), _row(Setting.REBOOT, vm)
    return (
        *((Option("-device", screen.value, screen.because),) if screen.value else ()),
        Option("-display", "none", "nobody sits in front of it"),
        Option("-chardev", serial, "the serial line: in a file, and for whoever connects"),
        Option("-serial", "chardev:serial", "the serial line"),
        Option("-qmp", monitor, "the monitor, to stop it and to ask it"),
        Option("-pidfile", paths.pid_file, "which process it is"),
        *((Option(reboot.value, "", reboot.because),) if reboot.value else ()),
    )


def _escaped(path: str) -> str:
    """Return a path as QEMU reads it inside of an option."""
    return path.replace(",", ",,")
