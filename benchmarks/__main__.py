"""Measure, and write docs/performance.md.

    python -m benchmarks [NAME…] [--runs 5] [--into docs]

Without names, all of it runs, for an hour or so. Each result is kept as docs/performance/NAME.json,
and the page is made of all that are there.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.chart import render_bars
from benchmarks.machine import describe_machine
from benchmarks.options import Options
from benchmarks.page import render_page
from benchmarks.report import chart_name, load, save

ROOT: Final = Path(__file__).parent.parent
# In the order of the page; each is a module with `measure(options) -> Report`.
NAMES: Final[tuple[str, ...]] = (
    "release",
    "next-version",
    "fan-out",
    "scale",
    "logs",
    "collection",
    "publishing",
    "local-target",
    "installer",
    "doing-nothing",
)


def main() -> int:
    """Measure what is asked for and write the page; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="measure")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=5, help="rounds of each case")
    parser.add_argument("--quick", action="store_true", help="only what takes seconds")
    parser.add_argument("--no-peers", action="store_true", help="install nothing to compare with")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--into", type=Path, default=ROOT / "docs", help="where the page goes")
    words = parser.parse_args()
    # So that the servers that were started come to their end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if unknown := set(words.names) - set(NAMES):
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    results = words.into / "performance"
    options = Options(runs=words.runs, is_quick=words.quick, has_peers=not words.no_peers)
    missed = []
    for name in () if words.page else words.names or NAMES:
        begun = time.monotonic()
        report = import_module(f"benchmarks.{name.replace('-', '_')}").measure(options)
        save(report, results, describe_machine())
        print(f"== {name}: {time.monotonic() - begun:.0f} s", flush=True)
        missed += [goal for goal in report.goals if not goal.is_reached]
    write_page(words.into)
    for goal in missed:
        print(f"missed: {goal.what}: {goal.value:.3g}, the limit is {goal.limit:g}")
    return 1 if missed else 0


def write_page(docs: Path) -> None:
    """Write the page and its charts from the results that are there."""
    (docs / "performance").mkdir(parents=True, exist_ok=True)
    loaded = {file.stem: load(file) for file in sorted((docs / "performance").glob("*.json"))}
    found = [(name, *loaded[name]) for name in NAMES if name in loaded]
    for _, report, _ in found:
        for number, table in enumerate(report.tables, 1):
            if table.charted:
                chart = docs / "performance" / chart_name(report, number)
                chart.write_text(render_bars(table))
    (docs / "performance.md").write_text(
        render_page([(report, machine) for _, report, machine in found])
    )


if __name__ == "__main__":
    sys.exit(main())
