"""What an ELF file is for: CPU, system and C library, from evidence that had to be right to run.

The loader's path, notes, symbol versions and library names decide. EI_OSABI alone proves nothing:
a Rust library for FreeBSD on arm64 carries 0 there, Go writes the right number, GNU ld writes 3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.elf import parse_elf
from orchestrator.core.image import EXECUTABLE, Binary, Claim
from orchestrator.core.target import OS, Arch, Format, Libc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.core.elf import Elf
    from orchestrator.core.target import Target


class Loader(NamedTuple):
    """Whose programs a loader starts; Linux has one for each libc and CPU."""

    os: OS
    libc: Libc = Libc.SYSTEM
    arch: Arch | None = None

    def serves(self, target: Target) -> bool:
        """Whether hosts of a target have this loader."""
        return (
            self.os is target.os
            and self.libc is target.libc
            and (self.arch is None or self.arch is target.arch)
        )


# Where every installation of the system has its loader. A path of another kind, such as one in
# /nix/store, exists only on the machine that built the program.
LOADERS: Final = {
    "/lib64/ld-linux-x86-64.so.2": Loader(OS.LINUX, Libc.GNU, Arch.X86_64),
    "/lib/ld-linux-aarch64.so.1": Loader(OS.LINUX, Libc.GNU, Arch.AARCH64),
    "/lib/ld-linux-riscv64-lp64d.so.1": Loader(OS.LINUX, Libc.GNU, Arch.RISCV64),
    "/lib/ld-linux-armhf.so.3": Loader(OS.LINUX, Libc.GNU, Arch.ARMV7),
    "/lib64/ld.so.1": Loader(OS.LINUX, Libc.GNU, Arch.MIPS64EL),
    "/lib/ld-musl-x86_64.so.1": Loader(OS.LINUX, Libc.MUSL, Arch.X86_64),
    "/lib/ld-musl-aarch64.so.1": Loader(OS.LINUX, Libc.MUSL, Arch.AARCH64),
    "/lib/ld-musl-riscv64.so.1": Loader(OS.LINUX, Libc.MUSL, Arch.RISCV64),
    "/lib/ld-musl-armhf.so.1": Loader(OS.LINUX, Libc.MUSL, Arch.ARMV7),
    "/system/bin/linker64": Loader(OS.ANDROID),
    "/libexec/ld-elf.so.1": Loader(OS.FREEBSD),
    "/usr/libexec/ld-elf.so.1": Loader(OS.FREEBSD),
    "/libexec/ld-elf.so.2": Loader(OS.DRAGONFLY),
    "/usr/libexec/ld-elf.so.2": Loader(OS.DRAGONFLY),
    "/usr/libexec/ld.so": Loader(OS.OPENBSD),
    "/libexec/ld.elf_so": Loader(OS.NETBSD),
    "/usr/libexec/ld.elf_so": Loader(OS.NETBSD),
    "/lib/64/ld.so.1": Loader(OS.ILLUMOS),
    "/lib/amd64/ld.so.1": Loader(OS.ILLUMOS),
    "/usr/lib/64/ld.so.1": Loader(OS.ILLUMOS),
    "/usr/lib/amd64/ld.so.1": Loader(OS.ILLUMOS),
}
_STRAY_LOADERS: Final = (("ld-linux", Libc.GNU), ("ld-musl-", Libc.MUSL))
_OSABI: Final = {2: OS.NETBSD, 6: OS.ILLUMOS, 9: OS.FREEBSD, 12: OS.OPENBSD}
_NOTES: Final = {
    b"FreeBSD": OS.FREEBSD,
    b"OpenBSD": OS.OPENBSD,
    b"NetBSD": OS.NETBSD,
    b"DragonFly": OS.DRAGONFLY,
    b"Android": OS.ANDROID,
}
_SYMBOL_VERSIONS: Final = (
    (re.compile(r"GLIBC_.*"), OS.LINUX),
    (re.compile(r"FBSD.*_1\.\d+"), OS.FREEBSD),
    (re.compile(r"DF\d+\.\d+"), OS.DRAGONFLY),
    (re.compile(r"(?:SUNW|ILLUMOS)_.*"), OS.ILLUMOS),
    (re.compile(r"LIBC(?:_[A-Z])?"), OS.ANDROID),
)
_LIBRARIES: Final = (
    (re.compile(r"libc\.so\.6"), OS.LINUX),
    (re.compile(r"libc\.musl-.*"), OS.LINUX),
    (re.compile(r"libc\.so\.7"), OS.FREEBSD),
    (re.compile(r"libc\.so\.8"), OS.DRAGONFLY),
    (re.compile(r"libc\.so\.12"), OS.NETBSD),
    (re.compile(r"libc\.so\.\d+\.\d+"), OS.OPENBSD),
    (re.compile(r"libc\.so\.1"), OS.ILLUMOS),
)
_RUSTC: Final = re.compile(r"rustc version (\S.*)")
_VERSION_NOTE: Final = 1
_PIE: Final = 0x08000000


def read_elf(data: bytes) -> Binary:
    """Return what an ELF file is for."""
    elf = parse_elf(data)
    cpu, arch = _cpu(elf)
    return Binary(
        format=Format.ELF,
        kind=_kind(elf),
        cpu=cpu,
        arch=arch,
        claims=tuple(_claims(elf)),
        libc=_libc(elf),
        interpreter=elf.interpreter,
        needed=elf.needed,
        symbol_versions=_system_versions(elf),
        freebsd_osreldate=_note_number(elf, b"FreeBSD"),
        netbsd_version=_note_number(elf, b"NetBSD"),
        rustc=next((m[1] for m in map(_RUSTC.fullmatch, elf.comments) if m), None),
    )


def _kind(elf: Elf) -> str:
    match elf.file_type:
        case 1:
            return "object file"
        case 2:
            return EXECUTABLE
        case 3:
            # Older linkers give shared libraries an entry point too, so it is not enough.
            is_program = elf.interpreter is not None or elf.flags_1 & _PIE
            return EXECUTABLE if elf.entry and is_program else "shared library"
        case 4:
            return "core dump"
        case other:
            return f"file of type {other}"


_MACHINES: Final = {
    2: "SPARC",
    3: "x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC",
    22: "s390x",
    40: "ARM",
    43: "SPARC",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}
_ARCHES: Final = {
    (8, 64): Arch.MIPS64EL,
    (40, 32): Arch.ARMV7,
    (62, 64): Arch.X86_64,
    (183, 64): Arch.AARCH64,
    (243, 64): Arch.RISCV64,
}
_ARM_SOFT_FLOAT: Final = 0x200
_RISCV_FLOAT: Final = 0x6
_RISCV_DOUBLE_FLOAT: Final = 0x4


def _cpu(elf: Elf) -> tuple[str, Arch | None]:
    bits = 64 if elf.is_64_bit else 32
    order = "little" if elf.image.byte_order == "<" else "big"
    name = f"{bits}-bit {order}-endian {_MACHINES.get(elf.machine, f'CPU {elf.machine}')}"
    arch = _ARCHES.get((elf.machine, bits)) if order == "little" else None
    # A program with another float ABI links against nothing on these targets' systems.
    if arch is Arch.ARMV7 and elf.flags & _ARM_SOFT_FLOAT:
        return f"{name} with soft float", None
    if arch is Arch.RISCV64 and elf.flags & _RISCV_FLOAT != _RISCV_DOUBLE_FLOAT:
        return f"{name} without double float", None
    return name, arch


def _claims(elf: Elf) -> Iterator[Claim]:
    loader = _loader(elf)
    if loader is not None:
        yield Claim(os=loader.os, evidence=f"loader {elf.interpreter}")
    for note in elf.notes:
        system = _NOTES.get(note.owner)
        if note.kind == _VERSION_NOTE and system is not None:
            yield Claim(os=system, evidence=f"note {note.owner.decode()}")
        if note.kind == _VERSION_NOTE and note.owner == b"GNU" and note.content[:4] == bytes(4):
            yield Claim(os=OS.LINUX, evidence="note GNU, Linux")
    yield from _names_that_tell(_SYMBOL_VERSIONS, _system_versions(elf), "symbol version")
    yield from _names_that_tell(_LIBRARIES, elf.needed, "library")
    if elf.osabi in _OSABI:
        yield Claim(os=_OSABI[elf.osabi], evidence=f"EI_OSABI {elf.osabi}", is_weak=True)


def _system_versions(elf: Elf) -> tuple[str, ...]:
    """Return the symbol versions of the system's libraries, each once.

    GCC's runtime exports GLIBC_2.0 on every libc (seen in a Rust program for musl on arm64), so
    what is needed of it says nothing about the system.
    """
    return tuple(
        dict.fromkeys(
            version.name
            for version in elf.symbol_versions
            if not version.library.startswith("libgcc_s.")
        )
    )


def _names_that_tell(
    patterns: tuple[tuple[re.Pattern[str], OS], ...], names: tuple[str, ...], what: str
) -> Iterator[Claim]:
    for pattern, system in patterns:
        name = next(filter(pattern.fullmatch, names), None)
        if name is not None:
            yield Claim(os=system, evidence=f"{what} {name}")


def _loader(elf: Elf) -> Loader | None:
    if elf.interpreter is None or elf.interpreter in LOADERS:
        return LOADERS.get(elf.interpreter or "")
    name = elf.interpreter.rpartition("/")[2]
    for prefix, libc in _STRAY_LOADERS:
        if name.startswith(prefix):
            return Loader(OS.LINUX, libc)
    return None


def _libc(elf: Elf) -> Libc | None:
    """Return the libc of Linux that must be on the host; glibc wins, for it has no substitute."""
    loader = _loader(elf)
    is_gnu = "libc.so.6" in elf.needed or any(
        name.startswith("GLIBC_") for name in _system_versions(elf)
    )
    if is_gnu:
        return Libc.GNU
    if loader is not None and loader.os is OS.LINUX:
        return loader.libc
    return Libc.MUSL if any(name.startswith("libc.musl-") for name in elf.needed) else None


def _note_number(elf: Elf, owner: bytes) -> int | None:
    for note in elf.notes:
        if note.owner == owner and note.kind == _VERSION_NOTE and len(note.content) == 4:  # noqa: PLR2004 -- one u32
            return int.from_bytes(note.content, "little" if elf.image.byte_order == "<" else "big")
    return None
