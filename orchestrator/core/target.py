"""Rust target triples: what each one means for a binary, for a host, and for file names.

Facts: the rustc platform-support pages.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator.core.errors import ConfigError


class OS(StrEnum):
    """An operating system; the value is its part of file names and floors."""

    MACOS = "macos"
    LINUX = "linux"
    FREEBSD = "freebsd"
    OPENBSD = "openbsd"
    NETBSD = "netbsd"
    DRAGONFLY = "dragonfly"
    ILLUMOS = "illumos"
    WINDOWS = "windows"
    ANDROID = "android"


class Arch(StrEnum):
    """A CPU architecture; the value is its part of file names."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    RISCV64 = "riscv64"
    ARMV7 = "armv7"
    MIPS64EL = "mips64el"


class Format(StrEnum):
    """A binary's container."""

    ELF = "ELF"
    MACHO = "Mach-O"
    PE = "PE"


class Libc(StrEnum):
    """Which C library a Linux target is for; other systems have one of their own."""

    GNU = "gnu"
    MUSL = "musl"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One Rust target triple."""

    triple: str
    os: OS
    arch: Arch
    libc: Libc = Libc.SYSTEM

    def __str__(self) -> str:
        return self.triple

    @property
    def format(self) -> Format:
        """The container of its binaries."""
        match self.os:
            case OS.MACOS:
                return Format.MACHO
            case OS.WINDOWS:
                return Format.PE
            case _:
                return Format.ELF

    @property
    def exe_suffix(self) -> str:
        """What a binary's file name ends in: `.exe` on Windows, nothing elsewhere."""
        return ".exe" if self.os is OS.WINDOWS else ""

    @property
    def flat_name(self) -> str:
        """`<os>-<arch>` as in the flat file names: `macos-x86_64`, `linux-x86_64-musl`."""
        suffix = "-musl" if self.libc is Libc.MUSL else ""
        return f"{self.os}-{self.arch}{suffix}"

    @property
    def system_name(self) -> str | None:
        """What `uname -s` says where its binaries run; None where there is no uname."""
        return _SYSTEM_NAMES.get(self.os)

    def title(self, os_release: str | None = None) -> str:
        """Return what people call it: `Linux x86_64 (glibc)`, `OpenBSD 7.8 arm64`."""
        words = [_TITLES[self.os], os_release, _ARCH_TITLES.get((self.os, self.arch), self.arch)]
        abi = _ABI_TITLES.get(self.libc)
        if self.os is OS.WINDOWS:
            abi = _WINDOWS_TITLES[self.triple.rpartition("-")[2]]
        return " ".join(word for word in words if word) + (f" ({abi})" if abi else "")

    @property
    def is_bound_to_os_release(self) -> bool:
        """Whether a binary runs on exactly one release of its OS (ocaml/opam#6232)."""
        return self.os is OS.OPENBSD


_TITLES: Final = {
    OS.MACOS: "macOS",
    OS.LINUX: "Linux",
    OS.FREEBSD: "FreeBSD",
    OS.OPENBSD: "OpenBSD",
    OS.NETBSD: "NetBSD",
    OS.DRAGONFLY: "DragonFly",
    OS.ILLUMOS: "illumos",
    OS.WINDOWS: "Windows",
    OS.ANDROID: "Android",
}
# Where a system's own word for a CPU is another one.
_ARCH_TITLES: Final = {
    (OS.MACOS, Arch.AARCH64): "Apple silicon",
    (OS.MACOS, Arch.X86_64): "Intel",
    (OS.FREEBSD, Arch.X86_64): "amd64",
    (OS.FREEBSD, Arch.AARCH64): "arm64",
    (OS.OPENBSD, Arch.X86_64): "amd64",
    (OS.OPENBSD, Arch.AARCH64): "arm64",
    (OS.NETBSD, Arch.X86_64): "amd64",
    (OS.WINDOWS, Arch.X86_64): "x64",
    (OS.WINDOWS, Arch.AARCH64): "ARM64",
}
_ABI_TITLES: Final = {
    Libc.GNU: "glibc",
    Libc.MUSL: "musl",
}
_WINDOWS_TITLES: Final = {"msvc": "MSVC", "gnu": "GNU"}

_SYSTEM_NAMES: Final = {
    OS.LINUX: "Linux",
    OS.ANDROID: "Linux",
    OS.MACOS: "Darwin",
    OS.FREEBSD: "FreeBSD",
    OS.OPENBSD: "OpenBSD",
    OS.NETBSD: "NetBSD",
    OS.DRAGONFLY: "DragonFly",
    OS.ILLUMOS: "SunOS",
}


def _linux(triple: str, arch: Arch, libc: Libc) -> Target:
    return Target(triple=triple, os=OS.LINUX, arch=arch, libc=libc)


TARGETS: Final = {
    target.triple: target
    for target in (
        Target(triple="aarch64-apple-darwin", os=OS.MACOS, arch=Arch.AARCH64),
        Target(triple="x86_64-apple-darwin", os=OS.MACOS, arch=Arch.X86_64),
        _linux("x86_64-unknown-linux-gnu", Arch.X86_64, Libc.GNU),
        _linux("x86_64-unknown-linux-musl", Arch.X86_64, Libc.MUSL),
        _linux("aarch64-unknown-linux-gnu", Arch.AARCH64, Libc.GNU),
        _linux("aarch64-unknown-linux-musl", Arch.AARCH64, Libc.MUSL),
        _linux("riscv64gc-unknown-linux-gnu", Arch.RISCV64, Libc.GNU),
        _linux("riscv64gc-unknown-linux-musl", Arch.RISCV64, Libc.MUSL),
        _linux("armv7-unknown-linux-gnueabihf", Arch.ARMV7, Libc.GNU),
        _linux("armv7-unknown-linux-musleabihf", Arch.ARMV7, Libc.MUSL),
        _linux("mips64el-unknown-linux-gnuabi64", Arch.MIPS64EL, Libc.GNU),
        Target(triple="aarch64-linux-android", os=OS.ANDROID, arch=Arch.AARCH64),
        Target(triple="x86_64-unknown-freebsd", os=OS.FREEBSD, arch=Arch.X86_64),
        Target(triple="aarch64-unknown-freebsd", os=OS.FREEBSD, arch=Arch.AARCH64),
        Target(triple="riscv64gc-unknown-freebsd", os=OS.FREEBSD, arch=Arch.RISCV64),
        Target(triple="armv7-unknown-freebsd", os=OS.FREEBSD, arch=Arch.ARMV7),
        Target(triple="x86_64-unknown-openbsd", os=OS.OPENBSD, arch=Arch.X86_64),
        Target(triple="aarch64-unknown-openbsd", os=OS.OPENBSD, arch=Arch.AARCH64),
        Target(triple="riscv64gc-unknown-openbsd", os=OS.OPENBSD, arch=Arch.RISCV64),
        Target(triple="x86_64-unknown-netbsd", os=OS.NETBSD, arch=Arch.X86_64),
        Target(triple="aarch64-unknown-netbsd", os=OS.NETBSD, arch=Arch.AARCH64),
        Target(triple="riscv64gc-unknown-netbsd", os=OS.NETBSD, arch=Arch.RISCV64),
        Target(triple="x86_64-unknown-dragonfly", os=OS.DRAGONFLY, arch=Arch.X86_64),
        Target(triple="x86_64-unknown-illumos", os=OS.ILLUMOS, arch=Arch.X86_64),
        Target(triple="x86_64-pc-windows-msvc", os=OS.WINDOWS, arch=Arch.X86_64),
        Target(triple="x86_64-pc-windows-gnu", os=OS.WINDOWS, arch=Arch.X86_64),
        Target(triple="aarch64-pc-windows-msvc", os=OS.WINDOWS, arch=Arch.AARCH64),
    )
}


def platform_name(triple: str, os_release: str | None) -> str:
    """Return what names a platform in paths: `x86_64-unknown-openbsd7.8`, elsewhere the triple.

    `os_release` is the only release that a binary runs on, None where it runs on many.
    """
    return f"{triple}{os_release or ''}"


def platform_title(triple: str, os_release: str | None) -> str:
    """Return what people call a platform, the triple where it is not known here."""
    target = TARGETS.get(triple)
    return target.title(os_release) if target else platform_name(triple, os_release)


def parse_target(triple: str) -> Target:
    """Return the target of a triple; raise ConfigError with the nearest known one."""
    try:
        return TARGETS[triple]
    except KeyError:
        near = difflib.get_close_matches(triple, TARGETS, n=1)
        hint = (
            f"did you mean `{near[0]}`?" if near else "`orchestrator schema` lists the known ones"
        )
        raise ConfigError(f"unknown target `{triple[:80]}`", hint=hint) from None
