"""Starting, adopting and stopping a machine: a real sshd, real disks, and a program for QEMU."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.vm import GoldenImage
from orchestrator.nodes.vm import layout
from orchestrator.nodes.vm import machine as machine_module
from orchestrator.nodes.vm.creation import create
from orchestrator.nodes.vm.diagnosis import BootError
from orchestrator.nodes.vm.folder import VmFolder
from orchestrator.nodes.vm.lock import is_locked, open_lock, try_lock
from orchestrator.nodes.vm.machine import Machine
from orchestrator.nodes.vm.tools import free_port
from tests.nodes import sshd
from tests.releases import wait_for
from tests.vms import fake_qemu
from tests.vms.definitions import made_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.core.vm import Vm

pytestmark = sshd.needs_sshd


@dataclass(frozen=True, slots=True)
class Bench:
    """A machine that is made, and what was said of it."""

    machine: Machine
    said: list[str]

    @property
    def folder(self) -> VmFolder:
        return self.machine.folder

    @property
    def starts(self) -> list[str]:
        """The CPUs that it was started with."""
        return self.folder.file("starts").read_text().split()

    def altered(self, **changes: Any) -> Machine:
        return replace(self.machine, vm=replace(self.machine.vm, **changes))


def definition(golden: Path) -> Vm:
    vm = made_up("debian", "amd64", user=getpass.getuser(), accelerators=["tcg"])
    image = GoldenImage(file=str(golden))
    return replace(vm, image=image, ssh_port=free_port(), boot_timeout=timedelta(seconds=60))


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    fake_qemu.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    # Its sshd is no emulated one.
    monkeypatch.setattr(machine_module, "_PROBE_EVERY_SECONDS", 0.2)
    golden = tmp_path / "golden.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", golden, "1M"], check=True)
    for name in ("kernel", "initrd"):
        (tmp_path / name).touch()
    said: list[str] = []
    vm = definition(golden)
    machine = Machine(
        vm=vm,
        folder=VmFolder(tmp_path / "vms" / vm.name),
        accelerators=tmp_path / "accelerators.json",
        say=said.append,
    )
    create(vm, machine.folder, images=tmp_path / "images", say=said.append)
    yield Bench(machine, said)
    # Whatever happened: nothing of a test runs on.
    if machine.folder.is_running and machine.folder.pid:
        os.kill(machine.folder.pid, signal.SIGKILL)


async def test_a_machine_is_started_found_running_and_stopped(bench: Bench) -> None:
    assert await bench.machine.status() == "stopped"

    assert await bench.machine.start()

    assert await bench.machine.status() == "running"
    pid = bench.folder.pid
    assert not await bench.machine.start()
    assert bench.folder.pid == pid
    assert await bench.machine.stop() == "switched off"
    assert await bench.machine.status() == "stopped"
    assert await bench.machine.stop() is None
    assert bench.starts == ["max"]


async def test_every_start_of_a_fresh_machine_begins_with_the_disk_as_it_was_made(
    bench: Bench,
) -> None:
    disk = bench.folder.file("disk.qcow2")
    before = disk.read_bytes()
    with disk.open("ab") as file:
        file.write(b"what a build left")

    await bench.machine.start()

    assert len(disk.read_bytes()) == len(before)


async def test_a_disk_that_is_kept_is_shut_down_from_inside(bench: Bench) -> None:
    kept = bench.altered(fresh=False)
    disk = bench.folder.file("disk.qcow2")
    made = disk.stat().st_ino

    await kept.start()

    assert await kept.stop() == "shut down"
    assert disk.stat().st_ino == made


@pytest.mark.thorough
async def test_a_qemu_that_ends_says_why_and_is_tried_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "dies")

    with pytest.raises(BootError) as failure:
        await bench.machine.start()

    assert "Could not set up host forwarding rule" in str(failure.value)
    assert len(bench.starts) == 2
    assert not bench.folder.is_running


@pytest.mark.thorough
async def test_a_guest_that_trips_over_its_cpu_comes_up_with_a_plainer_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "plain")
    tried = bench.altered(boot_timeout=timedelta(seconds=3))

    assert await tried.start()

    assert bench.starts == ["max", "qemu64"]
    assert any("once more" in each for each in bench.said)
    assert await bench.machine.status() == "running"


@pytest.mark.thorough
async def test_a_guest_that_never_comes_up_is_not_left_running(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "silent")
    tried = bench.altered(boot_timeout=timedelta(seconds=3))

    with pytest.raises(BootError) as failure:
        await tried.start()

    assert "did not come up" in str(failure.value)
    assert "Reached target Network" in str(failure.value)
    assert failure.value.hint is not None
    assert not bench.folder.is_running


async def test_another_host_key_than_the_one_that_was_made_is_refused_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "stranger")

    with pytest.raises(NodeError, match="HAS CHANGED"):
        await bench.machine.start()

    assert bench.starts == ["max"]
    assert not bench.folder.is_running


async def test_two_coordinators_start_one_machine(bench: Bench) -> None:
    other = replace(bench.machine)

    started = await asyncio.gather(bench.machine.start(), other.start())

    assert sorted(started) == [False, True]
    assert bench.starts == ["max"]
    assert any("another orchestrator is at it" in each for each in bench.said)


async def test_a_boot_that_its_coordinator_did_not_live_to_see_is_gone_on_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "waits")
    await killed_while_it_boots(bench)
    pid = bench.folder.pid

    bench.folder.file("up").touch()

    assert not await bench.machine.start()
    assert bench.folder.pid == pid
    assert bench.starts == ["max"]


async def killed_while_it_boots(bench: Bench) -> None:
    """Start it in another process, and kill that without a warning."""
    program = (
        "import asyncio, pathlib, pickle, sys\n"
        "machine = pickle.load(sys.stdin.buffer)\n"
        "asyncio.run(machine.start(on_demand=True))\n"
    )
    coordinator = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    assert coordinator.stdin is not None
    coordinator.stdin.write(pickle.dumps(replace(bench.machine, say=print)))
    coordinator.stdin.close()
    await asyncio.to_thread(
        wait_for, lambda: bench.folder.is_running and bench.folder.pid is not None
    )
    coordinator.kill()
    coordinator.wait()
    assert bench.folder.on_demand.exists()


@pytest.mark.thorough
async def test_an_interrupted_boot_that_leads_nowhere_is_begun_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "silent")
    await killed_while_it_boots(bench)
    monkeypatch.setenv("FAKE_QEMU", "")
    tried = bench.altered(boot_timeout=timedelta(seconds=3))

    await tried.start(on_demand=True)

    assert bench.starts == ["max", "max"]
    assert any("starting it again" in each for each in bench.said)


@pytest.mark.thorough
async def test_a_machine_that_somebody_else_looks_after_is_not_started_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "silent")
    await killed_while_it_boots(bench)
    bench.folder.on_demand.unlink()
    tried = bench.altered(boot_timeout=timedelta(seconds=1))

    with pytest.raises(BootError):
        await tried.start(on_demand=True)

    assert bench.folder.is_running
    assert bench.starts == ["max"]


@pytest.mark.thorough
async def test_a_guest_that_somebody_could_log_into_is_not_ended_under_them(bench: Bench) -> None:
    await bench.machine.start(on_demand=True)
    # Another inventory has a machine of the same name, with a port of its own.
    other = bench.altered(ssh_port=free_port(), boot_timeout=timedelta(seconds=1))

    with pytest.raises(BootError):
        await other.start(on_demand=True)

    assert bench.folder.is_running
    assert bench.starts == ["max"]


@pytest.mark.thorough
async def test_a_qemu_that_does_not_listen_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "deaf")
    monkeypatch.setattr(machine_module, "_SWITCH_OFF", ("quit", "switched off", 0.3))
    monkeypatch.setattr(machine_module, "_QUIT_SECONDS", 0.5)
    await bench.machine.start()

    assert await bench.machine.stop() == "ended with SIGKILL"


async def test_a_process_that_got_the_number_of_a_dead_qemu_is_left_alone(bench: Bench) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        bench.folder.file("qemu.pid").write_text(f"{other.pid}\n")

        assert await bench.machine.stop() is None
        assert await bench.machine.start()
        await bench.machine.stop()

        assert other.poll() is None
        other.kill()


async def test_a_machine_that_was_never_made_says_how(bench: Bench, tmp_path: Path) -> None:
    other = replace(bench.machine, folder=VmFolder(tmp_path / "vms/other"))

    assert await other.status() == "not created"
    with pytest.raises(ConfigError, match="is not made yet") as failure:
        await other.start()
    assert failure.value.hint == f"make it, once: orchestrator vm create {bench.machine.vm.name}"


async def test_a_machine_whose_image_is_gone_says_how_to_make_it(bench: Bench) -> None:
    bench.folder.file("golden").resolve().unlink()

    with pytest.raises(ConfigError, match="is gone") as failure:
        await bench.machine.start()

    assert failure.value.hint is not None
    assert "orchestrator vm create" in failure.value.hint
    assert not bench.folder.is_running


async def test_a_machine_is_not_made_anew_while_it_runs_and_keeps_its_keys(
    bench: Bench, tmp_path: Path
) -> None:
    def make(say: Callable[[str], None] = bench.said.append) -> None:
        create(bench.machine.vm, bench.folder, images=tmp_path, say=say)

    key = bench.machine.way_in().host_key
    await bench.machine.start()
    with pytest.raises(ConfigError, match="is running"):
        make()
    await bench.machine.stop()

    make()

    assert bench.machine.way_in().host_key == key


async def test_a_golden_image_may_be_raw(bench: Bench, tmp_path: Path) -> None:
    raw = tmp_path / "raw.img"
    raw.write_bytes(bytes(2**20))
    vm = replace(bench.machine.vm, image=GoldenImage(file=str(raw)))

    create(vm, bench.folder, images=tmp_path, say=bench.said.append)

    words = ["qemu-img", "info", "--output=json", str(bench.folder.file("disk.qcow2"))]
    told = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    assert told["backing-filename-format"] == "raw"


async def test_a_golden_image_that_was_written_to_is_refused(bench: Bench, tmp_path: Path) -> None:
    image = GoldenImage(file=str(tmp_path / "golden.qcow2"), sha256="0" * 64)

    with pytest.raises(ConfigError, match="its SHA-256 differs"):
        create(
            replace(bench.machine.vm, image=image),
            bench.folder,
            images=tmp_path,
            say=bench.said.append,
        )


def test_a_machine_with_firmware_gets_settings_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_qemu.install(tmp_path / "bin", "aarch64")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    code, settings = tmp_path / "code.fd", tmp_path / "vars.fd"
    code.write_bytes(b"code")
    settings.write_bytes(b"settings")
    monkeypatch.setattr(layout, "FIRMWARE_FILES", ((str(code), str(settings)),))
    raw = tmp_path / "raw.img"
    raw.write_bytes(bytes(2**20))
    vm = replace(made_up("freebsd", "arm64"), image=GoldenImage(file=str(raw)))
    folder = VmFolder(tmp_path / "vms/freebsd")

    create(vm, folder, images=tmp_path, say=print)

    assert folder.file("firmware-vars.fd").read_bytes() == b"settings"
    assert not folder.file("firmware-vars.fd").is_symlink()
    assert folder.file("firmware-code.fd").resolve() == code

    code.unlink()
    with pytest.raises(ConfigError, match="no UEFI firmware for arm64"):
        create(vm, folder, images=tmp_path, say=print)
    assert not folder.is_created


def test_what_no_machine_can_be_made_of_is_said(bench: Bench, tmp_path: Path) -> None:
    for vm, message in (
        (made_up("openbsd", "amd64"), "nobody says which digest"),
        (replace(bench.machine.vm, image=GoldenImage(file="/no/such")), "there is no image"),
    ):
        with pytest.raises(ConfigError, match=message):
            create(vm, bench.folder, images=tmp_path, say=print)
    assert bench.folder.is_created, "what was made before is as it was"


def test_two_who_glance_at_a_lock_do_not_take_each_other_for_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    glance = open_lock(path)
    assert try_lock(glance, shared=True)
    assert not is_locked(path)
    os.close(glance)

    holder = open_lock(path)
    assert try_lock(holder)
    assert is_locked(path)
    os.close(holder)


async def test_a_machine_is_removed_before_anybody_else_can_start_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    really = shutil.rmtree

    def look(path: Path) -> None:
        seen.append(is_locked(bench.folder.operation_lock))
        really(path)

    monkeypatch.setattr(shutil, "rmtree", look)
    await bench.machine.start()

    await bench.machine.remove()
    await bench.machine.remove()

    assert seen == [True]
    assert not bench.folder.path.exists()
    with pytest.raises(ConfigError, match="is not made yet"):
        await bench.machine.start()


async def test_who_starts_by_hand_what_a_job_has_started_keeps_it(bench: Bench) -> None:
    await bench.machine.start(on_demand=True)
    assert bench.folder.on_demand.exists()

    assert not await bench.machine.start(on_demand=True)
    assert bench.folder.on_demand.exists()
    assert not await bench.machine.start()

    assert not bench.folder.on_demand.exists()
