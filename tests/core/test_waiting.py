"""Where the time of a release went."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core.board import time_text
from orchestrator.core.waiting import timings_as_data

BEGAN = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)


def text(seconds: float | None) -> str | None:
    return None if seconds is None else time_text(BEGAN + timedelta(seconds=seconds))


def row(node: str, *spans: tuple[str, float, float | None], **more: Any) -> dict[str, Any]:
    result = {"took_seconds": None, "was_attached": None}
    told = [{"phase": name, "from": text(begin), "to": text(end)} for name, begin, end in spans]
    return {"node": node, "group": node, "stands_by_for": None, "spans": told, **result, **more}


def timings(*rows: dict[str, Any], end: float) -> dict[str, Any]:
    return timings_as_data({"rows": list(rows), "ended": text(end)}, began=BEGAN)


def waits(data: dict[str, Any]) -> list[tuple[str | None, str, float, float]]:
    return [
        (each["node"], each["phase"], each["from_seconds"], each["seconds"])
        for each in data["waited_for"]
    ]


def test_it_is_the_phases_of_the_node_that_was_done_last_and_what_was_around_them() -> None:
    data = timings(
        row("quick", ("building", 1, 5), took_seconds=4.5, was_attached=False),
        row(
            "slow",
            *(("connecting", 0.5, 1.25), ("building", 1.25, 61.25), ("gating", 61.25, 61.5)),
            took_seconds=59.9,
            was_attached=False,
        ),
        row("spared"),
        row("from before", took_seconds=90, was_attached=True),
        end=62,
    )
    assert waits(data) == [
        (None, "planning", 0, 0.5),
        ("slow", "connecting", 0.5, 0.75),
        ("slow", "building", 1.25, 60),
        ("slow", "gating", 61.25, 0.25),
        (None, "finishing", 61.5, 0.5),
    ]
    assert data["seconds"] == 62
    assert (data["slowest_build"], data["slowest_build_seconds"]) == ("slow", 59.9)
    assert data["ratio"] == 1.035


def test_the_path_leads_over_those_it_waited_for_each_to_its_end() -> None:
    data = timings(
        row("first", ("building", 0, 10)),
        row("second", ("connecting", 0, 1), ("building", 12, 20), stands_by_for="first"),
        end=20,
    )
    assert waits(data) == [
        ("first", "building", 0, 10),
        (None, "handing over", 10, 2),
        ("second", "building", 12, 8),
    ]


def test_a_phase_that_nobody_ended_lasts_to_the_end() -> None:
    assert waits(timings(row("a", ("building", 0, None)), end=3)) == [("a", "building", 0, 3)]


def test_where_nothing_was_built_all_of_it_was_planning_or_finishing() -> None:
    data = timings(end=1)
    assert waits(data) == [(None, "finishing", 0, 1)]
    assert (data["slowest_build"], data["slowest_build_seconds"], data["ratio"]) == (None,) * 3
