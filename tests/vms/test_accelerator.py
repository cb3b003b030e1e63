"""Which accelerator is taken: one that runs a guest, whatever there is to be opened."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.vm import Accelerator
from orchestrator.nodes.vm import accelerator
from orchestrator.nodes.vm.accelerator import choose_accelerator
from tests.vms.definitions import made_up

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.vm import Vm

HERE = "amd64" if os.uname().machine == "x86_64" else "arm64"
OTHER = "arm64" if HERE == "amd64" else "amd64"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that can be opened, as everything here can."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "_KVM", device)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 1)
    return device


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        (programs / name).write_text(f"#!/bin/sh\necho once >>{folder}/calls\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def machine(arch: str = HERE) -> Vm:
    return made_up("debian", arch, accelerators=["kvm", "tcg"])


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("qemu", ["exit 0", "exit 1", "exec sleep 60"])
def test_kvm_is_tried_once_by_running_a_guest(
    qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, qemu)
    chosen = Accelerator.KVM if qemu == "exit 0" else Accelerator.TCG
    memory = tmp_path / "state/accelerators.json"
    said: list[str] = []

    for _ in range(2):
        assert choose_accelerator(machine(), memory, said.append) is chosen

    assert (tmp_path / "calls").read_text() == "once\n"
    assert said == ["trying whether kvm works here: 1 s at most"]
    ((works, _),) = json.loads(memory.read_text()).values()
    assert works is (chosen is Accelerator.KVM)


@pytest.mark.usefixtures("device")
def test_what_failed_once_is_tried_again_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f"exit $(cat {tmp_path}/status)")
    (tmp_path / "status").write_text("1")
    memory = tmp_path / "accelerators.json"
    assert choose_accelerator(machine(), memory, lambda _: None) is Accelerator.TCG
    (tmp_path / "status").write_text("0")
    assert choose_accelerator(machine(), memory, lambda _: None) is Accelerator.TCG

    ((key, (works, at)),) = json.loads(memory.read_text()).items()
    for clock in (at - 25 * 3600, at + 3600):
        memory.write_text(json.dumps({key: [works, clock]}))
        assert choose_accelerator(machine(), memory, lambda _: None) is Accelerator.KVM


@pytest.mark.usefixtures("device")
def test_a_damaged_memory_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "exit 0")
    memory = tmp_path / "accelerators.json"
    for damaged in ("{", "[]", '{"a": 1}', '{"a": true}', '{"a": [1]}'):
        memory.write_text(damaged)
        assert choose_accelerator(machine(), memory, lambda _: None) is Accelerator.KVM


@pytest.mark.usefixtures("device")
def test_a_cpu_runs_no_other_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "exit 0")

    chosen = choose_accelerator(machine(OTHER), tmp_path / "memory", lambda _: None)

    assert chosen is Accelerator.TCG
    assert not (tmp_path / "calls").exists()


def test_without_the_device_nothing_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Path
) -> None:
    install(tmp_path, monkeypatch, "exit 0")
    device.unlink()

    chosen = choose_accelerator(machine(), tmp_path / "memory", lambda _: None)

    assert chosen is Accelerator.TCG
    assert not (tmp_path / "calls").exists()


def test_where_none_is_right_qemu_has_to_say_why(tmp_path: Path) -> None:
    vm = made_up("debian", OTHER, accelerators=["hvf", "kvm"])

    assert choose_accelerator(vm, tmp_path / "memory", lambda _: None) is Accelerator.KVM


@pytest.mark.usefixtures("device")
def test_a_verdict_is_of_the_cpu_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, 'case "$*" in *nonsense*) exit 1 ;; esac')
    memory = tmp_path / "memory"
    wrong = replace(machine(), cpu="nonsense")

    assert choose_accelerator(wrong, memory, lambda _: None) is Accelerator.TCG
    assert choose_accelerator(machine(), memory, lambda _: None) is Accelerator.KVM
