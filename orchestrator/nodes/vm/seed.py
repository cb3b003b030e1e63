"""What a guest is told at its first boot: its own keys, on a small FAT disk that mtools makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.nodes.vm.tools import require_tools, run_tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CYLINDERS: Final = ("-t", "4", "-h", "16", "-s", "64")
_SIZE_BYTES: Final = 4 * 16 * 64 * 512


def make_key(path: Path, comment: str) -> None:
    """Make an SSH key without a passphrase, `path` and `path.pub`; leave one that is there."""
    if path.exists():
        return
    partial = path.with_suffix(".part")
    for old in (partial, partial.with_suffix(".part.pub")):
        old.unlink(missing_ok=True)
    run_tool(
        *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", partial.name),
        folder=path.parent,
    )
    # The private half last: it says that both are there.
    partial.with_suffix(".part.pub").replace(path.with_name(f"{path.name}.pub"))
    partial.replace(path)


def public_line(path: Path) -> str:
    """Return the public half of a key, without its comment."""
    words = path.with_name(f"{path.name}.pub").read_text(encoding="ascii").split()
    return " ".join(words[:2])


def write_fat(path: Path, *, label: str, files: Mapping[str, bytes]) -> None:
    """Write a FAT volume of that label with these files in its root."""
    require_tools("mformat", "mcopy")
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    with partial.open("r+b") as file:
        file.truncate(_SIZE_BYTES)
    run_tool("mformat", "-i", partial.name, "-v", label, *_CYLINDERS, "::", folder=path.parent)
    for name, data in files.items():
        run_tool("mcopy", "-i", partial.name, "-", f"::{name}", folder=path.parent, stdin=data)
    partial.replace(path)
