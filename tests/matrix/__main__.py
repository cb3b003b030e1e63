"""The installer's matrix: shells, hosts, tools and states of the world. See docs/install.md.

python -m tests.matrix                 5,000 cases
python -m tests.matrix --cases 400     a sample, chosen by the seed
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.installer_site import certificate, serve
from tests.matrix.cases import FACTORS, choose, pairs_of, possible_pairs
from tests.matrix.play import WrongError, play
from tests.matrix.worlds import make_worlds

if TYPE_CHECKING:
    from tests.matrix.cases import Case
    from tests.matrix.worlds import World


def main() -> int:
    """Play the cases and print one table; 0 if none is wrong."""
    arguments = _arguments()
    seed = arguments.seed or _seed_of_the_commit()
    cases = choose(seed, arguments.cases)
    met = {pair for case in cases for pair in pairs_of(case)}
    possible = possible_pairs()
    print(f"seed {seed}: {len(cases)} cases, {len(met & possible)} of {len(possible)} pairs")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="matrix-site-") as folder:
        file, tls = certificate(Path(folder))
        root = Path(folder) / "served"
        root.mkdir()
        serving, plain = serve(root, tls), serve(root)
        worlds = make_worlds(next(serving), next(plain).url)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            verdicts = list(pool.map(partial(_verdict, worlds=worlds, file=file), cases))
        serving.close()
        plain.close()
    _show(cases, verdicts, time.monotonic() - begun)
    return 1 if any(verdict == "wrong" for verdict in verdicts) else 0


def _verdict(case: Case, *, worlds: dict[str, World], file: Path) -> str:
    try:
        return play(case, worlds[case.scenario], file)
    except (WrongError, subprocess.TimeoutExpired) as error:
        print(f"\nWRONG: {error}", flush=True)
        return "wrong"


def _show(cases: list[Case], verdicts: list[str], seconds: float) -> None:
    print(
        f"\n| what varies | value | cases | installed or planned | refused | wrong |\n{'|---' * 6}|"
    )
    for factor, values in FACTORS.items():
        for value in values:
            own = Counter(
                verdict
                for case, verdict in zip(cases, verdicts, strict=True)
                if getattr(case, factor) == value
            )
            counts = f"{own.total()} | {own['right']} | {own['refused']} | {own['wrong']}"
            print(f"| {factor} | {value} | {counts} |")
    total = Counter(verdicts)
    print(
        f"\n{len(cases)} cases in {seconds:.0f} s: {total['right']} right, "
        f"{total['refused']} refused rightly, {total['wrong']} wrong"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", help="what the choice comes from (default: the commit)")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    return parser.parse_args()


def _seed_of_the_commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()[:12] or "0"


if __name__ == "__main__":
    sys.exit(main())
