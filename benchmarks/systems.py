"""Seven nodes that say they run seven systems: what a release needs, on one Linux machine.

A node's logins find a `uname` that answers as its system's, and its builds deliver a static program
for Linux that carries the marks of that system. So all of a release is real (jobs, gate, floors, an
index of seven targets), but for the kernels. It needs gcc.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.systems import SYSTEMS as OTHERS
from tests.systems import System, pass_for

if TYPE_CHECKING:
    from pathlib import Path

# A stripped Rust program of some size.
_PADDING_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a node builds for, and what marks its system's programs: a note, an ABI, a library."""

    target: str
    system: System | None = None
    abi: int = 0
    library: str | None = None


KINDS: Final = (
    Kind(target="x86_64-unknown-linux-musl"),
    Kind(target="x86_64-unknown-linux-gnu"),
    *(
        Kind(target=target, system=system, abi=9 * (system.name == "FreeBSD"))
        for target, system in OTHERS.items()
    ),
    Kind(
        target="x86_64-unknown-illumos",
        system=System(name="SunOS", release="5.11", owner=b"", content=0),
        abi=6,
        library="libc.so.1",
    ),
)

_PROGRAM: Final = r"""
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}
void _start(void) {
    static const char said[] = "trajectory " VERSION "\n";
    call(1, 1, (long)said, sizeof said - 1);
    call(60, 0, 0, 0);
}
__asm__(".section .rodata.padding,\"a\"\n.incbin \"" PADDING "\"\n.previous\n");
"""


def make_program(kind: Kind, version: str, folder: Path) -> Path:
    """Return a program that prints its version, for the kind's system by all its marks."""
    folder.mkdir(parents=True, exist_ok=True)
    padding = folder / "padding"
    if not padding.exists():
        # Half of it can be compressed, as of a real program.
        noise = random.Random(kind.target).randbytes(_PADDING_BYTES // 2)  # noqa: S311
        padding.write_bytes(
            b"".join(noise[at : at + 32] + bytes(32) for at in range(0, len(noise), 32))
        )
    source = folder / "program.c"
    source.write_text(_PROGRAM + (_note(kind.system) if kind.system and kind.system.owner else ""))
    program = folder / f"trajectory-{version}"
    subprocess.run(
        [
            *("gcc", "-O1", "-nostdlib", "-ffreestanding", "-fno-stack-protector"),
            *_linked(kind, folder),
            *(f'-DVERSION="{version}"', f'-DPADDING="{padding}"', "-Wl,--build-id=none", "-s"),
            *("-o", str(program), str(source)),
        ],
        check=True,
    )
    if kind.abi:
        with program.open("r+b") as file:
            file.seek(7)
            file.write(bytes([kind.abi]))
    return program


def _linked(kind: Kind, folder: Path) -> list[str]:
    if kind.library is None:
        return ["-static"]
    library = folder / kind.library
    empty = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null"]
    subprocess.run([*empty, f"-Wl,-soname,{library.name}", "-o", str(library)], check=True)
    # Asked for and never loaded: without a loader's name the kernel starts the program itself.
    forced = ["-Wl,--no-as-needed", str(library), "-Wl,--no-dynamic-linker"]
    return ["-fPIE", "-pie", *forced]


def _note(system: System) -> str:
    owner = system.owner.decode().rstrip("\0")
    return (
        '__asm__(".section .note.system,\\"a\\",@note\\n.balign 4\\n'
        f'.long {len(owner) + 1}, 4, 1\\n.asciz \\"{owner}\\"\\n.balign 4\\n'
        f'.long {system.content}\\n.previous\\n");\n'
    )


def disguise(kind: Kind, home: Path) -> None:
    """Let the logins of a home say that they are on the kind's system."""
    if kind.system:
        pass_for(home, kind.system)
