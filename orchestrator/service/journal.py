"""What the service says about itself: one JSON object a line on stderr, or text at a terminal.

Nothing in it can forge a line or move a cursor, and no secret is in it, whoever has logged it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, assert_never

from orchestrator.core.events import (
    LogAppended,
    NodeFinished,
    PhaseChanged,
    Published,
    ReleaseStarted,
    SourceReady,
    TryingAgain,
    Verifying,
    Warned,
)
from orchestrator.core.result import Failed
from orchestrator.core.wording import (
    human_time,
    redacted,
    result_detail,
    result_name,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from orchestrator.core.board import Board
    from orchestrator.core.events import Event
    from orchestrator.core.order import Order

_log = logging.getLogger(__name__)
_OURS: Final = "orchestrator"
_TEXT_LIMIT: Final = 2000
_TRACE_LIMIT: Final = 20_000
_OWN_KEYS: Final = ("time", "level", "logger", "event", "traceback")


def set_up_log(stream: TextIO, redact: Callable[[str], str], *, is_terminal: bool) -> None:
    """Send everything that is logged in this process to the stream, and nowhere else.

    Of our own modules that is what is INFO or more, of libraries what is a warning or more.
    Without a terminal it is JSON: `time` (UTC), `level`, `logger`, `event`, then its fields.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Human(redact) if is_terminal else _Json(redact))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    # What cannot be formatted would be printed as it is, secrets and all.
    logging.raiseExceptions = False


class _Formatter(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def told(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what is told, safe to be shown: `fields` of the record's own are beside it."""
        told = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._safe(_message(record)),
        }
        fields = getattr(record, "fields", None) or {}
        told |= {key: self._value(value) for key, value in fields.items() if key not in _OWN_KEYS}
        if record.exc_info:
            trace = self._redact(redacted(self.formatException(record.exc_info)))
            told["traceback"] = trace[-_TRACE_LIMIT:]
        return told

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [self._value(each) for each in value]
        return self._safe(str(value))

    def _safe(self, text: str) -> str:
        # Redacted before it is cut, or half of a secret would be left.
        plain = visible(self._redact(redacted(text)))
        return plain if len(plain) <= _TEXT_LIMIT else f"{plain[: _TEXT_LIMIT - 1]}…"


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Escaped to ASCII, so that no reader finds another end of a line in it.
        return json.dumps(self.told(record), ensure_ascii=True)


class _Human(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = self.told(record)
        trace = told.pop("traceback", None)
        time, level, event = told.pop("time"), told.pop("level"), told.pop("event")
        del told["logger"]
        fields = " ".join(
            f"{key}={value}" for key, value in told.items() if value is not None and value != ""
        )
        line = f"{time[11:19]} {level:<7} {event}" + (f"  {fields}" if fields else "")
        if trace is None:
            return line
        return "\n".join((line, *(f"    {visible(each)}" for each in trace.splitlines())))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 -- a library's wrong arguments end nothing
        return str(record.msg)


def _time(created: float) -> str:
    moment = datetime.fromtimestamp(created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A watcher that logs how orders go; what builds print is in their own logs."""

    def begin(self, order: Order, board: Board) -> None:  # noqa: ARG002 -- a watcher's
        """Log that work begins."""
        _say(order, "the release of %s begins", order.version, fields={"origin": order.origin})

    def observe(self, order: Order, event: Event, at: datetime) -> None:  # noqa: ARG002
        """Log an event."""
        level, text, fields = _words(event)
        if text:
            _say(order, "%s", text, fields=fields, level=level)

    def end(self, order: Order, outcome: dict[str, Any]) -> None:
        """Log how it ended."""
        code = outcome["exit_code"]
        level = logging.INFO if code == 0 else logging.WARNING
        fields = {"exit_code": code, "error": outcome["error"], "published": outcome["published"]}
        word = "is done" if code == 0 else "has failed"
        _say(order, "the release of %s %s", order.version, word, fields=fields, level=level)


def _say(
    order: Order, text: str, *words: object, fields: Mapping[str, Any], level: int = logging.INFO
) -> None:
    told = {"version": order.version, "attempt": order.attempt, **fields}
    _log.log(level, text, *words, extra={"fields": told})


_Words = tuple[int, str, dict[str, Any]]


def _words(event: Event) -> _Words:
    """Return the level, the text and the fields; no text: nothing is logged."""
    match event:
        case PhaseChanged() | TryingAgain() | NodeFinished():
            return _words_of_node(event)
        case Published():
            text = f"published: {', '.join(event.targets)}"
            return logging.INFO, text, {"serial": event.serial}
        case Warned():
            return logging.WARNING, event.message, {"node": event.node}
        case SourceReady():
            return logging.INFO, f"the source is {event.description}", {"digest": event.digest}
        case Verifying():
            return logging.INFO, f"reading it back from {event.where}", {}
        case ReleaseStarted() | LogAppended():
            return logging.INFO, "", {}


def _words_of_node(event: PhaseChanged | TryingAgain | NodeFinished) -> _Words:
    level, fields = logging.INFO, {"node": event.node}
    match event:
        case PhaseChanged():
            text = f"{event.node}: {event.phase}"
            return level, text, {**fields, "detail": event.detail or None}
        case TryingAgain():
            text = f"{event.node}: {event.reason}; trying again in {human_time(event.pause)}"
            return logging.WARNING, text, fields
        case NodeFinished():
            level = logging.WARNING if isinstance(event.result, Failed) else level
            text = f"{event.node}: {result_name(event.result)}: {result_detail(event.result)}"
            return level, text, fields
        case _:
            assert_never(event)
