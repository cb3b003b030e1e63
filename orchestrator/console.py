"""The way out: events become a live table or plain lines, then a summary."""

from __future__ import annotations

import io
import os
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self, TextIO, assert_never

import rich.console
from rich.live import Live
from rich.text import Text

from orchestrator.core.attachment import attachment_lines
from orchestrator.core.events import (
    LogAppended,
    NodeFinished,
    Phase,
    PhaseChanged,
    Published,
    ReleaseStarted,
    SourceReady,
    TryingAgain,
    Verifying,
    Warned,
)
from orchestrator.core.forecast import forecast_line
from orchestrator.core.result import Built, Failed, Skipped
from orchestrator.core.wording import (
    floors_of,
    human_size,
    human_time,
    install_command,
    result_detail,
    result_name,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from orchestrator.core.events import Event
    from orchestrator.core.report import Report
    from orchestrator.core.result import Result

REFRESHES_PER_SECOND: Final = 4
LOG_TAIL_LINES: Final = 20
_LAST_LINE_BYTES: Final = 2000
# Where less than this is left for the last column, the targets give up their room.
_LAST_LINE_WIDTH: Final = 30


class Terminal(rich.console.Console):
    """A stream to print to: nothing is wrapped, cut, coloured by guess or taken for markup."""

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, io.TextIOWrapper):
            # What an old locale cannot spell must not end a release.
            stream.reconfigure(errors="backslashreplace")
        super().__init__(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        # FORCE_COLOR asks for colours, not for a cursor that moves around in a file.
        self.is_animated = stream.isatty() and not self.is_dumb_terminal

    def on_broken_pipe(self) -> None:
        """Go on in silence: that nobody reads any more is no reason to end a release."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


@dataclass(slots=True, kw_only=True)
class _NodeRow:
    """What the screen shows of one node."""

    target: str
    expected: timedelta | None
    phase: Phase = Phase.WAITING
    detail: str = ""
    started: float | None = None
    built_since: float | None = None
    elapsed: timedelta | None = None
    result: Result | None = None
    last_line: str = ""
    _tail: bytes = field(default=b"")

    def add_log(self, data: bytes) -> None:
        # Only the newest line is shown, so only the newest bytes are looked at.
        self._tail = (self._tail + data)[-_LAST_LINE_BYTES:]
        lines = [line for line in self._tail.splitlines() if line.strip()]
        if lines:
            self.last_line = visible(lines[-1].decode(errors="replace")).strip()


class Console:
    """Shows one release to a person: a live table on a terminal, plain lines elsewhere."""

    def __init__(
        self,
        stream: TextIO,
        *,
        is_quiet: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terminal = Terminal(stream)
        self._is_quiet = is_quiet
        self._monotonic = monotonic
        self._rows: Mapping[str, _NodeRow] = {}
        self._begun = monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._terminal.is_animated and not self._is_quiet:
            self._live = Live(
                console=self._terminal,
                get_renderable=self._frame,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                # Standard output may be a file while this is a terminal.
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            # What follows, the summary or an error, stands apart from what was said meanwhile.
            self._terminal.print()

    def observe(self, event: Event) -> None:
        """Take note of an event, and show it."""
        match event:
            case ReleaseStarted():
                self._start(event)
            case PhaseChanged():
                self._change_phase(event)
            case TryingAgain():
                self._note_trouble(event)
            case LogAppended():
                self._add_log(event)
            case NodeFinished():
                self._finish(event)
            case SourceReady() | Published() | Verifying() | Warned():
                for line in _notice(event):
                    self._say(line)
            case _:
                assert_never(event)

    def _start(self, event: ReleaseStarted) -> None:
        self._begun = self._monotonic()
        # Replaced as a whole: another thread draws the screen.
        self._rows = {
            candidate.node.name: _NodeRow(
                target=candidate.node.target.triple,
                expected=candidate.expected,
                detail="" if candidate is task.first else f"stands by for {task.node.name}",
            )
            for task in event.plan.tasks
            for candidate in (task.first, *task.standby)
        }
        name = event.plan.inventory.project.name
        targets = _count(len(event.plan.tasks), "target")
        self._say(f"releasing {name} {event.plan.version} for {targets}")
        if forecast := forecast_line(event.plan):
            self._say(forecast)

    def _change_phase(self, event: PhaseChanged) -> None:
        row = self._rows.get(event.node)
        if row is None:
            return
        row.phase, row.detail = event.phase, event.detail
        if row.started is None:
            row.started = self._monotonic()
        if event.phase is Phase.BUILDING:
            row.built_since = self._monotonic()
        if self._live is None:
            self._say(f"{event.node}/{row.target}: {event.phase} {event.detail}".rstrip())

    def _note_trouble(self, event: TryingAgain) -> None:
        row = self._rows.get(event.node)
        if row is None:
            return
        again = f"trying again in {human_time(event.pause)}"
        row.detail = f"({again})"
        # On the live view too: the table shows the pause, and not what it is for.
        self._say(f"{event.node}/{row.target}: {event.reason}; {again}")

    def _add_log(self, event: LogAppended) -> None:
        row = self._rows.get(event.node)
        if row is not None:
            row.add_log(event.data)

    def _finish(self, event: NodeFinished) -> None:
        row = self._rows.get(event.node)
        if row is None:
            return
        row.phase, row.result, row.detail = Phase.DONE, event.result, ""
        row.elapsed = self._age(row)
        for line in _finish_lines(event.result, row.target, row.elapsed):
            self._say(line)

    def _age(self, row: _NodeRow) -> timedelta | None:
        if row.started is None:
            return None
        return timedelta(seconds=self._monotonic() - row.started)

    def _say(self, line: str) -> None:
        if self._is_quiet:
            return
        elapsed = human_time(timedelta(seconds=self._monotonic() - self._begun))
        self._terminal.print(Text.assemble((f"{elapsed:>6}  ", "dim"), visible(line)))

    def _frame(self) -> rich.console.RenderableType:
        # One column stays free: a line that ends at the edge would wrap on some terminals.
        width, height = self._terminal.width - 1, self._terminal.height - 1
        rows = [(name, row, row.elapsed or self._age(row)) for name, row in self._rows.items()]
        # An empty line and the heading are above the rows, and what does not fit is counted.
        room = height - 3
        if len(rows) > room:
            rows.sort(key=lambda entry: entry[1].result is not None)
        now = self._monotonic()
        cells = [_live_cells(*entry, now=now) for entry in rows[:room]]
        lines = _fitted(("node", "target", "phase", "time", "left", "last line"), cells, width)
        if len(rows) > room:
            lines.append(Text(f"and {len(rows) - room} more", style="dim"))
        return rich.console.Group(Text(""), *lines)


def _fitted(
    heading: tuple[str, ...], rows: Sequence[tuple[Text | str, ...]], width: int
) -> list[Text]:
    """Return the lines of a table that fits: the last column is cut, and may oust the second."""
    room = width - max(line.cell_len for line in columns(heading[:-1], [row[:-1] for row in rows]))
    if room < _LAST_LINE_WIDTH:
        heading = (heading[0], *heading[2:])
        rows = [(row[0], *row[2:]) for row in rows]
    lines = columns(heading, rows)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _live_cells(
    name: str, row: _NodeRow, elapsed: timedelta | None, *, now: float
) -> tuple[Text | str, ...]:
    if row.result is None:
        phase = Text(_phase_text(row))
        last_line = row.last_line
    else:
        phase = Text(result_name(row.result), style=_style(row.result))
        last_line = result_detail(row.result)
    return (
        Text(name, style="bold"),
        row.target,
        phase,
        # As wide as most times are, so that the columns stand still.
        f"{human_time(elapsed) if elapsed is not None else '':<5}",
        f"{_remaining(row, now):<6}",
        Text(last_line, style="dim"),
    )


def _phase_text(row: _NodeRow) -> str:
    if row.phase is Phase.WAITING and row.detail:
        return row.detail
    return visible(f"{row.phase} {row.detail}").rstrip()


_BEFORE_BUILDING: Final = {Phase.WAITING, Phase.CONNECTING, Phase.PUSHING, Phase.QUEUED}


def _remaining(row: _NodeRow, now: float) -> str:
    """Return how long the build is expected to take yet; what comes after it is short."""
    if row.expected is None or row.started is None or row.result is not None:
        return ""
    left = row.expected
    if row.phase is Phase.BUILDING and row.built_since is not None:
        left -= timedelta(seconds=now - row.built_since)
    elif row.phase not in _BEFORE_BUILDING:
        return ""
    return f"~{human_time(left)}" if left > timedelta() else "late"


def _notice(event: SourceReady | Published | Verifying | Warned) -> list[str]:
    match event:
        case SourceReady():
            size = human_size(event.size_bytes)
            first = f"source: {event.description}, {size}, {event.digest[:12]}"
            return [first, *(f"source: {note}" for note in event.notes)]
        case Published():
            return [f"published: {', '.join(event.targets)} (index serial {event.serial})"]
        case Verifying():
            how = "through" if event.is_public else "in"
            return [f"verifying: reading the release back {how} {event.where}"]
        case Warned():
            return [f"warning: {event.node + ': ' if event.node else ''}{event.message}"]
        case _:
            assert_never(event)


def _finish_lines(result: Result, target: str, elapsed: timedelta | None) -> list[str]:
    took = f" after {human_time(elapsed)}" if elapsed else ""
    line = f"{result.node}/{target}: {result_name(result)}{took}: {result_detail(result)}"
    return [line, *_warnings(result)]


def _warnings(result: Result) -> list[str]:
    if not isinstance(result, Built):
        return []
    return [f"warning: {result.node}: {visible(warning)}" for warning in result.warnings]


def _style(result: Result) -> str:
    match result:
        case Built():
            return "green"
        case Failed():
            return "red"
        case Skipped():
            return "dim"
        case _:
            assert_never(result)


def write_log(data: bytes) -> None:
    """Write a log to standard output: its bytes into a file, made visible on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    # Split at line feeds alone: a carriage return is one of the things to make visible.
    lines = data.decode(errors="replace").split("\n")
    sys.stdout.write("\n".join(visible(line.removesuffix("\r")) for line in lines))
    sys.stdout.flush()


def show_report(report: Report, stream: TextIO) -> None:
    """Write the summary of a release: what each node did, what failed and how to go on."""
    terminal = Terminal(stream)
    show_failures(report, stream)
    rows = [_summary_cells(result) for result in report.results]
    print_table(terminal, ("node", "target", "result", "time", "size", "floors", "sha256"), rows)
    terminal.print()
    for text in (*_all_warnings(report), *_closing_lines(report)):
        terminal.print(Text(text))


def show_failures(report: Report, stream: TextIO) -> None:
    """Write why nodes failed, with the end of their logs."""
    terminal = Terminal(stream)
    for result in report.results:
        if isinstance(result, Failed):
            for line in _failure_lines(result):
                terminal.print(line)
            terminal.print()


def _failure_lines(failed: Failed) -> list[Text]:
    title = f"{failed.node}/{failed.target}: {result_name(failed)}"
    first, *more = failed.message.splitlines() or [""]
    lines = [Text.assemble((title, "bold red"), f": {visible(first)}")]
    lines += [Text(f"  {visible(line)}") for line in more]
    # In a frame, a long line would break the frame, and what is copied would hold pieces of it.
    lines += [
        Text.assemble(("  | ", "red"), visible(line)) for line in failed.log_tail[-LOG_TAIL_LINES:]
    ]
    if failed.log_path:
        lines.append(Text.assemble(("log: ", "bold"), visible(str(failed.log_path))))
    return [*lines, *_hint_lines(failed.hint)]


def _hint_lines(hint: str | None) -> list[Text]:
    if not hint:
        return []
    first, *more = hint.splitlines()
    return [
        Text.assemble(("hint: ", "bold"), visible(first)),
        *(Text(visible(line)) for line in more),
    ]


def _summary_cells(result: Result) -> tuple[Text | str, ...]:
    name = Text(result.node, style="bold")
    outcome = Text(result_name(result), style=_style(result))
    match result:
        case Built():
            artifact = result.artifact
            return (
                name,
                artifact.target.triple,
                outcome,
                human_time(result.elapsed),
                human_size(artifact.size_bytes),
                floors_of(artifact),
                artifact.sha256[:12],
            )
        case Failed():
            return (name, result.target.triple, outcome)
        case Skipped():
            outcome.append(f": {visible(result.reason)}")
            return (name, result.target.triple, outcome)
        case _:
            assert_never(result)


def _all_warnings(report: Report) -> list[str]:
    drifts = [f"warning: {visible(drift)}" for drift in report.drifts]
    return [line for result in report.results for line in _warnings(result)] + drifts


def _closing_lines(report: Report) -> list[str]:
    lines = []
    if report.published:
        lines.append(f"published {report.version}: {', '.join(report.published)}")
    if report.pending:
        pending = ", ".join(report.pending)
        lines.append(f"pending: {pending} (users there get the newest version that exists)")
    if report.held_back:
        held = ", ".join(report.held_back)
        lines.append(f"held back, because others have to be published first: {held}")
    if report.pending or report.held_back:
        lines.append("run the same command again for what is missing; nothing is built twice")
    archives = _unpublished_archives(report)
    if archives:
        lines += ["built, and not published:", *(f"  {path}" for path in archives)]
    lines += _verified_lines(report)
    if report.attachment:
        lines += map(visible, attachment_lines(report.attachment))
    serial = "" if report.serial is None else f"; index serial {report.serial}"
    lines.append(f"done in {human_time(report.elapsed)}{serial}")
    if report.url and report.published:
        lines += ["install with:", f"  {install_command(report.url)}"]
    return lines


def _verified_lines(report: Report) -> list[str]:
    verified = report.verified
    if verified is None:
        return []
    if not verified.problems:
        if not verified.is_public:
            return ["verified in the store"]
        return ["verified: a stranger reads all of it through the public URL"]
    where = "through the public URL" if verified.is_public else "in the store"
    again = f"look again with: orchestrator verify {report.version}"
    return [
        f"it does not read back {where}, so it is not done:",
        *(f"  {visible(problem)}" for problem in verified.problems),
        f"{again} --public" if verified.is_public else again,
    ]


def _unpublished_archives(report: Report) -> list[str]:
    artifacts = [result.artifact for result in report.results if isinstance(result, Built)]
    return [
        visible(str(artifact.path))
        for artifact in artifacts
        if artifact.target.triple not in report.published
    ]


def print_table(
    terminal: Terminal, heading: Sequence[str], rows: Sequence[Sequence[Text | str]]
) -> None:
    """Print a table; on a terminal that is too narrow for it, print what its rows say instead."""
    lines = columns(heading, rows)
    if terminal.is_animated and max(line.cell_len for line in lines) > terminal.width:
        stacked = [line for row in rows for line in _stacked(heading, row, terminal.width)]
        lines = [part for line in stacked for part in _folded(terminal, line)]
    for line in lines:
        terminal.print(line)


def columns(heading: Sequence[str], rows: Sequence[Sequence[Text | str]]) -> list[Text]:
    """Return the lines of a table that is as wide as it needs to be: nothing is ever cut off."""
    cells = [[Text(name, style="bold dim") for name in heading]]
    cells += [[_text(cell) for cell in row] for row in rows]
    widths = [
        max((row[i].cell_len for row in cells if i < len(row)), default=0)
        for i in range(len(heading))
    ]
    lines = []
    for row in cells:
        line = Text()
        for width, cell in zip(widths, row, strict=False):
            line.append_text(cell).append(" " * (width - cell.cell_len + 2))
        line.rstrip()
        lines.append(line)
    return lines


def _stacked(heading: Sequence[str], row: Sequence[Text | str], width: int) -> list[Text]:
    """Return the first two cells of a row on a line, the others below it with their names."""
    lines = [Text("  ").join(_text(cell) for cell in row[:2])]
    room = 0
    for name, cell in zip(heading[2:], row[2:], strict=False):
        text = _text(cell)
        if not text:
            continue
        entry = Text.assemble("  ", (f"{name} ", "dim"), text)
        if entry.cell_len > room:
            lines.append(Text("  "))
            room = width - 2
        lines[-1].append_text(entry)
        room -= entry.cell_len
    return lines


def _folded(terminal: Terminal, line: Text) -> list[Text]:
    """Return a line in pieces that fit, cut between words: a terminal itself cuts within them."""
    if line.cell_len <= terminal.width:
        return [line]
    first, *rest = line.wrap(terminal, terminal.width - len(_INDENT))
    return [first, *(Text.assemble(_INDENT, part) for part in rest)]


_INDENT: Final = "      "


def _text(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def show_error(message: str, hint: str | None, stream: TextIO) -> None:
    """Write an error as it is worded: `error: …`, then `hint: …`."""
    terminal = Terminal(stream)
    first, *more = message.splitlines() or [""]
    terminal.print(Text.assemble(("error: ", "bold red"), visible(first)))
    for line in more:
        terminal.print(Text(f"  {visible(line)}"))
    for text in _hint_lines(hint):
        terminal.print(text)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
