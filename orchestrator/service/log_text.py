"""The end of a log file as text that is safe to show."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from orchestrator.core.wording import human_size, visible

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_BYTES: Final = 1_000_000


def read_log(path: Path) -> str | None:
    """Return the last megabyte of a log, None if it is not there or is no regular file.

    What is not text is spelt out: no line can move a cursor, turn the writing round or pretend to
    be another.
    """
    try:
        # Neither a link to another file, nor one that never ends, is a log.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        os.close(number)
        return None
    with os.fdopen(number, "rb") as file:
        left_out = max(0, found.st_size - LIMIT_BYTES)
        file.seek(left_out)
        data = file.read(LIMIT_BYTES)
    if left_out:
        data = data.partition(b"\n")[2]
    lines = data.decode(errors="replace").split("\n")
    text = "\n".join(visible(line.removesuffix("\r")) for line in lines)
    if left_out:
        return f"[the first {human_size(left_out)} are left out]\n{text}"
    return text
