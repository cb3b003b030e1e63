"""What a binary is for: format, OS, CPU and floors. Bytes in, facts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.abi import LOADERS, read_elf
from orchestrator.core.errors import BuildError
from orchestrator.core.floors import measure_floors
from orchestrator.core.image import OS_NAMES, Binary, readable
from orchestrator.core.leaks import find_leaks
from orchestrator.core.macho import MAGICS, read_macho
from orchestrator.core.pe import read_pe
from orchestrator.core.target import OS, Arch, Format, Libc

if TYPE_CHECKING:
    from orchestrator.core.result import Floor
    from orchestrator.core.target import Target

__all__ = ["Binary", "check_binary", "find_leaks", "read_binary"]


def check_binary(data: bytes, target: Target, *, os_release: str | None) -> tuple[Floor, ...]:
    """Return the lowest releases that a binary runs on; raise BuildError if it is not for `target`.

    `os_release` is the release of the node's OS. It matters where the binary carries none and runs
    on no other (OpenBSD).
    """
    binary = read_binary(data, arch=target.arch)
    _require_kind(binary, target)
    _require_system(binary, target)
    _require_libc(binary, target)
    _require_loader(binary, target)
    return measure_floors(binary, target, os_release=os_release)


def read_binary(data: bytes, *, arch: Arch | None = None) -> Binary:
    """Return what a program is for; raise BuildError, saying what it looks like, if it is none.

    Of a universal Mach-O file the part for `arch` is read, or the first if there is none for it.
    """
    magic = data[:4]
    if magic == b"\x7fELF":
        return read_elf(data)
    if magic[:2] == b"MZ":
        return read_pe(data)
    if magic in MAGICS and not _is_java_class(data):
        slices = read_macho(data)
        return next((part for part in slices if part.arch is arch), slices[0])
    raise BuildError(
        f"not a program but {_appearance(data)}",
        hint="`binary_path` must name the executable that the build makes",
    )


def _require_kind(binary: Binary, target: Target) -> None:
    is_right = binary.format is target.format and binary.arch is target.arch
    if not is_right or not binary.is_executable:
        raise _refusal(binary, target)
    if target.os is OS.MACOS and target.arch is Arch.AARCH64 and not binary.has_code_signature:
        raise BuildError(
            f"{binary} without a code signature, which {target} kills at its start",
            hint="strip before signing, or sign again: codesign --sign - --force BINARY",
        )


def _require_system(binary: Binary, target: Target) -> None:
    # A static Linux program has no mark of its own, so there even a weak mark of another counts.
    is_linux = target.os is OS.LINUX
    foreign = any(
        claim.os is not target.os and (is_linux or not claim.is_weak) for claim in binary.claims
    )
    own = any(claim.os is target.os and not claim.is_weak for claim in binary.claims)
    if foreign or not (own or is_linux):
        raise _refusal(binary, target)


def _refusal(binary: Binary, target: Target) -> BuildError:
    evidence = "; ".join(binary.signals)
    wanted = f"{OS_NAMES[target.os]} on {target.arch}"
    return BuildError(
        f"{binary}, but {target} needs an executable for {wanted}",
        hint=f"build it for {target}" + (f"; this one shows {evidence}" if evidence else ""),
    )


_LIBC_NAMES: Final = {Libc.GNU: "glibc", Libc.MUSL: "musl", Libc.SYSTEM: "no named libc"}


def _require_libc(binary: Binary, target: Target) -> None:
    if target.os is not OS.LINUX or binary.libc in (None, target.libc):
        return
    raise BuildError(
        f"{binary} needs {_LIBC_NAMES[binary.libc]}, "
        f"but {target} is for {_LIBC_NAMES[target.libc]}",
        hint=f"build with --target {target}",
    )


def _require_loader(binary: Binary, target: Target) -> None:
    known = [path for path, loader in LOADERS.items() if loader.serves(target)]
    if binary.format is not Format.ELF or binary.interpreter in (None, *known):
        return
    raise BuildError(
        f"{binary} asks for the loader {binary.interpreter}, which {target} does not have",
        hint=f"a host of this target has {' or '.join(known)}: link for it, or statically",
    )


def _is_java_class(data: bytes) -> bool:
    """Whether this is the other format that begins with cafebabe; its versions start at 45."""
    return data[:4] == b"\xca\xfe\xba\xbe" and int.from_bytes(data[4:8], "big") >= _FIRST_JAVA


_FIRST_JAVA: Final = 45
_LOOKS: Final = (
    (b"#!", "a script"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer: its content was not fetched"),
    (b"!<arch>\n", "an ar archive, as static libraries are"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\0asm", "WebAssembly"),
    (b"\xca\xfe\xba\xbe", "a Java class"),
    (b"BC\xc0\xde", "LLVM bitcode"),
    (b"<", "a text file with markup"),
)


def _appearance(data: bytes) -> str:
    """Return what a file looks like that is no program."""
    if not data:
        return "an empty file"
    if data[257:262] == b"ustar":
        return "a tar archive"
    beginning = readable(data[:40].partition(b"\n")[0].rstrip(b"\r"))
    for magic, name in _LOOKS:
        if data.startswith(magic):
            return f"{name} (it begins `{beginning}`)"
    is_text = all(byte in b"\t\n\r\f" or byte >= 32 for byte in data[:512])  # noqa: PLR2004 -- space, the first printable
    return f"{'a text file' if is_text else 'unknown data'} (it begins `{beginning}`)"
