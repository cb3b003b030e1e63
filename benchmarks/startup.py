"""How long `orchestrator --help` takes against `python -c pass`; the limit is 3 times.

    .venv/bin/python benchmarks/startup.py [RUNS]

The two run in turn, so that a machine that gets slower meanwhile slows both. A run's time is the
processor's, which other programs disturb less than the clock's.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

ORCHESTRATOR = Path(sys.executable).parent / "orchestrator"
LIMIT = 3


def main() -> int:
    """Print the ratio of the medians; 1 if it is over the limit."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "orchestrator --help": [str(ORCHESTRATOR), "--help"],
        "orchestrator --version": [str(ORCHESTRATOR), "--version"],
        "orchestrator release --help": [str(ORCHESTRATOR), "release", "--help"],
    }
    for command in commands.values():
        _seconds(command)  # the first run may write the byte code
    times = {name: [0.0] * runs for name in commands}
    for run in range(runs):
        for name, command in commands.items():
            times[name][run] = _seconds(command)
    base, *others = (median(taken) for taken in times.values())
    for name, taken in times.items():
        print(f"{name:<28}{median(taken) * 1000:6.1f} ms{median(taken) / base:6.2f} times")
    return 1 if others[0] > LIMIT * base else 0


def _seconds(command: list[str]) -> float:
    before = _children_seconds()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return _children_seconds() - before


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
