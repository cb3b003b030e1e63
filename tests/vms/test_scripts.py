"""boot.sh, stop.sh and the unit of every shipped virtual machine: checked, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.vm_probe import PROBE_KERNELS
from orchestrator.core.vm_script import boot_script, stop_script
from orchestrator.core.vm_unit import unit_file
from tests.vms.definitions import NAMES, made_up, shipped

_TOOLS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def check(command: list[str], text: str) -> str:
    program = shutil.which(command[0], path=_TOOLS)
    assert program, f"{command[0]} is missing"
    done = subprocess.run(
        [program, *command[1:]],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_of_every_definition_are_clean(name: str) -> None:
    for text in (boot_script(shipped(name)), stop_script(shipped(name))):
        assert not check(["shellcheck", "-s", "sh", "-"], text)
        assert not check(["shfmt", "-i", "4", "-d"], text)
        assert not check(["sh", "-n"], text)


def test_a_script_that_is_kept_installed_and_pinned_is_clean_too() -> None:
    vm = made_up("openbsd", "arm64", fresh=False, pinned_cpus="4-7")
    text = boot_script(vm)

    assert not check(["shellcheck", "-s", "sh", "-"], text)
    assert not check(["shfmt", "-i", "4", "-d"], text)
    assert "exec taskset -c 4-7 qemu-system-aarch64" in text
    assert "[ -e disk.qcow2 ] || qemu-img create" in text
    assert "[ -e firmware-vars.fd ] ||" in text


def install(folder: Path, name: str) -> None:
    for script, text in (
        ("boot.sh", boot_script(shipped(name))),
        ("stop.sh", stop_script(shipped(name))),
    ):
        (folder / script).write_text(text)
        (folder / script).chmod(0o755)


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_wrong_with_the_unit(name: str, tmp_path: Path) -> None:
    install(tmp_path, name)
    unit = tmp_path / f"{name}.service"
    unit.write_text(unit_file(shipped(name), folder=str(tmp_path)))

    assert not check(["systemd-analyze", "verify", str(unit)], "")
    security = check(["systemd-analyze", "security", "--offline=true", str(unit)], "")
    exposure = float(security.rpartition("level for ")[2].split(": ")[1].split(" ")[0])
    assert exposure <= 2.0


def test_a_unit_runs_as_the_user_of_its_host_and_opens_kvm_only_where_it_may_help() -> None:
    riscv = unit_file(shipped("debian-riscv64"), folder="/opt/vms/x")
    remote = made_up("openbsd", "arm64", host="alex@rig", unit="x.service")

    assert "User=vms\n" in riscv
    assert "/dev/kvm" not in riscv
    odd = unit_file(remote, folder='/opt/my vms/50%$x"y')
    assert 'WorkingDirectory=/opt/my vms/50%%$x"y\n' in odd
    assert 'ExecStart="/opt/my vms/50%%$$x\\"y/boot.sh"\n' in odd
    with pytest.raises(ConfigError, match="cannot name the folder"):
        unit_file(remote, folder="/opt/x\nUser=root")
    assert "User=alex\n" in unit_file(remote, folder="/opt/vms/x")
    assert "User=build\n" in unit_file(remote, folder="/opt/vms/x", user="build")
    assert "User=vms\n" in unit_file(
        made_up("openbsd", "arm64", host="rig", unit="x.service"), folder="/opt/vms/x"
    )
    assert "ProtectHome=yes\n" in riscv
    assert "ProtectHome=read-only\n" in unit_file(remote, folder="/home/alex/vms/x")
    assert "DeviceAllow=/dev/kvm rw\n" in unit_file(remote, folder="/opt/vms/x")
    assert f"MemoryMax={2048 + 1536}M\n" in unit_file(remote, folder="/opt/vms/x")


# A QEMU that says what it was asked for; with KVM it does what $KVM says.
QEMU = """\
#!/bin/sh
hang() {
    echo $$ >"$ASKED.pid"
    exec sleep 600
}
case " $* " in
*" -accel kvm "*) [ "$KVM" != aborts ] || exit 134; [ "$KVM" != hangs ] || hang ;;
esac
printf '%s\\n' "$@" >"$ASKED"
"""


def boot(
    folder: Path, name: str, *, kvm: str, **more: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run boot.sh with a made-up QEMU; return what it said, and the arguments of QEMU."""
    install(folder, name)
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for program in ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-system-riscv64"):
        (programs / program).write_text(QEMU)
        (programs / program).chmod(0o755)
    done = subprocess.run(
        [folder / "boot.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ASKED": str(folder / "asked"),
            "KVM": kvm,
            **more,
        },
    )
    asked = folder / "asked"
    return done, asked.read_text().split("\n") if asked.exists() else []


def golden(folder: Path) -> None:
    disk = str(folder / "golden.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)


def test_boot_takes_kvm_where_a_guest_really_runs_with_it(tmp_path: Path) -> None:
    golden(tmp_path)

    done, asked = boot(tmp_path, "debian-arm64", kvm="works")

    assert done.returncode == 0, done.stderr
    assert asked[asked.index("-accel") + 1] == "kvm"
    assert asked[asked.index("-cpu") + 1] == "host"
    assert (tmp_path / "probe").read_bytes() == PROBE_KERNELS[shipped("debian-arm64").arch]


def test_boot_takes_the_next_accelerator_where_kvm_aborts(tmp_path: Path) -> None:
    golden(tmp_path)
    vm = "debian-riscv64"

    done, asked = boot(tmp_path, "freebsd-amd64", kvm="aborts")

    assert "a guest does not run with kvm here" in done.stderr
    # The made-up QEMU does not know this one, so it works.
    assert asked[asked.index("-accel") + 1] == "hvf"
    done, asked = boot(tmp_path, vm, kvm="aborts")
    assert asked[asked.index("-accel") + 1] == "tcg,thread=multi"


@pytest.mark.thorough
def test_boot_takes_the_next_accelerator_where_kvm_hangs(tmp_path: Path) -> None:
    golden(tmp_path)

    done, asked = boot(tmp_path, "openbsd-amd64", kvm="hangs")

    assert "a guest does not run with kvm here" in done.stderr
    assert asked[asked.index("-accel") + 1] == "hvf"
    hung = int((tmp_path / "asked.pid").read_text())
    assert not Path(f"/proc/{hung}").exists()


def test_a_second_try_takes_the_plainer_cpu(tmp_path: Path) -> None:
    golden(tmp_path)

    _, asked = boot(tmp_path, "openbsd-amd64", kvm="works", CAUTIOUS="1")

    assert asked[asked.index("-cpu") + 1] == "qemu64"


def test_boot_says_what_is_missing(tmp_path: Path) -> None:
    done, asked = boot(tmp_path, "debian-amd64", kvm="works")
    assert (done.returncode, asked) == (2, [])
    assert f"there is no golden.qcow2 in {tmp_path}" in done.stderr

    done, asked = boot(tmp_path, "openbsd-amd64", kvm="works")
    assert f"there is neither golden.qcow2 nor installer.img in {tmp_path}" in done.stderr

    comma = tmp_path / "a,b"
    comma.mkdir()
    done, asked = boot(comma, "debian-amd64", kvm="works")
    assert "QEMU cannot read a path with a comma" in done.stderr


def test_an_installer_and_a_seed_are_attached_while_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "installer.img").write_bytes(b"")
    (tmp_path / "seed.img").write_bytes(b"")

    _, asked = boot(tmp_path, "openbsd-amd64", kvm="works")

    assert f"if=none,id=medium,file={tmp_path}/installer.img,format=raw,readonly=on" in asked
    assert f"if=none,id=seed,file={tmp_path}/seed.img,format=raw,readonly=on" in asked
    assert (tmp_path / "disk.qcow2").exists()
    golden(tmp_path)
    _, asked = boot(tmp_path, "openbsd-amd64", kvm="works")
    assert not any("id=medium" in word for word in asked)


def test_the_state_is_apart_from_the_scripts_under_systemd(tmp_path: Path) -> None:
    golden(tmp_path)
    state = tmp_path / "state"
    state.mkdir()

    boot(tmp_path, "freebsd-arm64", kvm="works", STATE_DIRECTORY=str(state))

    assert (state / "disk.qcow2").exists()
    assert (state / "firmware-code.fd").stat().st_size == 64 * 2**20
    assert not (tmp_path / "disk.qcow2").exists()


def test_every_start_of_a_fresh_guest_begins_with_the_disk_as_it_was_made(tmp_path: Path) -> None:
    golden(tmp_path)
    boot(tmp_path, "debian-amd64", kvm="works")
    (tmp_path / "disk.qcow2").write_bytes(b"changed")

    boot(tmp_path, "debian-amd64", kvm="works")

    info = check(["qemu-img", "info", str(tmp_path / "disk.qcow2")], "")
    assert f"backing file: {tmp_path}/golden.qcow2" in info
    assert "virtual size: 8 GiB" in info


def test_stopping_what_does_not_run_is_done_already(tmp_path: Path) -> None:
    install(tmp_path, "debian-amd64")

    done = subprocess.run([tmp_path / "stop.sh"], check=False)

    assert done.returncode == 0
