"""Files of this machine that are whole under their names: what is half written has another one.

Whoever writes a part holds its lock, which the kernel drops with its holder, however that one dies:
a part that nobody holds is what a killed writer left.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

PART: Final = ".part"
# Where a file system has no locks.
_LIFETIME: Final = timedelta(days=1)


def create_part(destination: Path) -> tuple[Path, BinaryIO]:
    """Return a new file beside the destination, and itself, open and held until it is closed.

    Its name is its writer's own: another one may be at the same destination.
    """
    while True:
        path = destination.with_name(f"{destination.name}.{secrets.token_hex(4)}{PART}")
        file = path.open("x+b")
        try:
            if hold(file.fileno()):
                return path, file
        except BaseException:
            file.close()
            raise
        file.close()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, whoever else writes it at the same time."""
    part, file = create_part(path)
    with file:
        try:
            file.write(data)
            file.flush()
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def sweep_parts(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder."""
    for path in folder.glob(f"*{PART}"):
        with suppress(FileNotFoundError), path.open("rb") as file:
            if is_left(file.fileno()):
                path.unlink()


def hold(descriptor: int) -> bool:
    """Hold a new part; False if it was swept before it could be held: make another one."""
    with suppress(OSError):  # there are no locks here
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


def is_left(descriptor: int) -> bool:
    """Return whether nobody writes a part any more; its lock is ours then."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return os.fstat(descriptor).st_mtime < time.time() - _LIFETIME.total_seconds()
    return True
