from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.inventory import Node
from orchestrator.core.record import (
    Outcome,
    PastBuild,
    Record,
    Warmth,
    drift,
    faded_median,
)
from orchestrator.core.recording import record_of, rustc_release
from orchestrator.core.result import Built, Failed, FailureClass, Skipped
from orchestrator.core.target import parse_target
from tests.fakes import make_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LINUX = parse_target("x86_64-unknown-linux-gnu")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NODE = Node(name="pi", host="local", target=LINUX)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def build(took: float | None = None, **more: Any) -> PastBuild:
    values: dict[str, Any] = {"node": "pi", "took": None if took is None else seconds(took)}
    return PastBuild(**(values | more))


def failure(outcome: Outcome = Outcome.MACHINE, *, hours_ago: float = 1) -> PastBuild:
    return build(outcome=outcome, at=NOW - timedelta(hours=hours_ago))


def record(*builds: PastBuild) -> Record:
    return Record(builds=builds, now=NOW)


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([], None),
        ([7], 7),
        ([9000, 8000, 10, 12, 500, 11, 13], 13),
        ([10, 10, 10, 10, 500], 10),  # one slow night
        ([10, 10, 10, 500, 500], 500),  # another machine by now
    ],
)
def test_newer_durations_count_more_than_older_ones(
    values: Sequence[float], median: float | None
) -> None:
    found = faded_median(map(seconds, values))
    assert found == (None if median is None else seconds(median))


def test_only_the_last_five_builds_count() -> None:
    slow = [build(1000)] * 20
    assert record(*slow, *[build(10)] * 5).expected(NODE) == seconds(10)


def test_a_node_that_never_built_has_no_duration_and_no_rate() -> None:
    other = build(5, target="x86_64-unknown-freebsd")
    for known in (record(), record(other), record(replace(build(5), node="mac"))):
        assert known.expected(NODE) is None
        assert known.success_rate(NODE) is None
        assert not known.is_in_trouble(NODE)


def test_a_build_is_expected_to_be_warm_if_any_was_unless_it_is_to_be_cold() -> None:
    both = record(build(100, warmth=Warmth.COLD), build(9, warmth=Warmth.WARM))
    assert both.expected(NODE) == seconds(9)
    assert both.expected(NODE, is_cold=True) == seconds(100)
    # Better a wrong kind than none.
    assert record(both.builds[0]).expected(NODE) == seconds(100)
    assert record(both.builds[1]).expected(NODE, is_cold=True) == seconds(9)


def test_failures_take_no_time_and_lower_the_rate() -> None:
    known = record(build(10), build(1, outcome=Outcome.BUILD), failure(), failure())
    assert known.expected(NODE) == seconds(10)
    assert known.success_rate(NODE) == 0.5


def test_a_machine_that_failed_lately_is_in_trouble_for_a_day() -> None:
    assert record(failure(hours_ago=23)).is_in_trouble(NODE)
    assert not record(failure(hours_ago=25)).is_in_trouble(NODE)
    # Twice in a row is two days, and however often, a week is enough.
    assert record(failure(), failure(hours_ago=47)).is_in_trouble(NODE)
    assert not record(*[failure()] * 9, failure(hours_ago=170)).is_in_trouble(NODE)


@pytest.mark.parametrize("later", [build(5), failure(Outcome.BUILD)])
def test_whatever_became_of_a_later_build_the_machine_was_up_to_it(later: PastBuild) -> None:
    assert not record(failure(), later).is_in_trouble(NODE)


def test_a_failure_of_a_clock_that_was_far_ahead_is_no_trouble_for_years() -> None:
    assert record(failure(hours_ago=-1)).is_in_trouble(NODE)
    assert not record(failure(hours_ago=-9999)).is_in_trouble(NODE)


def test_without_a_time_nobody_is_in_trouble() -> None:
    assert not Record(builds=(failure(),)).is_in_trouble(NODE)
    assert not record(build(outcome=Outcome.MACHINE)).is_in_trouble(NODE)


TRIPLE = LINUX.triple


def test_the_last_delivery_is_no_benchmark_and_no_failure() -> None:
    delivery = build(5, version="1.0.0", rustc="1.94.1", target=TRIPLE)
    bench = replace(delivery, version="1.1.0", rustc="1.95.0", is_bench=True)
    failed = replace(delivery, outcome=Outcome.MACHINE)
    known = record(delivery, bench, failed, build(5, target=TRIPLE), build(5))
    assert known.last_delivery(TRIPLE) == delivery
    assert known.last_delivery("x86_64-unknown-freebsd") is None


def test_another_compiler_than_that_of_the_last_release_is_told() -> None:
    last = build(5, version="0.13.3", rustc="1.94.1", target=TRIPLE)
    said = "rustc 1.95.0, and the last release (0.13.3) was built with 1.94.1"
    assert drift(last, node="pi", rustc="1.95.0") == said
    assert drift(last, node="mac", rustc="1.95.0") == f"{said} on pi"
    for known, rustc in ((last, "1.94.1"), (last, None), (None, "1.95.0")):
        assert drift(known, node="pi", rustc=rustc) is None


# --- what is remembered of a result -------------------------------------------------------------


def built(tmp_path: Path, **more: Any) -> Built:
    values: dict[str, Any] = {
        "node": "pi",
        "artifact": make_artifact(tmp_path),
        "elapsed": seconds(20),
        "was_attached": False,
        "took": seconds(12),
        "warmth": Warmth.WARM,
        "own_rustc": "1.94.1",
    }
    return Built(**(values | more))


def test_a_build_is_remembered_with_its_own_time_and_compiler(tmp_path: Path) -> None:
    assert record_of(built(tmp_path), version="1.0.0", at=NOW) == PastBuild(
        node="pi",
        target="x86_64-unknown-netbsd",
        took=seconds(12),
        warmth=Warmth.WARM,
        at=NOW,
        version="1.0.0",
        rustc="1.94.1",
    )


def test_a_node_that_does_not_say_how_long_it_took_is_timed_from_here(tmp_path: Path) -> None:
    silent = built(tmp_path, took=None, warmth=None, own_rustc=None)
    remembered = record_of(silent, version="1.0.0", at=NOW)
    assert remembered is not None
    assert (remembered.took, remembered.warmth, remembered.rustc) == (seconds(20), None, None)


@pytest.mark.parametrize(("warmth", "remembered"), [(Warmth.WARM, Warmth.COLD), (None, None)])
def test_a_command_that_clears_its_folder_builds_from_cold(
    warmth: Warmth | None, remembered: Warmth | None, tmp_path: Path
) -> None:
    found = record_of(built(tmp_path, warmth=warmth), version="1.0.0", at=NOW, is_clean=True)
    assert found is not None
    assert found.warmth == remembered


def test_what_was_there_already_is_not_remembered_twice(tmp_path: Path) -> None:
    assert record_of(built(tmp_path, was_attached=True), version="1.0.0", at=NOW) is None


@pytest.mark.parametrize(
    ("failure_class", "is_final", "outcome"),
    [
        (FailureClass.MACHINE, False, Outcome.MACHINE),
        (FailureClass.BUILD, False, Outcome.BUILD),
        (FailureClass.STORE, False, None),
        (FailureClass.MACHINE, True, None),
    ],
)
def test_a_failure_is_remembered_by_whose_it_was(
    failure_class: FailureClass, *, is_final: bool, outcome: Outcome | None
) -> None:
    failed = Failed(
        node="pi", target=LINUX, failure_class=failure_class, message="m", is_final=is_final
    )
    remembered = record_of(failed, version="1.0.0", at=NOW)
    assert (remembered and remembered.outcome) == outcome


def test_who_stood_by_is_not_remembered() -> None:
    skipped = Skipped(node="pi", target=LINUX, reason="stands by")
    assert record_of(skipped, version="1.0.0", at=NOW) is None


def test_the_release_of_a_compiler_is_read_from_what_it_says() -> None:
    assert rustc_release("rustc 1.94.1 (abc 2026-03-25)") == "1.94.1"
    assert rustc_release("clang 19") is None
