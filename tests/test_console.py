"""The way out: what a person sees of a release, on a terminal and in a file."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.text import Text

from orchestrator.console import (
    Console,
    Terminal,
    columns,
    print_table,
    show_error,
    show_report,
    write_log,
)
from orchestrator.core.events import (
    LogAppended,
    NodeFinished,
    Phase,
    PhaseChanged,
    Published,
    ReleaseStarted,
    SourceReady,
    Warned,
)
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.record import PastBuild, Record
from orchestrator.core.report import Report
from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Floor, Skipped
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version

if TYPE_CHECKING:
    from orchestrator.core.plan import BuildPlan

NETBSD = "x86_64-unknown-netbsd"
OPENBSD = "aarch64-unknown-openbsd"
HOSTILE = (
    b"\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 \xc2\x9b2J \xe2\x80\xae \xff \x08 \x00 [bold]x[/bold] "
)
# What a terminal of a few lines needs: colours, the cursor's way up, erasing, hiding the cursor.
CONTROLS = re.compile(r"\x1b\[[0-9;]*[mAK]|\x1b\[\?25[lh]|\r")


class TerminalStream(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A monotonic clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def terminal_of_eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)


def plan(nodes: int = 0, expected: dict[str, timedelta] | None = None) -> BuildPlan:
    """Two nodes for one target, one for another, and as many more as are asked for."""
    builds = tuple(PastBuild(node=name, took=took) for name, took in (expected or {}).items())
    entries = [
        {"name": "first", "host": "local", "target": NETBSD},
        {"name": "spare", "host": "b@192.0.2.2", "target": NETBSD},
        {"name": "openbsd-aarch64-emulated", "host": "c@192.0.2.3", "target": OPENBSD},
    ]
    more = [
        {"name": f"node-{number}", "host": f"d@192.0.2.{number + 4}", "target": OPENBSD}
        for number in range(nodes)
    ]
    entries += [entry | {"os_release": f"7.{i}"} for i, entry in enumerate(more)]
    data = {"project": {"name": "tool", "source": {"path": "."}}, "nodes": entries}
    inventory = parse_inventory(data, place="build-nodes.yaml")
    request = ReleaseRequest(version=parse_version("1.2.3"))
    return plan_release(inventory, request, record=Record(builds=builds), begun={"first"})


def built(node: str = "first", *, warnings: tuple[str, ...] = ()) -> Built:
    floors = (Floor(name="netbsd", operator=">=", release="10.0"),)
    artifact = Artifact(
        version="1.2.3",
        target=parse_target(NETBSD),
        os_release=None,
        path=Path("/dist/1.2.3/first/tool.tar.gz"),
        size_bytes=1_834_022,
        sha256="0123456789ab" + "f" * 52,
        floors=floors,
        binaries=(),
    )
    elapsed = timedelta(seconds=187)
    return Built(
        node=node, artifact=artifact, elapsed=elapsed, was_attached=False, warnings=warnings
    )


def failed(node: str = "openbsd-aarch64-emulated") -> Failed:
    return Failed(
        node=node,
        target=parse_target(OPENBSD),
        failure_class=FailureClass.BUILD,
        message="the build failed: the command exited with status 101\nsecond line",
        hint="read the log",
        log_tail=(*(f"line {n}" for n in range(30)), HOSTILE.decode(errors="replace"), "x" * 300),
        log_path=Path("/somewhere/build.log"),
    )


def report(*results: Built | Failed | Skipped) -> Report:
    return Report(
        version="1.2.3",
        results=results,
        published=(NETBSD,),
        pending=(OPENBSD,),
        held_back=(),
        serial=7,
        url="https://example.org/tool",
        exit_code=4,
        elapsed=timedelta(seconds=200),
    )


def frame(console: Console) -> list[str]:
    """The live view as it would be drawn now, line by line."""
    stream = TerminalStream()
    shown = console._frame()
    type(console._terminal)(stream).print(shown)
    return CONTROLS.sub("", stream.getvalue()).splitlines()


def started(
    clock: Clock, *, expected: dict[str, timedelta] | None = None, more: int = 0
) -> Console:
    console = Console(TerminalStream(), monotonic=clock)
    console.observe(ReleaseStarted(plan=plan(more, expected)))
    return console


def test_a_row_tells_phase_time_what_is_left_and_the_last_line(clock: Clock) -> None:
    console = started(clock, expected={"first": timedelta(seconds=60)})
    console.observe(PhaseChanged(node="first", phase=Phase.BUILDING))
    console.observe(LogAppended(node="first", data=b"Compiling a\nCompi"))
    console.observe(LogAppended(node="first", data=b"ling b\n\n"))
    clock.now += 21

    _, heading, row, *_ = frame(console)

    assert heading.split() == ["node", "phase", "time", "left", "last", "line"]
    assert re.split(r" {2,}", row) == ["first", "building", "21s", "~39s", "Compiling b"]


def test_a_node_that_takes_longer_than_ever_is_late(clock: Clock) -> None:
    console = started(clock, expected={"first": timedelta(seconds=60)})
    console.observe(PhaseChanged(node="first", phase=Phase.BUILDING))
    clock.now += 61

    assert re.split(r" {2,}", frame(console)[2].rstrip()) == ["first", "building", "1m01s", "late"]


def test_a_node_that_stands_by_says_for_whom_until_it_takes_over(clock: Clock) -> None:
    console = started(clock, expected={"spare": timedelta(seconds=60)})
    assert re.split(r" {2,}", frame(console)[3].rstrip()) == ["spare", "stands by for first"]
    assert re.split(r" {2,}", frame(console)[2].rstrip()) == ["first", "waiting"]

    console.observe(PhaseChanged(node="spare", phase=Phase.GATING, detail="on first"))
    assert re.split(r" {2,}", frame(console)[3].rstrip()) == [
        "spare",
        "gating on first",
        "0.0s",
    ]


def test_what_is_left_is_left_of_the_build(clock: Clock) -> None:
    console = started(clock, expected={"first": timedelta(seconds=60)})
    told = []
    for phase in (Phase.CONNECTING, Phase.QUEUED, Phase.BUILDING, Phase.COLLECTING):
        console.observe(PhaseChanged(node="first", phase=phase))
        clock.now += 15
        told.append(re.split(r" {2,}", frame(console)[2].rstrip())[3:])

    assert told == [["~1m00s"], ["~1m00s"], ["~45s"], []]


def test_what_has_ended_shows_its_outcome_and_its_clock_stands(clock: Clock) -> None:
    console = started(clock)
    console.observe(PhaseChanged(node="first", phase=Phase.BUILDING))
    clock.now += 12
    console.observe(NodeFinished(node="first", result=built()))
    console.observe(NodeFinished(node="openbsd-aarch64-emulated", result=failed()))
    skipped = Skipped(node="spare", target=parse_target(NETBSD), reason="first delivered")
    console.observe(NodeFinished(node="spare", result=skipped))
    clock.now += 50

    rows = [re.split(r" {2,}", line) for line in frame(console)[2:]]

    assert rows[0] == ["first", "built", "12s", "1.8 MB, netbsd>=10.0"]
    assert rows[1] == ["spare", "skipped", "first delivered"]
    assert rows[2][:2] == ["openbsd-aarch64-emulated", "failed (build)"]
    assert rows[2][2].startswith("the build failed: ")


@pytest.mark.parametrize("width", [20, 80, 140])
def test_no_line_is_wider_than_the_terminal(
    width: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    console = started(clock)
    long = "日本語 a very long line ".encode() * 50
    for node in ("first", "openbsd-aarch64-emulated"):
        console.observe(PhaseChanged(node=node, phase=Phase.QUEUED))
        console.observe(LogAppended(node=node, data=long))

    lines = frame(console)

    assert max(Text(line).cell_len for line in lines) < width
    assert lines[2].endswith("…")
    # The targets have room only where the last line keeps enough of it.
    assert (OPENBSD in "".join(lines)) is (width == 140)


def test_what_does_not_fit_in_height_is_counted_and_the_busy_come_first(clock: Clock) -> None:
    console = started(clock, more=40)
    console.observe(NodeFinished(node="first", result=built()))

    lines = frame(console)

    assert len(lines) == 23
    assert lines[2].startswith("spare ")
    assert lines[-1] == "and 23 more"
    assert not any(line.startswith("first ") for line in lines)


def test_nothing_that_a_node_writes_reaches_the_terminal_as_it_is(clock: Clock) -> None:
    stream = TerminalStream()
    console = Console(stream, monotonic=clock)
    with console:
        console.observe(ReleaseStarted(plan=plan()))
        console.observe(PhaseChanged(node="first", phase=Phase.BUILDING, detail="\x1b[2J"))
        console.observe(LogAppended(node="first", data=HOSTILE + b"\rover\x1b[A\n" + HOSTILE))
        console.observe(Warned(node="first", message="\x1b]0;title\x07"))
        console.observe(NodeFinished(node="spare", result=failed("spare")))
    show_report(report(failed()), stream)
    show_error("\x1b[2J\n\x9b2J", "\x1b]52;c;aGk=\x07", stream)

    written = CONTROLS.sub("", stream.getvalue())
    assert "red \\x1b]52;c;aGk=\\x07 \\x9b2J \\u202e \ufffd \\x08 \\x00 [bold]x[/bold]" in written
    assert all(char.isprintable() or char == "\n" for char in written)


def test_a_live_view_leaves_the_terminal_as_it_was(clock: Clock) -> None:
    stream = TerminalStream()
    console = Console(stream, monotonic=clock)
    with console:
        console.observe(ReleaseStarted(plan=plan()))
        console.observe(PhaseChanged(node="first", phase=Phase.BUILDING))
    written = stream.getvalue()

    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1
    # A phase is on the screen already; a line for each would push the rest away.
    assert "first/x86_64" not in written
    # As many lines are erased as were drawn, and only what was said stays.
    assert "releasing tool 1.2.3 for 2 targets\n" in CONTROLS.sub("", written)


def test_without_colour_the_live_view_says_as_much(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = TerminalStream()
    show_report(report(built(), failed()), stream)
    show_error("wrong", None, stream)

    assert not re.search(r"\x1b\[(\d+;)*3\dm", stream.getvalue())
    assert "failed (build)" in stream.getvalue()
    assert clock() == 100


@pytest.mark.parametrize("setting", ["FORCE_COLOR=1", "TERM=dumb"])
def test_a_cursor_moves_only_on_a_terminal_that_has_one(
    setting: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, value = setting.partition("=")
    monkeypatch.setenv(name, value)
    stream = TerminalStream() if name == "TERM" else io.StringIO()
    with Console(stream, monotonic=clock) as console:
        console.observe(ReleaseStarted(plan=plan()))
        console.observe(PhaseChanged(node="first", phase=Phase.BUILDING))

    assert not re.search(r"\x1b\[[^m]*[A-Zhl]", stream.getvalue())
    assert "first/x86_64-unknown-netbsd: building" in stream.getvalue()


def test_a_file_gets_plain_lines_each_with_its_time(clock: Clock) -> None:
    stream = io.StringIO()
    with Console(stream, monotonic=clock) as console:
        console.observe(ReleaseStarted(plan=plan()))
        console.observe(
            SourceReady(description="crate tool", digest="ab" * 32, size_bytes=999, notes=("odd",))
        )
        clock.now += 3.21
        console.observe(PhaseChanged(node="first", phase=Phase.GATING, detail="on spare"))
        console.observe(LogAppended(node="first", data=b"not for a file\n"))
        clock.now += 60
        console.observe(NodeFinished(node="first", result=built(warnings=("it leaks",))))
        console.observe(Warned(message="something"))
        console.observe(Published(targets=(NETBSD,), serial=7))

    assert (
        stream.getvalue()
        == f"""\
  0.0s  releasing tool 1.2.3 for 2 targets
  0.0s  source: crate tool, 999 B, abababababab
  0.0s  source: odd
  3.2s  first/{NETBSD}: gating on spare
 1m03s  first/{NETBSD}: built after 1m00s: 1.8 MB, netbsd>=10.0
 1m03s  warning: first: it leaks
 1m03s  warning: something
 1m03s  published: {NETBSD} (index serial 7)
"""
    )


def test_quiet_says_nothing_on_the_way(clock: Clock) -> None:
    stream = TerminalStream()
    with Console(stream, is_quiet=True, monotonic=clock) as console:
        console.observe(ReleaseStarted(plan=plan()))
        console.observe(NodeFinished(node="first", result=built()))
        console.observe(Warned(message="something"))

    assert stream.getvalue() == ""


def test_a_node_that_is_not_in_the_plan_is_no_row(clock: Clock) -> None:
    console = started(clock)
    before = frame(console)
    console.observe(PhaseChanged(node="gate", phase=Phase.GATING))
    console.observe(LogAppended(node="gate", data=b"x\n"))
    console.observe(NodeFinished(node="gate", result=failed("gate")))

    assert frame(console) == before


def test_the_summary_has_what_failed_first_and_how_to_go_on_last() -> None:
    stream = io.StringIO()
    skipped = Skipped(node="spare", target=parse_target(NETBSD), reason="first delivered")
    show_report(report(built(warnings=("it leaks",)), failed(), skipped), stream)

    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        f"openbsd-aarch64-emulated/{OPENBSD}: failed (build): "
        "the build failed: the command exited with status 101"
    )
    assert lines[1] == "  second line"
    assert next(line for line in lines if line.startswith("  | ")) == "  | line 12"
    assert f"  | {'x' * 300}" in lines
    assert lines[22:25] == ["log: /somewhere/build.log", "hint: read the log", ""]
    table = [re.split(r" {2,}", line) for line in lines[25:29]]
    assert table == [
        ["node", "target", "result", "time", "size", "floors", "sha256"],
        ["first", NETBSD, "built", "3m07s", "1.8 MB", "netbsd>=10.0", "0123456789ab"],
        ["openbsd-aarch64-emulated", OPENBSD, "failed (build)"],
        ["spare", NETBSD, "skipped: first delivered"],
    ]
    assert lines[29:] == [
        "",
        "warning: first: it leaks",
        f"published 1.2.3: {NETBSD}",
        f"pending: {OPENBSD} (users there get the newest version that exists)",
        "run the same command again for what is missing; nothing is built twice",
        "done in 3m20s; index serial 7",
        "install with:",
        "  curl --proto '=https' --tlsv1.2 -sSf https://example.org/tool/install.sh | sh",
    ]


def test_a_summary_that_is_wider_than_the_terminal_is_stacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    stream = TerminalStream()
    show_report(report(built()), stream)

    lines = CONTROLS.sub("", stream.getvalue()).splitlines()
    assert lines[0] == f"first  {NETBSD}"
    assert lines[1] == "    result built  time 3m07s  size 1.8 MB  floors netbsd>=10.0"
    assert lines[2] == "    sha256 0123456789ab"


def test_what_is_wider_than_the_terminal_is_cut_between_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = TerminalStream()
    said = "4 x a processor whose name goes on and on and on, and then some more"
    print_table(Terminal(stream), ("node", "target", "cpu"), [("pi", "arm", said)])

    lines = CONTROLS.sub("", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= 40
    assert len(lines) == 4
    assert " ".join(" ".join(lines).split()) == f"pi arm cpu {said}"


def test_a_release_without_a_publication_shows_no_way_to_install() -> None:
    stream = io.StringIO()
    ended = replace(report(), published=(), pending=(), held_back=(OPENBSD,), serial=None, url=None)
    show_report(replace(ended, results=(replace(failed(), hint=None, log_path=None),)), stream)

    assert stream.getvalue().endswith(
        f"held back, because others have to be published first: {OPENBSD}\n"
        "run the same command again for what is missing; nothing is built twice\n"
        "done in 3m20s\n"
    )
    assert "hint:" not in stream.getvalue()


def test_the_summary_says_where_the_archives_are_that_were_not_published() -> None:
    stream = io.StringIO()
    ended = replace(report(built(), failed()), published=(), pending=(), serial=None, url=None)
    show_report(ended, stream)

    assert stream.getvalue().endswith(
        "built, and not published:\n  /dist/1.2.3/first/tool.tar.gz\ndone in 3m20s\n"
    )
    stream = io.StringIO()
    show_report(report(built()), stream)
    assert "/dist/" not in stream.getvalue()


def test_every_line_of_an_error_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    show_error("a: wrong\nb: wrong too", "mend it", stream)
    show_error("", None, stream)

    assert stream.getvalue() == "error: a: wrong\n  b: wrong too\nhint: mend it\nerror: \n"
    assert capsys.readouterr().out == ""


def test_what_an_old_locale_cannot_spell_does_not_end_a_release() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    show_error("ünlü", None, stream)
    stream.flush()

    assert raw.getvalue() == b"error: \\xfcnl\\xfc\n"


def test_a_reader_that_has_gone_does_not_end_a_release(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def __init__(self, target: Path) -> None:
            super().__init__()
            self.file = target.open("w")

        def write(self, _: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return self.file.fileno()

    stream = Gone(tmp_path / "stream")
    show_report(report(built(), failed()), stream)
    # From here on, what Python still holds for the stream goes nowhere.
    stream.file.write("late")
    stream.file.close()
    assert (tmp_path / "stream").read_text() == ""


def test_a_log_goes_into_a_file_as_it_is(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_log(HOSTILE + b"\r\n")

    assert capfdbinary.readouterr().out == HOSTILE + b"\r\n"


def test_a_log_on_a_terminal_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TerminalStream()
    monkeypatch.setattr("sys.stdout", stream)
    write_log(b"one\r\n" + HOSTILE + b"\n10%\r20%\nhalf")
    write_log(b" a line\n")

    lines = stream.getvalue().split("\n")
    assert lines[0] == "one"
    assert "\\x1b]52;c;aGk=\\x07" in lines[1]
    assert lines[2:] == ["10%\\r20%", "half a line", ""]


def test_a_table_is_as_wide_as_it_needs_to_be() -> None:
    lines = columns(("a", "long heading"), [("日本", Text("x", style="red")), ("b",)])

    assert [line.plain for line in lines] == ["a     long heading", "日本  x", "b"]
