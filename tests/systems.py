"""Nodes that pass for other systems, so that seven targets can be built at once on one machine.

A static program of Linux gets the note that the loader of another system wants to see; Linux runs
it all the same. And `uname` answers as that system's own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What marks a program and a machine of a system."""

    name: str
    release: str
    owner: bytes
    content: int


SYSTEMS: Final = {
    "x86_64-unknown-freebsd": System(
        name="FreeBSD", release="14.3-RELEASE", owner=b"FreeBSD\0", content=1_403_000
    ),
    "x86_64-unknown-openbsd": System(name="OpenBSD", release="7.8", owner=b"OpenBSD\0", content=0),
    "x86_64-unknown-netbsd": System(
        name="NetBSD", release="10.1", owner=b"NetBSD\0\0", content=1_001_000_000
    ),
    "x86_64-unknown-dragonfly": System(
        name="DragonFly", release="6.4", owner=b"DragonFly\0\0\0", content=600_400
    ),
}

_SEGMENTS_AT: Final = 32
_SEGMENT_COUNT_AT: Final = 56
_SEGMENT_BYTES: Final = 56
_NOTE: Final = 4
_OURS: Final = 0x7FFF


def mark_as(data: bytes, system: System) -> bytes:
    """Return the program with the notes of that system in place of its own."""
    offset, size = _note_segment(data)
    owner = system.owner.rstrip(b"\0") + b"\0"
    note = struct.pack("<III", len(owner), 4, 1) + system.owner + struct.pack("<I", system.content)
    left = size - len(note) - 16
    # The rest is a note that nobody knows, so that the segment is as long as it was.
    filling = struct.pack("<III", 4, left, _OURS) + b"ours" + bytes(left)
    return data[:offset] + note + filling + data[offset + size :]


def _note_segment(data: bytes) -> tuple[int, int]:
    (at,) = struct.unpack_from("<Q", data, _SEGMENTS_AT)
    (count,) = struct.unpack_from("<H", data, _SEGMENT_COUNT_AT)
    for number in range(count):
        kind, _, offset, _, _, size, *_ = struct.unpack_from(
            "<IIQQQQQQ", data, at + number * _SEGMENT_BYTES
        )
        if kind == _NOTE:
            return offset, size
    raise AssertionError("a static program has notes")


def pass_for(home: Path, system: System) -> None:
    """Let the logins of a home find a `uname` that answers as that system's."""
    tools = home / ".cargo" / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "uname").write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"-s) echo {system.name} ;;\n-r) echo {system.release} ;;\n"
        '*) exec /bin/uname "$@" ;;\nesac\n'
    )
    (tools / "uname").chmod(0o755)
