"""Write small ELF, Mach-O and PE files as their specifications say: for systems not at hand."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

X86_64, AARCH64, RISCV64, MIPS, ARM, X86 = 62, 183, 243, 8, 40, 3
PIE = 0x08000000
_BASE = 0x400000


@dataclass(frozen=True, kw_only=True)
class ElfNote:
    owner: str
    content: bytes
    kind: int = 1

    def encode(self, order: str, alignment: int = 4) -> bytes:
        owner = self.owner.encode() + b"\0"
        head = struct.pack(order + "III", len(owner), len(self.content), self.kind) + owner
        return _padded(_padded(head, alignment) + self.content, alignment)


def number_note(owner: str, number: int) -> ElfNote:
    return ElfNote(owner=owner, content=struct.pack("<I", number))


@dataclass(frozen=True, kw_only=True)
class ElfFile:
    machine: int = X86_64
    is_64_bit: bool = True
    is_little: bool = True
    osabi: int = 0
    file_type: int = 3
    flags: int = 0
    entry: int = _BASE
    interpreter: str | None = None
    notes: tuple[ElfNote, ...] = ()
    note_alignment: int = 4
    needed: tuple[str, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flags_1: int = PIE
    comment: bytes = b""

    def build(self) -> bytes:
        return _ElfWriter(self).build()


class _ElfWriter:
    """Lays out: header, program headers, contents (all loaded), section headers."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf
        self.order = "<" if elf.is_little else ">"
        self.word = "Q" if elf.is_64_bit else "I"
        self.header_size, self.segment_size, self.section_size = (
            (64, 56, 64) if elf.is_64_bit else (52, 32, 40)
        )
        self.body = b""
        self.names = b"\0"
        self.strings = b"\0"
        self.sections: list[tuple[int, ...]] = [(0,) * 10]
        self.segments: list[tuple[int, int, int, int]] = []

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def string(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    @property
    def start(self) -> int:
        count = 1 + bool(self.elf.interpreter) + bool(self.elf.notes) + self.is_dynamic
        return self.header_size + count * self.segment_size

    @property
    def is_dynamic(self) -> bool:
        return bool(self.elf.needed or self.elf.versions or self.elf.flags_1)

    def add(self, name: str, kind: int, content: bytes, *, segment: int = 0, link: int = 0) -> int:
        """Append a section and return its address."""
        self.body = _padded(self.body, 8, self.start)
        offset = self.start + len(self.body)
        self.body += content
        name_at = len(self.names)
        self.names += name.encode() + b"\0"
        flags, address = (2, _BASE + offset) if kind != 3 and name != ".comment" else (0, 0)
        step = {6: struct.calcsize(self.order + self.word * 2)}.get(kind, 0)
        info = len(self.elf.versions) if kind == 0x6FFFFFFE else 0
        align = self.elf.note_alignment if kind == 7 else 1
        where = (name_at, kind, flags, address, offset, len(content), link, info, align, step)
        self.sections.append(where)
        if segment:
            self.segments.append((segment, offset, len(content), align))
        return _BASE + offset

    def build(self) -> bytes:
        elf = self.elf
        if elf.interpreter:
            self.add(".interp", 1, elf.interpreter.encode() + b"\0", segment=3)
        if elf.notes:
            notes = b"".join(note.encode(self.order, elf.note_alignment) for note in elf.notes)
            self.add(".note.tag", 7, notes, segment=4)
        if self.is_dynamic:
            self.add_dynamic()
        if elf.comment:
            self.add(".comment", 1, elf.comment)
        names = self.names + b".shstrtab\0"
        self.add(".shstrtab", 3, names)
        self.body = _padded(self.body, 8, self.start)
        loaded = self.start + len(self.body)
        self.segments.insert(0, (1, 0, loaded, 4096))
        return self.header(loaded) + self.program_headers() + self.body + self.section_headers()

    def add_dynamic(self) -> None:
        elf = self.elf
        needed = [(1, self.string(name)) for name in elf.needed]
        versions = self.encoded_versions()
        strings = self.add(".dynstr", 3, self.strings)
        link = len(self.sections) - 1
        # The loader maps it, so it has an address although string tables elsewhere have none.
        self.sections[link] = (*self.sections[link][:2], 2, strings, *self.sections[link][4:])
        entries = [*needed, (5, strings), (10, len(self.strings))]
        if versions:
            at = self.add(".gnu.version_r", 0x6FFFFFFE, versions, link=link)
            entries += [(0x6FFFFFFE, at), (0x6FFFFFFF, len(elf.versions))]
        entries += [(0x6FFFFFFB, elf.flags_1), (0, 0)]
        content = b"".join(self.pack(self.word * 2, *entry) for entry in entries)
        self.add(".dynamic", 6, content, segment=2, link=link)

    def encoded_versions(self) -> bytes:
        libraries = list(self.elf.versions.items())
        content = b""
        for index, (library, names) in enumerate(libraries):
            size = 16 + 16 * len(names)
            step = 0 if index == len(libraries) - 1 else size
            content += self.pack("HHIII", 1, len(names), self.string(library), 16, step)
            for number, name in enumerate(names):
                following = 0 if number == len(names) - 1 else 16
                content += self.pack("IHHII", 0, 0, number + 2, self.string(name), following)
        return content

    def header(self, sections_at: int) -> bytes:
        elf = self.elf
        ident = b"\x7fELF" + bytes(
            (2 if elf.is_64_bit else 1, 1 if elf.is_little else 2, 1, elf.osabi)
        )
        return (ident + bytes(8)) + self.pack(
            f"HHI{self.word * 3}I6H",
            *(elf.file_type, elf.machine, 1, elf.entry, self.header_size, sections_at, elf.flags),
            *(self.header_size, self.segment_size, len(self.segments)),
            *(self.section_size, len(self.sections), len(self.sections) - 1),
        )

    def program_headers(self) -> bytes:
        headers = b""
        for kind, offset, size, align in self.segments:
            address = _BASE + offset
            if self.elf.is_64_bit:
                headers += self.pack(
                    "IIQQQQQQ", kind, 4, offset, address, address, size, size, align
                )
            else:
                headers += self.pack("8I", kind, offset, address, address, size, size, 4, align)
        return headers

    def section_headers(self) -> bytes:
        layout = f"II{self.word * 4}II{self.word * 2}"
        return b"".join(self.pack(layout, *section) for section in self.sections)


def _padded(content: bytes, alignment: int, start: int = 0) -> bytes:
    return content + bytes(-(start + len(content)) % alignment)


MAC_X86_64, MAC_ARM64 = 0x01000007, 0x0100000C


def macho_build_version(minimum: str, platform: int = 1) -> bytes:
    return struct.pack("<6I", 0x32, 24, platform, _packed_release(minimum), 0xE0000, 0)


def macho_version_min(minimum: str, command: int = 0x24) -> bytes:
    return struct.pack("<4I", command, 16, _packed_release(minimum), 0xE0000)


def _packed_release(release: str) -> int:
    major, minor, patch = (*map(int, release.split(".")), 0, 0)[:3]
    return major << 16 | minor << 8 | patch


@dataclass(frozen=True, kw_only=True)
class MachoFile:
    cpu: int = MAC_ARM64
    subtype: int = 0
    file_type: int = 2
    requirement: bytes = macho_build_version("11.0")
    needed: tuple[str, ...] = ("/usr/lib/libSystem.B.dylib",)
    has_entry: bool = True
    is_signed: bool = True

    def build(self) -> bytes:
        commands = [self.requirement] if self.requirement else []
        commands.append(_named_command(0x0E, "/usr/lib/dyld"))
        commands += [_named_command(0x0C, name, extra=12) for name in self.needed]
        if self.has_entry:
            commands.append(struct.pack("<IIQQ", 0x80000028, 24, 0, 0))
        size = sum(map(len, commands)) + 72 + 16 * self.is_signed
        content_at = 32 + size
        commands.insert(
            0,
            struct.pack("<II16sQQQQiiII", 0x19, 72, b"__TEXT", 0, 4096, 0, content_at, 5, 5, 0, 0),
        )
        if self.is_signed:
            commands.append(struct.pack("<4I", 0x1D, 16, content_at, 16))
        header = struct.pack(
            "<8I",
            *(0xFEEDFACF, self.cpu, self.subtype, self.file_type),
            *(len(commands), size, 0x200085, 0),
        )
        signature = b"\xfa\xde\x0c\xc0\x00\x00\x00\x0c" + bytes(8)
        return header + b"".join(commands) + (signature if self.is_signed else b"")


def _named_command(kind: int, name: str, extra: int = 0) -> bytes:
    text = _padded(name.encode() + b"\0", 8, 12 + extra)
    return struct.pack("<III", kind, 12 + extra + len(text), 12 + extra) + bytes(extra) + text


def fat_macho(*parts: MachoFile, is_64_bit: bool = False) -> bytes:
    layout = ">IIQQII" if is_64_bit else ">IIIII"
    at = 4096
    head = struct.pack(">II", 0xCAFEBABF if is_64_bit else 0xCAFEBABE, len(parts))
    body = b""
    for part in parts:
        content = _padded(part.build(), 4096)
        reserved = (0,) if is_64_bit else ()
        head += struct.pack(layout, part.cpu, part.subtype, at, len(content), 12, *reserved)
        body += content
        at += len(content)
    return _padded(head, 4096) + body


@dataclass(frozen=True, kw_only=True)
class PeFile:
    machine: int = 0x8664
    flags: int = 0x22
    subsystem: int = 3
    entry: int = 0x1000

    def build(self) -> bytes:
        dos = b"MZ" + bytes(0x3A) + struct.pack("<I", 0x40)
        coff = struct.pack("<HHIIIHH", self.machine, 1, 0, 0, 0, 112, self.flags)
        optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 512, 0, 0, self.entry, 0x1000)
        optional += struct.pack("<QII6HIIIIHH", 0x140000000, 0x1000, 512, 6, 0, 0, 0, 6, 0, *_SIZES)
        optional = optional[:68] + struct.pack("<H", self.subsystem) + optional[70:]
        optional = optional.ljust(112, b"\0")
        text = struct.pack("<8s6IHHI", b".text", 16, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
        head = dos + b"PE\0\0" + coff + optional + text
        return head.ljust(512, b"\0") + b"\xc3".ljust(512, b"\0")


_SIZES = (0, 0x2000, 512, 0, 3, 0)  # version, image size, header size, checksum, subsystem, flags
