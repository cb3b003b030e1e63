"""What nodes have built comes home, hashed and safe on the disk: over loopback and slow links."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import product
from benchmarks.fleet import loopback_address, serving
from benchmarks.link import can_shape, far_address, shaped
from benchmarks.machine import said_version, version_of
from benchmarks.masters import FAST_CIPHER, multiplexed
from benchmarks.measuring import in_turn, of_the_work, run_measured
from benchmarks.raw_copy import raw_serving
from benchmarks.report import OURS, Goal, Report, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.fleet import Fleet
    from benchmarks.masters import Masters
    from benchmarks.measuring import Usage
    from benchmarks.options import Options

_MBIT: Final = 100
_RAW: Final = "raw TCP, no encryption"
_SCPS: Final = ("scp", "scp, AES-GCM", "scp, multiplexed")
_SIZES: Final = (5_000_000, 50_000_000)
_COUNTS: Final = (1, 7, 50)
_ROUND_TRIPS: Final = (1, 20, 80)
# What the figures to reach are about.
_NODES: Final = 7
_SIZE: Final = 50_000_000
_LONG: Final = 80
# Where the link is the limit, what is sent takes long, and most tools send the same.
_FAR_SIZE: Final = 20_000_000
# One connection that loses so many packets carries some 10 Mbit.
_LOSS: Final = 0.01
_LOSSY_ROUND_TRIP: Final = 20
_LOSSY_SIZE: Final = 5_000_000
_FAR_TOOLS: Final = (OURS, _RAW, "scp, multiplexed")


def measure(options: Options) -> Report:
    """Fetch files of several sizes from several nodes with each tool, and compare them."""
    tables: dict[tuple[int, int, int], Table] = {}
    for count in (1, 2) if options.is_quick else _COUNTS:
        for size in (1_000_000,) if options.is_quick else _SIZES:
            tables[0, count, size] = _measured(options, count, size)
    if can_shape():
        for rtt_ms in (20,) if options.is_quick else _ROUND_TRIPS:
            size = 1_000_000 if options.is_quick else _FAR_SIZE
            tables[rtt_ms, _NODES, size] = _measured(options, _NODES, size, rtt_ms=rtt_ms)
        rtt_ms, size = _LOSSY_ROUND_TRIP, 500_000 if options.is_quick else _LOSSY_SIZE
        tables[rtt_ms, _NODES, size] = _measured(options, _NODES, size, rtt_ms=rtt_ms, loss=_LOSS)
    else:
        print("collection: no slow links without root, ip, nsenter and /dev/net/tun")
    return Report(
        name="collection",
        title="Collection",
        about="Each node has one file, and all are fetched at once. Each tool hashes what arrives "
        "(SHA-256) and has it safe on the disk (fsync); ours also compares the hash with that of "
        "what the node reads from its disk. A release has its connections open when it collects: "
        "so the time is without the start of a Python program and of its connections, and that of "
        "multiplexed scp without its connections; the CPU time is all of it.",
        tables=tuple(tables.values()),
        goals=_goals(tables),
        versions={"OpenSSH": said_version(["ssh", "-V"]), "asyncssh": version_of("asyncssh")},
        runs=options.runs,
    )


def _goals(tables: dict[tuple[int, int, int], Table]) -> tuple[Goal, ...]:
    goals = []
    if near := tables.get((0, _NODES, _SIZE)):
        fastest = max(_SCPS, key=lambda tool: _rate(near, tool))
        for peer, limit in ((_SCPS[0], 1.8), (fastest, 1.8), (_RAW, 0.8)):
            ratio = _rate(near, OURS) / _rate(near, peer)
            what = f"{near.title}: of the rate of {peer}"
            goals.append(Goal(what=what, value=ratio, limit=limit, is_least=True))
    if far := tables.get((_LONG, _NODES, _FAR_SIZE)):
        share = _rate(far, OURS) / (_MBIT * 125_000)
        what = f"{far.title}: of the link"
        goals.append(Goal(what=what, value=share, limit=0.9, is_least=True))
    return tuple(goals)


def _rate(table: Table, tool: str) -> float:
    return table.row(tool).middle("bytes_per_second")


def _measured(
    options: Options, count: int, size: int, *, rtt_ms: int = 0, loss: float = 0
) -> Table:
    where = f", {rtt_ms} ms and {_MBIT} Mbit" if rtt_ms else ""
    if loss:
        where += f", {loss:.0%} of the packets lost"
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        near: Sequence[str] = ()
        far: Sequence[str] = ()
        if rtt_ms:
            link = stack.enter_context(shaped(rtt_ms=rtt_ms, mbit=_MBIT, loss=loss))
            near, far = link.near, link.far
        address = far_address if rtt_ms else loopback_address
        fleet = stack.enter_context(serving(folder / "fleet", count, prefix=far, address=address))
        masters = stack.enter_context(multiplexed(fleet, folder / "masters", prefix=near))
        desk = _Desk(folder, fleet, masters, near=near)
        desk.build(size)
        stack.enter_context(raw_serving(desk.sources, prefix=far))
        tools = desk.tools()
        if rtt_ms:
            tools = {tool: tools[tool] for tool in _FAR_TOOLS}
        results = in_turn(tools, runs=options.runs)
    return Table(
        title=f"{count} files of {size / 1e6:.0f} MB{where}",
        charted="bytes_per_second",
        rows=tuple(
            Row(
                tool=tool,
                samples={
                    "seconds": [usage.seconds for usage in usages],
                    "bytes_per_second": [count * size / usage.seconds for usage in usages],
                    "cpu_seconds": [usage.cpu_seconds for usage in usages],
                },
            )
            for tool, usages in results.items()
        ),
    )


class _Desk:
    """Where the tools run, and what they have to bring."""

    def __init__(
        self, folder: Path, fleet: Fleet, masters: Masters, *, near: Sequence[str]
    ) -> None:
        self._into = folder / "into"
        self._file = folder / product.PROGRAM
        self._fleet = fleet
        self._masters = masters
        self._near = near
        self._description = product.describe(fleet, folder / "product.json")
        self._command = ["sh", "-c", f"cp {self._file} $ORCHESTRATOR_OUT"]
        self.sources: dict[tuple[str, int], Path] = {}
        self._sha256 = ""

    def build(self, size: int) -> None:
        """Have a file on each node, by a job that leaves it there."""
        data = _like_a_program(size)
        self._sha256 = hashlib.sha256(data).hexdigest()
        self._file.write_bytes(data)
        run_measured(self._product("build"))
        for node in self._fleet.nodes:
            (source,) = product.workdir_of(node).glob(f"jobs/*/out/{product.PROGRAM}")
            self.sources[node.address, node.port + 1] = source
        shutil.rmtree(self._into)

    def tools(self) -> dict[str, Callable[[], Usage]]:
        """Return what runs each tool once."""
        theirs = [*self._near, sys.executable, "-m"]
        ways = [*theirs, "benchmarks.asyncssh_ways"]
        config, into = self._fleet.config, str(self._into)
        raw = [f"{address}:{port}" for address, port in self.sources]
        paths = dict(zip(self._fleet.names, self.sources.values(), strict=True))
        # All have the same job, each in a folder of its own.
        name, path = next(iter(paths.items()))
        anywhere = str(path).replace(f"/{name}/", "/{node}/")
        commands = {
            OURS: self._product("collect"),
            _RAW: [*theirs, "benchmarks.raw_copy", "fetch", into, *raw],
            **{
                tool: self._shell(
                    f"scp -q -F {{config}} {more} {{name}}:{{path}} {{into}}", where, paths
                )
                for tool, more, where in zip(
                    _SCPS,
                    ("", f"-o {FAST_CIPHER}", ""),
                    (config, config, self._masters.config),
                    strict=True,
                )
            },
            "asyncssh, SFTP": [*ways, "sftp", str(config), into, anywhere],
        }
        if shutil.which("rsync"):
            commands["rsync"] = self._shell(
                "rsync -e 'ssh -F {config}' {name}:{path} {into}", config, paths
            )
        return {tool: partial(self._run, command) for tool, command in commands.items()}

    def _product(self, verb: str) -> list[str]:
        program = [*self._near, sys.executable, "-m", "benchmarks.product", verb]
        return [*program, str(self._description), str(self._into), *self._command]

    def _shell(self, template: str, config: Path, paths: dict[str, Path]) -> list[str]:
        lines = ["set -e"]
        for name, path in paths.items():
            into = self._into / name
            copy = template.format(config=config, name=name, path=path, into=into)
            secure = f"sha256sum {into} >{into}.sha256 && sync {into}"
            lines.append(f"{{ {copy} && {secure}; }} &")
        return [*self._near, "sh", "-c", "\n".join([*lines, "wait"])]

    def _run(self, command: Sequence[str]) -> Usage:
        self._into.mkdir()
        usage = of_the_work(self._masters.measured(lambda: run_measured(command)))
        for name in self._fleet.names:
            file = self._into / name
            # Ours keeps the names of what was built, in a folder for each node.
            with (file / product.PROGRAM if file.is_dir() else file).open("rb") as reader:
                found = hashlib.file_digest(reader, "sha256").hexdigest()
                assert found == self._sha256, (command, name)  # noqa: S101
        shutil.rmtree(self._into)
        return usage


def _like_a_program(size: int) -> bytes:
    """Return bytes of which about half can be compressed away, as of a stripped program."""
    noise = random.Random(size).randbytes(size // 2)  # noqa: S311
    return b"".join(noise[at : at + 32] + bytes(32) for at in range(0, len(noise), 32))[:size]
