"""What a guest is told at its first boot, on a small disk: mtools and xorriso make it, not root."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import NodeError
from orchestrator.core.vm_seed import GuestKeys
from orchestrator.core.vm_volume import (
    PARTITION_TABLE_BYTES,
    boot_partition_offset,
    fat_copy_argv,
    iso_argv,
)
from orchestrator.nodes.vm.tools import require_tools, run_tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.vm_seed import Seed

_CYLINDERS: Final = ("-t", "4", "-h", "16", "-s", "64")
_SIZE_BYTES: Final = 4 * 16 * 64 * 512


def make_key(path: Path, comment: str) -> None:
    """Make an SSH key without a passphrase, `path` and `path.pub`; leave one that is there."""
    if path.exists():
        return
    partial = path.with_suffix(".part")
    for old in (partial, partial.with_suffix(".part.pub")):
        old.unlink(missing_ok=True)
    run_tool(
        *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", partial.name),
        folder=path.parent,
    )
    # The private half last: it says that both are there.
    partial.with_suffix(".part.pub").replace(path.with_name(f"{path.name}.pub"))
    partial.replace(path)


def public_line(path: Path) -> str:
    """Return the public half of a key, without its comment."""
    words = path.with_name(f"{path.name}.pub").read_text(encoding="ascii").split()
    return " ".join(words[:2])


def guest_keys(host_key: Path, client_key: Path) -> GuestKeys:
    """Return the keys of a guest, as seeds take them."""
    return GuestKeys(
        host_private=host_key.read_text(encoding="ascii"),
        host_public=public_line(host_key),
        client_public=public_line(client_key),
    )


def write_fat(path: Path, *, label: str, files: Mapping[str, bytes]) -> None:
    """Write a FAT volume of that label with these files in its root."""
    require_tools("mformat", "mcopy")
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    with partial.open("r+b") as file:
        file.truncate(_SIZE_BYTES)
    run_tool("mformat", "-i", partial.name, "-v", label, *_CYLINDERS, "::", folder=path.parent)
    for name, data in files.items():
        run_tool("mcopy", "-i", partial.name, "-", f"::{name}", folder=path.parent, stdin=data)
    partial.replace(path)


def write_iso(path: Path, seed: Seed) -> None:
    """Write a seed as an ISO 9660 volume that keeps the files' names; only its owner reads it."""
    require_tools("xorriso")
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".seed-") as folder:
        for file in seed.files:
            _write_private(Path(folder, file.name), file.text.encode())
        # Before xorriso writes into it, so that a key is never readable by others.
        _write_private(partial, b"")
        run_tool(*iso_argv(seed.label, partial.name, Path(folder).name), folder=path.parent)
    partial.replace(path)


def add_to_boot_partition(image: Path, name: str, text: str) -> None:
    """Write a file into the FAT partition that a raw disk image starts from, over an older one.

    Raise NodeError if the image has no such partition.
    """
    require_tools("mcopy")
    with image.open("rb") as file:
        offset = boot_partition_offset(file.read(PARTITION_TABLE_BYTES))
    if offset is None:
        raise NodeError(
            f"{image} has no FAT partition to start from",
            hint="it is not the raw image of an installed system, or it is still compressed",
        )
    words = fat_copy_argv(image.name, offset, name)
    run_tool(*words, folder=image.parent, stdin=text.encode())


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
