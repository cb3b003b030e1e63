"""One short command on many nodes at once: what reaching them costs, beyond the command itself."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks import fleet, minimal_server, peers
from benchmarks.fan_out_tools import multiplexed, run_ours, run_ssh, tools, write_fleet
from benchmarks.machine import said_version, version_of
from benchmarks.measuring import RunFailedError, in_turn
from benchmarks.report import OURS, Goal, Report, Row, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.fan_out_tools import Shot, Tools
    from benchmarks.options import Options

# Of its own, so that it may run beside other benchmarks.
_PORT: Final = 2232
_SIZES: Final = (7, 50, 200)
_MANY: Final = 1000
_COMMAND_SECONDS: Final = 2
_ON_ONE_HOST: Final = 200
# Their connections are not made in the run.
_WARM: Final = "ssh processes, warm connections"
_NOTES: Final = {
    _WARM: "the connections are not counted",
    "ansible shell, pipelining": "its own connections in the background are not counted",
    "parallel-ssh": "checks no host keys",
    "fabric": "takes any host key",
}
_ABOUT: Final = """\
`sleep 2; echo ok` on N nodes at once, each a real sshd with its own limits on a loopback address;
the servers share the cores with the client. Each tool runs as one whole program, with new
connections but where it says so: ours over the connections of a release, `ssh` from `xargs -P N`,
ansible with N forks and the interpreter named, pyinfra with `--parallel N`, parallel-ssh with a
pool of N, fabric as a ThreadingGroup. Overhead is what is left of the time on the clock without
the 2 s; CPU is the client's with its children; the peak is that of its largest process."""


def measure(options: Options) -> Report:
    """Measure all sizes of fleets, then the largest ones on servers that run nothing."""
    sizes = _SIZES[:1] if options.is_quick else _SIZES
    tables = [_table(count, options) for count in sizes]
    on_one_host, many = (40, 100) if options.is_quick else (_ON_ONE_HOST, _MANY)
    storm, largest = _storm(on_one_host, options), _largest(many, options.runs)
    # Of a few nodes, it is the start of a process that is measured.
    goals = [] if options.is_quick else [*_goals(tables[-1]), *_goals_of_largest(largest)]
    every = [_all_answer(table) for table in (*tables, storm, largest)]
    return Report(
        name="fan-out",
        title="Fan-out: one command on many nodes",
        about=_ABOUT,
        tables=(*tables, storm, largest),
        goals=(*every, *goals),
        versions=_versions(),
        runs=options.runs,
    )


def _table(count: int, options: Options) -> Table:
    with _folder() as folder, fleet.serving(folder, count, port=_PORT) as served:
        fleet_file = folder / "fleet.json"
        write_fleet(fleet_file, ((n.name, n.address, n.port) for n in served.nodes), served)
        with multiplexed(served) as warm:
            every = _present(tools(served, fleet_file, warm), options)
            shots = in_turn(every, runs=options.runs)
    rows = tuple(_row(name, each) for name, each in shots.items())
    return Table(title=f"{count} nodes", rows=rows, charted="cpu_seconds")


def _present(every: Tools, options: Options) -> Tools:
    """Return those that are wanted, and can be had on this machine."""
    if not options.has_peers:
        return {OURS: every[OURS]}
    try:
        peers.python()
    except RunFailedError as error:
        print(f"left out: {error}", flush=True)
        return {name: run for name, run in every.items() if name == OURS or "ssh p" in name}
    return every


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _row(name: str, shots: list[Shot]) -> Row:
    samples = {
        "seconds": [shot.usage.seconds for shot in shots],
        "overhead_seconds": [shot.usage.seconds - _COMMAND_SECONDS for shot in shots],
        "cpu_seconds": [shot.usage.cpu_seconds for shot in shots],
        "peak_bytes": [float(shot.usage.peak_bytes) for shot in shots],
        "answered": [float(shot.answered) for shot in shots],
    }
    return Row(tool=name, samples=samples, note=_NOTES.get(name, ""))


def _storm(count: int, options: Options) -> Table:
    """Many nodes that are one machine: its sshd drops connections beyond ten handshakes at once."""
    with _folder() as folder, fleet.serving(folder, 1, port=_PORT) as served:
        host = served.nodes[0]
        fleet_file = folder / "fleet.json"
        names = [f"node{number}" for number in range(count)]
        write_fleet(fleet_file, ((name, host.address, host.port) for name in names), served)
        every: Tools = {OURS: lambda: run_ours(fleet_file)}
        if options.has_peers:
            every["ssh processes"] = lambda: run_ssh(served, names=[host.name] * len(names))
        shots = in_turn(every, runs=options.runs)
    rows = tuple(_row(name, each) for name, each in shots.items())
    return Table(title=f"{count} nodes on one host, sshd's default limits", rows=rows)


def _largest(count: int, runs: int) -> Table:
    """Nodes that answer after the same 2 s, and run nothing: the client's CPU is the limit."""
    with (
        _folder() as folder,
        minimal_server.serving(folder, count, port=_PORT, seconds=_COMMAND_SECONDS) as served,
    ):
        fleet_file = folder / "fleet.json"
        write_fleet(fleet_file, ((n.name, n.address, n.port) for n in served.nodes), served)
        shots = in_turn(
            {
                OURS: lambda: run_ours(fleet_file),
                f"{OURS}, all connected first": lambda: run_ours(fleet_file, "--idle"),
            },
            runs=runs,
        )
    at_once, idle = shots.values()
    row = _row(f"{OURS}, all connected first", idle)
    told = {
        name: [shot.told[name] for shot in idle] for name in ("kib_per_node", "lag_milliseconds")
    }
    rows = (
        _row(OURS, at_once),
        Row(tool=row.tool, samples={**row.samples, **told}),
    )
    return Table(title=f"{count} nodes of the harness's own server, which runs nothing", rows=rows)


def _all_answer(table: Table) -> Goal:
    ours = table.row(OURS).samples
    nodes = int(table.title.split()[0])
    what = f"nodes that answer to {OURS}: {table.title}"
    return Goal(what=what, value=min(ours["answered"]), limit=nodes, is_least=True)


def _goals(table: Table) -> list[Goal]:
    found = {row.tool: row for row in table.rows}
    ours = found[OURS]
    limits = {"ansible shell, pipelining": 30, "ssh processes": 15, "pyinfra": 2}
    goals = [
        Goal(
            what=f"CPU of {OURS} ÷ that of {tool}: {table.title}",
            value=_ratio(ours, found[tool], "cpu_seconds"),
            limit=1 / part,
        )
        for tool, part in limits.items()
        if tool in found
    ]
    if len(found) == 1:
        return []
    cold = [row for name, row in found.items() if name not in {OURS, _WARM}]
    fastest = min(cold, key=lambda row: row.middle("seconds"))
    what = f"time of {OURS} ÷ the fastest other's, {fastest.tool}: {table.title}"
    return [*goals, Goal(what=what, value=_ratio(ours, fastest, "seconds"), limit=1)]


def _ratio(ours: Row, other: Row, metric: str) -> float:
    """Return the median of the ratios: the two ran in the same rounds."""
    pairs = zip(ours.samples[metric], other.samples[metric], strict=True)
    return median(mine / theirs for mine, theirs in pairs)


def _goals_of_largest(table: Table) -> list[Goal]:
    at_once, idle = table.rows
    per_node = 1000 * at_once.middle("overhead_seconds") / _MANY
    return [
        Goal(what=f"ms per node beyond the 2 s: {table.title}", value=per_node, limit=5),
        Goal(what="KiB for each idle connection", value=idle.middle("kib_per_node"), limit=60),
        Goal(what="loop lag p99 in ms", value=idle.middle("lag_milliseconds"), limit=100),
    ]


def _versions() -> dict[str, str]:
    pinned = peers.versions()
    names = ("ansible-core", "pyinfra", "parallel-ssh", "fabric")
    return {
        OURS: version_of("orchestrator"),
        "asyncssh": version_of("asyncssh"),
        "OpenSSH": said_version(["ssh", "-V"]),
        **{name: pinned[name] for name in names},
    }
