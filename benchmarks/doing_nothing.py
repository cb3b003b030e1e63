"""What takes a moment only: help, a plan, a look at what is published, an index of any size."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.large_index import LargeIndex
from benchmarks.measuring import in_turn, run_measured
from benchmarks.report import OURS, Goal, Report, Row, Table
from benchmarks.shop import ORCHESTRATOR, Shop, open_shop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.measuring import Usage
    from benchmarks.options import Options

_PYTHON: Final = "python -c pass"
_DRY_RUN: Final = f"{OURS} release --dry-run"
# Objects in a store: an archive has four files, and a version some of its own.
_OBJECTS: Final = 1000
_ABOUT: Final = f"""
Commands that build nothing, each as a process of its own; `release --dry-run`, `status` and `nodes`
with seven local nodes and what is published of them in a store with some {_OBJECTS} objects. The
large index has 1,000 versions of 14 targets, where an index usually keeps 30.
""".strip().replace("\n", " ")


def measure(options: Options) -> Report:
    """Return the times of all of it."""
    runs = 3 if options.is_quick else options.runs
    with tempfile.TemporaryDirectory() as folder:
        shop = open_shop(Path(folder), versions=6 if options.is_quick else _OBJECTS // 28)
        start = _measure_start(runs=10 * runs)
        commands = _measure_commands(shop, runs=runs)
    large = _measure_index(LargeIndex.of(versions=100 if options.is_quick else 1000), runs=runs)
    least = start.row(_PYTHON).middle("milliseconds")
    return Report(
        name="doing-nothing",
        title="Doing nothing",
        about=_ABOUT,
        tables=(start, commands, large),
        goals=(
            Goal(
                what="`--help`, of the time of bare Python",
                value=start.row(f"{OURS} --help").middle("milliseconds") / least,
                limit=3,
            ),
            Goal(
                what="`release --dry-run`, in seconds",
                value=commands.row(_DRY_RUN).middle("seconds"),
                limit=0.5,
            ),
        ),
        runs=runs,
    )


def _measure_start(*, runs: int) -> Table:
    tools: dict[str, list[str]] = {_PYTHON: [sys.executable, "-c", "pass"]}
    for words in ("--help", "--version", "release --help"):
        tools[f"{OURS} {words}"] = [str(ORCHESTRATOR), *words.split()]
    found = in_turn(_runs_of(tools), runs=runs, warm_up=1)
    rows = (
        Row(
            tool=tool,
            samples={
                "milliseconds": [1000 * each.seconds for each in usages],
                "cpu_seconds": [each.cpu_seconds for each in usages],
            },
        )
        for tool, usages in found.items()
    )
    return Table(title="Start", rows=tuple(rows), charted="milliseconds")


def _measure_commands(shop: Shop, *, runs: int) -> Table:
    version = ("--version", "9.0.0")
    tools = {
        _DRY_RUN: shop.command("release", "--dry-run", *version),
        f"{OURS} status": shop.command("status"),
        f"{OURS} nodes": shop.command("nodes"),
        f"{OURS} history": shop.command("history"),
        f"{OURS} fsck": shop.command("fsck"),
        f"{OURS} fsck --deep": shop.command("fsck", "--deep"),
        "sha256sum of all files": ["sh", "-c", f"find {shop.store} -type f | xargs sha256sum"],
    }
    found = in_turn(_runs_of(tools), runs=runs, warm_up=1)
    objects = sum(path.is_file() for path in shop.store.rglob("*"))
    rows = (
        Row(
            tool=tool,
            samples={
                "seconds": [each.seconds for each in usages],
                "cpu_seconds": [each.cpu_seconds for each in usages],
                "peak_bytes": [each.peak_bytes for each in usages],
            },
            note=f"{objects} objects" if "fsck" in tool or "sum" in tool else "",
        )
        for tool, usages in found.items()
    )
    return Table(title="Commands that build nothing", rows=tuple(rows), charted="seconds")


def _measure_index(large: LargeIndex, *, runs: int) -> Table:
    tools = {
        f"{OURS} merge a version": large.merge,
        f"{OURS} render": large.render,
        f"{OURS} sign and verify": large.sign_and_verify,
        f"{OURS} read": large.read,
        f"{OURS} resolve for a host": large.resolve,
        f"{OURS} tell what changed": large.differences,
        f"{OURS} page": large.page,
        "install.sh --plan": large.plan,
    }
    found = in_turn({tool: _timed(call) for tool, call in tools.items()}, runs=runs)
    rows = (Row(tool=tool, samples={"seconds": taken}) for tool, taken in found.items())
    title = f"An index of {large.rows:,} rows and {large.size_bytes / 1e6:.1f} MB"
    return Table(title=title, rows=tuple(rows), charted="seconds")


def _runs_of(tools: Mapping[str, list[str]]) -> Mapping[str, Callable[[], Usage]]:
    def run(command: list[str]) -> Callable[[], Usage]:
        return lambda: run_measured(command)

    return {tool: run(command) for tool, command in tools.items()}


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun

    return timed
