"""A folder with all that a virtual machine needs where we do not run: scripts, unit, keys, seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import DownloadedImage, Guest, VmArch
from orchestrator.core.vm_netbsd import CREDENTIALS_FILE, netbsd_credentials
from orchestrator.core.vm_provisioning import lines_for, seed_for
from orchestrator.core.vm_script import boot_script, fetch_script, keep_script, stop_script
from orchestrator.core.vm_unit import unit_file
from orchestrator.nodes.vm.folder import CLIENT_KEY, HOST_KEY, KNOWN_HOSTS, VmFolder
from orchestrator.nodes.vm.layout import debian_seed
from orchestrator.nodes.vm.seed import (
    add_to_boot_partition,
    guest_keys,
    make_key,
    public_line,
    write_fat,
    write_iso,
)
from orchestrator.nodes.vm.tools import run_tool

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.vm import Vm

GOLDEN_DISK: Final = "golden.qcow2"
SEED_FILE: Final = "seed.img"
# NetBSD's image as it is once it is unpacked.
_NETBSD_IMAGE: Final = "arm64.img"


def write_kit(vm: Vm, folder: Path) -> tuple[Path, ...]:
    """Write or renew the folder's files, and return them; keys and disks that are there stay.

    NetBSD's unpacked arm64 image in it becomes the disk, with the credentials in it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scripts = {"boot.sh": boot_script(vm), "stop.sh": stop_script(vm), "keep.sh": keep_script(vm)}
    if isinstance(vm.image, DownloadedImage):
        scripts["fetch.sh"] = fetch_script(vm, vm.image)
    written = [_write(folder / name, text, 0o755) for name, text in scripts.items()]
    if lines := lines_for(vm):
        text = "".join(f"at `{line.awaits.strip()}` type: {line.says}\n" for line in lines)
        written.append(_write(folder / "install.txt", text, 0o644))
    unit = unit_file(vm, folder=str(folder.absolute()))
    written.append(_write(folder / f"{vm.name}.service", unit, 0o644))
    make_key(folder / HOST_KEY, vm.name)
    make_key(folder / CLIENT_KEY, f"orchestrator-{vm.name}")
    host_key = public_line(folder / HOST_KEY)
    known = f"[127.0.0.1]:{vm.ssh_port} {host_key}\n"
    written += [folder / HOST_KEY, folder / CLIENT_KEY, _write(folder / KNOWN_HOSTS, known, 0o644)]
    return (*written, *_first_boot(vm, folder))


def _first_boot(vm: Vm, folder: Path) -> tuple[Path, ...]:
    keys = guest_keys(folder / HOST_KEY, folder / CLIENT_KEY)
    seed = seed_for(vm, keys)
    if seed is None:
        files = debian_seed(vm, VmFolder(folder))
        write_fat(folder / SEED_FILE, label="SEED", files=files)
        return (folder / SEED_FILE,)
    write_iso(folder / SEED_FILE, seed)
    if (vm.guest, vm.arch) != (Guest.NETBSD, VmArch.ARM64):
        return (folder / SEED_FILE,)
    credentials = netbsd_credentials(vm, keys)
    written = _write(folder / CREDENTIALS_FILE, credentials, 0o644)
    image, golden = folder / _NETBSD_IMAGE, folder / GOLDEN_DISK
    if not image.exists() or golden.exists():
        return (folder / SEED_FILE, written)
    add_to_boot_partition(image, CREDENTIALS_FILE, credentials)
    partial = golden.with_suffix(".part")
    words = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image.name, partial.name)
    run_tool(*words, folder=folder, timeout_seconds=1800)
    partial.replace(golden)
    return (folder / SEED_FILE, written, golden)


def _write(path: Path, text: str, mode: int) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path
