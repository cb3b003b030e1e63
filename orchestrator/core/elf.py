"""The structure of an ELF file: header, segments, notes, dynamic section, symbol versions.

Layouts: System V gABI chapters 4 and 5; symbol versions: LSB core, section 10.7.
The loader reads segments, so segments are the truth here; sections only give `.comment`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from orchestrator.core.image import Image, damaged, readable
from orchestrator.core.target import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

# Far above any real program, and low enough that a hostile file costs milliseconds.
MAX_SEGMENTS: Final = 1024
MAX_NOTES: Final = 1024
MAX_DYNAMIC_ENTRIES: Final = 8192
MAX_VERSIONS: Final = 8192
MAX_COMMENT_BYTES: Final = 65536

_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_PT_INTERP: Final = 3
_PT_NOTE: Final = 4
_SHT_NULL: Final = 0
_SHT_NOBITS: Final = 8
_DT_NEEDED: Final = 1
_DT_STRTAB: Final = 5
_DT_FLAGS_1: Final = 0x6FFFFFFB
_DT_VERNEED: Final = 0x6FFFFFFE
_DT_VERNEEDNUM: Final = 0x6FFFFFFF


class Note(NamedTuple):
    """One note; its kind means something only together with its owner."""

    owner: bytes
    kind: int
    content: bytes


class SymbolVersion(NamedTuple):
    """One version that a library must have."""

    library: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """What stands in an ELF file, not yet interpreted."""

    image: Image
    is_64_bit: bool
    osabi: int
    file_type: int
    machine: int
    flags: int
    entry: int
    interpreter: str | None
    notes: tuple[Note, ...]
    needed: tuple[str, ...]
    symbol_versions: tuple[SymbolVersion, ...]
    flags_1: int
    comments: tuple[str, ...]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int
    alignment: int


class _Header(NamedTuple):
    file_type: int
    machine: int
    version: int
    entry: int
    segments_offset: int
    sections_offset: int
    flags: int
    size: int
    segment_size: int
    segment_count: int
    section_size: int
    section_count: int
    names_index: int


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int


def parse_elf(data: bytes) -> Elf:
    """Return what an ELF file holds; raise BuildError if it contradicts itself."""
    image, header, osabi, is_64_bit = _open(data)
    segments = tuple(_segments(image, header, is_64_bit=is_64_bit))
    dynamic = _Dynamic(image=image, segments=segments, is_64_bit=is_64_bit)
    return Elf(
        image=image,
        is_64_bit=is_64_bit,
        osabi=osabi,
        file_type=header.file_type,
        machine=header.machine,
        flags=header.flags,
        entry=header.entry,
        interpreter=_interpreter(image, segments),
        notes=_all_notes(image, segments),
        needed=dynamic.needed(),
        symbol_versions=dynamic.symbol_versions(),
        flags_1=dynamic.first(_DT_FLAGS_1) or 0,
        comments=_comments(image, header, is_64_bit=is_64_bit),
    )


def elf_sections(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the sections of an ELF file that take room in it, with their names, in order."""
    image, header, _, is_64_bit = _open(data)
    if not header.sections_offset or header.names_index >= header.section_count:
        return ()
    names = _section(image, header, header.names_index, is_64_bit=is_64_bit)
    sections = (
        _section(image, header, index, is_64_bit=is_64_bit) for index in range(header.section_count)
    )
    wanted = (
        (
            image.text(names.offset + section.name, "a section's name"),
            section.offset,
            section.size,
        )
        for section in sections
        if section.kind not in {_SHT_NULL, _SHT_NOBITS}
    )
    return tuple(image.parts(wanted))


def _open(data: bytes) -> tuple[Image, _Header, int, bool]:
    """Return the image, its header, the ABI it names, and whether it is a 64-bit one."""
    image = Image(data=data, format=Format.ELF)
    elf_class, encoding, _, osabi = image.unpack("4B", 4, "the header")
    if elf_class not in (1, 2) or encoding not in (1, 2):
        raise damaged(Format.ELF, f"no such class and byte order: {elf_class}, {encoding}")
    is_64_bit = elf_class == 2  # noqa: PLR2004 -- ELFCLASS64
    order: Literal["<", ">"] = "<" if encoding == 1 else ">"
    image = Image(data=data, format=Format.ELF, byte_order=order)
    header = _Header(*image.unpack("HHIQQQI6H" if is_64_bit else "HHIIIII6H", 16, "the header"))
    return image, header, osabi, is_64_bit


def _segments(image: Image, header: _Header, *, is_64_bit: bool) -> Iterator[_Segment]:
    if header.segment_count > MAX_SEGMENTS:
        raise damaged(Format.ELF, f"{header.segment_count} program headers")
    for index in range(header.segment_count):
        at = header.segments_offset + index * header.segment_size
        if is_64_bit:
            kind, _, offset, address, _, size, _, alignment = image.unpack(
                "IIQQQQQQ", at, "a program header"
            )
        else:
            kind, offset, address, _, size, _, _, alignment = image.unpack(
                "8I", at, "a program header"
            )
        if kind == _PT_LOAD:
            image.require(offset, size, "a segment")
        yield _Segment(kind, offset, address, size, alignment)


def _interpreter(image: Image, segments: tuple[_Segment, ...]) -> str | None:
    for segment in segments:
        if segment.kind == _PT_INTERP:
            return image.text(segment.offset, "the loader's path")
    return None


def _all_notes(image: Image, segments: tuple[_Segment, ...]) -> tuple[Note, ...]:
    notes = (
        note
        for segment in segments
        if segment.kind == _PT_NOTE
        for note in _notes_in(image, segment)
    )
    found = tuple(islice(notes, MAX_NOTES + 1))
    if len(found) > MAX_NOTES:
        raise damaged(Format.ELF, f"more than {MAX_NOTES} notes")
    return found


def _notes_in(image: Image, segment: _Segment) -> Iterator[Note]:
    image.require(segment.offset, segment.size, "a note")
    # GNU property notes are padded to 8 bytes, all others to 4, also where a linker wrote 1 or 16.
    alignment = 8 if segment.alignment == 8 else 4  # noqa: PLR2004 -- as the line above says
    at, end = segment.offset, segment.offset + segment.size
    while at + 12 <= end:
        owner_size, content_size, kind = image.unpack("III", at, "a note")
        owner = image.part(at + 12, owner_size, "a note's owner")
        at = _aligned(at + 12 + owner_size, alignment)
        yield Note(owner.rstrip(b"\0"), kind, image.part(at, content_size, "a note's content"))
        at = _aligned(at + content_size, alignment)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


class _Dynamic:
    """The dynamic section, if the file has one: tags and numbers, in order."""

    def __init__(self, *, image: Image, segments: tuple[_Segment, ...], is_64_bit: bool) -> None:
        self._image = image
        self._loads = tuple(segment for segment in segments if segment.kind == _PT_LOAD)
        self._entries: tuple[tuple[int, int], ...] = ()
        for segment in segments:
            if segment.kind == _PT_DYNAMIC:
                self._entries = _dynamic_entries(image, segment, "QQ" if is_64_bit else "II")
                break
        strings = self.first(_DT_STRTAB)
        self._strings = None if strings is None else self._offset(strings, "the table of names")

    def first(self, tag: int) -> int | None:
        return next((value for key, value in self._entries if key == tag), None)

    def needed(self) -> tuple[str, ...]:
        return tuple(
            self._string(value, "a library's name")
            for tag, value in self._entries
            if tag == _DT_NEEDED
        )

    def symbol_versions(self) -> tuple[SymbolVersion, ...]:
        address, count = self.first(_DT_VERNEED), self.first(_DT_VERNEEDNUM) or 0
        if address is None:
            return ()
        versions = self._versions(self._offset(address, "the symbol versions"), count)
        found = tuple(islice(versions, MAX_VERSIONS + 1))
        if len(found) > MAX_VERSIONS:
            raise damaged(Format.ELF, f"more than {MAX_VERSIONS} symbol versions")
        return found

    def _versions(self, at: int, count: int) -> Iterator[SymbolVersion]:
        for _ in range(min(count, MAX_VERSIONS)):
            _, names, file, first, following = self._image.unpack("HHIII", at, "a symbol version")
            library = self._string(file, "a library's name")
            name_at = at + first
            for _ in range(names):
                _, _, _, name, step = self._image.unpack("IHHII", name_at, "a symbol version")
                yield SymbolVersion(library, self._string(name, "a symbol version's name"))
                name_at += step
            at += following

    def _string(self, index: int, what: str) -> str:
        if self._strings is None:
            raise damaged(Format.ELF, "it has no table of names")
        return self._image.text(self._strings + index, what)

    def _offset(self, address: int, what: str) -> int:
        for segment in self._loads:
            if segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        raise damaged(Format.ELF, f"{what} is outside of every segment")


def _dynamic_entries(image: Image, segment: _Segment, layout: str) -> tuple[tuple[int, int], ...]:
    content = image.part(segment.offset, segment.size, "the dynamic section")
    reader = struct.Struct(image.byte_order + layout)
    whole = content[: len(content) // reader.size * reader.size]
    entries = tuple(takewhile(lambda entry: entry[0], islice(reader.iter_unpack(whole), _ENOUGH)))
    if len(entries) == _ENOUGH:
        raise damaged(Format.ELF, f"more than {MAX_DYNAMIC_ENTRIES} dynamic entries")
    return entries


_ENOUGH: Final = MAX_DYNAMIC_ENTRIES + 1


def _comments(image: Image, header: _Header, *, is_64_bit: bool) -> tuple[str, ...]:
    """Return what compilers and linkers left in `.comment`."""
    if not header.sections_offset or header.names_index >= header.section_count:
        return ()
    names = _section(image, header, header.names_index, is_64_bit=is_64_bit)
    for index in range(header.section_count):
        section = _section(image, header, index, is_64_bit=is_64_bit)
        if image.data.startswith(b".comment\0", names.offset + section.name):
            size = min(section.size, MAX_COMMENT_BYTES)
            content = image.part(section.offset, size, "the section .comment")
            return tuple(readable(line) for line in content.split(b"\0") if line)
    return ()


def _section(image: Image, header: _Header, index: int, *, is_64_bit: bool) -> _Section:
    at = header.sections_offset + index * header.section_size
    return _Section(*image.unpack("IIQQQQ" if is_64_bit else "6I", at, "a section header"))
