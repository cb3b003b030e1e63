"""Making a virtual machine: its keys, its seed, and a disk that begins as a copy of an image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from orchestrator.core.errors import ConfigError
from orchestrator.core.vm import DownloadedImage, GoldenImage, PackagesImage
from orchestrator.core.vm_argv import firmware_of
from orchestrator.core.vm_facts import Firmware
from orchestrator.nodes.vm.folder import CLIENT_KEY, HOST_KEY, PATHS
from orchestrator.nodes.vm.image import DISK, INITRD, KERNEL, make_image
from orchestrator.nodes.vm.layout import (
    GOLDEN,
    debian_seed,
    link,
    make_keys,
    place_firmware,
    renew_disk,
)
from orchestrator.nodes.vm.lock import locked
from orchestrator.nodes.vm.making import DISK as MADE_DISK
from orchestrator.nodes.vm.making import make_golden, require_digest
from orchestrator.nodes.vm.seed import write_fat
from orchestrator.nodes.vm.tools import require_tools, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.vm import Vm
    from orchestrator.nodes.vm.folder import VmFolder


def create(
    vm: Vm,
    folder: VmFolder,
    *,
    images: Path,
    say: Callable[[str], None],
    sha256: str | None = None,
    defined_in: Path | None = None,
) -> None:
    """Make the machine, or make it anew; its keys stay the same.

    `sha256` is the digest of its download, where the definition has none; `defined_in` is the
    folder of the inventory whose machine it is from now on. Raise ConfigError if it
    runs, or if a tool is missing; NodeError if the image cannot be made.
    """
    require_tools(vm.arch.qemu, "qemu-img", "ssh-keygen", "mformat", "mcopy")
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.operation_lock, say):
        if folder.is_running:
            raise ConfigError(
                f"{vm.name} is running", hint=f"stop it first: orchestrator vm stop {vm.name}"
            )
        accelerators = folder.path.with_name("accelerators.json")
        golden = _golden(vm, images, say, accelerators=accelerators, sha256=sha256)
        folder.path.mkdir(mode=0o700, exist_ok=True)
        folder.path.chmod(0o700)
        folder.file("created").unlink(missing_ok=True)
        if defined_in is not None:
            folder.note_definition(defined_in)
        link(folder, GOLDEN, golden)
        if firmware_of(vm) is Firmware.KERNEL:
            link(folder, PATHS.kernel, golden.with_name(KERNEL))
            link(folder, PATHS.initrd, golden.with_name(INITRD))
        if firmware_of(vm) is Firmware.UEFI:
            place_firmware(folder)
        _take_keys(vm, folder, golden)
        make_keys(vm, folder)
        write_fat(folder.file(str(PATHS.seed)), label="SEED", files=debian_seed(vm, folder))
        renew_disk(vm, folder)
        folder.file("created").touch()


def _golden(
    vm: Vm, images: Path, say: Callable[[str], None], *, accelerators: Path, sha256: str | None
) -> Path:
    match vm.image:
        case PackagesImage():
            return make_image(vm, images, say) / DISK
        case GoldenImage(file=file, sha256=sha256):
            golden = Path(file)
            if not golden.is_file():
                raise ConfigError(
                    f"there is no image {golden}", hint=f"correct `image.file` of {vm.name}"
                )
            if sha256 is not None and _sha256(golden) != sha256:
                raise ConfigError(
                    f"{golden} is not the image that {vm.name} wants: its SHA-256 differs",
                    hint="something has written to it; install it again, or correct `image.sha256`",
                )
            return golden
        case DownloadedImage():
            image = require_digest(vm, vm.image, sha256)
            made = make_golden(vm, image, images=images, accelerators=accelerators, say=say)
            return made / MADE_DISK
        case _:
            assert_never(vm.image)


def _take_keys(vm: Vm, folder: VmFolder, golden: Path) -> None:
    """Take the keys that lie beside a golden image: its guest was made with them."""
    if isinstance(vm.image, PackagesImage):
        return
    for name in (HOST_KEY, CLIENT_KEY):
        beside = golden.with_name(name)
        if not beside.is_file():
            continue
        key, public = folder.file(name), folder.file(f"{name}.pub")
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(beside.read_bytes())
        # Not the file beside it, which may be missing, or another key's.
        words = ("ssh-keygen", "-y", "-P", "", "-f", key.name)
        public.write_bytes(run_tool(*words, folder=folder.path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
