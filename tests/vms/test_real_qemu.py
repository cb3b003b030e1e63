"""QEMU itself accepts what is rendered, and the scripts run a real one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.vm import Accelerator, VmPaths
from orchestrator.core.vm_argv import FIRMWARE_FILES, firmware_of, qemu_argv
from orchestrator.core.vm_facts import Firmware
from orchestrator.core.vm_probe import PROBE_KERNELS, PROBE_SECONDS, probe_argv
from orchestrator.core.vm_script import boot_script, stop_script
from tests.vms.definitions import NAMES, shipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TCG = Accelerator.TCG


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The files that a virtual machine's state has, all of them empty."""
    qcow2 = ["qemu-img", "create", "-q", "-f", "qcow2"]
    for disk in ("disk.qcow2", "golden.qcow2"):
        subprocess.run([*qcow2, str(tmp_path / disk), "64M"], check=True)
    (tmp_path / "seed.img").write_bytes(bytes(2**20))
    (tmp_path / "medium.img").write_bytes(bytes(2**20))
    # Anything at all will do for a kernel that never runs.
    (tmp_path / "kernel").write_bytes(bytes(2**16))
    (tmp_path / "initrd").write_bytes(bytes(512))
    code, settings = FIRMWARE_FILES[0]
    shutil.copy(code, tmp_path / "firmware-code.fd")
    shutil.copy(settings, tmp_path / "firmware-vars.fd")
    return tmp_path


class Monitor:
    """QEMU's monitor, once it answers."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self._socket = _connect(path, process)
        self._lines = self._socket.makefile("rw")
        assert "QMP" in json.loads(self._lines.readline())
        self.ask("qmp_capabilities")

    def ask(self, command: str) -> Any:
        self._lines.write(json.dumps({"execute": command}) + "\n")
        self._lines.flush()
        while True:
            answer = json.loads(self._lines.readline())
            assert "error" not in answer
            if "return" in answer:
                return answer["return"]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    while process.poll() is None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            time.sleep(0.05)  # QEMU makes the socket when it is ready for it, and tells nobody
        else:
            return connection
    raise AssertionError(f"QEMU has ended with {process.returncode}")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What the test starts, ended at its end."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        with process:
            process.kill()


@pytest.mark.thorough
@pytest.mark.parametrize("cautious", [False, True], ids=["first", "cautious"])
@pytest.mark.parametrize("name", NAMES)
def test_qemu_accepts_every_option(
    name: str, *, cautious: bool, state: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    # Port 0 is any free one: other tests start the same machine at the same time.
    vm = dataclasses.replace(shipped(name), ssh_port=0)
    # Of all boards only x86's looks into the kernel before it starts.
    paths = VmPaths(seed="seed.img", medium="medium.img")
    argv = list(qemu_argv(vm, paths, TCG, cautious=cautious))
    if firmware_of(vm) is Firmware.KERNEL and vm.arch == "amd64":
        at = argv.index("-kernel")
        del argv[at : at + 6]
    process = subprocess.Popen([*argv, "-S"], cwd=state, stderr=subprocess.PIPE)
    started.append(process)

    monitor = Monitor(state / paths.monitor, process)
    status = monitor.ask("query-status")
    blocks = {block["device"] for block in monitor.ask("query-block")}
    monitor.ask("quit")
    monitor.close()

    assert status["status"] == "prelaunch"
    assert {"disk", "seed", "medium"} <= blocks
    _, said = process.communicate()
    assert not said
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["freebsd-amd64", "openbsd-arm64", "debian-riscv64"])
def test_a_probe_ends_by_itself_where_a_guest_runs(name: str, tmp_path: Path) -> None:
    vm = shipped(name)
    kernel = tmp_path / "probe"
    kernel.write_bytes(PROBE_KERNELS.get(vm.arch, b""))

    argv = probe_argv(vm, TCG, kernel=str(kernel) if vm.arch in PROBE_KERNELS else None)

    assert subprocess.run(argv, check=False, timeout=PROBE_SECONDS).returncode == 0


def test_a_probe_fails_with_an_accelerator_that_is_not_there(tmp_path: Path) -> None:
    argv = probe_argv(shipped("freebsd-amd64"), Accelerator.HVF)

    done = subprocess.run(argv, check=False, capture_output=True, cwd=tmp_path)

    assert done.returncode == 1
    assert b"invalid accelerator hvf" in done.stderr


@pytest.mark.thorough
def test_boot_runs_a_real_qemu_whose_bios_speaks_and_stop_ends_it(
    state: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    vm = dataclasses.replace(shipped("freebsd-amd64"), ssh_port=0)
    for script, text in (("boot.sh", boot_script(vm)), ("stop.sh", stop_script(vm))):
        (state / script).write_text(text)
        (state / script).chmod(0o755)
    process = subprocess.Popen([state / "boot.sh"], stderr=subprocess.PIPE)
    started.append(process)
    Monitor(state / "monitor.sock", process).close()
    log = state / "serial.log"
    while b"No bootable device" not in log.read_bytes():
        time.sleep(0.05)  # the BIOS writes it when it has looked everywhere

    stopping = subprocess.Popen(
        [state / "stop.sh"],
        env={"PATH": "/usr/bin:/bin", "GRACE_SECONDS": "1"},
        stderr=subprocess.PIPE,
    )
    started.append(stopping)
    # An ended process that its parent has not looked at would still be there for stop.sh.
    process.communicate()

    _, said = stopping.communicate()
    assert stopping.returncode == 0, said
    assert b"the guest does not end by itself" in said
    assert process.returncode == 0
    assert not (state / "qemu.pid").exists()
