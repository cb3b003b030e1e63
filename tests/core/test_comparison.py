from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core import macho, pe
from orchestrator.core.comparison import Specimen, compare, explain
from orchestrator.core.elf import elf_sections
from orchestrator.core.target import parse_target
from tests.core import binaries as b
from tests.core.binaries import MachoFile, PeFile

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = "different tools have left their names in .comment"
TARGET = parse_target("x86_64-unknown-linux-gnu")


def elf(**sections: bytes) -> bytes:
    """A 64-bit ELF file that has these sections and nothing else; `_` stands for a dot."""
    names = [name.replace("_", ".", 1) for name in sections]
    table = b"\0" + b"".join(f"{name}\0".encode() for name in names) + b".bss\0.shstrtab\0"
    contents = [*sections.values(), table]
    at, offsets = 64, []
    for content in contents:
        offsets.append(at)
        at += len(content)
    headers = [bytes(64)]
    for name, kind, offset, content in (
        *((name, 1, offsets[i], contents[i]) for i, name in enumerate(names)),
        (".bss", 8, 0, b"x" * 4096),
        (".shstrtab", 3, offsets[-1], table),
    ):
        start = table.index(f"\0{name}\0".encode()) + 1
        headers.append(
            struct.pack("<IIQQQQIIQQ", start, kind, 0, 0, offset, len(content), 0, 0, 1, 0)
        )
    head = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    head += struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, at, 0, 64, 56, 0, 64, len(headers), len(headers) - 1
    )
    return head + b"".join(contents) + b"".join(headers)


def specimen(node: str, data: bytes, **more: Any) -> Specimen:
    return Specimen(node=node, data=data, **{"rustc": "1.94.1", **more})


def reasons(here: bytes, there: bytes, **more: Any) -> tuple[str, ...]:
    return explain(specimen("a", here), specimen("b", there, **more)).reasons


def parts(here: bytes, there: bytes) -> list[tuple[str, int | None, int | None]]:
    found = explain(specimen("a", here), specimen("b", there)).sections
    return [(part.name, part.size_bytes, part.other_size_bytes) for part in found]


def test_equal_builds_are_equal_whatever_is_said_of_them() -> None:
    same = elf(_text=b"code")
    found = compare(
        "tool",
        TARGET,
        [specimen("a", same), specimen("b", same, rustc="1.95.0"), specimen("c", elf(_text=b"x"))],
    )
    assert found.equal == ("a", "b")
    assert [difference.node for difference in found.differences] == ["c"]
    data: Any = found.as_data()
    assert (data["binary"], data["target"], data["first"]) == ("tool", TARGET.triple, "a")
    assert data["sha256"] == specimen("a", same).sha256
    assert data["differences"][0]["sections"][0] == {
        "section": ".text",
        "size_bytes": 4,
        "other_size_bytes": 1,
    }
    assert data["differences"][0]["reasons"] == list(found.differences[0].reasons)


def test_sections_are_held_against_one_another_by_name() -> None:
    here, there = elf(_text=b"same", _data=b"12", _old=b"1"), elf(_text=b"same", _data=b"345")
    assert parts(here, there)[:2] == [(".data", 2, 3), (".old", 1, None)]
    assert dict(elf_sections(here))[".text"] == b"same"
    assert ".bss" not in dict(elf_sections(here))


def test_an_elf_file_without_sections_has_only_headers() -> None:
    here = elf(_text=b"1")
    bare = here[:40] + bytes(8) + here[48:]
    assert elf_sections(bare) == ()
    (found,) = reasons(bare, bare + b"x")
    assert found.startswith("only headers or padding differ")


@pytest.mark.parametrize("data", [b"\x7fELF", b"#!/bin/sh\n", b"MZ", b"\xcf\xfa\xed\xfe"])
def test_what_nobody_can_take_apart_is_one_part(data: bytes) -> None:
    assert parts(data, data + b"x") == [("the file", len(data), len(data) + 1)]


def test_another_compiler_is_the_first_reason() -> None:
    here = elf(_text=b"1", _comment=b"rustc version 1.94.1\0GCC: 12\0")
    there = elf(_text=b"2", _comment=b"rustc version 1.95.0\0GCC: 12\0Linker: LLD\0")
    assert reasons(here, there, rustc="1.95.0") == (
        "different compilers: rustc 1.94.1 on a and rustc 1.95.0 on b",
        f"{TOOLS}: a rustc version 1.94.1; b Linker: LLD, rustc version 1.95.0",
    )
    one_more = elf(_text=b"1", _comment=b"rustc version 1.94.1\0GCC: 12\0GCC: 13\0")
    assert reasons(here, one_more, rustc=None) == (
        "different compilers: rustc 1.94.1 on a and rustc unknown on b",
        f"{TOOLS}: a nothing; b GCC: 13",
    )


def test_another_environment_is_named_without_its_values() -> None:
    first = specimen("a", elf(_text=b"1"), env=(("TOKEN", "secret"), ("SAME", "1")))
    other = specimen("b", elf(_text=b"2"), env=(("SAME", "1"), ("RUSTFLAGS", "-C x")))
    assert explain(first, other).reasons == (
        "their `env` in the inventory differs: RUSTFLAGS, TOKEN",
    )


def test_paths_and_times_that_were_left_in_are_shown() -> None:
    mapped = elf(_rodata=b"\0/build/target/a/out", _debug_str=b"/home/alex/a/b")
    others = elf(_rodata=b"\0/build/target/b/out", _debug_str=b"/root/a/b")
    assert not any("paths" in reason for reason in reasons(mapped, others))
    here = elf(_rodata=b"\0/home/alex/tool/src/a.rs\0Nov 25 2026\0/usr/share/both")
    there = elf(_rodata=b"\0/root/tool/src/a.rs\0/root/b.rs\0/root/c.rs\0/root/d.rs\0Nov 26 2026\0")
    paths, times = reasons(here, there)
    assert paths.startswith(
        "paths of the nodes are left in it: a /home/alex/tool/src/a.rs, /usr/share/both; "
        "b /root/b.rs, /root/c.rs, /root/d.rs and 1 more. Remap them"
    )
    assert times.startswith("times are left in it: a Nov 25 2026; b Nov 26 2026. A build script")


def test_debug_information_on_one_side_is_a_matter_of_the_profile() -> None:
    plain, debug = elf(_text=b"1"), elf(_text=b"1", _debug_info=b"1")
    for pair in ((plain, debug), (debug, plain)):
        (reason,) = reasons(*pair)
        has = "b" if pair[1] == debug else "a"
        assert reason.startswith(f"only {has} has .debug_info")


@pytest.mark.parametrize(
    ("here", "there", "reason"),
    [
        ({"_text": b"1"}, {"_text": b"2"}, "the code differs"),
        ({"_data": b"1"}, {"_data": b"2"}, "data differs and no code"),
        ({"_debug_info": b"1"}, {"_debug_info": b"2"}, "only symbols and debug information"),
        (
            {"_note.gnu.build-id": b"1"},
            {"_note.gnu.build-id": b"2"},
            "only what identifies the build differs",
        ),
    ],
)
def test_without_a_cause_the_parts_say_where_to_look(
    here: dict[str, bytes], there: dict[str, bytes], reason: str
) -> None:
    (found,) = reasons(elf(**here), elf(**there))
    assert found.startswith(reason)


def test_sections_that_are_the_same_leave_headers_and_padding() -> None:
    data = elf(_text=b"1")
    (found,) = reasons(data, data[:40] + data[40:48] + b"\1" + data[49:])
    assert found.startswith("only headers or padding differ")


def test_two_sections_of_one_name_are_two() -> None:
    here, there = elf(_a=b"1", **{".a": b"2"}), elf(_a=b"1", **{".a": b"3"})
    assert parts(here, there) == [(".a #2", 1, 1)]


# --- other formats ------------------------------------------------------------------------------


def test_a_pe_file_is_taken_apart_into_headers_and_sections() -> None:
    one = PeFile().build()
    assert [(name, len(part)) for name, part in pe.pe_sections(one)] == [
        ("the headers", 240),
        (".text", 512),
    ]
    assert parts(one, one[:-1] + b"x") == [(".text", 512, 512)]
    (found,) = reasons(one, PeFile(subsystem=2).build())
    assert found.startswith("only what identifies the build differs")


def macho_file(text: bytes, uuid: bytes) -> bytes:
    """A Mach-O file with a UUID, a section of code, one of zeros, and a signature."""
    commands_size = 24 + (72 + 2 * 80) + 16
    at = 32 + commands_size
    segment = struct.pack("<II16sQQQQIIII", 0x19, 72 + 160, b"__TEXT", 0, 0, 0, at, 5, 5, 2, 0)
    code = struct.pack("<16s16sQQIIIIIIII", b"__text", b"__TEXT", 0, len(text), at, *[0] * 7)
    zeros = struct.pack("<16s16sQQIIIIIIII", b"__bss", b"__TEXT", 0, 99999, 0, 0, 0, 0, 1, 0, 0, 0)
    signature = struct.pack("<IIII", 0x1D, 16, at + len(text), 4)
    head = struct.pack("<IIIIIIII", 0xFEEDFACF, 0x01000007, 3, 2, 3, commands_size, 0, 0)
    commands = struct.pack("<II", 0x1B, 24) + uuid + segment + code + zeros + signature
    return head + commands + text + b"sign"


def test_a_mach_o_file_is_taken_apart_by_segment_and_section() -> None:
    one, other = macho_file(b"code", b"1" * 16), macho_file(b"cod3", b"2" * 16)
    assert [name for name, _ in macho.macho_sections(one)] == [
        "LC_UUID",
        "__TEXT,__text",
        "the code signature",
    ]
    assert [name for name, *_ in parts(one, other)] == ["LC_UUID", "__TEXT,__text"]
    assert reasons(one, other)[0].startswith("the code differs")
    (found,) = reasons(one, macho_file(b"code", b"2" * 16))
    assert found.startswith("only what identifies the build differs")


def test_a_universal_file_is_taken_apart_for_each_cpu() -> None:
    # This writer makes no sections, and a part without any is a part all the same.
    assert macho.macho_sections(b.fat_macho(MachoFile(), MachoFile())) is not None
    thin = macho_file(b"code", b"1" * 16)
    at = 8 + 20
    made = struct.pack(">IIIIIII", 0xCAFEBABE, 1, 0x01000007, 3, at, len(thin), 0) + thin
    assert next(name for name, _ in macho.macho_sections(made)) == "part 1: LC_UUID"


def overlapping_elf(count: int) -> bytes:
    """A file whose every section is all of it but a byte."""
    size = 64 * (count + 1)
    head = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, count, 0)
    section = struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, 1, size - 1, 0, 0, 1, 0)
    return head + section * count


def overlapping_pe(count: int) -> bytes:
    size = 64 + 24 + 40 * count
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, count, 0, 0, 0, 0, 2)
    return head + (b".text\0\0\0" + struct.pack("<IIIIIIHHI", 0, 0, size - 1, 1, *[0] * 5)) * count


@pytest.mark.parametrize("make", [overlapping_elf, overlapping_pe])
def test_parts_that_overlap_are_no_parts(make: Callable[[int], bytes]) -> None:
    # Else a file of 4 MB would be 250 GB of parts.
    here = make(60_000)
    assert parts(here, here + b"1") == [("the file", len(here), len(here) + 1)]


def test_thousands_of_parts_of_one_name_are_told_apart_soon() -> None:
    size = 64 * 60_001
    head = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 60_000, 0)
    here = head + struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, size - 1, 0, 0, 0, 1, 0) * 60_000
    assert parts(here, here) == []
