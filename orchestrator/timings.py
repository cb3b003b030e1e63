"""How long nodes took: a record beside the logs, which may be deleted."""

from __future__ import annotations

import json
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Enough to forget a machine that was replaced, and not to jump with one slow night.
_REMEMBERED: Final = 5
_LONGEST_SECONDS: Final = timedelta(days=30).total_seconds()


def read_timings(path: Path) -> Mapping[str, timedelta]:
    """Return the median of each node's last builds; lines that are damaged count for nothing."""
    seconds: dict[str, list[float]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            node, taken = str(entry["node"]), float(entry["seconds"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if 0 <= taken <= _LONGEST_SECONDS:  # which no NaN is
            seconds.setdefault(node, []).append(taken)
    return {
        node: timedelta(seconds=median(values[-_REMEMBERED:])) for node, values in seconds.items()
    }


def append_timing(path: Path, node: str, elapsed: timedelta) -> None:
    """Add one build; one write in append mode, so that two coordinators don't mix their lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"node": node, "seconds": round(elapsed.total_seconds(), 3)})
    # A machine that lost its power may have left half a line.
    start = "" if _ends_a_line(path) else "\n"
    with path.open("ab") as file:
        file.write(f"{start}{line}\n".encode())


def _ends_a_line(path: Path) -> bool:
    try:
        return path.read_bytes()[-1:] in {b"", b"\n"}
    except FileNotFoundError:
        return True
