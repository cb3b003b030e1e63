"""The Python tools that others use for the same work, in an environment of their own.

It is made once, from the versions in peers.txt, in the user's cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.measuring import RunFailedError

_PINS: Final = Path(__file__).parent / "peers.txt"


def python() -> Path:
    """Return the interpreter that can import the peers; raise RunFailedError if there is none."""
    return _environment() / "bin" / "python"


def program(name: str) -> Path:
    """Return a program of a peer, such as `ansible`; raise RunFailedError if there is none."""
    found = _environment() / "bin" / name
    if not found.is_file():
        raise RunFailedError(f"no peer has a program named {name}")
    return found


def versions() -> dict[str, str]:
    """Return the version of each package in the environment."""
    pins = (line.split("==") for line in _PINS.read_text().splitlines() if "==" in line)
    return {name.lower(): version for name, version in pins}


@cache
def _environment() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestrator-bench"
    python_name = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = hashlib.sha256(_PINS.read_bytes()).hexdigest()[:12]
    folder = home / f"peers-{python_name}-{pins}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "peers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder)
            (folder / "complete").touch()
    return folder


def _install(folder: Path) -> None:
    print(f"installing the peers into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    try:
        subprocess.run([*pip, "install", "--no-deps", "--requirement", str(_PINS)], check=True)
    except subprocess.CalledProcessError as error:
        raise RunFailedError("the peers cannot be installed: is there a package index?") from error
