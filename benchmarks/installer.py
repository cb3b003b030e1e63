"""From the piped command to the installed program: our install.sh beside those of others."""

from __future__ import annotations

import os
import random
import shlex
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import content_server, install_scripts, install_site, link
from benchmarks.machine import said_version
from benchmarks.measuring import RunFailedError, in_turn, run_measured
from benchmarks.report import OURS, Goal, Report, Row, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.content_server import ContentServer
    from benchmarks.install_scripts import InstallScript
    from benchmarks.options import Options

_BYTES: Final = 5_000_000
_MBIT: Final = 100
_HEAD: Final = b"#!/bin/sh\necho tool 1.10.0\nexit\n"
_ABOUT: Final = f"""
`curl … | sh` until the program is where it belongs, which is checked byte for byte: the scripts of
others as they are published, each with what it asks for (an archive of {_BYTES // 1_000_000} MB of
the same program, and its metadata), from one server over TLS 1.3 through a link of {_MBIT} Mbit/s.
Round trips of content are the requests after that for the script. The server answers at once and
redirects nobody, as GitHub does twice for each file of a release.
""".strip().replace("\n", " ")


def measure(options: Options) -> Report:
    """Return times and requests at each round trip."""
    delays: tuple[int, ...] = (1, 80) if options.is_quick else (1, 20, 80)
    if not link.can_shape():
        print("left out: no links with a delay, which need root, ip and /dev/net/tun", flush=True)
        delays = (0,)
    tables = tuple(_measure_at(rtt, options) for rtt in delays)
    last = tables[-1]
    own = last.row(OURS)
    others = [row for row in last.rows if row.tool != OURS]
    goals = [
        Goal(what="round trips of content", value=own.middle("round_trips"), limit=2),
        *(
            Goal(
                what=f"of the time of {row.tool} at {delays[-1]} ms",
                value=own.middle("seconds") / row.middle("seconds"),
                limit=1,
            )
            for row in others
        ),
    ]
    return Report(
        name="installer",
        title="Installing",
        about=_ABOUT,
        tables=tables,
        goals=tuple(goals),
        versions={"curl": said_version(["curl", "--version"])},
        remarks=(_REMARK,),
        runs=options.runs,
    )


_REMARK: Final = (
    "Only ours asks for an index, while the archive is on its way already: the scripts of uv and "
    "mise are of one version and know its hash, those of starship and deno ask a server that names "
    "no hash, and rustup-init.sh gets a program that would then download the toolchain. starship's "
    "and mise's fit into the first ten packets that a server sends; a longer script costs a round "
    "trip for each doubling, which for ours is two. In the benchmark it carries the rows of all "
    "targets that there are, which are 8 kB of it."
)


def _measure_at(rtt: float, options: Options) -> Table:
    with tempfile.TemporaryDirectory() as folder, _serving(Path(folder), rtt) as (server, near):
        program = _HEAD + random.Random(1).randbytes(_BYTES - len(_HEAD))  # noqa: S311
        site = Path(folder) / "site"
        scripts = (
            install_site.lay_out(site, server.url, program),
            *install_scripts.lay_out(site, server.url, program),
        )
        tools = {
            each.tool: _Installation(each, server, near, Path(folder), program).run
            for each in scripts
        }
        runs = 1 if options.is_quick else options.runs
        found = in_turn(tools, runs=runs, warm_up=1)
        sizes = {each.tool: (site / each.path).stat().st_size for each in scripts}
    rows = (
        Row(
            tool=each.tool,
            samples={
                "seconds": [one.seconds for one in found[each.tool]],
                "round_trips": [one.round_trips for one in found[each.tool]],
                "connections": [one.connections for one in found[each.tool]],
            },
            note=f"{(sizes[each.tool] + 500) // 1000} kB of script; {each.note}",
        )
        for each in scripts
    )
    title = f"{rtt:g} ms of round trip" if rtt else "Without a link"
    return Table(title=title, rows=tuple(rows), charted="seconds")


@contextmanager
def _serving(folder: Path, rtt: float) -> Iterator[tuple[ContentServer, Sequence[str]]]:
    site = folder / "site"
    site.mkdir()
    if not rtt:
        with content_server.serving(site, folder, address="127.0.0.1") as server:
            yield server, ()
        return
    with (
        link.shaped(rtt_ms=rtt, mbit=_MBIT) as ends,
        content_server.serving(site, folder, address=link.far_address(0), place=ends.far) as server,
    ):
        yield server, ends.near


@dataclass(frozen=True, slots=True, kw_only=True)
class _Installed:
    seconds: float
    round_trips: float
    connections: float


@dataclass(frozen=True, slots=True)
class _Installation:
    """One script that is run again and again, each time in a home of its own."""

    script: InstallScript
    server: ContentServer
    near: Sequence[str]
    folder: Path
    program: bytes

    def run(self) -> _Installed:
        with tempfile.TemporaryDirectory(dir=self.folder) as home:
            (Path(home) / "bin").mkdir()
            words = [word.replace("HOME", home) for word in self.script.words]
            url = f"{self.server.url}/{self.script.path}"
            command = f"curl --proto '=https' --tlsv1.2 -sSf {url} | sh -s -- {shlex.join(words)}"
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": home,
                "TMPDIR": f"{home}/bin",
                "XDG_BIN_HOME": f"{home}/.local/bin",
                "SHELL": "/bin/sh",
                "CURL_CA_BUNDLE": str(self.server.certificate),
                **self.script.env,
            }
            self.server.take_record()
            usage = run_measured([*self.near, "sh", "-c", command], env=environment)
            served = self.server.take_record()
            self._check(Path(home), usage.output)
        return _Installed(
            seconds=usage.seconds,
            round_trips=len(served.paths) - 1,
            connections=served.connections,
        )

    def _check(self, home: Path, said: bytes) -> None:
        file = home / self.script.installed
        # rustup-init begins with what installs it.
        if not file.exists() or file.read_bytes()[-_TAIL:] != self.program[-_TAIL:]:
            tail = said.decode(errors="replace")[-2000:]
            raise RunFailedError(f"{self.script.tool} has not installed the program: {tail}")


_TAIL: Final = _BYTES - 1000
