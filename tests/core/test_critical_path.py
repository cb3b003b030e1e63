"""What a release waited for."""

from __future__ import annotations

from orchestrator.core.critical_path import Segment, Work, critical_path


def work(
    node: str, *spans: tuple[str, float, float], group: str = "", stands_by_for: str | None = None
) -> Work:
    return Work(node=node, group=group or node, stands_by_for=stands_by_for, spans=spans)


def path(*works: Work) -> list[tuple[str, float, float]]:
    return [(each.node, each.begin, each.end) for each in critical_path(works)]


def test_without_work_there_is_no_path() -> None:
    assert critical_path([]) == ()


def test_it_is_the_node_that_was_done_last() -> None:
    assert path(
        work("a", ("building", 0, 10)), work("b", ("building", 1, 30), ("gating", 30, 31))
    ) == [("b", 1, 31)]


def test_who_took_over_had_to_wait_for_the_one_that_failed() -> None:
    assert path(
        work("a", ("building", 0, 10)),
        work("b", ("building", 11, 30), stands_by_for="a"),
        work("c", ("building", 0, 20)),
    ) == [("a", 0, 10), ("b", 11, 30)]


def test_who_waited_for_a_machine_had_to_wait_for_the_build_there_and_for_no_more_of_it() -> None:
    assert path(
        work("a", ("building", 0, 10), ("gating", 10, 15), group="big"),
        work(
            "b", ("connecting", 0, 1), ("pushing source", 1, 10), ("building", 11, 30), group="big"
        ),
        work("c", ("building", 0, 9), group="other"),
    ) == [("a", 0, 10), ("b", 10, 30)]


def test_of_several_builds_before_it_the_last_is_the_one() -> None:
    assert path(
        work("a", ("building", 0, 10), group="big"),
        work("b", ("connecting", 0, 10), ("building", 10, 20), group="big"),
        work("c", ("connecting", 0, 20), ("building", 20, 30), group="big"),
    ) == [("a", 0, 10), ("b", 10, 20), ("c", 20, 30)]


def test_a_build_long_before_it_was_nothing_to_wait_for() -> None:
    assert path(
        work("a", ("building", 0, 10), group="big"),
        work("b", ("connecting", 0, 60), ("building", 60, 90), group="big"),
    ) == [("b", 0, 90)]


def test_a_build_on_another_machine_was_nothing_to_wait_for() -> None:
    assert path(
        work("a", ("building", 0, 10), group="small"),
        work("b", ("connecting", 0, 10), ("building", 10, 90), group="big"),
    ) == [("b", 0, 90)]


def test_a_build_before_it_began_was_nothing_to_wait_for() -> None:
    assert path(
        work("a", ("building", 0, 10), group="big"),
        work("b", ("connecting", 12, 14), ("building", 14, 90), group="big"),
    ) == [("b", 12, 90)]


def test_who_never_built_waited_for_nobody() -> None:
    assert path(
        work("a", ("building", 0, 10), group="big"),
        work("b", ("connecting", 0, 60), group="big"),
        work("c", ("connecting", 0, 50), group="big"),
    ) == [("b", 0, 60)]


def test_two_that_name_one_another_end() -> None:
    assert path(
        work("a", ("building", 0, 10), stands_by_for="b"),
        work("b", ("building", 11, 30), stands_by_for="a"),
    ) == [("a", 0, 10), ("b", 11, 30)]


def test_a_path_is_whole() -> None:
    assert critical_path([work("a", ("building", 0.5, 10))]) == (
        Segment(node="a", begin=0.5, end=10),
    )
