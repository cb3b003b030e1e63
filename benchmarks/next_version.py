"""The next version of a real crate on a node that has built the one before.

The first build finds a node that has built nothing yet; the second one is warm, with what the first
has left; and the third is a cold one (`--clean`) of the second's version, which must give the same
bytes. cargo compiles a dependency again that lies at another path, as all do in another source.
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
_VERSIONS: Final = ("0.48.0", "0.49.0")
# Each round is three builds of minutes.
_MOST_RUNS: Final = 3


def measure(options: Options) -> Report:
    """Return what the second version takes, warm and cold, and whether the bytes are equal."""
    runs = 1 if options.is_quick else min(options.runs, _MOST_RUNS)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="next-version-") as folder:
        _write_inventory(Path(folder))
        rounds += [_round(Path(folder)) for _ in range(runs)]
    cold = [each["cold"] for each in rounds]
    warm = [each["warm"] for each in rounds]
    ratios = [one / other for one, other in zip(warm, cold, strict=True)]
    table = Table(
        title=f"{_CRATE} {_VERSIONS[1]}",
        charted="seconds",
        rows=(
            Row(tool=f"{OURS}, cold", samples={"seconds": cold}),
            Row(
                tool=f"{OURS}, warm after {_VERSIONS[0]}",
                samples={"seconds": warm, "ratio": ratios},
                note="the same bytes as cold",
            ),
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
        runs=runs,
    )


def _round(folder: Path) -> dict[str, float]:
    before, version = _VERSIONS
    # As on a new node. A build with `--clean` leaves nothing to the next one.
    shutil.rmtree(folder / "work" / "target", ignore_errors=True)
    _build(folder, before, "--rebuild")
    warm, warm_sha256 = _build(folder, version, "--rebuild")
    cold, cold_sha256 = _build(folder, version, "--rebuild", "--clean")
    if warm_sha256 != cold_sha256:
        raise RunFailedError(f"{_CRATE} {version}: a warm build gives other bytes than a cold one")
    return {"warm": warm, "cold": cold}


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
    binary = folder / "dist" / version / "here" / _BINARY
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
                "name": "here",
                "host": "local",
                "target": host_triple(),
                "workdir": str(folder / "work"),
            }
        ],
    }
    (folder / "build-nodes.yaml").write_text(json.dumps(inventory, indent=1))
