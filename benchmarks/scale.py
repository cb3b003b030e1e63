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
_BUILD_SECONDS: Final = 60
_SLOWEST: Final = 1.5
_TARGET: Final = "x86_64-unknown-linux-gnu"
_PORT: Final = 2234
_SOURCE: Final = 'fn main() { println!("tool 1.0.0"); }\n'
_ABOUT: Final = f"""\
Three releases of three projects at once, each on the same 1,000 nodes, whose jobs take
{_BUILD_SECONDS / 2:.0f} to {_BUILD_SECONDS * _SLOWEST:.0f} s, and queue behind one another on each
node. Overhead is what the time on the clock exceeds the slowest node's by. It is the code of
`orchestrator release --compare --no-publish`, all three in one process: probe, preflight, start,
queue, follow, collect, hash, gate, evidence, inspection and packing of 3,000 builds, over 3,000
connections. One release was made on a real node before, and its answers were recorded; the 1,000
nodes are one process that speaks SSH on 1,000 addresses and repeats them: so many real shells would
take the cores from the coordinator."""


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
        goals=(Goal(what="builds", value=every.middle("answered"), limit=wanted, is_least=True),),
        versions={OURS: version_of("orchestrator"), "asyncssh": version_of("asyncssh")},
        remarks=(_at_ten_thousand(every, wanted),),
    )


def _at_ten_thousand(row: Row, builds: int) -> str:
    """Return what breaks first there, by what one build took here."""
    cpu, kib = row.middle("cpu_seconds") / builds, row.middle("peak_bytes") / 1024 / builds
    return f"""\
What breaks first at 10,000 nodes, on paper: a build took {1000 * cpu:.0f} ms of the coordinator's
CPU and {kib:.0f} KiB of its memory here, so one release of all would need {10_000 * cpu:.0f} s of
CPU and {10_000 * kib / (1 << 20):.1f} GiB. First of all, the inventory is refused: it may have
30,000 values (about 2,000 nodes) and 1 MB, and reading ten times as much would take 6 s. Without
that limit, open files are next, two for each node under way (its connection and its log): the
coordinator raises its soft limit as far as the hard one lets it, which is enough on Linux
(524,288 and more) and not on macOS (10,240). Then it is time: the archives are compressed in
threads and would use every core there is, but handshakes (1.5 to 3 ms of CPU each, 64 at once),
packets and some sixteen requests for each build go through one event loop on one core, about half
of the CPU above. It would still be fair to each node, and late: nodes time their jobs themselves,
so what a busy coordinator costs is the wait for its own end. Memory, the store (one index is
written for all that is ready at a time) and the record of builds are no limit there. The way on is
several coordinators, each with a part of the nodes: all that they share is the index, and its
writes are safe against one another already."""


def _release(
    folder: Path, projects: Sequence[str], nodes: list[dict[str, Any]], *, seconds: float
) -> Row:
    """Release all projects at once in one process, and return its row."""
    inventories = [_write_inventory(folder / project, project, nodes) for project in projects]
    driver = [sys.executable, "-m", "benchmarks.drivers.releases", _VERSION]
    usage = run_measured([*driver, *map(str, inventories)], cwd=_ROOT)
    told = json.loads(usage.output.decode().splitlines()[-1])
    overhead = told["seconds"] - seconds * _SLOWEST * len(projects)
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
