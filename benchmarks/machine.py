"""On what machine, and with which versions, something was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def describe_machine() -> dict[str, str]:
    """Return what the results depend on: processor, cores, memory, system and Python."""
    return {
        "cpu": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "system": _first(r'PRETTY_NAME="(.+)"', Path("/etc/os-release")) or platform.system(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
    }


def version_of(package: str) -> str:
    """Return the version of an installed Python package, "" if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def said_version(command: Sequence[str]) -> str:
    """Return the first version number that a program says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+(p\d+)?", done.stdout + done.stderr)
    return found[0] if found else ""


def _first(pattern: str, file: Path) -> str:
    try:
        found = re.search(pattern, file.read_text())
    except OSError:
        return ""
    return found[1].strip() if found else ""
