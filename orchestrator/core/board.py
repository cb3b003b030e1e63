"""What a release looks like while it runs and afterwards: events in, plain data out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

from orchestrator.core.attachment import attachment_as_data
from orchestrator.core.errors import NotYetError, OrchestratorError
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
from orchestrator.core.forecast import forecast_as_data
from orchestrator.core.result import Built, Failed, Skipped
from orchestrator.core.wording import human_time, redacted, result_detail, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.core.events import Event
    from orchestrator.core.order import Order
    from orchestrator.core.plan import BuildPlan, BuildTask, NodeTask
    from orchestrator.core.report import Report
    from orchestrator.core.result import Result

# What is kept for years, one for each release, stays small whatever a node says.
TEXT_LIMIT: Final = 2000
LINE_LIMIT: Final = 300
WARNING_LIMIT: Final = 20
SPAN_LIMIT: Final = 100
LOG_TAIL_LINES: Final = 20

_BEFORE_BUILDING: Final = frozenset(
    (Phase.WAITING, Phase.BOOTING, Phase.CONNECTING, Phase.PUSHING, Phase.QUEUED)
)


class Board:
    """One attempt to release: every node with its phases, what was published, how it ended.

    All text in it is cut, without credentials, and can neither move a cursor nor forge a line; it
    still has to be escaped for whatever shows it.
    """

    def __init__(self, order: Order, began: datetime) -> None:
        self._order = order
        self._began = began
        self._rows: dict[str, _Row] = {}
        self._whole: dict[str, Any] = {
            "source": None,
            "forecast": None,
            "stage": None,
            "published": [],
            "pending": [],
            "held_back": [],
            "serial": None,
            "url": None,
            "verified": None,
            "unreadable": [],
            "github": None,
            "exit_code": None,
            "error": None,
            "hint": None,
            "is_not_yet": False,
        }
        self._warnings: list[str] = []
        self._ended: datetime | None = None

    def observe(self, event: Event, at: datetime) -> None:
        """Take note of an event; one about a node that the plan does not have changes nothing."""
        match event:
            case ReleaseStarted():
                self._rows = dict(_rows_of(event.plan, self._began))
                self._whole["forecast"] = {**forecast_as_data(event.plan)}
            case SourceReady():
                self._whole["source"] = _source(event)
            case Published():
                self._publish(event, at)
            case Verifying():
                how = "through" if event.is_public else "in"
                self._whole["stage"] = _cut(f"reading it back {how} {event.where}")
            case Warned(node=None):
                _note(self._warnings, event.message)
            case PhaseChanged() | TryingAgain() | NodeFinished() | Warned() | LogAppended():
                if event.node in self._rows:
                    self._rows[event.node].observe(event, at)
            case _:
                assert_never(event)

    def finish(
        self,
        at: datetime,
        report: Report | None = None,
        error: OrchestratorError | str | None = None,
    ) -> None:
        """Take note of how it ended: with a report, or with an error that stopped all of it.

        An error that is only a text has no exit code.
        """
        self._ended = at
        self._whole["stage"] = None
        if report is not None:
            for result in report.results:
                if result.node in self._rows:
                    self._rows[result.node].settle(result)
            self._whole |= _report(report)
            for drift in report.drifts:
                _note(self._warnings, drift)
        if isinstance(error, OrchestratorError):
            self._whole["exit_code"] = error.exit_code
            self._whole["is_not_yet"] = isinstance(error, NotYetError)
            self._whole["hint"] = error.hint and _cut(error.hint)
        if error is not None:
            self._whole["error"] = _cut(str(error))
        for row in self._rows.values():
            row.close(at)

    def as_data(self) -> dict[str, Any]:
        """Return all of it as JSON has it: times in UTC, nodes in the order of the plan."""
        order = self._order
        return {
            "version": order.version,
            "channel": order.channel,
            "attempt": order.attempt,
            "commit": order.commit,
            "reference": order.reference,
            "began": time_text(self._began),
            "ended": time_text(self._ended),
            "rows": [row.as_data() for row in self._rows.values() if row.is_shown],
            "warnings": list(self._warnings),
            **self._whole,
        }

    def _publish(self, event: Published, at: datetime) -> None:
        self._whole["published"] = list(dict.fromkeys((*self._whole["published"], *event.targets)))
        self._whole["serial"] = event.serial
        for row in self._rows.values():
            if row.phase is Phase.PUBLISHING and row.target in event.targets:
                row.close(at)


@dataclass(slots=True, kw_only=True)
class _Row:
    """A node's part; one that only stands by is not shown.

    Nodes of one `group` wait for one another.
    """

    node: str
    target: str
    group: str = ""
    stands_by_for: str | None = None
    expected: timedelta | None = None
    planned: datetime | None = None
    is_shown: bool = True
    phase: Phase = Phase.WAITING
    detail: str = ""
    since: datetime | None = None
    spans: list[tuple[Phase, datetime, datetime | None]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    result: Result | None = None

    def observe(
        self, event: PhaseChanged | TryingAgain | NodeFinished | Warned | LogAppended, at: datetime
    ) -> None:
        match event:
            case PhaseChanged():
                self._enter(event.phase, at)
                self.detail = _cut(event.detail, LINE_LIMIT)
            case TryingAgain():
                self.detail = f"trying again in {human_time(event.pause)}"
                _note(self.warnings, f"{event.reason}; {self.detail}")
            case Warned():
                _note(self.warnings, event.message)
            case NodeFinished():
                self._finish(event.result, at)
            case LogAppended():
                pass  # the log is a file of its own
            case _:
                assert_never(event)

    def settle(self, result: Result) -> None:
        """Take the last word: what was built may not have been published."""
        self.result = result
        if isinstance(result, Built):
            for warning in result.warnings:
                _note(self.warnings, warning)

    def close(self, at: datetime) -> None:
        """Nothing goes on here any more."""
        if self.spans and self.spans[-1][2] is None:
            phase, begin, _ = self.spans[-1]
            self.spans[-1] = (phase, begin, at)
        if self.result is not None:
            self.phase, self.detail, self.since = Phase.DONE, "", None

    def as_data(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "target": self.target,
            "group": self.group,
            "stands_by_for": self.stands_by_for,
            "phase": str(self.phase),
            "detail": self.detail,
            "since": time_text(self.since),
            "expected_seconds": self.expected and round(self.expected.total_seconds(), 3),
            "due": time_text(self._due()),
            "spans": [
                {"phase": str(phase), "from": time_text(begin), "to": time_text(end)}
                for phase, begin, end in self.spans
            ],
            "warnings": list(self.warnings),
            **_result(self.result),
        }

    def _finish(self, result: Result, at: datetime) -> None:
        # Whoever stands by and was not needed has nothing to show for it.
        if isinstance(result, Skipped) and not self.is_shown:
            return
        self.is_shown = True
        self.settle(result)
        self.close(at)

    def _enter(self, phase: Phase, at: datetime) -> None:
        self.is_shown = True
        if self.spans and self.spans[-1][0] is phase and self.spans[-1][2] is None:
            return
        self.phase, self.since = phase, at
        if len(self.spans) < SPAN_LIMIT:
            if self.spans and self.spans[-1][2] is None:
                last, begin, _ = self.spans[-1]
                self.spans[-1] = (last, begin, at)
            self.spans.append((phase, at, None))

    def _due(self) -> datetime | None:
        """Return when it is expected to be built; what comes after that is short."""
        if self.result is not None or self.expected is None:
            return None
        if self.phase is Phase.BUILDING and self.since is not None:
            return self.since + self.expected
        return self.planned if self.phase in _BEFORE_BUILDING else None


def time_text(moment: datetime | None) -> str | None:
    """Return `2026-11-26T08:30:00.123Z`, None for None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rows_of(plan: BuildPlan, began: datetime) -> Iterable[tuple[str, _Row]]:
    hosts: dict[str, str] = {}
    for task in plan.tasks:
        for candidate in (task.first, *task.standby):
            node = candidate.node
            # An address is nobody's business; that two nodes have the same one explains a wait.
            group = node.group or hosts.setdefault(node.host, node.name)
            yield node.name, _row(candidate, task, began, group=group)
    for skip in plan.skipped:
        row = _Row(node=skip.node, target=skip.target.triple, phase=Phase.DONE, result=skip)
        yield skip.node, row


def _row(candidate: NodeTask, task: BuildTask, began: datetime, *, group: str) -> _Row:
    is_first = candidate is task.first
    return _Row(
        node=candidate.node.name,
        target=candidate.node.target.triple,
        group=group,
        stands_by_for=None if is_first else task.node.name,
        expected=candidate.expected,
        planned=began + task.finish if is_first and task.finish is not None else None,
        is_shown=is_first,
    )


def _source(event: SourceReady) -> Mapping[str, Any]:
    return {
        "description": _cut(event.description),
        "digest": event.digest,
        "size_bytes": event.size_bytes,
        "notes": [_cut(note) for note in event.notes[:WARNING_LIMIT]],
    }


def _report(report: Report) -> Mapping[str, Any]:
    attachment = report.attachment
    problems = report.verified.problems if report.verified else ()
    return {
        "published": list(report.published),
        "pending": list(report.pending),
        "held_back": list(report.held_back),
        "serial": report.serial,
        "url": report.url,
        "verified": str(report.verified) if report.verified else None,
        "unreadable": [_cut(problem) for problem in problems[:WARNING_LIMIT]],
        "github": {
            key: value and _cut(str(value)) for key, value in attachment_as_data(attachment).items()
        }
        if attachment
        else None,
        "exit_code": report.exit_code,
    }


def _result(result: Result | None) -> Mapping[str, Any]:
    told: dict[str, Any] = dict.fromkeys(
        ("result", "failure_class", "message", "hint", "was_attached", "took_seconds"), None
    )
    told["is_final"] = isinstance(result, Failed) and result.is_final
    told["log_tail"] = []
    match result:
        case None:
            pass
        case Built():
            took = result.elapsed if result.took is None else result.took
            told["result"], told["message"] = "built", _cut(result_detail(result))
            told["was_attached"] = result.was_attached
            told["took_seconds"] = round(took.total_seconds(), 3)
        case Failed():
            told["result"] = "failed"
            told["failure_class"] = result.failure_class.name.lower()
            told["message"] = _cut(result.message)
            told["hint"] = result.hint and _cut(result.hint)
            tail = result.log_tail[-LOG_TAIL_LINES:]
            told["log_tail"] = [_cut(line, LINE_LIMIT) for line in tail]
        case Skipped():
            told["result"], told["message"] = "skipped", _cut(result.reason)
        case _:
            assert_never(result)
    return told


def _note(notes: list[str], text: str) -> None:
    note = _cut(text)
    if note not in notes:
        notes.append(note)
        del notes[:-WARNING_LIMIT]


def _cut(text: str, limit: int = TEXT_LIMIT) -> str:
    # Redacted first: what is cut in the middle of a password would not be known as one.
    told = redacted(text)
    plain = "\n".join(visible(line) for line in told[:limit].splitlines())
    # Again: what is not printable is longer once it is spelt out.
    return plain if len(plain) <= limit and len(told) <= limit else f"{plain[: limit - 1]}…"
