"""boot.sh, stop.sh and keep.sh with a real guest: run, asked to end, and kept as it is."""

from __future__ import annotations

import dataclasses
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.nodes.vm.image import DISK, INITRD, KERNEL, make_image
from orchestrator.nodes.vm.kit import write_kit
from orchestrator.nodes.vm.tools import free_port
from tests.vm.test_debian_guest import CACHE
from tests.vms.definitions import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.vm import Vm

pytestmark = pytest.mark.vm


def ask(vm: Vm, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the guest, over a connection that is verified by the folder's own files."""
    words = ["ssh", "-F", "none", "-p", str(vm.ssh_port), "-i", str(folder / "client-key")]
    for option in ("BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=yes"):
        words += ["-o", option]
    words += ["-o", f"UserKnownHostsFile={folder / 'known-hosts'}"]
    return subprocess.run(
        [*words, f"{vm.user}@127.0.0.1", command], capture_output=True, text=True, check=False
    )


def run_once(vm: Vm, folder: Path, command: str) -> str:
    """Boot it, run the command, stop it; return what the command said."""
    with subprocess.Popen([folder / "boot.sh"], stderr=subprocess.PIPE, text=True) as booted:
        try:
            deadline = time.monotonic() + vm.boot_timeout.total_seconds()
            while ask(vm, folder, "true").returncode != 0:
                assert booted.poll() is None, "QEMU has ended"
                assert time.monotonic() < deadline, "the guest does not come up"
                time.sleep(1)  # its sshd tells nobody when it is ready
            answer = ask(vm, folder, command)
            with subprocess.Popen([folder / "stop.sh"]) as stopping:
                # An ended process that its parent has not looked at is still there for stop.sh.
                _, said = booted.communicate()
                assert stopping.wait() == 0, said
        finally:
            booted.kill()
    assert booted.returncode == 0, said
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_a_rendered_folder_runs_a_guest_and_keeps_what_it_wrote(tmp_path: Path) -> None:
    vm = dataclasses.replace(shipped("debian-amd64"), ssh_port=free_port())
    image = make_image(vm, CACHE / "orchestrator/images", print)
    write_kit(vm, tmp_path)
    for name in (DISK, KERNEL, INITRD):
        (tmp_path / name).symlink_to(image / name)

    said = run_once(vm, tmp_path, "cargo --version && echo kept >mark")

    assert said.startswith("cargo 1.")
    # The guest ended by itself.
    assert "Power down" in (tmp_path / "serial.log").read_text(errors="replace")
    subprocess.run([tmp_path / "keep.sh"], check=True)
    assert run_once(vm, tmp_path, "cat mark") == "kept\n"
