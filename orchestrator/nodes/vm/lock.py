"""Locks between coordinators, and between a coordinator and the QEMU that it has started.

All are flock(2): whatever way a process ends, the kernel opens its locks. A lock belongs to the
open file, so QEMU, which inherits one, holds it until it ends, whoever started it and whatever
became of them. So no process id is ever taken for another's that has got the same number since.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock alone; say so if another has it, and wait."""
    fd = open_lock(path)
    try:
        if not try_lock(fd):
            say(f"waiting for another orchestrator, which holds {path}")
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def open_lock(path: Path) -> int:
    """Return a descriptor of the lock's file, not locked yet."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock, alone or with others, if that is possible now."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether any process holds the lock alone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared: two who look at once must not take each other for the holder.
        return not try_lock(fd, shared=True)
    finally:
        os.close(fd)
