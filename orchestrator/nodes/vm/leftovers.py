"""What a process that was killed has left of a disk that it was making."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orchestrator.nodes.vm.folder import VmFolder

if TYPE_CHECKING:
    from pathlib import Path

# The state of the machine in which it is made.
PART_MACHINE: Final = "machine"
_GLANCE_SECONDS: Final = 0.1
_END_SECONDS: Final = 10.0


def part_prefix(name: str) -> str:
    """Return how the folder in which an image of that name is made begins."""
    return f".part-{name}-"


def clear_parts(images: Path, name: str) -> None:
    """Remove what was begun of an image and is nobody's; call it only while holding its lock."""
    for left in images.glob(f"{part_prefix(name)}*"):
        _end_qemu(VmFolder(left / PART_MACHINE))
        shutil.rmtree(left, ignore_errors=True)


def _end_qemu(folder: VmFolder) -> None:
    # While its lock is held, the process of that number is its QEMU, and no other one.
    if folder.is_running and folder.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(folder.pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    while folder.is_running and time.monotonic() < deadline:
        time.sleep(_GLANCE_SECONDS)
