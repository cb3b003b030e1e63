"""Times, states and addresses in the words of the status pages, as HTML or as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.board import Board
from orchestrator.core.chart import tick_text
from orchestrator.core.order import State
from orchestrator.core.target import platform_title
from orchestrator.core.wording import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.order import Entry

ROOT: Final = "/status"
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
# So long an age is told in hours, which says more than one day.
_TWO_DAYS: Final = timedelta(days=2)


def duration_text(duration: timedelta) -> str:
    """Return `7 s`, `3 min 07 s` or `2 h 05 min`; status.js says it in the same way."""
    return tick_text(max(0, round(duration.total_seconds())))


def age_text(age: timedelta) -> str:
    """Return `a moment`, `12 min`, `30 h` or `5 days`."""
    if age < _MINUTE:
        return "a moment"
    if age < _HOUR:
        return f"{age // _MINUTE} min"
    return f"{age // _HOUR} h" if age < _TWO_DAYS else f"{age // _DAY} days"


def instant(text: str) -> datetime:
    """Return the time that a board's text says."""
    return datetime.fromisoformat(text)


def moment(at: datetime) -> str:
    """Return a time as HTML: `2026-11-26 08:30 UTC`."""
    utc = at.astimezone(UTC)
    return f'<time datetime="{utc:%Y-%m-%dT%H:%M:%SZ}">{utc:%Y-%m-%d %H:%M} UTC</time>'


def target_title(triple: str) -> str:
    """Return what people call a target."""
    return platform_title(triple, None)


def release_address(version: str) -> str:
    """Return where the page of a version is."""
    return f"{ROOT}/releases/{version}"


def attempt_address(version: str, attempt: int) -> str:
    """Return where the page of one attempt of a version is."""
    return f"{release_address(version)}?attempt={attempt}"


def log_address(version: str, node: str) -> str:
    """Return where the log of a node is."""
    return f"{release_address(version)}/logs/{node}"


def board_of(entry: Entry) -> dict[str, Any]:
    """Return the board of an order, blank in what its outcome does not say."""
    blank = Board(entry.order, entry.began or entry.order.asked).as_data()
    if entry.began is None:
        blank["began"] = None
    return blank | dict(entry.outcome or {})


def state_text(entry: Entry) -> str:
    """Return in a few words how far an order is, with what is still missing."""
    outcome: Mapping[str, Any] = entry.outcome or {}
    pending = len(outcome.get("pending") or ())
    if entry.state is State.DONE and pending:
        return f"done, {pending} pending"
    return str(entry.state)


# A picture for each state: nobody has to tell colours apart.
_MARKS: Final = {
    "queued": "○",
    "waiting": "○",
    "running": "▶",
    "done": "✔",
    "built": "✔",
    "failed": "✘",
    "cancelled": "■",
    "skipped": "»",
    "late": "✘",
    "behind": "○",
    "fresh": "✔",
}


def plain(text: str) -> str:
    """Return a text as HTML that shows it and does nothing else, whoever wrote it."""
    return escape("\n".join(visible(line) for line in text.split("\n")))


def badge(state: str, text: str) -> str:
    """Return a state as a mark and words."""
    mark = _MARKS.get(state, "·")
    return (
        f'<span class="badge {plain(state)}"><span aria-hidden="true">{mark}</span> '
        f"<span>{plain(text)}</span></span>"
    )
