"""What a program file is, and bounded reading: offsets in it come from strangers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from orchestrator.core.errors import BuildError
from orchestrator.core.target import OS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.core.target import Arch, Format, Libc

OS_NAMES: Final = {
    OS.MACOS: "macOS",
    OS.LINUX: "Linux",
    OS.FREEBSD: "FreeBSD",
    OS.OPENBSD: "OpenBSD",
    OS.NETBSD: "NetBSD",
    OS.DRAGONFLY: "DragonFly BSD",
    OS.ILLUMOS: "illumos",
    OS.WINDOWS: "Windows",
    OS.ANDROID: "Android",
}
EXECUTABLE: Final = "executable"
MAX_TEXT_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One piece of evidence that a file is for an OS; a weak one proves nothing alone."""

    os: OS
    evidence: str
    is_weak: bool = False

    def __str__(self) -> str:
        return f"{OS_NAMES[self.os]}: {self.evidence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """What a program file says about itself.

    `kind`, `cpu` and `other_system` (one that no target has) are for people. `os` and `arch` are
    None where the file names none, several, or one that no target has. A static Linux program
    names no OS and no libc. `symbol_versions` are those needed of the system's own libraries.
    """

    format: Format
    kind: str
    cpu: str
    arch: Arch | None
    other_system: str | None = None
    claims: tuple[Claim, ...] = ()
    libc: Libc | None = None
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    symbol_versions: tuple[str, ...] = ()
    freebsd_osreldate: int | None = None
    netbsd_version: int | None = None
    macos_minimum: str | None = None
    has_code_signature: bool = False
    rustc: str | None = None

    @property
    def is_executable(self) -> bool:
        """Whether a system can start it: no object file, no shared library."""
        return self.kind == EXECUTABLE

    @property
    def os(self) -> OS | None:
        """The one OS that everything strong in the file points to."""
        systems = {claim.os for claim in self.claims if not claim.is_weak}
        return systems.pop() if len(systems) == 1 else None

    @property
    def signals(self) -> tuple[str, ...]:
        """Which evidence said which OS."""
        return tuple(str(claim) for claim in self.claims)

    def __str__(self) -> str:
        names = dict.fromkeys(OS_NAMES[claim.os] for claim in self.claims if not claim.is_weak)
        system = " and ".join(names) or self.other_system or "no named system"
        return f"{self.format} {self.kind} for {system} on {self.cpu}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The bytes of one program file, read with every offset checked."""

    data: bytes
    format: Format
    byte_order: Literal["<", ">"] = "<"

    def unpack(self, layout: str, offset: int, what: str) -> tuple[int, ...]:
        """Return the numbers at an offset; `layout` is struct's, without its byte order."""
        reader = struct.Struct(self.byte_order + layout)
        self.require(offset, reader.size, what)
        return reader.unpack_from(self.data, offset)

    def part(self, offset: int, size: int, what: str) -> bytes:
        """Return `size` bytes at an offset."""
        self.require(offset, size, what)
        return self.data[offset : offset + size]

    def parts(self, wanted: Iterable[tuple[str, int, int]]) -> Iterator[tuple[str, bytes]]:
        """Yield parts by name, each given with its offset and size.

        Those of a real file do not overlap, so together they are no more than the file.
        """
        left = len(self.data)
        for name, offset, size in wanted:
            left -= size
            if left < 0:
                raise damaged(self.format, "parts of it overlap")
            yield name, self.part(offset, size, "a section")

    def text(self, offset: int, what: str) -> str:
        """Return the NUL-terminated text at an offset, with what is not ASCII escaped."""
        self.require(offset, 1, what)
        end = self.data.find(b"\0", offset, offset + MAX_TEXT_BYTES)
        if end < 0:
            raise damaged(self.format, f"{what} has no end")
        return readable(self.data[offset:end])

    def require(self, offset: int, size: int, what: str) -> None:
        """Raise BuildError unless the file has these bytes."""
        if offset + size > len(self.data):
            raise damaged(self.format, f"{what} reaches past its end")


def damaged(file_format: Format, reason: str) -> BuildError:
    """Return the error for a file that contradicts itself."""
    return BuildError(
        f"damaged or truncated {file_format} file: {reason}",
        hint="build it again; if it was copied by hand, compare its hash with the original",
    )


_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


def readable(data: bytes) -> str:
    """Return bytes as printable ASCII; whatever could move a terminal's cursor is escaped."""
    return data.decode("ascii", errors="backslashreplace").translate(_CONTROLS)
