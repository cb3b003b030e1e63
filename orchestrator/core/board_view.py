"""What people read of a node's row on a board: the same words on a page and in live updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.events import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.log_tail import Lines
    from orchestrator.core.order import Order

WAITING: Final = "waiting"
RUNNING: Final = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRelease:
    """A release that runs here: what `Board.as_data` says now, and the end of each node's log."""

    order: Order
    data: Mapping[str, Any]
    logs: Mapping[str, Lines]


def row_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `Board.as_data` in words.

    `state` is `waiting`, `running`, or how it ended; `began` and `ended` enclose all that the node
    did, None where it did not begin or is not over. Times are texts, as on the board.
    """
    spans = row["spans"]
    is_busy = bool(spans) and spans[-1]["to"] is None
    return {
        "node": row["node"],
        "state": _state(row, is_busy=is_busy),
        "phase": _phase(row, is_busy=is_busy),
        "note": _note(row, is_busy=is_busy),
        "began": spans[0]["from"] if spans else None,
        "ended": None if is_busy or not spans else spans[-1]["to"],
        "since": row["since"] if is_busy else None,
        "due": row["due"] if row["result"] is None else None,
        "expected": row["expected_seconds"],
    }


def _state(row: Mapping[str, Any], *, is_busy: bool) -> str:
    if is_busy:
        return RUNNING
    return str(row["result"] or WAITING)


def _phase(row: Mapping[str, Any], *, is_busy: bool) -> str:
    if is_busy:
        return str(row["phase"])
    match row["result"]:
        case None:
            return str(Phase.WAITING)
        case "failed":
            return f"failed ({row['failure_class']})"
        case "built" if row["was_attached"]:
            return "attached"
        case result:
            return str(result)


def _note(row: Mapping[str, Any], *, is_busy: bool) -> str:
    if is_busy:
        return str(row["detail"])
    if row["result"] is None:
        stands_by = row["stands_by_for"]
        return f"takes over from {stands_by}" if stands_by else ""
    return str(row["message"]).partition("\n")[0]
