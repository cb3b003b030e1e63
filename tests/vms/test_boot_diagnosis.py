"""Why a guest did not come up: told from its serial log, QEMU's monitor, packets and SSH."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.vm import Accelerator
from orchestrator.core.vm_diagnosis import BootDiagnosis, Evidence, diagnose_boot
from orchestrator.core.vm_symptoms import SYMPTOMS
from orchestrator.nodes.vm.diagnosis import last_lines
from tests.vms.definitions import made_up

KVM, TCG = Accelerator.KVM, Accelerator.TCG


def diagnosis(vm: str, serial: str = "", **more: Any) -> BootDiagnosis:
    known: dict[str, Any] = {
        "monitor": "running",
        "accelerator": TCG,
        "elapsed": timedelta(minutes=10),
    }
    guest, _, arch = vm.partition("-")
    return diagnose_boot(made_up(guest, arch), Evidence(serial=serial, **(known | more)))


@dataclass(frozen=True)
class Excerpt:
    """The end of a serial log, and what it means."""

    vm: str
    name: str
    serial: str
    said: str
    accelerator: Accelerator = TCG


EXCERPTS = [
    Excerpt(
        vm="freebsd-arm64",
        name="firmware exception",
        serial="UEFI firmware (version 2022.11)\n\n\n"
        "Synchronous Exception at 0x000000005F2B1A34\nPC 0x00005F2B1A34\n",
        said="Synchronous Exception at 0x000000005F2B1A34",
        accelerator=KVM,
    ),
    Excerpt(
        vm="freebsd-amd64",
        name="nothing to start",
        serial="\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\nBooting from Hard Disk...\n"
        "Boot failed: could not read the boot disk\n\nNo bootable device.\n",
        said="No bootable device.",
    ),
    Excerpt(
        vm="netbsd-arm64",
        name="nothing to start",
        serial='BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0): Not Found\n'
        "BdsDxe: No bootable option or device was found.\n",
        said="BdsDxe: No bootable option or device was found.",
    ),
    Excerpt(
        vm="netbsd-arm64",
        name="firmware shell",
        serial="UEFI Interactive Shell v2.2\nPress ESC in 1 seconds to skip startup.nsh\nShell> ",
        said="Shell>",
    ),
    Excerpt(
        vm="openbsd-arm64",
        name="not installed",
        serial="Welcome to the OpenBSD/arm64 7.9 installation program.\n"
        "(I)nstall, (U)pgrade, (A)utoinstall or (S)hell? ",
        said="(I)nstall, (U)pgrade, (A)utoinstall or (S)hell?",
    ),
    Excerpt(
        vm="openbsd-amd64",
        name="loader waits",
        serial=">> OpenBSD/amd64 BOOT 3.67\nboot> ",
        said="boot>",
    ),
    Excerpt(
        vm="freebsd-arm64",
        name="loader waits",
        serial="can't load 'kernel'\n\nType '?' for a list of commands\nOK ",
        said="OK",
    ),
    Excerpt(
        vm="openbsd-amd64",
        name="silent after the loader",
        serial="booting hd0a:/bsd: 18120912+4326416+357664\nentry point at 0xffffffff81001000\n",
        said="entry point at 0xffffffff81001000",
        accelerator=KVM,
    ),
    Excerpt(
        vm="debian-arm64",
        name="silent after the loader",
        serial="EFI stub: Booting Linux Kernel...\nEFI stub: Exiting boot services...\n",
        said="EFI stub: Exiting boot services...",
    ),
    Excerpt(
        vm="freebsd-amd64",
        name="no root",
        serial="Trying to mount root from ufs:/dev/ada0p2 [rw]...\n"
        "Mounting from ufs:/dev/ada0p2 failed with error 19.\nmountroot> ",
        said="Mounting from ufs:/dev/ada0p2 failed with error 19.",
    ),
    Excerpt(
        vm="netbsd-amd64",
        name="no root",
        serial="boot device: <unknown>\nroot device: ",
        said="root device:",
    ),
    Excerpt(
        vm="debian-amd64",
        name="no root",
        serial="[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs\n"
        "[    1.9] CPU: 0 PID: 1 Comm: swapper/0\n",
        said="[    1.9] Kernel panic - not syncing: VFS: Unable to mount root fs",
    ),
    Excerpt(
        vm="freebsd-amd64",
        name="damaged file system",
        serial="/dev/vtbd0p4: UNEXPECTED SOFT UPDATE INCONSISTENCY; RUN fsck MANUALLY.\n# ",
        said="/dev/vtbd0p4: UNEXPECTED SOFT UPDATE INCONSISTENCY; RUN fsck MANUALLY.",
    ),
    Excerpt(
        vm="openbsd-arm64",
        name="fp exception",
        serial="scsibus0 at vioblk0\npanic: FP exception in kernel: 7\nStopped at panic+0x160\n"
        "ddb{0}> ",
        said="panic: FP exception in kernel: 7",
    ),
    Excerpt(
        vm="netbsd-arm64",
        name="heartbeat",
        serial="[ 92.1] panic: cpu1[12 softser/1]: heart stopped beating\ndb{0}> ",
        said="[ 92.1] panic: cpu1[12 softser/1]: heart stopped beating",
    ),
    Excerpt(
        vm="freebsd-amd64",
        name="avx2 in zfs",
        serial="ZFS filesystem version: 5\npanic: zfs: checksum self-test failed\ncpuid = 0\n",
        said="panic: zfs: checksum self-test failed",
    ),
    Excerpt(
        vm="netbsd-amd64",
        name="panic",
        serial="panic: kernel diagnostic assertion failed\ncpu0: Begin traceback...\ndb{0}> ",
        said="panic: kernel diagnostic assertion failed",
        accelerator=KVM,
    ),
    Excerpt(
        vm="freebsd-amd64",
        name="panic",
        serial="Fatal trap 12: page fault while in kernel mode\ncpuid = 1; apic id = 01\n",
        said="Fatal trap 12: page fault while in kernel mode",
        accelerator=KVM,
    ),
    Excerpt(
        vm="debian-riscv64",
        name="stall",
        serial="[  81.0] rcu: INFO: rcu_sched self-detected stall on CPU\n[  81.0] Call Trace:\n",
        said="[  81.0] rcu: INFO: rcu_sched self-detected stall on CPU",
    ),
    Excerpt(
        vm="openbsd-arm64",
        name="relinking",
        serial="starting network daemons: sshd.\nrelinking to create unique kernel...",
        said="relinking to create unique kernel...",
    ),
    Excerpt(
        vm="netbsd-amd64",
        name="entropy",
        serial="Starting file system checks:\nWaiting for initial entropy\n",
        said="Waiting for initial entropy",
    ),
    Excerpt(
        vm="openbsd-arm64",
        name="acpi",
        serial="efi0 at mainbus0: UEFI 2.7\nacpi0 at mainbus0: ACPI 5.1\n",
        said="acpi0 at mainbus0: ACPI 5.1",
    ),
    Excerpt(
        vm="netbsd-arm64",
        name="vioif",
        serial="virtio1 at pci0 dev 2 function 0\nvioif0 at virtio1: features: 0x20030020<MAC>\n",
        said="vioif0 at virtio1: features: 0x20030020<MAC>",
    ),
    Excerpt(
        vm="debian-amd64",
        name="no dhcp",
        serial="DHCPDISCOVER on eth0 to 255.255.255.255 port 67 interval 3\n"
        "DHCPDISCOVER on eth0 to 255.255.255.255 port 67 interval 7\n",
        said="DHCPDISCOVER on eth0 to 255.255.255.255 port 67 interval 7",
    ),
]


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda each: f"{each.vm}-{each.name}")
def test_the_end_of_a_serial_log_tells_what_is_wrong(excerpt: Excerpt) -> None:
    found = diagnosis(excerpt.vm, excerpt.serial, accelerator=excerpt.accelerator)

    assert (found.name, found.said) == (excerpt.name, excerpt.said)
    assert found.hint
    assert str(found) == f"{found.message}: {found.said}"


@pytest.mark.parametrize(
    ("name", "log"),
    [
        (
            "port taken",
            (
                "qemu-system-x86_64: -netdev user,id=net: Could not set up host forwarding rule "
                "'tcp:127.0.0.1:2231-:22'"
            ),
        ),
        (
            "kvm not allowed",
            (
                "Could not access KVM kernel module: Permission denied\n"
                "qemu-system-x86_64: failed to initialize kvm: Permission denied"
            ),
        ),
        ("kvm not there", "qemu-system-aarch64: -accel kvm: invalid accelerator kvm"),
        ("cpu refused", "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69\nAborted"),
        ("in use", 'qemu-system-x86_64: -drive: Failed to get "write" lock'),
        ("host memory", "qemu-system-x86_64: cannot set up guest memory 'pc.ram'"),
        ("host disk", "qemu-system-x86_64: -drive: No space left on device"),
    ],
)
def test_a_qemu_that_has_ended_said_why(name: str, log: str) -> None:
    found = diagnosis("debian-amd64", monitor=None, qemu_log=log, accelerator=KVM)

    assert found.name == name
    assert found.said in log


def test_every_symptom_has_an_example_here() -> None:
    shown = {excerpt.name for excerpt in EXCERPTS}
    ended = {symptom.name for symptom in SYMPTOMS if symptom.voice.name == "QEMU"}

    assert {symptom.name for symptom in SYMPTOMS} <= shown | ended


def test_a_qemu_that_ended_with_a_panicking_guest_tells_of_the_guest() -> None:
    found = diagnosis("debian-amd64", "Kernel panic - not syncing: x\n", qemu_log="")
    assert found.name == "panic"


def test_a_qemu_that_ended_and_said_something_unknown_is_quoted() -> None:
    assert diagnosis("debian-amd64", qemu_log="").said == ""
    found = diagnosis("debian-amd64", qemu_log="a new\nmessage\n", accelerator=KVM)
    assert (found.name, found.said, found.is_cpu) == ("qemu ended", "message", True)
    assert str(diagnosis("debian-amd64", qemu_log="")) == "its QEMU has ended"


def test_silence_of_guest_and_monitor_means_that_it_never_started() -> None:
    found = diagnosis("debian-amd64", monitor=None, accelerator=KVM)

    assert found.name == "never started"
    assert "accelerators: [tcg]" in found.hint


def test_silence_of_the_guest_alone_is_a_matter_of_its_cpu_or_its_console() -> None:
    assert "accelerators: [tcg]" in diagnosis("debian-amd64", " \r\n", accelerator=KVM).hint
    found = diagnosis("debian-amd64", "\x1b[2J")
    assert (found.name, found.is_cpu) == ("silent", True)
    assert "console" in found.hint


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ("io-error", "io error"),
        ("internal-error", "internal error"),
        ("guest-panicked", "panic"),
        ("prelaunch", "paused"),
        ("paused", "paused"),
        ("shutdown", "ended"),
    ],
)
def test_the_monitors_status_goes_before_the_serial_log(status: str, name: str) -> None:
    assert diagnosis("debian-amd64", "login: ", monitor=status).name == name


LOGIN = "Debian GNU/Linux 12 guest ttyS0\r\n\r\nguest login: "


def test_a_guest_that_is_up_has_no_network_or_no_ssh_server() -> None:
    assert diagnosis("debian-amd64", LOGIN, has_sent=False).name == "no network"
    for sent in (True, None):
        assert diagnosis("debian-amd64", LOGIN, has_sent=sent, ssh="refused").name == "no ssh"


def test_a_guest_that_answers_with_other_keys_did_not_read_its_seed() -> None:
    found = diagnosis("debian-amd64", LOGIN, ssh="Host key is not trusted")
    assert found.name == "host key"
    found = diagnosis("freebsd-amd64", "sshd is up", ssh="Permission denied (publickey)")
    assert (found.name, found.said) == ("key refused", "Permission denied (publickey)")


def test_a_guest_that_got_an_address_is_not_said_to_lack_one() -> None:
    serial = "DHCPDISCOVER on eth0\r\nbound to 10.0.2.15\r\nStarting the rest\r\n"
    assert diagnosis("debian-amd64", serial).name == "slow"


def test_a_guest_that_goes_on_is_slow_and_a_translated_one_is_excused() -> None:
    found = diagnosis("freebsd-amd64", "Starting devd.\r\n")
    assert found.name == "slow"
    assert "600 s; it is translated" in found.message
    assert found.said == "Starting devd."
    assert "translated" not in diagnosis("freebsd-amd64", "x", accelerator=KVM).message


def test_one_guests_symptom_is_not_anothers() -> None:
    assert diagnosis("debian-arm64", "acpi0 at mainbus0\r\n").name == "slow"
    zfs = "panic: zfs: checksum\r\ncpuid = 0\r\n"
    assert diagnosis("freebsd-amd64", zfs, accelerator=KVM).name == "panic"


def test_what_a_guest_has_survived_is_not_a_reason() -> None:
    serial = "panic: of an earlier boot\r\n" + "going on\r\n" * 50
    assert diagnosis("netbsd-amd64", serial).name == "slow"


def test_what_is_shown_is_short_and_moves_no_cursor() -> None:
    found = diagnosis("debian-amd64", "\x1b[31mpanic: \x07" + "x" * 500 + "\x1b[0m\r\n")

    assert found.said.isprintable()
    assert len(found.said) == 203


def test_the_end_of_a_log_is_shown_without_what_a_terminal_alone_understands() -> None:
    assert (
        last_lines("\x1b[?2004hroot@box:~# \r\n\x1b[0;32mOK\x1b[0m\n") == ":\n  root@box:~#\n  OK"
    )
