"""Making a virtual machine: its keys, its seed, and a disk that begins as a copy of an image."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.vm import GoldenImage, Guest, PackagesImage
from orchestrator.core.vm_argv import FIRMWARE_FILES, firmware_of
from orchestrator.core.vm_facts import Firmware
from orchestrator.nodes.vm.folder import CLIENT_KEY, HOST_KEY, KNOWN_HOSTS, PATHS
from orchestrator.nodes.vm.image import DISK, INITRD, KERNEL, make_image
from orchestrator.nodes.vm.lock import locked
from orchestrator.nodes.vm.seed import make_key, public_line, write_fat
from orchestrator.nodes.vm.tools import require_tools, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.vm import Vm
    from orchestrator.nodes.vm.folder import VmFolder

GOLDEN: Final = "golden"
_QCOW2: Final = b"QFI\xfb"


def create(vm: Vm, folder: VmFolder, *, images: Path, say: Callable[[str], None]) -> None:
    """Make the machine, or make it anew; its keys stay the same.

    Raise ConfigError if it runs, or if a tool is missing; NodeError if the image cannot be made.
    """
    require_tools(vm.arch.qemu, "qemu-img", "ssh-keygen", "mformat", "mcopy")
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.operation_lock, say):
        if folder.is_running:
            raise ConfigError(
                f"{vm.name} is running", hint=f"stop it first: orchestrator vm stop {vm.name}"
            )
        golden = _golden(vm, images, say)
        folder.path.mkdir(mode=0o700, exist_ok=True)
        folder.path.chmod(0o700)
        folder.file("created").unlink(missing_ok=True)
        _link(folder, GOLDEN, golden)
        if firmware_of(vm) is Firmware.KERNEL:
            _link(folder, PATHS.kernel, golden.with_name(KERNEL))
            _link(folder, PATHS.initrd, golden.with_name(INITRD))
        if firmware_of(vm) is Firmware.UEFI:
            _place_firmware(folder)
        _take_keys(vm, folder)
        _make_keys(vm, folder)
        write_fat(folder.file(str(PATHS.seed)), label="SEED", files=debian_seed(vm, folder))
        renew_disk(vm, folder)
        folder.file("created").touch()


def renew_disk(vm: Vm, folder: VmFolder) -> None:
    """Begin again with the disk as it was made; what was written since is gone."""
    golden = folder.file(GOLDEN).resolve()
    if not golden.exists():
        raise ConfigError(
            f"the image of {vm.name} is gone: {golden}",
            hint=f"make it again: orchestrator vm create {vm.name}",
        )
    disk = folder.file(PATHS.disk)
    partial = disk.with_suffix(".part")
    partial.unlink(missing_ok=True)
    size = f"{vm.disk_bytes}"
    run_tool(
        *("qemu-img", "create", "-q", "-f", "qcow2", "-F", _format_of(golden), "-b", str(golden)),
        *(partial.name, size),
        folder=folder.path,
    )
    partial.chmod(0o600)
    partial.replace(disk)


def _format_of(image: Path) -> str:
    with image.open("rb") as file:
        return "qcow2" if file.read(len(_QCOW2)) == _QCOW2 else "raw"


def _golden(vm: Vm, images: Path, say: Callable[[str], None]) -> Path:
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
        case _:
            raise ConfigError(
                f"{vm.name} starts from a download, which is yours to make and to look at",
                hint=f"orchestrator vm render {vm.name} --out FOLDER writes what does it, once; "
                "then name the disk as `image.file` (docs/vms.md)",
            )


def _place_firmware(folder: VmFolder) -> None:
    for code, settings in FIRMWARE_FILES:
        if Path(code).is_file() and Path(settings).is_file():
            _link(folder, PATHS.firmware_code, Path(code))
            # The guest writes to these.
            shutil.copyfile(settings, folder.file(PATHS.firmware_vars))
            return
    raise ConfigError(
        "this machine has no UEFI firmware for arm64",
        hint="on Debian: apt-get install --no-install-recommends qemu-efi-aarch64",
    )


def _take_keys(vm: Vm, folder: VmFolder) -> None:
    """Take the keys that lie beside a golden image: its guest was made with them."""
    if not isinstance(vm.image, GoldenImage):
        return
    beside = Path(vm.image.file).parent
    for name in (HOST_KEY, CLIENT_KEY):
        for file in (f"{name}.pub", name):
            if (beside / file).is_file():
                folder.file(file).unlink(missing_ok=True)
                folder.file(file).touch(mode=0o600)
                folder.file(file).write_bytes((beside / file).read_bytes())


def _make_keys(vm: Vm, folder: VmFolder) -> None:
    make_key(folder.file(HOST_KEY), vm.name)
    make_key(folder.file(CLIENT_KEY), f"orchestrator-{vm.name}")
    line = f"[127.0.0.1]:{vm.ssh_port} {public_line(folder.file(HOST_KEY))}\n"
    folder.file(KNOWN_HOSTS).write_text(line, encoding="ascii")


def debian_seed(vm: Vm, folder: VmFolder) -> dict[str, bytes]:
    """Return the files that Debian's image reads at every boot; another guest has none of them."""
    if vm.guest is not Guest.DEBIAN:
        return {}
    return {
        HOST_KEY: folder.file(HOST_KEY).read_bytes(),
        f"{HOST_KEY}.pub": folder.file(f"{HOST_KEY}.pub").read_bytes(),
        "authorized_keys": folder.file(f"{CLIENT_KEY}.pub").read_bytes(),
        "hostname": f"{vm.name}\n".encode(),
        "user": f"{vm.user}\n".encode(),
    }


def _link(folder: VmFolder, name: str, target: Path) -> None:
    link = folder.file(name)
    link.unlink(missing_ok=True)
    link.symlink_to(target.absolute())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
