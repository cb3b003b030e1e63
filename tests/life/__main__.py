"""What an installation lives through. See docs/installer.md.

python -m tests.life truncation                        every prefix of the script in every shell
python -m tests.life truncation --prefixes 300         a sample for each shell
python -m tests.life corruption                        1,000 random corruptions
python -m tests.life corruption --cases 150            fewer
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.life import corruption, prefixes, truncation


def main() -> int:
    """Play what was asked for and print one table; 0 if nothing was found."""
    arguments = _arguments()
    seed = arguments.seed or _seed_of_the_commit()
    if arguments.subject == "corruption":
        return corruption.main(seed=seed, number=arguments.cases, jobs=arguments.jobs)
    shells = arguments.shells.split(",") if arguments.shells else list(prefixes.SHELLS)
    return truncation.main(
        shells, seed=seed, number=arguments.prefixes, jobs=arguments.jobs, through=arguments.through
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.life", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True)
    cut = subjects.add_parser("truncation", help="cut the script off")
    cut.add_argument("--shells", help="separated by commas (default: all)")
    cut.add_argument("--prefixes", type=int, help="a sample of so many in each shell")
    cut.add_argument("--through", choices=prefixes.WAYS, default=prefixes.PIPE)
    damage = subjects.add_parser("corruption", help="damage what is downloaded")
    damage.add_argument("--cases", type=int, default=1000, help="(default: %(default)s)")
    for subject in (cut, damage):
        subject.add_argument("--seed", help="what is random comes from it (default: the commit)")
        subject.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    return parser.parse_args()


def _seed_of_the_commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()[:12] or "0"


if __name__ == "__main__":
    sys.exit(main())
