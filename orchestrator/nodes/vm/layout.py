"""The files of a machine's state: links to what it is made of, firmware, keys, and its disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.vm import Guest
from orchestrator.core.vm_argv import FIRMWARE_FILES
from orchestrator.nodes.vm.folder import CLIENT_KEY, HOST_KEY, KNOWN_HOSTS, PATHS
from orchestrator.nodes.vm.seed import make_key, public_line
from orchestrator.nodes.vm.tools import run_tool

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm
    from orchestrator.nodes.vm.folder import VmFolder

GOLDEN: Final = "golden"
_QCOW2: Final = b"QFI\xfb"


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


def place_firmware(folder: VmFolder) -> None:
    """Put UEFI and its settings beside the disk; raise ConfigError if this machine has none."""
    for code, settings in FIRMWARE_FILES:
        if Path(code).is_file() and Path(settings).is_file():
            link(folder, PATHS.firmware_code, Path(code))
            # The guest writes to these.
            shutil.copyfile(settings, folder.file(PATHS.firmware_vars))
            return
    raise ConfigError(
        "this machine has no UEFI firmware for arm64",
        hint="on Debian: apt-get install --no-install-recommends qemu-efi-aarch64",
    )


def make_keys(vm: Vm, folder: VmFolder) -> None:
    """Make the keys that are not there yet, and the file by which ssh knows the guest."""
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


def link(folder: VmFolder, name: str, target: Path) -> None:
    """Let a name of the folder mean a file elsewhere."""
    place = folder.file(name)
    place.unlink(missing_ok=True)
    place.symlink_to(target.absolute())
