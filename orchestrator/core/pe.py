"""PE files, the programs of Windows.

Layout: Microsoft's "PE Format" page.
"""

from __future__ import annotations

from typing import Final

from orchestrator.core.errors import BuildError
from orchestrator.core.image import EXECUTABLE, Binary, Claim, Image, readable
from orchestrator.core.target import OS, Arch, Format

_MACHINES: Final = {
    0x8664: ("64-bit x86-64", Arch.X86_64),
    0xAA64: ("64-bit AArch64", Arch.AARCH64),
    0x014C: ("32-bit x86", None),
    0x01C4: ("32-bit ARM", None),
}
_IS_EXECUTABLE_IMAGE: Final = 0x0002
_IS_DLL: Final = 0x2000
_SUBSYSTEMS: Final = {2: "Windows windows", 3: "Windows console"}
_OTHER_SYSTEMS: Final = {1: "the Windows kernel", 10: "UEFI", 11: "UEFI", 12: "UEFI", 14: "Xbox"}
_COFF_SIZE: Final = 24


def read_pe(data: bytes) -> Binary:
    """Return what a PE file is for."""
    image = Image(data=data, format=Format.PE)
    (at,) = image.unpack("I", 0x3C, "the DOS header")
    if image.part(at, 4, "the header") != b"PE\0\0":
        raise BuildError("an MS-DOS program, not one for Windows")
    machine, sections, _, _, _, optional_size, flags = image.unpack("HHIIIHH", at + 4, "the header")
    optional = at + _COFF_SIZE
    (entry,) = image.unpack("I", optional + 16, "the optional header")
    (subsystem,) = image.unpack("H", optional + 68, "the optional header")
    _require_sections(image, optional + optional_size, sections)
    cpu, arch = _MACHINES.get(machine, (f"CPU {machine:#x}", None))
    return Binary(
        format=Format.PE,
        kind=_kind(flags, entry),
        cpu=cpu,
        arch=arch,
        other_system=_OTHER_SYSTEMS.get(subsystem),
        claims=tuple(
            Claim(os=OS.WINDOWS, evidence=f"subsystem {name}")
            for number, name in _SUBSYSTEMS.items()
            if number == subsystem
        ),
    )


def pe_sections(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the sections of a PE file with their names; first, its headers."""
    image = Image(data=data, format=Format.PE)
    (at,) = image.unpack("I", 0x3C, "the DOS header")
    _, count, _, _, _, optional_size, _ = image.unpack("HHIIIHH", at + 4, "the header")
    table = at + _COFF_SIZE + optional_size
    sections = [("the headers", 0, table + count * 40)]
    for index in range(count):
        entry = table + index * 40
        name = image.part(entry, 8, "a section header").rstrip(b"\0")
        size, offset = image.unpack("II", entry + 16, "a section header")
        sections.append((readable(name), offset, size))
    return tuple(image.parts(sections))


def _kind(flags: int, entry: int) -> str:
    if flags & _IS_DLL:
        return "shared library"
    if flags & _IS_EXECUTABLE_IMAGE and entry:
        return EXECUTABLE
    return "program without an entry point"


def _require_sections(image: Image, at: int, count: int) -> None:
    """Raise BuildError if a section is not all there: the file was cut off."""
    for index in range(count):
        size, offset = image.unpack("II", at + index * 40 + 16, "a section header")
        image.require(offset, size, "a section")
