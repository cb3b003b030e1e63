"""Mach-O files, also universal ones: one Binary for each CPU.

Layouts and numbers: Apple's <mach-o/loader.h>, <mach-o/fat.h> and <mach/machine.h>.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from orchestrator.core.image import EXECUTABLE, Binary, Claim, Image, damaged, readable
from orchestrator.core.target import OS, Arch, Format

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

FAT_MAGICS: Final = {b"\xca\xfe\xba\xbe": "IIIII", b"\xca\xfe\xba\xbf": "IIQQII"}
_THIN: Final[dict[bytes, tuple[Literal["<", ">"], int]]] = {
    b"\xcf\xfa\xed\xfe": ("<", 32),
    b"\xce\xfa\xed\xfe": ("<", 28),
    b"\xfe\xed\xfa\xcf": (">", 32),
    b"\xfe\xed\xfa\xce": (">", 28),
}
MAGICS: Final = frozenset(FAT_MAGICS) | frozenset(_THIN)
# Far above any real program, and low enough that a hostile file costs milliseconds.
MAX_SLICES: Final = 8
MAX_COMMANDS: Final = 1024

_KINDS: Final = {1: "object file", 4: "core dump", 6: "shared library", 8: "bundle"}
_EXECUTE: Final = 2
_CPUS: Final = {
    (0x01000007, 3): ("64-bit x86-64", Arch.X86_64),
    (0x01000007, 8): ("64-bit x86-64h", None),
    (0x0100000C, 0): ("64-bit AArch64", Arch.AARCH64),
    (0x0100000C, 2): ("64-bit arm64e", None),
}
_MACOS: Final = 1
_OTHER_SYSTEMS: Final = {2: "iOS", 3: "tvOS", 4: "watchOS", 6: "Mac Catalyst", 7: "iOS simulator"}

_LOAD_DYLINKER: Final = 0x0E
_SEGMENT_64: Final = 0x19
_UUID: Final = 0x1B
_CODE_SIGNATURE: Final = 0x1D
_ZEROS: Final = frozenset({0x01, 0x0C, 0x12})  # S_ZEROFILL, S_GB_ZEROFILL, S_THREAD_LOCAL_ZEROFILL
_BUILD_VERSION: Final = 0x32
_VERSION_MIN: Final = {0x24: 1, 0x25: 2, 0x2F: 3, 0x30: 4}
_ENTRY: Final = frozenset({0x80000028, 0x05})  # LC_MAIN, LC_UNIXTHREAD
# LC_LOAD_DYLIB, then weak, re-exported, lazy and upward ones.
_LOAD_DYLIB: Final = frozenset({0x0C, 0x80000018, 0x8000001F, 0x20, 0x80000023})


class _Command(NamedTuple):
    kind: int
    size: int
    at: int


def read_macho(data: bytes) -> tuple[Binary, ...]:
    """Return what the file is, once for each CPU that it has code for."""
    if data[:4] in _THIN:
        return (_read_slice(data),)
    image = Image(data=data, format=Format.MACHO, byte_order=">")
    (count,) = image.unpack("I", 4, "the header")
    if not 0 < count <= MAX_SLICES:
        raise damaged(Format.MACHO, f"a universal file with {count} parts")
    layout = FAT_MAGICS[data[:4]]
    return tuple(_read_slice(part) for part in _slices(image, count, layout))


def macho_sections(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the sections of a Mach-O file with their names; of a universal one, for each CPU."""
    if data[:4] in _THIN:
        return tuple(_sections(data))
    image = Image(data=data, format=Format.MACHO, byte_order=">")
    (count,) = image.unpack("I", 4, "the header")
    parts = _slices(image, min(count, MAX_SLICES), FAT_MAGICS[data[:4]])
    return tuple(
        (f"part {number}: {name}", content)
        for number, part in enumerate(parts, start=1)
        for name, content in _sections(part)
    )


def _sections(data: bytes) -> Iterator[tuple[str, bytes]]:
    order, header_size = _THIN[data[:4]]
    image = Image(data=data, format=Format.MACHO, byte_order=order)
    (count,) = image.unpack("I", 16, "the header")
    yield from image.parts(
        part
        for command in _load_commands(image, count, header_size)
        for part in _parts_of(image, command)
    )


def _parts_of(image: Image, command: _Command) -> Iterator[tuple[str, int, int]]:
    if command.kind == _UUID:
        yield "LC_UUID", command.at + 8, 16
    if command.kind == _CODE_SIGNATURE:
        offset, size = image.unpack("II", command.at + 8, "the code signature")
        yield "the code signature", offset, size
    if command.kind == _SEGMENT_64:
        yield from _sections_in(image, command)


def _sections_in(image: Image, command: _Command) -> Iterator[tuple[str, int, int]]:
    (count,) = image.unpack("I", command.at + 64, "a segment")
    for index in range(min(count, (command.size - 72) // 80)):
        at = command.at + 72 + index * 80
        section, segment = (
            readable(image.part(at + part, 16, "a section").partition(b"\0")[0]) for part in (0, 16)
        )
        size, offset = image.unpack("QI", at + 40, "a section")
        (flags,) = image.unpack("I", at + 64, "a section")
        # Zeros that are made in memory have no place in the file.
        if flags & 0xFF not in _ZEROS:
            yield f"{segment},{section}", offset, size


def _slices(image: Image, count: int, layout: str) -> Iterator[bytes]:
    step = 20 if layout == "IIIII" else 32
    for index in range(count):
        _, _, offset, size, *_ = image.unpack(layout, 8 + index * step, "the list of parts")
        part = image.part(offset, size, "a part")
        if part[:4] not in _THIN:
            raise damaged(Format.MACHO, "a part that is not Mach-O")
        yield part


def _read_slice(data: bytes) -> Binary:
    order, header_size = _THIN[data[:4]]
    image = Image(data=data, format=Format.MACHO, byte_order=order)
    cpu, subtype, file_type, count, _, _ = image.unpack("6I", 4, "the header")
    name, arch = _CPUS.get((cpu, subtype & 0xFFFFFF), (f"CPU {cpu:#x}/{subtype:#x}", None))
    commands = tuple(_load_commands(image, count, header_size))
    platform, minimum = _requirement(image, commands)
    is_macos = platform == _MACOS
    return Binary(
        format=Format.MACHO,
        kind=_kind(file_type, commands),
        cpu=name,
        arch=arch if order == "<" else None,
        other_system=None if is_macos else _OTHER_SYSTEMS.get(platform),
        claims=(Claim(os=OS.MACOS, evidence=f"minimum version {minimum}"),) if is_macos else (),
        interpreter=next(_names(image, commands, {_LOAD_DYLINKER}), None),
        needed=tuple(_names(image, commands, _LOAD_DYLIB)),
        macos_minimum=minimum if is_macos else None,
        has_code_signature=any(command.kind == _CODE_SIGNATURE for command in commands),
    )


def _load_commands(image: Image, count: int, at: int) -> Iterator[_Command]:
    if count > MAX_COMMANDS:
        raise damaged(Format.MACHO, f"{count} load commands")
    for _ in range(count):
        kind, size = image.unpack("II", at, "a load command")
        command = _Command(kind, size, at)
        image.require(at, command.size, "a load command")
        if command.size < 8:  # noqa: PLR2004 -- its own two numbers
            raise damaged(Format.MACHO, f"a load command of {command.size} bytes")
        _require_content(image, command)
        yield command
        at += command.size


def _require_content(image: Image, command: _Command) -> None:
    """Raise BuildError if a command points past the end of a file that was cut off."""
    if command.kind == _SEGMENT_64:
        offset, size = image.unpack("QQ", command.at + 40, "a segment")
        image.require(offset, size, "a segment")
    if command.kind == _CODE_SIGNATURE:
        offset, size = image.unpack("II", command.at + 8, "the code signature")
        image.require(offset, size, "the code signature")


def _kind(file_type: int, commands: tuple[_Command, ...]) -> str:
    if file_type != _EXECUTE:
        return _KINDS.get(file_type, f"file of type {file_type}")
    if any(command.kind in _ENTRY for command in commands):
        return EXECUTABLE
    return "program without an entry point"


def _requirement(image: Image, commands: tuple[_Command, ...]) -> tuple[int, str]:
    """Return the platform and its lowest release, zero and nothing if the file names none."""
    for command in commands:
        if command.kind == _BUILD_VERSION:
            platform, minimum = image.unpack("II", command.at + 8, "the minimum version")
            return platform, _release(minimum)
        if command.kind in _VERSION_MIN:
            (minimum,) = image.unpack("I", command.at + 8, "the minimum version")
            return _VERSION_MIN[command.kind], _release(minimum)
    return 0, ""


def _release(packed: int) -> str:
    major, minor, patch = packed >> 16, packed >> 8 & 0xFF, packed & 0xFF
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"


def _names(image: Image, commands: tuple[_Command, ...], kinds: AbstractSet[int]) -> Iterator[str]:
    for command in commands:
        if command.kind in kinds:
            (offset,) = image.unpack("I", command.at + 8, "a name")
            text = image.data[command.at + offset : command.at + command.size]
            yield readable(text.partition(b"\0")[0])
