"""Volumes for a guest: the commands that make them, and where a disk image's FAT partition is."""

from __future__ import annotations

import uuid
from typing import Final

# The protective MBR, the header of a GPT, and its first 128 entries.
PARTITION_TABLE_BYTES: Final = 34 * 512

_SECTOR: Final = 512
_MBR_SIGNATURE: Final = b"\x55\xaa"
_GPT_SIGNATURE: Final = b"EFI PART"
# FAT16 and FAT32 in their variants, and the EFI system partition.
_MBR_TYPES: Final = frozenset({0x04, 0x06, 0x0B, 0x0C, 0x0E, 0xEF})
_GPT_TYPES: Final = frozenset(
    uuid.UUID(each).bytes_le
    for each in (
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",  # EFI system
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",  # Microsoft basic data
    )
)


def iso_argv(label: str, output: str, folder: str) -> tuple[str, ...]:
    """Return the command that writes a folder's files as an ISO 9660 volume of that label."""
    return ("xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-V", label, "-o", output, folder)


def fat_copy_argv(image: str, offset: int, name: str) -> tuple[str, ...]:
    """Return the command that copies its input into a FAT file system inside an image."""
    return ("mcopy", "-o", "-i", f"{image}@@{offset}", "-", f"::{name}")


def boot_partition_offset(table: bytes) -> int | None:
    """Return where the first FAT partition begins, in bytes; None if there is none.

    `table` is the beginning of a raw image of 512-byte sectors.
    """
    if table[510:512] != _MBR_SIGNATURE:
        return None
    if table[_SECTOR : _SECTOR + 8] == _GPT_SIGNATURE:
        return _in_gpt(table)
    for at in range(446, 510, 16):
        if table[at + 4] in _MBR_TYPES:
            return _number(table, at + 8, 4) * _SECTOR
    return None


def _in_gpt(table: bytes) -> int | None:
    first = _number(table, _SECTOR + 72, 8) * _SECTOR
    count, size = _number(table, _SECTOR + 80, 4), _number(table, _SECTOR + 84, 4)
    # A header may claim anything; only what was read is looked at.
    for index in range(min(count, 128)):
        entry = table[first + index * size :][:size]
        if entry[:16] in _GPT_TYPES:
            return _number(entry, 32, 8) * _SECTOR
    return None


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
