"""A thousand nodes, and three releases at once on each: what the coordinator needs for them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import minimal_server
from benchmarks.machine import version_of
from benchmarks.measuring import RunFailedError, run_measured
from benchmarks.report import OURS, Goal, Report, Row, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.options import Options

_ROOT: Final = Path(__file__).parent.parent
_VERSION: Final = "1.0.0"
_PROJECTS: Final = ("one", "two", "three")
_NODES: Final = 1000
_BUILD_SECONDS: Final = 20
_TARGET: Final = "x86_64-unknown-linux-gnu"
_PORT: Final = 2234
_SOURCE: Final = 'fn main() { println!("tool 1.0.0"); }\n'
_ABOUT: Final = f"""\
Three releases of three projects at once, each on the same 1,000 nodes, whose jobs take
{_BUILD_SECONDS} s and queue on each node behind one another. It is the code of `orchestrator
release --compare --no-publish`, all three in one process: probe, preflight, start, queue, follow,
collect, hash, gate, evidence, inspection and packing of 3,000 builds, over 3,000 connections. One
release was made on a real node before, and its answers were recorded; the 1,000 nodes are one
process that speaks SSH on 1,000 addresses and repeats them: so many real shells would take the
cores from the coordinator."""


def measure(options: Options) -> Report:
    """Record a node, then release on many that repeat it."""
    count = 20 if options.is_quick else _NODES
    seconds = 2 if options.is_quick else _BUILD_SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = _record(folder)
        with minimal_server.serving(
            folder / "fleet", count, port=_PORT, seconds=seconds, recording=recording
        ) as fleet:
            nodes = [
                _node(
                    node.name,
                    folder=folder,
                    host=f"{fleet.user}@{node.address}",
                    port=node.port,
                    host_key=fleet.host_key,
                    identity=str(fleet.identity),
                )
                for node in fleet.nodes
            ]
            rows = tuple(
                _release(folder / str(len(projects)), projects, nodes, seconds=seconds)
                for projects in (_PROJECTS[:1], _PROJECTS)
            )
    table = Table(title=f"{count} nodes", rows=rows, charted="cpu_seconds")
    every = rows[-1]
    wanted = count * len(_PROJECTS)
    return Report(
        name="scale",
        title="Scale: 1,000 nodes, three releases at once",
        about=_ABOUT,
        tables=(table,),
        goals=(
            Goal(what="builds", value=every.middle("answered"), limit=wanted, is_least=True),
            *([] if options.is_quick else [_lag_goal(every)]),
        ),
        versions={OURS: version_of("orchestrator"), "asyncssh": version_of("asyncssh")},
        remarks=(_AT_TEN_THOUSAND,),
    )


def _lag_goal(row: Row) -> Goal:
    return Goal(what="loop lag p99 in ms", value=row.middle("lag_milliseconds"), limit=100)


def _release(
    folder: Path, projects: Sequence[str], nodes: list[dict[str, Any]], *, seconds: float
) -> Row:
    """Release all projects at once in one process, and return its row."""
    inventories = [_write_inventory(folder / project, project, nodes) for project in projects]
    driver = [sys.executable, "-m", "benchmarks.drivers.releases", _VERSION]
    usage = run_measured([*driver, *map(str, inventories)], cwd=_ROOT)
    told = json.loads(usage.output.decode().splitlines()[-1])
    overhead = told["seconds"] - seconds * len(projects)
    return Row(
        tool=f"{OURS}, {len(projects)} release{'s' * (len(projects) > 1)}",
        samples={
            "seconds": [told["seconds"]],
            "overhead_seconds": [overhead],
            "cpu_seconds": [usage.cpu_seconds],
            "peak_bytes": [float(usage.peak_bytes)],
            "lag_milliseconds": [told["lag_milliseconds"]],
            "answered": [float(told["built"])],
        },
        note=f"longest lag {told['longest_lag_milliseconds']:.0f} ms",
    )


def _record(folder: Path) -> Path:
    """Release on one real node, and return the file with what it answered."""
    (folder / "tool.rs").write_text(_SOURCE)
    rustc = ["rustc", "-O", "-C", "strip=symbols", "-o", str(folder / "tool")]
    subprocess.run([*rustc, str(folder / "tool.rs")], check=True)
    with _recording_node(folder) as reached:
        node = _node("recorded", folder=folder, **reached)
        node["build_command"] = f"{_BUILD}sleep 1\ncp {folder}/tool {folder}/out\n"
        inventory = _write_inventory(folder / "recorded", _PROJECTS[0], [node])
        release = [sys.executable, "-m", "orchestrator", "release", "--inventory", str(inventory)]
        run_measured([*release, "--version", _VERSION, "--no-publish"], cwd=_ROOT)
    return folder / "recording.json"


@contextmanager
def _recording_node(folder: Path) -> Iterator[dict[str, Any]]:
    driver = [sys.executable, "-m", "benchmarks.drivers.recording_node", str(folder)]
    with subprocess.Popen(
        driver, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None  # noqa: S101 -- because of PIPE
        said = json.loads(server.stdout.readline())
        yield {key: said[key] for key in ("host", "port", "host_key", "identity")}
        server.communicate()
    if server.returncode:
        raise RunFailedError("the recording node has failed")


_BUILD: Final = "echo building {version}\n"


def _node(name: str, *, folder: Path, **reached: Any) -> dict[str, Any]:
    # Only the recorded node makes the binary.
    binary = f"{folder}/out"
    return {
        "name": name,
        "target": _TARGET,
        "build_command": _BUILD,
        "binary_path": binary,
        **reached,
    }


def _write_inventory(folder: Path, project: str, nodes: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    file = folder / "build-nodes.yaml"
    data = {
        "project": {"name": project, "binaries": ["tool"]},
        "publication": {
            "store": str(folder / "store"),
            "url": "https://example.org/tool",
            "signing": {"key": str(folder / "key")},
        },
        "nodes": nodes,
    }
    file.write_text(json.dumps(data))
    return file


_AT_TEN_THOUSAND: Final = "TEN"
