"""When a release that did not reach every platform is tried again, with nobody there to ask."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.order import Origin, State
from orchestrator.core.result import FailureClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.core.order import Entry, Order

# How long after an attempt the next one follows. A machine that reboots is back in minutes, one
# that somebody has to look at the next day; after that a person says when.
PAUSES: Final = (
    timedelta(minutes=5),
    timedelta(minutes=20),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(hours=12),
    timedelta(hours=24),
)


def due(entries: Sequence[Entry], now: datetime) -> list[Order]:
    """Return the next attempts of what is worth it by now; `entries` are newest first.

    That is what failed for a reason that passes (a machine, the store, a tag or crate that is not
    there yet), where no person ended it and no newer attempt exists. The code's own failures stay.
    A release that is done may lack a platform that it did not have to have: that is tried, too.
    """
    orders = []
    seen = set()
    for entry in entries:
        order = entry.order
        if order.version in seen:
            continue
        seen.add(order.version)
        if (at := next_attempt(entry)) and at <= now:
            orders.append(order.again(asked=now, origin=Origin.RETRY))
    return orders


def next_attempt(entry: Entry) -> datetime | None:
    """Return when an order is tried again by itself, None if it is not."""
    attempt = entry.order.attempt
    if entry.state not in _ENDED or entry.ended is None or attempt > len(PAUSES):
        return None
    if not passes(entry.outcome or {}):
        return None
    return entry.ended + PAUSES[attempt - 1]


def passes(outcome: Mapping[str, Any]) -> bool:
    """Whether what went wrong may be well without anybody's doing: what Board.as_data says."""
    failed = [row for row in outcome.get("rows", ()) if row.get("failure_class")]
    if any(row["is_final"] for row in failed):
        # A person has ended its job, and would have to do it again and again.
        return False
    # The lowest code counts for the run: beside a build that fails, a machine may be away too.
    codes = {FailureClass.MACHINE.value, FailureClass.STORE.value}
    is_away = any(row["failure_class"] in _CLASSES for row in failed)
    return is_away or outcome.get("exit_code") in codes or bool(outcome.get("is_not_yet"))


_ENDED: Final = {State.FAILED, State.DONE}
_CLASSES: Final = {FailureClass.MACHINE.name.lower(), FailureClass.STORE.name.lower()}
