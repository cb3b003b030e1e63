"""Damaged and hostile program files are refused quickly, with a reason."""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.binary import check_binary, find_leaks, read_binary
from orchestrator.core.errors import BuildError
from orchestrator.core.target import TARGETS
from tests.core import binaries as b
from tests.core.binaries import ElfFile, MachoFile, PeFile, number_note

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.target import Target

FULL = ElfFile(
    interpreter="/lib64/ld-linux-x86-64.so.2",
    notes=(number_note("NetBSD", 1000000000), number_note("FreeBSD", 1401000)),
    needed=("libc.so.6",),
    versions={"libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.34"), "libm.so.6": ("GLIBC_2.29",)},
    comment=b"rustc version 1.95.0\0",
)
SAMPLES = [
    FULL.build(),
    ElfFile(machine=b.ARM, is_64_bit=False, needed=("libc.so.6",)).build(),
    ElfFile(is_little=False).build(),
    MachoFile().build(),
    b.fat_macho(MachoFile(), MachoFile(cpu=b.MAC_X86_64, subtype=3))[: 4096 + 512],
    b.fat_macho(MachoFile(), is_64_bit=True),
    PeFile().build(),
    Path(sys.executable).read_bytes(),
    Path(shutil.which("ls") or "/bin/ls").read_bytes(),
]
# Numbers that fields take in hostile files: limits, signs, and offsets that just miss.
NUMBERS = st.sampled_from([0, 1, 7, 8, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF])
WORDS = st.builds(
    lambda number, size: (number & (1 << 8 * size) - 1).to_bytes(size, "little"),
    st.one_of(NUMBERS, st.integers(0, 1 << 16)),
    st.sampled_from([1, 2, 4, 8]),
)
CHANGES = st.lists(st.tuples(st.integers(0, 2048), WORDS), max_size=6)


def mutated(sample: bytes, changes: list[tuple[int, bytes]], kept: int | None) -> bytes:
    data = bytearray(sample[:kept])
    for offset, word in changes:
        data[offset : offset + len(word)] = word
    return bytes(data)


def reason(reading: Callable[[], object]) -> str:
    try:
        reading()
    except BuildError as error:
        return error.message
    return "none"


MUTATED = st.builds(
    mutated, st.sampled_from(SAMPLES), CHANGES, st.one_of(st.none(), st.integers(0, 4096))
)


@settings(max_examples=400, deadline=timedelta(seconds=2))
@given(data=MUTATED, target=st.sampled_from(list(TARGETS.values())))
@pytest.mark.thorough
def test_no_file_breaks_the_reader(data: bytes, target: Target) -> None:
    for said in (
        reason(lambda: read_binary(data).signals),
        reason(lambda: check_binary(data, target, os_release="7.8")),
    ):
        assert said.isascii()
        assert said.isprintable()


@pytest.mark.parametrize("sample", SAMPLES[:7])
def test_a_file_that_was_cut_off_is_refused(sample: bytes) -> None:
    """At each length: what is missing at the end is missed too, not only the headers."""
    for length in range(4, len(sample.rstrip(b"\0")), 7):
        with pytest.raises(BuildError):
            check_binary(sample[:length], TARGETS["x86_64-unknown-linux-gnu"], os_release=None)


def patched(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    content = struct.pack(layout, *values)
    return data[:offset] + content + data[offset + len(content) :]


def dynamic_entry(tag: int, value: int) -> Callable[[bytes], bytes]:
    """Return a change of one entry's value; the tag is found by its bytes."""

    def change(data: bytes) -> bytes:
        at = data.index(struct.pack("<Q", tag), data.index(b"GLIBC_2.29"))
        return patched(data, at + 8, "<Q", value)

    return change


def endless_versions(data: bytes) -> bytes:
    """Let the first library's list have 65535 names, each followed by itself."""
    at = data.index(struct.pack("<HH", 1, 2), data.index(b"GLIBC_2.29"))
    data = patched(data, at + 2, "<H", 0xFFFF)
    return patched(data, at + 16 + 12, "<I", 0)


def many_notes() -> bytes:
    return ElfFile(notes=tuple(b.ElfNote(owner="x", content=b"") for _ in range(1025))).build()


def many_dynamic_entries() -> bytes:
    return ElfFile(needed=tuple("a" for _ in range(8200))).build()


def without_strings(data: bytes) -> bytes:
    at = data.index(struct.pack("<QQ", 1, 1), data.index(b"GLIBC_2.29")) + 16
    return patched(data, at, "<Q", 0x70000000)


def without_end(data: bytes) -> bytes:
    at = data.index(b"/lib64/ld-")
    return data[:at] + b"x" * 1024 + data[at + 1024 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (patched(FULL.build(), 4, "B", 3), "no such class"),
        (patched(FULL.build(), 5, "B", 0), "no such class"),
        (patched(FULL.build(), 56, "<H", 0xFFFF), "65535 program headers"),
        (patched(FULL.build(), 32, "<Q", 1 << 63), "a program header reaches past its end"),
        (patched(FULL.build(), 40, "<Q", 1 << 40), "a section header reaches past"),
        (dynamic_entry(0x6FFFFFFE, 0x10)(FULL.build()), "symbol versions is outside"),
        (dynamic_entry(5, 0x10)(FULL.build()), "table of names is outside"),
        (endless_versions(FULL.build()), "more than 8192 symbol versions"),
        (many_notes(), "more than 1024 notes"),
        (many_dynamic_entries(), "more than 8192 dynamic entries"),
        (without_strings(FULL.build()), "no table of names"),
        (without_end(ElfFile(interpreter="/lib64/ld-" + "y" * 1100).build()), "has no end"),
        (patched(MachoFile().build(), 16, "<I", 1025), "1025 load commands"),
        (patched(MachoFile().build(), 36, "<I", 0), "a load command of 0 bytes"),
        (patched(MachoFile().build(), 36, "<I", 1 << 31), "a load command reaches past"),
        (patched(MachoFile().build(), 80, "<Q", 1 << 40), "a segment reaches past"),
        (patched(FULL.build(), 40, "<Q", 0)[:0x240], "a segment reaches past"),
        (MachoFile().build()[:-1], "reaches past its end"),
        (struct.pack(">II", 0xCAFEBABE, 9), "a universal file with 9 parts"),
        (struct.pack(">II", 0xCAFEBABE, 0), "a universal file with 0 parts"),
        (struct.pack(">7I", 0xCAFEBABE, 1, 7, 3, 0, 4, 0), "a part that is not Mach-O"),
        (PeFile().build()[:-1], "a section reaches past its end"),
        (patched(PeFile().build(), 0x3C, "<I", 1 << 31), "the header reaches past its end"),
    ],
)
def test_a_lying_file_is_refused_at_once(data: bytes, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(BuildError, match=reason):
        read_binary(data)
    assert time.process_time() - start < 1


def test_a_code_signature_that_is_not_there_is_missed() -> None:
    data = MachoFile().build()
    at = data.index(struct.pack("<II", 0x1D, 16))
    with pytest.raises(BuildError, match="the code signature reaches past"):
        read_binary(patched(data, at + 8, "<I", len(data)))


def test_a_mach_o_file_of_the_other_byte_order_is_for_no_target() -> None:
    data = struct.pack(">8I", 0xFEEDFACF, b.MAC_ARM64, 0, 2, 0, 0, 0, 0)
    assert read_binary(data).arch is None


def test_a_file_without_section_headers_is_read_all_the_same() -> None:
    binary = read_binary(patched(FULL.build(), 40, "<Q", 0))
    assert binary.rustc is None
    assert binary.needed == ("libc.so.6",)


@settings(max_examples=100, deadline=timedelta(seconds=2))
@given(data=st.binary(max_size=400), text=st.text(min_size=4, max_size=8))
def test_no_bytes_break_the_search_for_leaks(data: bytes, text: str) -> None:
    for line in find_leaks(data + text.encode() + data, {"home path": f"/x/{text}"}):
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.skipif(
    platform.system() != "Linux" or shutil.which("readelf") is None,
    reason="needs readelf of GNU binutils",
)
@pytest.mark.parametrize("sample", SAMPLES[:3])
def test_readelf_reads_the_samples_as_meant(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(sample)
    shown = subprocess.run(
        ["readelf", "-WhlndVS", path], check=True, capture_output=True, text=True
    )
    assert shown.stderr == ""
    binary = read_binary(sample)
    assert all(f"[{name}]" in shown.stdout for name in binary.needed)
    assert all(f"Name: {name} " in shown.stdout for name in binary.symbol_versions)
    assert (binary.interpreter or "ELF") in shown.stdout


@pytest.mark.skipif(shutil.which("llvm-objdump") is None, reason="needs llvm-objdump")
@pytest.mark.parametrize("sample", [SAMPLES[3], SAMPLES[5]])
def test_llvm_reads_the_mach_o_samples_as_meant(sample: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(sample)
    shown = subprocess.run(
        ["llvm-objdump", "--macho", "--private-headers", path],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stderr == ""
    assert "minos 11.0" in shown.stdout
    assert "LC_CODE_SIGNATURE" in shown.stdout
