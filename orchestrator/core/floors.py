"""The lowest release of an OS or libc that a binary runs on, read from the binary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, assert_never

from orchestrator.core.errors import BuildError
from orchestrator.core.index import release_order
from orchestrator.core.result import Floor
from orchestrator.core.target import OS, Libc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.core.image import Binary
    from orchestrator.core.target import Target

# Interfaces of glibc that are not numbered: the release that brought each. Others are refused,
# for a floor that is too low installs a program that cannot start.
_GLIBC_NAMED: Final = {"GLIBC_ABI_DT_RELR": (2, 36)}
_GLIBC_NUMBERED: Final = re.compile(r"GLIBC_([0-9]{1,4}(?:\.[0-9]{1,4})+)")
_FREEBSD_NUMBERED: Final = re.compile(r"FBSD_1\.([0-9]{1,4})")
# FreeBSD's Versions.def: FBSD_1.0 came with release 7, and each later one with the next.
_FREEBSD_OF_FBSD_1_0: Final = 7
_RELEASE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)


def measure_floors(binary: Binary, target: Target, *, os_release: str | None) -> tuple[Floor, ...]:
    """Return the floors of a binary that is for `target`; raise BuildError if it hides them."""
    match target.os:
        case OS.LINUX:
            return _glibc(binary) if binary.libc is Libc.GNU else ()
        case OS.FREEBSD:
            return (_freebsd(binary),)
        case OS.NETBSD:
            return (_netbsd(binary),)
        case OS.OPENBSD:
            return (_openbsd(os_release),)
        case OS.MACOS:
            return (_at_least("macos", binary.macos_minimum or ""),)
        case OS.DRAGONFLY | OS.ILLUMOS | OS.WINDOWS | OS.ANDROID:
            return ()
        case _:
            assert_never(target.os)


def join_floors(floors: Iterable[Floor]) -> tuple[Floor, ...]:
    """Return the floors of several binaries that are shipped together: the highest of each name."""
    highest: dict[str, Floor] = {}
    for floor in floors:
        known = highest.setdefault(floor.name, floor)
        if release_order(floor.release) > release_order(known.release):
            highest[floor.name] = floor
    return tuple(highest.values())


def _glibc(binary: Binary) -> tuple[Floor, ...]:
    names = [name for name in binary.symbol_versions if name.startswith("GLIBC_")]
    if not names:
        raise BuildError(f"{binary} needs glibc and names no version of it: no floor to measure")
    return (_at_least("glibc", _dotted(max(_glibc_release(name) for name in names))),)


def _glibc_release(name: str) -> tuple[int, ...]:
    if name in _GLIBC_NAMED:
        return _GLIBC_NAMED[name]
    match = _GLIBC_NUMBERED.fullmatch(name)
    if match is None:
        raise BuildError(
            f"the binary needs {name}, and which release of glibc has it is not known here",
            hint="build it on a system with an older glibc",
        )
    return tuple(int(part) for part in match[1].split("."))


def _freebsd(binary: Binary) -> Floor:
    """Return the later of what it was built against (its note) and what it calls (its symbols)."""
    releases = [
        (_FREEBSD_OF_FBSD_1_0 + int(match[1]), 0)
        for match in map(_FREEBSD_NUMBERED.fullmatch, binary.symbol_versions)
        if match
    ]
    if binary.freebsd_osreldate:
        # __FreeBSD_version: two digits of major, two of minor, three that count changes.
        major, rest = divmod(binary.freebsd_osreldate, 100_000)
        releases.append((major, rest // 1000))
    if not releases:
        raise BuildError(f"{binary} has neither a version note nor FBSD_ symbol versions")
    return _at_least("freebsd", _dotted(max(releases)))


def _netbsd(binary: Binary) -> Floor:
    if not binary.netbsd_version:
        raise BuildError(f"{binary} has no version note: no floor to measure")
    # __NetBSD_Version__: MMmmrrpp00, where rrpp counts on within 9.99 and is the patch elsewhere.
    major, rest = divmod(binary.netbsd_version, 100_000_000)
    minor, patch = rest // 1_000_000, rest // 100 % 10_000
    return _at_least("netbsd", _dotted((major, minor, patch) if patch else (major, minor)))


def _openbsd(os_release: str | None) -> Floor:
    if os_release is None or not _RELEASE.fullmatch(os_release):
        raise BuildError(
            f"the release of the node's OpenBSD is not known ({os_release!r}), "
            "and a binary for OpenBSD runs on that release only",
            hint="`uname -r` on the node must print it, such as 7.8",
        )
    return Floor(name="openbsd", operator="==", release=os_release)


def _at_least(name: str, release: str) -> Floor:
    if not _RELEASE.fullmatch(release):
        raise BuildError(f"the binary names no lowest release of {name}")
    return Floor(name=name, operator=">=", release=release)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in numbers)
