"""The initial RAM disk of a guest: a static busybox, a few modules, and one shell script.

Made here and not by the guest's own tools, because those could not run for another architecture.
The format is cpio's "newc": https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Each needs those before it at most; what a kernel has built in is no module.
_MODULES: Final = (
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio-rng",
    "crc16",
    "crc32c_generic",
    "libcrc32c",
    "mbcache",
    "jbd2",
    "ext4",
)
_FOLDERS: Final = ("bin", "modules")
_TRAILER: Final = "TRAILER!!!"


def make_initramfs(*, busybox: bytes, modules: bytes, init: bytes) -> bytes:
    """Return the compressed archive; `modules` is a tar of kernel modules, packed ones as well."""
    found = dict(_read_modules(modules))
    present = [name for name in _MODULES if name in found]
    files = {
        "init": (init, 0o755),
        "bin/busybox": (busybox, 0o755),
        "modules/order": ("".join(f"{name}.ko\n" for name in present).encode(), 0o644),
        **{f"modules/{name}.ko": (found[name], 0o644) for name in present},
    }
    entries = (
        *(_entry(folder, stat.S_IFDIR | 0o755, b"") for folder in _FOLDERS),
        *(_entry(path, stat.S_IFREG | mode, data) for path, (data, mode) in files.items()),
        _entry(_TRAILER, 0, b""),
    )
    return gzip.compress(b"".join(entries), compresslevel=6, mtime=0)


def _read_modules(archive: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None:
                continue
            path = PurePosixPath(member.name)
            data = file.read()
            name = path.name.partition(".ko")[0]
            yield name, lzma.decompress(data) if path.suffix == ".xz" else data


def _entry(path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    # Without an inode number: nothing is linked twice.
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
