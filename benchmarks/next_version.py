"""The next version of a real crate on a node that has built the one before.

The first build finds a node that has built nothing yet; the second one is warm, with what the first
has left; the third is a cold one (`--clean`) of the second's version, which must give the same
bytes. Warm, what is compiled is the program itself and the crates that changed; how long the
program takes alone, the fourth build tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.machine import said_version
from benchmarks.measuring import RunFailedError, run_measured
from benchmarks.report import OURS, Goal, Report, Row, Table
from benchmarks.works import ORCHESTRATOR
from orchestrator.workspace import host_triple

if TYPE_CHECKING:
    from benchmarks.options import Options

_CRATE: Final = "ballistics-engine"
_BINARY: Final = "ballistics"
_NODE: Final = "here"
_VERSIONS: Final = ("0.48.0", "0.49.0")
# Each round is four builds of minutes.
_MOST_RUNS: Final = 3


def measure(options: Options) -> Report:
    """Return what the second version takes, cold, warm and with every crate at hand."""
    runs = 1 if options.is_quick else min(options.runs, _MOST_RUNS)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="next-version-") as folder:
        _write_inventory(Path(folder))
        rounds += [_round(Path(folder)) for _ in range(runs)]
    table = Table(
        title=f"{_CRATE} {_VERSIONS[1]}",
        charted="seconds",
        rows=(
            Row(tool=f"{OURS}, cold", samples={"seconds": [each["cold"] for each in rounds]}),
            _row(rounds, "warm", f"{OURS}, warm after {_VERSIONS[0]}"),
            _row(rounds, "alone", "the program alone, no crate changed"),
        ),
    )
    goal = Goal(what="warm ÷ cold", value=table.rows[1].middle("ratio"), limit=0.5)
    return Report(
        name="next-version",
        title="The next version",
        about=" ".join((__doc__ or "").split("\n\n")[1].split()),
        tables=(table,),
        goals=(goal,),
        versions={"cargo": said_version(["cargo", "--version"])},
        remarks=(_WHY,),
        runs=runs,
    )


_WHY: Final = (
    "This program asks for `lto = true` and `codegen-units = 1`: the program alone, which is never "
    "the same in another version, takes most of its build, on one core."
)


def _row(rounds: list[dict[str, float]], what: str, tool: str) -> Row:
    samples = {
        "seconds": [each[what] for each in rounds],
        "ratio": [each[what] / each["cold"] for each in rounds],
    }
    return Row(tool=tool, samples=samples, note="the same bytes as cold")


def _round(folder: Path) -> dict[str, float]:
    before, version = _VERSIONS
    # As on a new node. A build with `--clean` leaves nothing to the next one.
    shutil.rmtree(folder / "work" / "target", ignore_errors=True)
    _build(folder, before, "--rebuild")
    warm, warm_sha256 = _build(folder, version, "--rebuild")
    cold, cold_sha256 = _build(folder, version, "--rebuild", "--clean")
    # Its source is brought anew, and so all of the program's own files are younger than its build.
    (folder / "work" / "sources" / f"{_NODE}.tree" / ".planted").unlink()
    alone, alone_sha256 = _build(folder, version, "--rebuild")
    if not warm_sha256 == alone_sha256 == cold_sha256:
        raise RunFailedError(f"{_CRATE} {version}: a warm build gives other bytes than a cold one")
    return {"warm": warm, "cold": cold, "alone": alone}


def _build(folder: Path, version: str, *flags: str) -> tuple[float, str]:
    usage = run_measured(
        [
            *(str(ORCHESTRATOR), "release", "--version", version, "--no-publish"),
            *("--inventory", str(folder / "build-nodes.yaml"), "--json", "--timings", *flags),
        ],
        cwd=folder,
        # The bundles of this user would stay behind.
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    data: dict[str, Any] = json.loads(usage.output[usage.output.index(b"{\n") :])
    binary = folder / "dist" / version / _NODE / _BINARY
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    return data["timings"]["slowest_build_seconds"], digest


def _write_inventory(folder: Path) -> None:
    inventory = {
        "project": {
            "name": _BINARY,
            "binaries": [_BINARY],
            "source": {"crate": _CRATE, "lockfile": "repair"},
        },
        "nodes": [
            {
                "name": _NODE,
                "host": "local",
                "target": host_triple(),
                "workdir": str(folder / "work"),
            }
        ],
    }
    (folder / "build-nodes.yaml").write_text(json.dumps(inventory, indent=1))
