"""A binary is published only for the system that it is for, with the floors that it has."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.binary import check_binary, read_binary
from orchestrator.core.errors import BuildError
from orchestrator.core.floors import join_floors, measure_floors
from orchestrator.core.target import OS, TARGETS, Arch, Format, Libc, Target
from tests.core import binaries as b
from tests.core.binaries import ElfFile, MachoFile, PeFile, number_note

LINUX = TARGETS["x86_64-unknown-linux-gnu"]
MUSL = TARGETS["x86_64-unknown-linux-musl"]
FREEBSD_ARM64 = TARGETS["aarch64-unknown-freebsd"]
MACOS = TARGETS["aarch64-apple-darwin"]

FREEBSD_NOTE = number_note("FreeBSD", 1401000)
OPENBSD_NOTE = number_note("OpenBSD", 0)
NETBSD_NOTE = number_note("NetBSD", 1000000000)
LINUX_NOTE = b.ElfNote(owner="GNU", content=bytes(4) + b"\3\0\0\0\2\0\0\0\0\0\0\0")

GLIBC = ElfFile(
    interpreter="/lib64/ld-linux-x86-64.so.2",
    notes=(LINUX_NOTE,),
    needed=("libgcc_s.so.1", "libc.so.6"),
    versions={"libgcc_s.so.1": ("GCC_3.0",), "libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.34")},
    comment=b"GCC: (Debian 12)\0rustc version 1.95.0 (59807616e 2026-04-14)\0",
)


def glibc(*versions: str) -> bytes:
    return ElfFile(
        interpreter="/lib64/ld-linux-x86-64.so.2",
        needed=("libc.so.6",),
        versions={"libc.so.6": versions} if versions else {},
    ).build()


def freebsd(machine: int) -> ElfFile:
    return ElfFile(
        machine=machine,
        osabi=9,
        interpreter="/libexec/ld-elf.so.1",
        notes=(FREEBSD_NOTE,),
        needed=("libc.so.7", "libthr.so.3"),
        versions={"libc.so.7": ("FBSD_1.0", "FBSD_1.6"), "libthr.so.3": ("FBSD_1.0",)},
    )


def openbsd(machine: int) -> ElfFile:
    return ElfFile(
        machine=machine,
        osabi=12,
        interpreter="/usr/libexec/ld.so",
        notes=(OPENBSD_NOTE,),
        needed=("libc.so.102.0", "libpthread.so.28.0", "libc++abi.so.9.0"),
    )


def netbsd(machine: int, version: int = 1000000000) -> ElfFile:
    return ElfFile(
        machine=machine,
        interpreter="/usr/libexec/ld.elf_so",
        notes=(number_note("NetBSD", version),),
        needed=("libc.so.12",),
    )


RIGHT: list[tuple[str, ElfFile | MachoFile | PeFile, list[str]]] = [
    ("x86_64-unknown-linux-gnu", GLIBC, ["glibc>=2.34"]),
    (
        "aarch64-unknown-linux-gnu",
        ElfFile(
            machine=b.AARCH64,
            interpreter="/lib/ld-linux-aarch64.so.1",
            versions={"libc.so.6": ("GLIBC_2.17",)},
        ),
        ["glibc>=2.17"],
    ),
    (
        "riscv64gc-unknown-linux-gnu",
        ElfFile(
            machine=b.RISCV64,
            flags=0x5,
            interpreter="/lib/ld-linux-riscv64-lp64d.so.1",
            versions={"libc.so.6": ("GLIBC_2.27", "GLIBC_2.29")},
        ),
        ["glibc>=2.29"],
    ),
    (
        "armv7-unknown-linux-gnueabihf",
        ElfFile(
            machine=b.ARM,
            is_64_bit=False,
            flags=0x5000400,
            interpreter="/lib/ld-linux-armhf.so.3",
            versions={"libc.so.6": ("GLIBC_2.4", "GLIBC_2.28")},
        ),
        ["glibc>=2.28"],
    ),
    (
        "mips64el-unknown-linux-gnuabi64",
        ElfFile(
            machine=b.MIPS,
            flags=0x80000007,
            interpreter="/lib64/ld.so.1",
            versions={"libc.so.6": ("GLIBC_2.34",)},
        ),
        ["glibc>=2.34"],
    ),
    ("x86_64-unknown-linux-musl", ElfFile(), []),
    ("aarch64-unknown-linux-musl", ElfFile(machine=b.AARCH64, file_type=2, flags_1=0), []),
    (
        "x86_64-unknown-linux-musl",
        ElfFile(interpreter="/lib/ld-musl-x86_64.so.1", needed=("libc.musl-x86_64.so.1",)),
        [],
    ),
    (
        "aarch64-unknown-linux-musl",
        ElfFile(
            machine=b.AARCH64,
            interpreter="/lib/ld-musl-aarch64.so.1",
            needed=("libgcc_s.so.1", "libc.so"),
            versions={"libgcc_s.so.1": ("GCC_3.0", "GLIBC_2.0")},
        ),
        [],
    ),
    ("x86_64-unknown-linux-gnu", ElfFile(osabi=3, file_type=2, notes=(LINUX_NOTE,)), []),
    ("x86_64-unknown-freebsd", freebsd(b.X86_64), ["freebsd>=14.1"]),
    ("aarch64-unknown-freebsd", replace(freebsd(b.AARCH64), osabi=0, notes=()), ["freebsd>=13.0"]),
    (
        "aarch64-unknown-freebsd",
        replace(freebsd(b.AARCH64), versions={"libc.so.7": ("FBSD_1.8",)}),
        ["freebsd>=15.0"],
    ),
    ("x86_64-unknown-openbsd", openbsd(b.X86_64), ["openbsd==7.8"]),
    ("aarch64-unknown-openbsd", openbsd(b.AARCH64), ["openbsd==7.8"]),
    ("x86_64-unknown-netbsd", netbsd(b.X86_64), ["netbsd>=10.0"]),
    ("aarch64-unknown-netbsd", netbsd(b.AARCH64, 1001000000), ["netbsd>=10.1"]),
    ("aarch64-unknown-netbsd", netbsd(b.AARCH64, 999007300), ["netbsd>=9.99.73"]),
    (
        "x86_64-unknown-dragonfly",
        ElfFile(
            interpreter="/usr/libexec/ld-elf.so.2",
            notes=(number_note("DragonFly", 600400),),
            needed=("libc.so.8",),
            versions={"libc.so.8": ("DF402.0",)},
        ),
        [],
    ),
    (
        "x86_64-unknown-illumos",
        ElfFile(
            osabi=6,
            interpreter="/usr/lib/amd64/ld.so.1",
            needed=("libc.so.1",),
            versions={"libc.so.1": ("SUNW_1.23", "ILLUMOS_0.1")},
        ),
        [],
    ),
    (
        "aarch64-linux-android",
        ElfFile(
            machine=b.AARCH64,
            interpreter="/system/bin/linker64",
            notes=(b.ElfNote(owner="Android", content=b"\x18\0\0\0r27\0"),),
            needed=("libc.so", "libdl.so"),
            versions={"libc.so": ("LIBC", "LIBC_N")},
        ),
        [],
    ),
    ("aarch64-apple-darwin", MachoFile(), ["macos>=11.0"]),
    (
        "x86_64-apple-darwin",
        MachoFile(
            cpu=b.MAC_X86_64,
            subtype=3,
            requirement=b.macho_version_min("10.12"),
            is_signed=False,
        ),
        ["macos>=10.12"],
    ),
    (
        "aarch64-apple-darwin",
        MachoFile(requirement=b.macho_build_version("13.2.1")),
        ["macos>=13.2.1"],
    ),
    ("x86_64-pc-windows-msvc", PeFile(), []),
    ("aarch64-pc-windows-msvc", PeFile(machine=0xAA64, subsystem=2), []),
]


@pytest.mark.parametrize(("triple", "file", "floors"), RIGHT)
def test_a_binary_for_its_target_has_its_floors(
    triple: str, file: ElfFile | MachoFile | PeFile, floors: list[str]
) -> None:
    found = check_binary(file.build(), TARGETS[triple], os_release="7.8")
    assert [str(floor) for floor in found] == floors
    for floor in found:
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*", floor.release)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_binary_for_another_target_is_refused(target: Target) -> None:
    """Except that a static Linux program is for either libc, and that Windows has two ABIs."""
    for triple, file, _ in RIGHT:
        other = TARGETS[triple]
        binary = read_binary(file.build())
        if (other.os, other.arch) == (target.os, target.arch) and (
            other.libc is target.libc or binary.libc is None
        ):
            check_binary(file.build(), target, os_release="7.8")
        else:
            with pytest.raises(BuildError, match=re.escape(str(target))):
                check_binary(file.build(), target, os_release="7.8")


def test_a_refusal_says_what_it_is_and_what_was_wanted() -> None:
    with pytest.raises(BuildError) as caught:
        check_binary(freebsd(b.AARCH64).build(), LINUX, os_release=None)
    assert caught.value.message == (
        "ELF executable for FreeBSD on 64-bit little-endian AArch64, "
        "but x86_64-unknown-linux-gnu needs an executable for Linux on x86_64"
    )
    assert caught.value.hint == (
        "build it for x86_64-unknown-linux-gnu; this one shows "
        "FreeBSD: loader /libexec/ld-elf.so.1; FreeBSD: note FreeBSD; "
        "FreeBSD: symbol version FBSD_1.0; FreeBSD: library libc.so.7; FreeBSD: EI_OSABI 9"
    )


@pytest.mark.parametrize(
    ("file", "target", "reason"),
    [
        (ElfFile(machine=b.X86, is_64_bit=False), LINUX, "32-bit little-endian x86"),
        (ElfFile(is_64_bit=False), LINUX, "32-bit little-endian x86-64"),
        (
            ElfFile(machine=b.AARCH64, is_little=False),
            TARGETS["aarch64-unknown-linux-musl"],
            "64-bit big-endian AArch64",
        ),
        (
            ElfFile(machine=b.MIPS, is_little=False),
            TARGETS["mips64el-unknown-linux-gnuabi64"],
            "big-endian MIPS",
        ),
        (
            ElfFile(machine=b.ARM, is_64_bit=False, flags=0x5000200),
            TARGETS["armv7-unknown-linux-musleabihf"],
            "soft float",
        ),
        (
            ElfFile(machine=b.RISCV64, flags=0x1),
            TARGETS["riscv64gc-unknown-linux-musl"],
            "without double float",
        ),
        (ElfFile(machine=999), LINUX, "CPU 999"),
        (ElfFile(file_type=1), LINUX, "object file"),
        (ElfFile(file_type=4), LINUX, "core dump"),
        (ElfFile(file_type=0xFE00), LINUX, "file of type 65024"),
        (ElfFile(entry=0), LINUX, "shared library"),
        (ElfFile(flags_1=0, needed=("libc.so.6",)), LINUX, "shared library"),
        (ElfFile(osabi=9), LINUX, "needs an executable for Linux"),
        (
            ElfFile(osabi=9, file_type=2, flags_1=0),
            TARGETS["x86_64-unknown-freebsd"],
            "no named system",
        ),
        (ElfFile(notes=(FREEBSD_NOTE, LINUX_NOTE)), LINUX, "for FreeBSD and Linux"),
        (
            ElfFile(notes=(FREEBSD_NOTE, NETBSD_NOTE)),
            TARGETS["x86_64-unknown-freebsd"],
            "for FreeBSD and NetBSD",
        ),
        (GLIBC, MUSL, "needs glibc, but x86_64-unknown-linux-musl is for musl"),
        (ElfFile(interpreter="/lib/ld-musl-x86_64.so.1"), LINUX, "needs musl, but .* glibc"),
        (ElfFile(needed=("libc.musl-x86_64.so.1",)), LINUX, "needs musl"),
        (ElfFile(needed=("libc.so.6",)), LINUX, "no version of it"),
        (
            ElfFile(
                interpreter="/nix/store/x-glibc-2.40/lib/ld-linux-x86-64.so.2",
                versions={"libc.so.6": ("GLIBC_2.40",)},
            ),
            LINUX,
            "the loader /nix/store/x-glibc-2.40/lib/ld-linux-x86-64.so.2",
        ),
        (
            ElfFile(interpreter="/lib/ld-linux-aarch64.so.1", needed=("libc.so.6",)),
            LINUX,
            "the loader /lib/ld-linux-aarch64.so.1",
        ),
        (
            replace(GLIBC, interpreter="/lib/ld-musl-x86_64.so.1"),
            LINUX,
            "the loader /lib/ld-musl-x86_64.so.1",
        ),
        (ElfFile(interpreter="/opt/ld.so"), MUSL, "the loader /opt/ld.so"),
        (replace(freebsd(b.AARCH64), interpreter="/opt/x"), FREEBSD_ARM64, "the loader /opt/x"),
        (
            replace(freebsd(b.AARCH64), notes=(), versions={}),
            FREEBSD_ARM64,
            "neither a version note",
        ),
        (
            replace(freebsd(b.AARCH64), notes=(), versions={"l": ("FBSDprivate_1.0",)}),
            FREEBSD_ARM64,
            "FBSD",
        ),
        (
            ElfFile(interpreter="/usr/libexec/ld.elf_so"),
            TARGETS["x86_64-unknown-netbsd"],
            "no version note",
        ),
        (MachoFile(is_signed=False), MACOS, "without a code signature"),
        (MachoFile(requirement=b""), MACOS, "no named system"),
        (MachoFile(requirement=b.macho_build_version("17.0", platform=2)), MACOS, "for iOS"),
        (MachoFile(requirement=b.macho_version_min("9.0", 0x25)), MACOS, "for iOS"),
        (MachoFile(requirement=b.macho_build_version("1.0", platform=99)), MACOS, "no named"),
        (MachoFile(subtype=2), MACOS, "arm64e"),
        (MachoFile(cpu=7), MACOS, "CPU 0x7/0x0"),
        (MachoFile(cpu=b.MAC_X86_64, subtype=8), TARGETS["x86_64-apple-darwin"], "x86-64h"),
        (MachoFile(file_type=1), MACOS, "object file"),
        (MachoFile(file_type=6), MACOS, "shared library"),
        (MachoFile(file_type=77), MACOS, "file of type 77"),
        (MachoFile(has_entry=False), MACOS, "without an entry point"),
        (PeFile(machine=0x14C), TARGETS["x86_64-pc-windows-msvc"], "32-bit x86"),
        (PeFile(machine=0x5064), TARGETS["x86_64-pc-windows-msvc"], "CPU 0x5064"),
        (PeFile(flags=0x2022), TARGETS["x86_64-pc-windows-msvc"], "shared library"),
        (PeFile(entry=0), TARGETS["x86_64-pc-windows-msvc"], "without an entry point"),
        (PeFile(subsystem=10), TARGETS["x86_64-pc-windows-gnu"], "for UEFI"),
    ],
)
def test_what_a_target_cannot_run_is_refused(
    file: ElfFile | MachoFile | PeFile, target: Target, reason: str
) -> None:
    with pytest.raises(BuildError, match=reason):
        check_binary(file.build(), target, os_release="7.8")


def test_a_weak_mark_of_another_system_does_not_outweigh_strong_ones() -> None:
    """GNU ld and Go write EI_OSABI by other rules than the systems' own linkers."""
    file = replace(freebsd(b.X86_64), osabi=12)
    assert check_binary(file.build(), TARGETS["x86_64-unknown-freebsd"], os_release=None)


@pytest.mark.parametrize(
    ("versions", "floor"),
    [
        (("GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.4"), "glibc>=2.34"),
        (("GLIBC_2.2.5",), "glibc>=2.2.5"),
        (("GLIBC_2.17", "GLIBC_ABI_DT_RELR"), "glibc>=2.36"),
        (("GLIBC_2.38", "GLIBC_ABI_DT_RELR"), "glibc>=2.38"),
    ],
)
def test_the_floor_of_glibc_is_the_highest_number(versions: tuple[str, ...], floor: str) -> None:
    assert [str(found) for found in check_binary(glibc(*versions), LINUX, os_release=None)] == [
        floor
    ]


@pytest.mark.parametrize("version", ["GLIBC_PRIVATE", "GLIBC_ABI_NEWS", "GLIBC_2", "GLIBC_2.99999"])
def test_an_unknown_interface_of_glibc_is_no_floor(version: str) -> None:
    with pytest.raises(BuildError, match=version):
        check_binary(glibc("GLIBC_2.17", version), LINUX, os_release=None)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_binaries_shipped_together_have_the_highest_of_their_floors(is_reversed: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    floors = [
        *check_binary(glibc("GLIBC_2.9"), LINUX, os_release=None),
        *check_binary(glibc("GLIBC_2.34"), LINUX, os_release=None),
        *check_binary(MachoFile().build(), MACOS, os_release=None),
    ]
    joined = join_floors(reversed(floors) if is_reversed else floors)
    assert sorted(map(str, joined)) == ["glibc>=2.34", "macos>=11.0"]
    assert join_floors([]) == ()


def test_a_binary_without_a_minimum_version_has_no_floor() -> None:
    binary = read_binary(MachoFile(requirement=b"").build())
    with pytest.raises(BuildError, match="names no lowest release of macos"):
        measure_floors(binary, MACOS, os_release=None)


@pytest.mark.parametrize("os_release", [None, "", "7.8\n", "7.8-current", "７.8"])  # noqa: RUF001 -- a fullwidth digit is the point
def test_an_openbsd_binary_needs_the_release_of_its_node(os_release: str | None) -> None:
    with pytest.raises(BuildError, match="release of the node's OpenBSD"):
        check_binary(
            openbsd(b.X86_64).build(), TARGETS["x86_64-unknown-openbsd"], os_release=os_release
        )


@pytest.mark.parametrize("is_64_bit", [False, True])
def test_of_a_universal_file_the_part_for_the_target_counts(is_64_bit: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    intel = MachoFile(
        cpu=b.MAC_X86_64,
        subtype=3,
        requirement=b.macho_version_min("10.13"),
        is_signed=False,
    )
    data = b.fat_macho(intel, MachoFile(), is_64_bit=is_64_bit)
    intel_floors = check_binary(data, TARGETS["x86_64-apple-darwin"], os_release=None)
    assert [str(floor) for floor in intel_floors] == ["macos>=10.13"]
    assert [str(floor) for floor in check_binary(data, MACOS, os_release=None)] == ["macos>=11.0"]
    only_intel = b.fat_macho(intel, is_64_bit=is_64_bit)
    with pytest.raises(BuildError, match="x86-64, but aarch64-apple-darwin needs"):
        check_binary(only_intel, MACOS, os_release=None)


def test_a_binary_tells_what_it_is() -> None:
    binary = read_binary(GLIBC.build())
    assert (binary.format, binary.os, binary.arch) == (Format.ELF, OS.LINUX, Arch.X86_64)
    assert binary.libc is Libc.GNU
    assert binary.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert binary.needed == ("libgcc_s.so.1", "libc.so.6")
    assert binary.rustc == "1.95.0 (59807616e 2026-04-14)"
    assert "Linux: library libc.so.6" in binary.signals
    library = read_binary(MachoFile(needed=("/opt/homebrew/lib/libssl.dylib",)).build())
    assert library.needed == ("/opt/homebrew/lib/libssl.dylib",)
    assert library.interpreter == "/usr/lib/dyld"
    assert read_binary(ElfFile(notes=(FREEBSD_NOTE, NETBSD_NOTE)).build()).os is None


def test_notes_of_other_kinds_and_lengths_are_not_evidence() -> None:
    build_id = b.ElfNote(owner="GNU", content=bytes(20), kind=3)
    hurd = b.ElfNote(owner="GNU", content=b"\1" + bytes(15))
    tag = b.ElfNote(owner="FreeBSD", content=bytes(4), kind=2)
    arch = b.ElfNote(owner="NetBSD", content=b"x86_64\0\0")
    odd = b.ElfNote(owner="Go", content=b"abc", kind=4)
    binary = read_binary(ElfFile(notes=(odd, build_id, hurd, tag), note_alignment=8).build())
    assert binary.signals == ()
    assert binary.freebsd_osreldate is None
    assert read_binary(ElfFile(notes=(odd, arch)).build()).netbsd_version is None


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"


@pytest.mark.parametrize(
    ("data", "appearance"),
    [
        (b"", "an empty file"),
        (b"#!/bin/sh\necho hi\n", "a script .*`#!/bin/sh`"),
        (LFS, "a Git LFS pointer"),
        (b"!<arch>\n/", "an ar archive"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (bytes(257) + b"ustar\x0000", "a tar archive"),
        (b"<!DOCTYPE html>\r\n", "markup .*`<!DOCTYPE html>`"),
        (b"Not found\n", "a text file .*`Not found`"),
        (b"\x1b[31mred", r"unknown data .*`\\x1b\[31mred`"),
        (b"\xca\xfe\xba\xbe\0\0\0\x41", "a Java class"),
        (b"MZ" + bytes(62), "an MS-DOS program"),
        (b"\0asm\1\0\0\0", "WebAssembly"),
    ],
)
def test_what_is_no_program_is_named(data: bytes, appearance: str) -> None:
    with pytest.raises(BuildError, match=appearance):
        read_binary(data)


@pytest.fixture(scope="session")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("hello")
    source, program = folder / "hello.rs", folder / "hello"
    source.write_text('fn main() { println!("hello"); }\n')
    subprocess.run(["rustc", "-o", program, source], check=True)
    return program.read_bytes()


def rustc_host() -> str:
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))


def test_what_rustc_builds_here_is_for_this_machine(hello: bytes) -> None:
    target = TARGETS.get(rustc_host())
    if target is None:
        pytest.skip("needs a host that is one of the targets")
    floors = check_binary(hello, target, os_release=platform.release())
    names = {OS.LINUX: "glibc" if target.libc is Libc.GNU else None, OS.ILLUMOS: None}
    name = names.get(target.os, str(target.os))
    assert [floor.name for floor in floors] == ([name] if name else [])
    version = subprocess.run(["rustc", "-V"], check=True, capture_output=True, text=True).stdout
    if target.format is Format.ELF:
        assert f"rustc {read_binary(hello).rustc}" == version.strip()


@pytest.mark.skipif(
    platform.system() != "Linux" or shutil.which("readelf") is None,
    reason="needs readelf of GNU binutils",
)
@pytest.mark.parametrize("program", [sys.executable, shutil.which("ls") or "/bin/ls"])
def test_the_floor_is_the_highest_version_that_readelf_shows(program: str) -> None:
    data = Path(program).read_bytes()
    binary = read_binary(data)
    if binary.libc is not Libc.GNU:
        pytest.skip("needs a program for glibc")
    target = next(
        target
        for target in TARGETS.values()
        if (target.os, target.libc, target.arch) == (OS.LINUX, Libc.GNU, binary.arch)
    )
    versions = subprocess.run(
        ["readelf", "-WV", program], check=True, capture_output=True, text=True
    ).stdout
    numbers = [
        tuple(map(int, number.split(".")))
        for number in re.findall(r"Name: GLIBC_([0-9.]+)", versions)
    ]
    (floor,) = check_binary(data, target, os_release=None)
    assert floor.release == ".".join(map(str, max(numbers)))
