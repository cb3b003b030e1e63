"""The way out: events become a live table or plain lines, then a summary."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self, TextIO, assert_never

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

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
from orchestrator.core.result import Built, Failed, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import RenderableType

    from orchestrator.core.events import Event
    from orchestrator.core.report import Report
    from orchestrator.core.result import Result

REFRESHES_PER_SECOND: Final = 4
LOG_TAIL_LINES: Final = 20
_LAST_LINE_BYTES: Final = 400


def visible(text: str) -> str:
    """Return the text with everything that could move a cursor or forge a line made visible.

    A node's output is not trusted: escape sequences, carriage returns and direction marks are
    shown as Python would write them.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def human_time(duration: timedelta) -> str:
    """Return `0.4s`, `42s`, `3m07s` or `2h05m`."""
    seconds = duration.total_seconds()
    if seconds < 10:  # noqa: PLR2004 -- below ten seconds the tenths are worth reading
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def human_size(size_bytes: int) -> str:
    """Return `734 B`, `1.2 kB` or `10.4 MB`, in powers of 1000."""
    kilo = 1000
    if size_bytes < kilo:
        return f"{size_bytes} B"
    if size_bytes < kilo * kilo:
        return f"{size_bytes / kilo:.1f} kB"
    return f"{size_bytes / kilo / kilo:.1f} MB"


@dataclass(slots=True, kw_only=True)
class _NodeRow:
    """What the screen shows of one node."""

    target: str
    expected: timedelta | None
    phase: Phase = Phase.WAITING
    detail: str = ""
    started: float | None = None
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
        self._terminal = open_terminal(stream)
        self._is_quiet = is_quiet
        self._monotonic = monotonic
        self._rows: dict[str, _NodeRow] = {}
        self._begun = monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._terminal.is_terminal and not self._is_quiet:
            self._live = Live(
                console=self._terminal,
                get_renderable=self._table,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
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

    def observe(self, event: Event) -> None:
        """Take note of an event, and show it."""
        match event:
            case ReleaseStarted():
                self._start(event)
            case PhaseChanged():
                self._change_phase(event)
            case LogAppended():
                self._add_log(event)
            case NodeFinished():
                self._finish(event)
            case SourceReady() | Published() | Warned():
                for line in _notice(event):
                    self._say(line)
            case _:
                assert_never(event)

    def _start(self, event: ReleaseStarted) -> None:
        self._begun = self._monotonic()
        for task in event.plan.tasks:
            for candidate in (task.first, *task.standby):
                name = candidate.node.name
                self._rows[name] = _NodeRow(
                    target=candidate.node.target.triple,
                    expected=event.expected.get(name),
                    phase=Phase.WAITING,
                    detail="" if candidate is task.first else f"stands by for {task.node.name}",
                )
        name = event.plan.inventory.project.name
        self._say(f"releasing {name} {event.plan.version} on {len(event.plan.tasks)} nodes")

    def _change_phase(self, event: PhaseChanged) -> None:
        row = self._rows.get(event.node)
        if row is None:
            return
        row.phase, row.detail = event.phase, event.detail
        if row.started is None:
            row.started = self._monotonic()
        detail = f" {event.detail}" if event.detail else ""
        if self._live is None:
            self._say(f"{event.node}/{row.target}: {event.phase}{detail}")

    def _add_log(self, event: LogAppended) -> None:
        row = self._rows.get(event.node)
        if row is not None:
            row.add_log(event.data)

    def _finish(self, event: NodeFinished) -> None:
        row = self._rows.get(event.node)
        if row is None:
            return
        row.phase, row.result, row.detail = Phase.DONE, event.result, ""
        self._say(f"{event.node}/{row.target}: {describe_result(event.result)}")

    def _say(self, line: str) -> None:
        if self._is_quiet:
            return
        elapsed = human_time(timedelta(seconds=self._monotonic() - self._begun))
        self._terminal.print(Text.assemble((f"{elapsed:>6}  ", "dim"), visible(line)))

    def _table(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("node", "target", "phase", "elapsed", "left", "last line"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=None)
        now = self._monotonic()
        for name, row in self._rows.items():
            elapsed = None if row.started is None else timedelta(seconds=now - row.started)
            table.add_row(
                Text(name, style="bold"),
                row.target,
                Text(_phase_text(row), style=_phase_style(row)),
                "" if elapsed is None or row.result else human_time(elapsed),
                _remaining(row, elapsed),
                Text(row.last_line, style="dim"),
            )
        return Group(Text(""), table)


def _notice(event: SourceReady | Published | Warned) -> list[str]:
    match event:
        case SourceReady():
            size = human_size(event.size_bytes)
            first = f"source: {event.description}, {size}, {event.digest[:12]}"
            return [first, *(f"source: {note}" for note in event.notes)]
        case Published():
            return [f"published: {', '.join(event.targets)} (index serial {event.serial})"]
        case Warned():
            return [f"warning: {event.node + ': ' if event.node else ''}{event.message}"]
        case _:
            assert_never(event)


def _phase_text(row: _NodeRow) -> str:
    if row.result is not None:
        return describe_result(row.result).partition(":")[0]
    return f"{row.phase} {row.detail}".strip()


def _phase_style(row: _NodeRow) -> str:
    match row.result:
        case Built():
            return "green"
        case Failed():
            return "red"
        case _:
            return ""


def _remaining(row: _NodeRow, elapsed: timedelta | None) -> str:
    if row.expected is None or row.result is not None:
        return ""
    left = row.expected - (elapsed or timedelta())
    return f"~{human_time(left)}" if left > timedelta() else "late"


def describe_result(result: Result) -> str:
    """Return one line: what became of a node's task."""
    match result:
        case Built():
            how = "attached to the job that was there" if result.was_attached else "built"
            floors = ", ".join(str(floor) for floor in result.artifact.floors) or "no floor"
            size = human_size(result.artifact.size_bytes)
            return f"{how} in {human_time(result.elapsed)}: {size}, {floors}"
        case Failed():
            return f"failed ({result.failure_class.name.lower()}): {result.message}"
        case Skipped():
            return f"skipped: {result.reason}"
        case _:
            assert_never(result)


def write_log(data: bytes) -> None:
    """Write a log to standard output: its bytes into a file, made visible on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    text = data.decode(errors="replace")
    sys.stdout.write("".join(char if char in "\n\t" else visible(char) for char in text))
    sys.stdout.flush()


def show_report(report: Report, stream: TextIO) -> None:
    """Write the summary of a release: what each node did, what failed and how to go on."""
    terminal = open_terminal(stream)
    for result in report.results:
        if isinstance(result, Failed):
            terminal.print(_failure_panel(result))
    rows = [_summary_cells(result) for result in report.results]
    for line in columns(("node", "target", "result", "time", "size", "floors", "sha256"), rows):
        terminal.print(line)
    terminal.print()
    for text in _closing_lines(report):
        terminal.print(Text(visible(text)))


def open_terminal(stream: TextIO) -> Terminal:
    """Return the way to print to a stream: nothing is wrapped, cut or coloured by guess."""
    return Terminal(file=stream, highlight=False, soft_wrap=True)


def columns(heading: Sequence[str], rows: Sequence[Sequence[Text | str]]) -> list[Text]:
    """Return the lines of a table that is as wide as it needs to be: nothing is ever cut off."""
    cells = [[Text(name, style="bold dim") for name in heading]]
    cells += [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
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


def _summary_cells(result: Result) -> tuple[Text | str, ...]:
    name = Text(result.node, style="bold")
    match result:
        case Built():
            artifact = result.artifact
            return (
                name,
                artifact.target.triple,
                Text("attached" if result.was_attached else "built", style="green"),
                human_time(result.elapsed),
                human_size(artifact.size_bytes),
                ",".join(str(floor) for floor in artifact.floors) or "none",
                artifact.sha256[:12],
            )
        case Failed():
            failed = f"failed ({result.failure_class.name.lower()})"
            return (name, result.target.triple, Text(failed, style="red"))
        case Skipped():
            return (name, result.target.triple, Text(result.reason, style="dim"))
        case _:
            assert_never(result)


def _closing_lines(report: Report) -> list[str]:
    lines = []
    if report.published:
        lines.append(f"published {report.version}: {', '.join(report.published)}")
    if report.pending:
        pending = ", ".join(report.pending)
        lines.append(f"pending: {pending} (users there get the newest version that exists)")
    if report.held_back:
        held = ", ".join(report.held_back)
        lines.append(f"held back until every required node has delivered: {held}")
    if report.pending or report.held_back:
        lines.append("run the same command again for what is missing; nothing is built twice")
    if report.url and report.serial is not None:
        lines.append(f"index serial {report.serial}; install with:")
        lines.append(f"  {install_command(report.url)}")
    return lines


def install_command(url: str) -> str:
    """Return the line that a user pastes; plain http exists only for a store on loopback."""
    if url.startswith("https:"):
        return f"curl --proto '=https' --tlsv1.2 -sSf {url}/install.sh | sh"
    return f"curl -sSf {url}/install.sh | sh"


def _failure_panel(failed: Failed) -> Panel:
    parts: list[str] = [visible(line) for line in failed.message.splitlines()]
    if failed.hint:
        parts.append(f"hint: {visible(failed.hint)}")
    if failed.log_tail:
        parts.append("")
        parts += [f"  {visible(line)}" for line in failed.log_tail[-LOG_TAIL_LINES:]]
    if failed.log_path:
        parts += ["", f"log: {failed.log_path}"]
    return Panel(
        Text("\n".join(parts)),
        title=Text(f"{failed.node}/{failed.target}"),
        title_align="left",
        border_style="red",
    )


def show_error(message: str, hint: str | None, stream: TextIO) -> None:
    """Write an error as it is worded: `error: …`, then `hint: …`."""
    terminal = open_terminal(stream)
    first, *more = message.splitlines() or [""]
    terminal.print(Text.assemble(("error: ", "bold red"), visible(first)))
    for line in more:
        terminal.print(Text(f"  {visible(line)}"))
    if hint:
        terminal.print(Text.assemble(("hint: ", "bold"), visible(hint)))
