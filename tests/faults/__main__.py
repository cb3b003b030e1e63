"""The fault suite: real nodes, real processes, real crashes. See docs/reliability.md.

python -m tests.faults                      everything
python -m tests.faults --faults 60          a sample, chosen by the seed
python -m tests.faults --only 'kill -9'     what has that in its name
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from tests.faults import processes, table
from tests.faults.calibration import measure
from tests.faults.catalogue import SCENARIOS, choose
from tests.faults.stage import stage
from tests.faults.suite import play_all

# Most of a run is waiting, for a wire, a build or a coordinator that starts.
_JOBS: Final = 3 * (os.cpu_count() or 1)


def main() -> int:
    """Play what was asked for; 0 if nothing was found."""
    arguments = _arguments()
    seed = arguments.seed or _seed_of_the_commit()
    runs = choose(
        SCENARIOS, seed=seed, faults=arguments.faults, only=arguments.only, number=arguments.number
    )
    if not runs:
        print(f"nothing has {arguments.only!r} in its name", file=sys.stderr)
        return 2
    begun = time.monotonic()
    total = sum(scenario.injects for scenario, _ in runs)
    print(f"seed {seed}: {total} faults in {len(runs)} runs, {arguments.jobs} at once", flush=True)
    # What a node may write to must be below a path that the probe takes for a plain one.
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _give_up(folder))
    with stage(folder) as bare:
        made = replace(bare, traffic=measure(bare))
        results = play_all(made, runs, seed=seed, jobs=arguments.jobs)
    text = table.as_markdown(results, seed=seed, seconds=time.monotonic() - begun)
    print(f"\n{text}")
    if arguments.write:
        table.write_into(Path(arguments.write), text)
    is_clean = not any(run.findings for run in results)
    if is_clean:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    else:
        print(table.as_details(results, seed=seed), f"\nthe labs are in {folder / 'labs'}")
    return 0 if is_clean else 1


def _give_up(folder: Path) -> NoReturn:
    """End everything that was started, and this; what is on disk stays to be looked at."""
    for process in processes.find(folder):
        processes.kill(process.pid)
    for line in Path("/proc/mounts").read_text().splitlines():
        if (place := line.split()[1]).startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", place], check=False)
    os._exit(130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Inject faults; count what is lost."
    )
    parser.add_argument("--seed", help="what all that is random comes from (default: the commit)")
    parser.add_argument("--faults", type=int, help="a sample of so many, without what is slow")
    parser.add_argument("--only", help="those with this in `FAULT / PHASE`")
    parser.add_argument("--number", type=int, help="only the run of this number, as in a failure")
    parser.add_argument("--jobs", type=int, default=_JOBS, help=f"at once (default: {_JOBS})")
    parser.add_argument("--write", metavar="FILE", help="put the table into this document")
    return parser.parse_args()


def _seed_of_the_commit() -> str:
    root = Path(__file__).parent
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "1"


if __name__ == "__main__":
    sys.exit(main())
