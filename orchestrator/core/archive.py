"""Deterministic archives: the same files make the same bytes, on any machine and on any day."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

# What ustar has room for in its two fields, and a file system in a name.
MAX_ENTRY: Final = 100
MAX_FOLDER: Final = 155
MAX_FILE: Final = 255
_NAME: Final = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
# 1980-01-01 00:00 UTC: GNU tar calls 1970 implausible, and zip knows nothing earlier.
_TIME: Final = 315_532_800
# RFC 1952: deflate, no name, no time, best compression, made by an unknown OS.
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveEntry:
    """One file of an archive."""

    name: str
    data: bytes
    is_executable: bool


def pack_archive(folder: str, entries: Sequence[ArchiveEntry]) -> bytes:
    """Return a .tar.gz with every entry under `folder/`, in the order of their names.

    It is plain ustar, which every tar reads. The bytes depend on nothing but the arguments and the
    version of zlib.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"an archive needs files, each with its own name, not {names}")
    _require_name(folder, MAX_FOLDER)
    for name in names:
        _require_name(name, MAX_ENTRY)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in sorted(entries, key=lambda entry: entry.name):
            tar.addfile(_member(folder, entry), io.BytesIO(entry.data))
    return _gzip(buffer.getvalue())


def archive_name(project: str, version: str, target_key: str) -> str:
    """Return `<project>-<version>-<target>.tar.gz`; the key has an OS release where it matters."""
    name = f"{project}-{version}-{target_key}.tar.gz"
    _require_name(name, MAX_FILE)
    return name


def sha256_line(sha256: str, file_name: str) -> str:
    """Return the line that `sha256sum -c` accepts."""
    _require_name(file_name, MAX_FILE)
    if not _SHA256.fullmatch(sha256):
        raise ConfigError(f"not a SHA-256 in lowercase hex: {sha256[:80]!r}")
    return f"{sha256}  {file_name}\n"


def _require_name(name: str, limit: int) -> None:
    if len(name) > limit or not _NAME.fullmatch(name):
        raise ConfigError(
            f"not a safe file name: {name[:120]!r}",
            hint=f"use at most {limit} of A-Z a-z 0-9 . _ + -, and begin with neither . nor -",
        )


def _member(folder: str, entry: ArchiveEntry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{folder}/{entry.name}")
    member.size = len(entry.data)
    member.mode = 0o755 if entry.is_executable else 0o644
    member.mtime = _TIME
    return member


def _gzip(data: bytes) -> bytes:
    # gzip.compress writes another OS byte from one Python to the next, so the frame is made here.
    # Level 9 is a third of a percent smaller for a program, and takes three times as long.
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    return _GZIP_HEADER + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
