"""Times and states in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.core.order import State
from orchestrator.core.status_words import (
    age_text,
    badge,
    board_of,
    duration_text,
    moment,
    state_text,
)
from tests.pages.scenes import START, entry


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (7.6, "8 s"),
        (60, "1 min"),
        (187, "3 min 07 s"),
        (7200, "2 h"),
        (7500, "2 h 05 min"),
    ],
)
def test_a_duration(seconds: float, words: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(seconds=-5), "a moment"),
        (timedelta(seconds=59), "a moment"),
        (timedelta(minutes=59, seconds=59), "59 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(hours=48), "2 days"),
    ],
)
def test_an_age(age: timedelta, words: str) -> None:
    assert age_text(age) == words


def test_a_moment_is_told_in_utc() -> None:
    at = datetime(2026, 11, 26, 3, 0, 30, tzinfo=timezone(timedelta(hours=-5)))

    assert moment(at) == '<time datetime="2026-11-26T08:00:30Z">2026-11-26 08:00 UTC</time>'


def test_a_state_says_what_is_pending() -> None:
    assert state_text(entry(State.DONE, outcome={"pending": ["a"]})) == "done, 1 pending"
    assert state_text(entry(State.DONE, outcome={"pending": []})) == "done"
    assert state_text(entry(State.FAILED, outcome={"pending": ["a"]})) == "failed"
    assert state_text(entry(State.RUNNING)) == "running"


def test_every_state_has_a_mark_of_its_own_beside_the_word() -> None:
    marks = {badge(str(state), "x").replace(str(state), "") for state in State}

    assert len(marks) == len(State)


def test_a_badge_is_escaped() -> None:
    assert "<b>" not in badge('"<b>', "<b>")


def test_an_outcome_that_says_little_is_a_board_all_the_same() -> None:
    board = board_of(entry(State.FAILED, outcome={"error": "no"}, began=START))

    assert (board["error"], board["rows"], board["began"]) == (
        "no",
        [],
        "2026-11-26T08:00:00.000Z",
    )


def test_an_order_that_never_began_has_no_begin() -> None:
    assert board_of(entry(State.QUEUED))["began"] is None
