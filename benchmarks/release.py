"""What a release of seven nodes costs beyond the build of the slowest.

The builds only wait, the slowest for as long as the table says and the others a little less, and
then deliver a program of 4 MiB: what is measured is everything else, from the command to the end.
The peers send the same source, build, run the program on its node, fetch it, pack it and sign it;
ours also looks at what it needs, publishes, renders the installer, writes provenance and reads
everything back.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import link
from benchmarks.machine import said_version, version_of
from benchmarks.measuring import Usage, in_turn
from benchmarks.peers import versions
from benchmarks.release_tools import peers_of, require_archive
from benchmarks.report import OURS, Goal, Report, Row, Table
from benchmarks.systems import KINDS
from benchmarks.works import PROJECT, Works, works

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.fleet import FleetNode
    from benchmarks.options import Options

_SECONDS: Final = 10
_MINUTE: Final = 60
_COLD: Final = f"{OURS}, nodes it never saw"
_ALONE: Final = f"{OURS}, the slowest node alone"
_FAR: Final = f"{OURS}, nothing to do, over a link of 1 ms"


def measure(options: Options) -> Report:
    """Return the wall time of a release against that of its builds, ours and the peers'."""
    seconds = 1 if options.is_quick else _SECONDS
    with (
        tempfile.TemporaryDirectory(prefix="release-") as folder,
        works(Path(folder), seconds=seconds) as made,
    ):
        tools = {
            OURS: lambda: _ours(made),
            _COLD: lambda: _ours(made, is_cold=True),
            _ALONE: lambda: _ours(made, only=made.fleet.nodes[-1]),
            **(peers_of(made) if options.has_peers else {}),
        }
        runs = in_turn(tools, runs=options.runs, warm_up=1)
        tables = [_table(f"7 nodes, builds of {seconds} s", runs, seconds)]
        if not options.is_quick:
            made.seconds = _MINUTE
            made.write_inventory()
            few = {name: tools[name] for name in (OURS, _COLD, _ALONE)}
            minute = in_turn(few, runs=options.runs)
            tables.append(_table(f"7 nodes, builds of {_MINUTE} s", minute, _MINUTE))
        again = _again(made, options.runs)
    rows = [_row(f"{OURS}, nothing to do", again)]
    if link.can_shape():
        rows.append(_row(_FAR, _far_again(options.runs)))
    else:
        print("left out: no links with a delay, which need root, ip and /dev/net/tun", flush=True)
    tables.append(Table(title="The same release again", rows=tuple(rows)))
    return Report(
        name="release",
        title="A release of seven nodes",
        about=" ".join((__doc__ or "").split("\n\n")[1].split()),
        tables=tuple(tables),
        goals=tuple(_goals(tables)),
        versions={
            "ansible-core": versions()["ansible-core"],
            "pyinfra": versions()["pyinfra"],
            "parallel-ssh": versions()["parallel-ssh"],
            "fabric": versions()["fabric"],
            "OpenSSH": said_version(["ssh", "-V"]),
            "asyncssh": version_of("asyncssh"),
        },
        remarks=(_LONGER,),
        runs=options.runs,
    )


_LONGER: Final = (
    "What is not the build takes as long whatever the build takes: beside builds of 600 s the "
    "overhead of the first table is a tenth of what it is beside 60 s. All nodes and the "
    "coordinator share the cores of one machine here, so that what the nodes do at their begin "
    "counts seven times; with the slowest node alone it counts once, as it does where each node is "
    "a machine of its own."
)


def _ours(made: Works, *, is_cold: bool = False, only: FleetNode | None = None) -> Usage:
    version = made.next_version()
    if is_cold:
        for node in made.fleet.nodes:
            shutil.rmtree(node.folder / "work", ignore_errors=True)
    usage = made.release(version, *(("--node", only.name) if only else ()))
    for node, kind in zip(made.fleet.nodes, KINDS, strict=True):
        if only in {None, node}:
            (archive,) = (made.store / "releases" / version).glob(f"{kind.target}*/*.tar.gz")
            program = (node.folder / "programs" / f"{PROJECT}-{version}").read_bytes()
            folder = archive.name.removesuffix(".tar.gz")
            require_archive(archive, f"{folder}/{PROJECT}", program)
    return usage


def _again(made: Works, runs: int) -> list[Usage]:
    _ours(made)
    return [made.release(f"1.{made.made}.0") for _ in range(runs)]


def _far_again(runs: int) -> list[Usage]:
    with (
        tempfile.TemporaryDirectory(prefix="release-") as folder,
        link.shaped(rtt_ms=1) as ends,
        works(Path(folder), seconds=1, ends=ends) as made,
    ):
        return _again(made, runs)


def _table(title: str, runs: dict[str, list[Usage]], seconds: float) -> Table:
    rows = (_row(tool, usages, seconds) for tool, usages in runs.items())
    return Table(title=title, rows=tuple(rows), charted="overhead_seconds")


def _row(tool: str, usages: list[Usage], seconds: float = 0) -> Row:
    samples = {"seconds": [usage.seconds for usage in usages]}
    if seconds:
        samples["overhead_seconds"] = [usage.seconds - seconds for usage in usages]
        samples["ratio"] = [usage.seconds / seconds for usage in usages]
    samples["cpu_seconds"] = [usage.cpu_seconds for usage in usages]
    samples["peak_bytes"] = [usage.peak_bytes for usage in usages]
    return Row(tool=tool, samples=samples)


def _goals(tables: list[Table]) -> Iterable[Goal]:
    first, *minutes, again = tables
    for table in minutes:
        warm, cold = table.row(OURS).middle("ratio"), table.row(_COLD).middle("ratio")
        yield Goal(what="release ÷ build of 60 s, nodes it knows", value=warm, limit=1.02)
        yield Goal(what="release ÷ build of 60 s, nodes it never saw", value=cold, limit=1.05)
    ours = first.row(OURS).middle("seconds")
    others = [row for row in first.rows if not row.tool.startswith(OURS)]
    if others:
        fastest = min(others, key=lambda row: row.middle("seconds"))
        yield Goal(
            what=f"its time ÷ that of the fastest peer ({fastest.tool})",
            value=ours / fastest.middle("seconds"),
            limit=1,
        )
    yield Goal(
        what="seconds for the same release again",
        value=again.rows[-1].middle("seconds"),
        limit=1.5,
    )
