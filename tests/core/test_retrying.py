"""When a failed release is tried again by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.order import Entry, Order, Origin, State
from orchestrator.core.retrying import PAUSES, due, next_attempt

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def entry(
    outcome: dict[str, Any] | None,
    *,
    version: str = "1.0.0",
    attempt: int = 1,
    state: State = State.FAILED,
    ended: datetime | None = NOW,
) -> Entry:
    order = Order(
        version=version,
        channel="stable",
        asked=NOW,
        origin=Origin.WEBHOOK,
        attempt=attempt,
        commit="c" * 40,
    )
    return Entry(order=order, state=state, ended=ended, outcome=outcome)


def outcome(exit_code: int, *rows: tuple[str, bool]) -> dict[str, Any]:
    return {
        "exit_code": exit_code,
        "rows": [{"failure_class": kind, "is_final": is_final} for kind, is_final in rows],
    }


AWAY = outcome(3, ("machine", False))


@pytest.mark.parametrize(
    ("what", "is_tried"),
    [
        (AWAY, True),
        (outcome(5), True),
        (outcome(3, ("build", False), ("machine", False)), True),
        (outcome(4, ("build", False)), False),
        (outcome(3, ("machine", True)), False),
        (outcome(2), False),
        ({**outcome(2), "is_not_yet": True}, True),
        (None, False),
        ({}, False),
    ],
)
def test_what_may_pass_is_tried_again(what: dict[str, Any] | None, is_tried: object) -> None:
    assert (next_attempt(entry(what)) is not None) is is_tried


def test_the_pauses_grow_and_end() -> None:
    times = [next_attempt(entry(AWAY, attempt=number)) for number in range(1, 9)]
    assert times == [*(NOW + pause for pause in PAUSES), None, None]


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.CANCELLED])
def test_only_what_has_ended_by_itself_is_tried_again(state: State) -> None:
    assert next_attempt(entry(AWAY, state=state)) is None
    assert next_attempt(entry(AWAY, ended=None)) is None


def test_a_platform_that_a_release_did_without_is_tried_again() -> None:
    without = outcome(0, ("machine", False))
    assert next_attempt(entry(without, state=State.DONE)) == NOW + PAUSES[0]
    assert next_attempt(entry(outcome(0), state=State.DONE)) is None


def test_the_newest_attempt_of_a_version_counts_when_its_time_has_come() -> None:
    late = NOW + timedelta(minutes=21)
    entries = [
        entry(AWAY, version="1.1.0", attempt=2),
        entry(AWAY, version="1.1.0"),
        entry(outcome(0), version="1.0.1", state=State.DONE, attempt=2),
        entry(AWAY, version="1.0.1"),
        entry(AWAY, version="1.0.0", ended=late),
    ]
    [order] = due(entries, late)
    assert (order.version, order.attempt, order.origin) == ("1.1.0", 3, Origin.RETRY)
    assert order.asked == late
    assert order.commit == "c" * 40
    assert due(entries, NOW) == []


def test_an_order_survives_as_data() -> None:
    order = entry(None).order
    assert Order.from_data(order.as_data()) == order
    data = entry(AWAY).as_data()
    assert data["order"]["version"] == "1.0.0"
    assert data["state"] == "failed"
    assert data["ended"] == NOW.isoformat()
    assert data["began"] is None
    assert data["outcome"] == AWAY
