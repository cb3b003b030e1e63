"""The virtual machines that are shipped, and ones that a test makes up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.vm_parser import parse_vm
from orchestrator.workspace import list_vms, load_vm

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm

TOP = Path(__file__).parents[2]
NAMES = list_vms(TOP)

_IMAGES: dict[str, dict[str, object]] = {
    "freebsd": {"url": "https://download.example.org/freebsd.qcow2.xz"},
    "openbsd": {"url": "https://download.example.org/miniroot.img", "installer": True},
    "netbsd": {"url": "https://download.example.org/arm64.img.gz"},
    "debian": {"suite": "bookworm"},
}
_RELEASES = {"freebsd": "15.1", "openbsd": "7.9", "netbsd": "11.0", "debian": "12"}


def shipped(name: str) -> Vm:
    """Return the definition in vms/NAME."""
    return load_vm(TOP, name)


def data_of(guest: str, arch: str, **more: object) -> dict[str, Any]:
    """Return the least that a definition says."""
    return {
        "guest": guest,
        "arch": arch,
        "release": _RELEASES[guest],
        "cores": 2,
        "memory": "2GiB",
        "disk": "8GiB",
        "ssh_port": 2299,
        "image": _IMAGES[guest],
        **more,
    }


def made_up(guest: str, arch: str, **more: object) -> Vm:
    """Return such a definition, parsed."""
    return parse_vm(data_of(guest, arch, **more), name=f"{guest}-{arch}", place="vm.yaml")
