"""Seven nodes that say they run seven systems: what a release needs, on one Linux machine.

Each node's sshd has a mount namespace of its own, where `uname` is another program, and builds a
static program for Linux that carries the marks of the node's system. So all of a release is real
(jobs, gate, floors, index of seven targets), but for the kernels. It needs root and gcc.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# A stripped Rust program of some size.
_PADDING_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What a node pretends to be, and the marks of its programs.

    `note` is the owner and number of the ELF note, `library` one that the program asks for.
    """

    target: str
    uname: str
    release: str
    note: tuple[str, int] | None = None
    abi: int = 0
    library: str | None = None


SYSTEMS: Final = (
    System(target="x86_64-unknown-linux-musl", uname="Linux", release="6.1.0"),
    System(target="x86_64-unknown-linux-gnu", uname="Linux", release="6.1.0"),
    System(
        target="x86_64-unknown-freebsd",
        uname="FreeBSD",
        release="14.2-RELEASE",
        note=("FreeBSD", 1402000),
        abi=9,
    ),
    System(target="x86_64-unknown-openbsd", uname="OpenBSD", release="7.8", note=("OpenBSD", 0)),
    System(
        target="x86_64-unknown-netbsd", uname="NetBSD", release="10.1", note=("NetBSD", 1001000000)
    ),
    System(
        target="x86_64-unknown-dragonfly",
        uname="DragonFly",
        release="6.4-RELEASE",
        note=("DragonFly", 600400),
    ),
    System(
        target="x86_64-unknown-illumos", uname="SunOS", release="5.11", abi=6, library="libc.so.1"
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


def make_program(system: System, version: str, folder: Path) -> Path:
    """Return a program that prints its version, for the node's system by all its marks."""
    folder.mkdir(parents=True, exist_ok=True)
    padding = folder / "padding"
    if not padding.exists():
        # Half of it can be compressed, as of a real program.
        noise = random.Random(system.target).randbytes(_PADDING_BYTES // 2)  # noqa: S311
        padding.write_bytes(
            b"".join(noise[at : at + 32] + bytes(32) for at in range(0, len(noise), 32))
        )
    source = folder / "program.c"
    source.write_text(_PROGRAM + (_note(*system.note) if system.note else ""))
    program = folder / f"trajectory-{version}"
    subprocess.run(
        [
            *("gcc", "-O1", "-nostdlib", "-ffreestanding", "-fno-stack-protector"),
            *_linked(system, folder),
            *(f'-DVERSION="{version}"', f'-DPADDING="{padding}"', "-Wl,--build-id=none", "-s"),
            *("-o", str(program), str(source)),
        ],
        check=True,
    )
    if system.abi:
        with program.open("r+b") as file:
            file.seek(7)
            file.write(bytes([system.abi]))
    return program


def _linked(system: System, folder: Path) -> list[str]:
    if system.library is None:
        return ["-static"]
    library = folder / system.library
    empty = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null"]
    subprocess.run([*empty, f"-Wl,-soname,{library.name}", "-o", str(library)], check=True)
    # Asked for and never loaded: without a loader's name the kernel starts the program itself.
    forced = ["-Wl,--no-as-needed", str(library), "-Wl,--no-dynamic-linker"]
    return ["-fPIE", "-pie", *forced]


def _note(owner: str, number: int) -> str:
    size = len(owner) + 1
    return (
        '__asm__(".section .note.system,\\"a\\",@note\\n.balign 4\\n'
        f'.long {size}, 4, 1\\n.asciz \\"{owner}\\"\\n.balign 4\\n'
        f'.long {number}\\n.previous\\n");\n'
    )


def disguise(system: System, folder: Path) -> list[str]:
    """Return the words before a server's command that give its node the system's `uname`."""
    folder.mkdir(parents=True, exist_ok=True)
    real = folder / "real-uname"
    if not real.exists():
        shutil.copy2("/usr/bin/uname", real)
    false = folder / "uname"
    false.write_text(
        f"#!/bin/sh\ncase $* in\n-s | '') echo {system.uname} ;;\n-r) echo {system.release} ;;\n"
        f'*) exec {real} "$@" ;;\nesac\n'
    )
    false.chmod(0o755)
    script = 'mount --bind "$1" /usr/bin/uname && shift && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(false)]


def can_disguise() -> bool:
    """Whether this machine can have such nodes."""
    tools = all(map(shutil.which, ("unshare", "mount", "gcc")))
    return os.getuid() == 0 and tools and os.path.realpath("/bin") == "/usr/bin"
