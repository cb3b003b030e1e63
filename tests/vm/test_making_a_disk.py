"""The way of a disk from a download to being kept, with a real guest, and a real serial line."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import hashlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.core.vm import DownloadedImage, GoldenImage
from orchestrator.core.vm_first_boot import first_boot_of
from orchestrator.core.vm_seed import Line
from orchestrator.nodes.vm.creation import create
from orchestrator.nodes.vm.dialogue import open_line
from orchestrator.nodes.vm.download import fetch_image
from orchestrator.nodes.vm.folder import PATHS, VmFolder
from orchestrator.nodes.vm.image import DISK, INITRD, KERNEL, make_image
from orchestrator.nodes.vm.layout import link
from orchestrator.nodes.vm.machine import Machine
from orchestrator.nodes.vm.making import Making
from orchestrator.nodes.vm.tools import free_port
from tests.servers import bytes_of, serving
from tests.vm.test_debian_guest import CACHE
from tests.vms.definitions import shipped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.vm


async def talk(machine: Machine) -> None:
    """Boot it, and talk with its shell on the serial line, as an installer's is talked with."""
    await machine.start()
    try:
        async with open_line(machine.folder) as line:
            lines = (
                Line(awaits="# ", says="PS1='ready? '"),
                Line(awaits="ready? ", says="expr 40 + 2"),
            )
            await line.answer(lines, patience_seconds=120)
            await line.wait_for("42", patience_seconds=120)
            with pytest.raises(NodeError, match="no `boot>` within 1 s"):
                await line.wait_for("boot> ", patience_seconds=1)
    finally:
        await machine.stop()


def test_a_disk_from_a_download_is_booted_shut_down_and_kept(tmp_path: Path) -> None:
    vm = dataclasses.replace(shipped("debian-amd64"), ssh_port=free_port())
    image = make_image(vm, CACHE / "orchestrator/images", print)
    raw = tmp_path / "raw.img"
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image / DISK, raw], check=True
    )
    packed = gzip.compress(raw.read_bytes(), compresslevel=1)
    raw.unlink()
    with serving(bytes_of(packed)) as server:
        url, digest = f"{server}/disk.img.gz", hashlib.sha256(packed).hexdigest()
        archive = fetch_image(url, sha256=digest, folder=tmp_path / "downloads", say=print)
    vm = dataclasses.replace(vm, image=DownloadedImage(url=url, sha256=digest))
    making = Making(
        vm=vm,
        folder=VmFolder(tmp_path / "making"),
        accelerators=tmp_path / "accelerators.json",
        say=print,
        first_boot=first_boot_of(vm),
    )
    making.begin(archive)
    for ours, theirs in ((PATHS.kernel, KERNEL), (PATHS.initrd, INITRD)):
        link(making.folder, ours, image / theirs)
    asyncio.run(making.go())
    assert "Power down" in making.folder.tail(PATHS.serial_log)
    made = making.finished()
    check = subprocess.run(
        ["qemu-img", "check", made / "golden.qcow2"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr

    # A machine that is made of it has its keys, and comes up with them.
    for name in (KERNEL, INITRD):
        (made / name).symlink_to(image / name)
    golden = dataclasses.replace(vm, image=GoldenImage(file=str(made / "golden.qcow2")))
    folder = VmFolder(tmp_path / "vms" / vm.name)
    create(golden, folder, images=tmp_path, say=print)
    machine = Machine(
        vm=golden, folder=folder, accelerators=tmp_path / "accelerators.json", say=print
    )
    asyncio.run(talk(machine))
