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


def read_timings(path: Path) -> Mapping[str, timedelta]:
    """Return the median of each node's last builds; lines that are damaged count for nothing."""
    seconds: dict[str, list[float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            seconds.setdefault(str(entry["node"]), []).append(float(entry["seconds"]))
        except (ValueError, KeyError, TypeError):
            continue
    return {
        node: timedelta(seconds=median(values[-_REMEMBERED:])) for node, values in seconds.items()
    }


def append_timing(path: Path, node: str, elapsed: timedelta) -> None:
    """Add one build; one write in append mode, so that two coordinators don't mix their lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"node": node, "seconds": round(elapsed.total_seconds(), 3)})
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
