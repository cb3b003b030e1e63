"""QEMU's command line for every shipped virtual machine: word for word, and by its facts."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.vm import RECIPES, Accelerator, Guest, VmArch, VmPaths
from orchestrator.core.vm_argv import qemu_argv, qemu_options, shutdown_command
from orchestrator.core.vm_facts import ROWS, Case, Row, Setting, find_row
from orchestrator.core.vm_probe import PROBE_KERNELS, probe_argv
from tests.vms.definitions import NAMES, TOP, made_up, shipped

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm

KVM, HVF, TCG = Accelerator.KVM, Accelerator.HVF, Accelerator.TCG


def by_line(argv: tuple[str, ...]) -> str:
    """A command with one option a line."""
    lines: list[list[str]] = []
    for word in argv:
        if word.startswith("-") or not lines:
            lines.append([word])
        else:
            lines[-1].append(word)
    return "".join(f"{shlex.join(line)}\n" for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_is_word_for_word_the_reviewed_one(name: str) -> None:
    case = TOP / "tests/cases/vms" / f"{name}.txt"

    assert by_line(qemu_argv(shipped(name), VmPaths(), TCG)) == case.read_text()


def option_of(vm: Vm, name: str, accelerator: Accelerator = TCG, *, cautious: bool = False) -> str:
    argv = qemu_argv(vm, VmPaths(), accelerator, cautious=cautious)
    return argv[argv.index(name) + 1]


@pytest.mark.parametrize(
    ("guest", "arch", "accelerator", "machine", "cpu", "cautious"),
    [
        ("freebsd", "amd64", KVM, "q35,graphics=off", "host", "qemu64"),
        ("freebsd", "amd64", HVF, "q35,graphics=off", "host", "qemu64"),
        ("freebsd", "amd64", TCG, "q35,graphics=off", "max,-avx2", "qemu64"),
        (
            *("freebsd", "arm64", KVM, "virt,gic-version=host,highmem=off"),
            *("host", "cortex-a72"),
        ),
        ("freebsd", "arm64", HVF, "virt,highmem=off", "host", "cortex-a72"),
        ("freebsd", "arm64", TCG, "virt,highmem=off", "cortex-a57", "cortex-a72"),
        ("openbsd", "amd64", KVM, "q35,graphics=off", "host,-pdpe1gb", "qemu64"),
        ("openbsd", "amd64", HVF, "q35,graphics=off", "host,-pdpe1gb", "qemu64"),
        ("openbsd", "amd64", TCG, "q35,graphics=off", "max,-pdpe1gb", "qemu64"),
        (
            *("openbsd", "arm64", KVM, "virt,gic-version=host,highmem=off,acpi=off"),
            *("host", "cortex-a72"),
        ),
        ("openbsd", "arm64", HVF, "virt,highmem=off,acpi=off", "host", "cortex-a72"),
        ("openbsd", "arm64", TCG, "virt,highmem=off,acpi=off", "cortex-a57", "cortex-a72"),
        ("netbsd", "amd64", KVM, "q35,graphics=off", "host", "qemu64"),
        ("netbsd", "amd64", TCG, "q35,graphics=off", "max", "qemu64"),
        ("netbsd", "arm64", KVM, "virt,gic-version=host,highmem=off", "host", "cortex-a72"),
        ("netbsd", "arm64", TCG, "virt", "max,pauth-impdef=on", "cortex-a72"),
        ("debian", "amd64", KVM, "q35,graphics=off", "host", "qemu64"),
        ("debian", "amd64", TCG, "q35,graphics=off", "max", "qemu64"),
        ("debian", "arm64", KVM, "virt,gic-version=host,highmem=off", "host", "cortex-a57"),
        ("debian", "arm64", TCG, "virt", "max,pauth-impdef=on", "cortex-a57"),
        ("debian", "riscv64", TCG, "virt", "rv64", "rv64"),
    ],
)
def test_machine_and_cpu_fit_the_guest_and_the_accelerator(  # noqa: PLR0917 -- a table's columns
    guest: str, arch: str, accelerator: Accelerator, machine: str, cpu: str, cautious: str
) -> None:
    vm = made_up(guest, arch)

    assert option_of(vm, "-machine", accelerator) == machine
    assert option_of(vm, "-cpu", accelerator) == cpu
    assert option_of(vm, "-machine", accelerator, cautious=True) == machine
    assert option_of(vm, "-cpu", accelerator, cautious=True) == cautious


@pytest.mark.parametrize(
    ("arch", "accelerator", "option"),
    [
        ("amd64", KVM, "kvm"),
        ("amd64", HVF, "hvf"),
        ("amd64", TCG, "tcg"),
        ("arm64", TCG, "tcg,thread=multi"),
        ("riscv64", TCG, "tcg,thread=multi"),
    ],
)
def test_a_thread_for_each_core_is_asked_for_where_it_is_safe_on_every_host(
    arch: str, accelerator: Accelerator, option: str
) -> None:
    assert option_of(made_up("debian", arch), "-accel", accelerator) == option


@pytest.mark.parametrize(
    ("release", "cpu", "cautious"),
    [
        ("9.4", "cortex-a72", "cortex-a57"),
        ("10.0", "max,pauth-impdef=on", "cortex-a72"),
        ("10.1", "cortex-a72", "cortex-a57"),
        ("10.10", "max,pauth-impdef=on", "cortex-a72"),
        ("11.0", "max,pauth-impdef=on", "cortex-a72"),
    ],
)
def test_netbsds_cpu_on_arm64_depends_on_its_release(release: str, cpu: str, cautious: str) -> None:
    vm = made_up("netbsd", "arm64", release=release)

    assert option_of(vm, "-cpu") == cpu
    assert option_of(vm, "-cpu", cautious=True) == cautious


@pytest.mark.parametrize(
    ("release", "nic"), [("7.2", "virtio-net-pci"), ("7.6", "e1000"), ("7.7", "virtio-net-pci")]
)
def test_openbsd_has_the_nic_that_works_in_its_release(release: str, nic: str) -> None:
    argv = qemu_argv(made_up("openbsd", "amd64", release=release), VmPaths(), TCG)
    assert f"{nic},netdev=net" in argv


def test_netbsd_has_no_control_queue_and_no_ipv6() -> None:
    argv = qemu_argv(made_up("netbsd", "arm64"), VmPaths(), TCG)

    assert "virtio-net-pci,ctrl_vq=off,netdev=net" in argv
    assert "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:2299-:22" in argv
    assert "-no-reboot" not in argv


def test_a_definition_may_name_the_cpu_which_a_second_try_ignores() -> None:
    vm = made_up("openbsd", "arm64", cpu="neoverse-n1")

    assert option_of(vm, "-cpu") == "neoverse-n1"
    assert option_of(vm, "-cpu", cautious=True) == "cortex-a72"


def test_ssh_is_forwarded_on_the_loopback_only_and_an_offline_guest_reaches_nothing() -> None:
    vm = made_up("debian", "amd64", offline=True)

    netdev = option_of(vm, "-netdev")
    assert netdev == "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2299-:22"


def test_a_disk_that_is_kept_is_written_with_care() -> None:
    fresh, kept = made_up("debian", "amd64"), made_up("debian", "amd64", fresh=False)

    assert "cache=unsafe" in option_of(fresh, "-drive")
    assert "cache=writeback" in option_of(kept, "-drive")


def test_an_installer_starts_before_the_disk_and_a_seed_is_read_only() -> None:
    paths = VmPaths(seed="seed.img", medium="miniroot.img")
    argv = qemu_argv(made_up("openbsd", "amd64"), paths, TCG)

    assert "if=none,id=medium,file=miniroot.img,format=raw,readonly=on" in argv
    assert "virtio-blk-pci,drive=medium,bootindex=0" in argv
    assert "scsi-hd,drive=disk,bootindex=1" in argv
    assert "if=none,id=seed,file=seed.img,format=raw,readonly=on" in argv
    cd = qemu_argv(made_up("netbsd", "amd64"), paths, TCG)
    assert "ide-cd,drive=medium,bootindex=0" in cd


def test_a_comma_in_a_path_is_doubled() -> None:
    paths = VmPaths(disk="/a,b/disk", monitor="/a,b/monitor", console="/a,b/console")
    argv = qemu_argv(made_up("debian", "amd64"), paths, TCG)

    assert any("file=/a,,b/disk," in word for word in argv)
    assert "unix:/a,,b/monitor,server=on,wait=off" in argv
    assert any("path=/a,,b/console," in word for word in argv)


def test_a_qemu_without_seccomp_is_not_asked_for_a_sandbox() -> None:
    vm = made_up("debian", "amd64")

    assert "-sandbox" in qemu_argv(vm, VmPaths(), TCG)
    assert "-sandbox" not in qemu_argv(vm, VmPaths(), TCG, sandboxed=False)


def test_every_option_has_a_reason() -> None:
    for name in NAMES:
        options = qemu_options(shipped(name), VmPaths(seed="seed", medium="medium"), TCG)
        assert all(option.because for option in options)


def test_the_guest_is_asked_to_end_in_its_own_words() -> None:
    assert shutdown_command(made_up("openbsd", "arm64")) == "shutdown -p now"
    assert shutdown_command(made_up("debian", "arm64")) == "poweroff"


def test_every_fact_has_a_reason_and_is_used_by_some_guest() -> None:
    releases = {
        Guest.OPENBSD: ("7.6", "7.9"),
        Guest.NETBSD: ("9.4", "11.0"),
        Guest.FREEBSD: ("15.1",),
        Guest.DEBIAN: ("12",),
    }
    cases = [
        Case(guest=guest, arch=arch, release=release, accelerator=accelerator)
        for guest, arch in RECIPES
        for release in releases[guest]
        for accelerator in Accelerator
    ]
    used: set[Row] = set()
    for case in cases:
        used |= {find_row(setting, case) for setting in Setting}

    assert set(ROWS) == used
    assert all(row.because for row in ROWS)


@pytest.mark.parametrize("arch", VmArch)
def test_a_probe_takes_the_cpu_of_the_guest_and_switches_itself_off(arch: VmArch) -> None:
    vm = made_up("debian", arch)
    kernel = "probe" if arch in PROBE_KERNELS else None

    argv = probe_argv(vm, TCG, kernel=kernel)

    assert argv[0] == vm.arch.qemu
    assert argv[argv.index("-cpu") + 1] == option_of(vm, "-cpu")
    assert argv[-2:] == (("-kernel", "probe") if kernel else ("-boot", "reboot-timeout=1"))
