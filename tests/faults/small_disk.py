"""A file system of a scenario's own, as small as it wants it."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.faults.packets import require_root, run
from tests.faults.scenario import NotRunError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.lab import Lab


def mount(lab: Lab, folder: Path, options: str) -> None:
    """Mount it on a folder, until the end of the lab.

    Raise NotRunError where that is not allowed.
    """
    require_root("a small disk", "mount", "umount")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"{options},mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        raise NotRunError(f"no small disk: {mounted.stderr.strip()}")
    # Lazily: what still stands there must not keep it.
    lab.stack.callback(run, "umount", "-l", str(folder))


def enlarge(folder: Path, options: str) -> None:
    """Give it room."""
    run("mount", "-o", f"remount,{options}", str(folder))


def fill(folder: Path, left_bytes: int) -> Path:
    """Fill it but for so many bytes, and return the file that does."""
    filling = folder / ".filling"
    with filling.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        file.truncate(file.tell() - left_bytes)
    return filling
