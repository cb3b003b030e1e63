from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.inventory import Node
from orchestrator.core.placement import Placement, place
from orchestrator.core.record import Outcome, PastBuild, Record
from orchestrator.core.target import parse_target

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
TARGET = parse_target("x86_64-unknown-linux-gnu")


def node(name: str, host: str = "", **more: Any) -> Node:
    return Node(name=name, host=host or f"{name}.example", target=TARGET, **more)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def record(*failed: str, **took: float) -> Record:
    builds = [PastBuild(node=name, took=minutes(number)) for name, number in took.items()]
    builds += [PastBuild(node=name, outcome=Outcome.MACHINE, at=NOW) for name in failed]
    return Record(builds=tuple(builds), now=NOW)


def chosen(placements: tuple[Placement, ...]) -> list[str]:
    return [placement.nodes[0].name for placement in placements]


def order(placement: Placement) -> list[str]:
    return [node.name for node in placement.nodes]


def test_the_node_that_is_done_first_builds_and_the_others_stand_by_in_that_order() -> None:
    nodes = (node("a"), node("b"), node("c"))
    (placed,) = place([nodes], record=record(a=9, b=3, c=5))
    assert order(placed) == ["b", "c", "a"]
    assert (placed.begins, placed.takes, placed.finish) == (minutes(0), minutes(3), minutes(3))


def test_what_is_queued_on_a_machine_counts() -> None:
    # The big host is faster for both targets, but not for one after the other.
    big = {"host": "big"}
    one = (node("one-big", **big), node("one-small"))
    two = (node("two-big", **big), node("two-small"))
    known = {"one-big": 10.0, "one-small": 30.0, "two-big": 8.0, "two-small": 12.0}
    first, second = place([one, two], record=record(**known))
    assert chosen((first, second)) == ["one-big", "two-small"]
    # Without the small host, the shorter one waits for the longer one.
    first, second = place([one[:1], two[:1]], record=record(**known))
    assert (second.begins, second.finish) == (minutes(10), minutes(18))
    assert (first.rank, second.rank) == (1, 2)


def test_the_longest_goes_first_where_machines_share_slots() -> None:
    guests = [(node(name, group="rig", slots=2),) for name in ("a", "b", "c", "d", "e")]
    placed = place(guests, record=record(a=2, b=3, c=3, d=2, e=4))
    ranked = sorted(placed, key=lambda each: each.rank)
    assert [each.nodes[0].name for each in ranked] == ["e", "b", "c", "a", "d"]
    assert max(each.finish or minutes(0) for each in placed) == minutes(8)
    # Hosts that share nothing begin at once.
    apart = [(node(name),) for name in ("a", "b")]
    assert {each.begins for each in place(apart, record=record(a=2, b=3))} == {minutes(0)}


def test_the_ports_of_one_address_are_machines_of_their_own() -> None:
    guests = [(node("a", "127.0.0.1", port=2201),), (node("b", "127.0.0.1", port=2202),)]
    placed = place(guests, record=record(a=2, b=3))
    assert {each.begins for each in placed} == {minutes(0)}


def test_a_node_that_was_never_measured_stands_by_and_without_measures_the_file_decides() -> None:
    nodes = (node("new"), node("slow"))
    (placed,) = place([nodes], record=record(slow=600))
    assert order(placed) == ["slow", "new"]
    (placed,) = place([nodes], record=record())
    assert order(placed) == ["new", "slow"]
    assert (placed.takes, placed.finish) == (None, None)


def test_what_was_never_measured_is_placed_after_what_was() -> None:
    unknown, known = (node("new", "h"),), (node("old", "h"),)
    first, second = place([unknown, known], record=record(old=5))
    assert (first.rank, second.rank) == (2, 1)
    assert first.begins == minutes(5)


def test_a_machine_in_trouble_goes_behind_even_one_that_was_never_measured() -> None:
    nodes = (node("fast"), node("new"), node("slow"))
    (placed,) = place([nodes], record=record("fast", fast=1, slow=9))
    assert order(placed) == ["slow", "new", "fast"]


def test_a_variant_goes_after_the_build_for_every_cpu() -> None:
    variant = (node("linux-v3", "h", variant_of="linux"),)
    first, second = place([variant, (node("linux", "h"),)], record=record(linux=1))
    assert (first.rank, second.rank) == (2, 1)


def test_what_has_begun_goes_on_whatever_is_known() -> None:
    nodes = (node("fast"), node("begun"))
    (placed,) = place([nodes], record=record("begun", fast=1), begun={"begun"})
    assert order(placed) == ["begun", "fast"]
    # It runs already, so that others wait for it.
    long, short = (node("long", "h"),), (node("short", "h"),)
    first, second = place([long, short], record=record(long=9, short=2), begun={"short"})
    assert (first.begins, second.begins) == (minutes(2), minutes(0))


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("xyz"), st.none() | st.integers(1, 50)),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_a_plan_is_possible_and_the_same_each_time(
    shape: list[list[tuple[str, int | None]]], slots: int
) -> None:
    targets = [
        tuple(node(f"n{i}-{j}", host, slots=slots) for j, (host, _) in enumerate(nodes))
        for i, nodes in enumerate(shape)
    ]
    took = {
        f"n{i}-{j}": float(number)
        for i, nodes in enumerate(shape)
        for j, (_, number) in enumerate(nodes)
        if number is not None
    }
    placed = place(targets, record=record(**took))
    assert placed == place(targets, record=record(**took))
    assert [set(each.nodes) for each in placed] == [set(nodes) for nodes in targets]
    assert sorted(each.rank for each in placed) == list(range(1, len(targets) + 1))
    for moment in (each.begins for each in placed):
        for host in "xyz":
            busy = [
                each
                for each in placed
                if each.nodes[0].host == host
                and each.begins <= moment < (each.finish or each.begins)
            ]
            assert len(busy) <= slots
    if len(targets) == 1 and took:
        assert placed[0].takes == min(minutes(number) for number in took.values())


def test_every_order_of_the_nodes_gives_the_same_choice() -> None:
    nodes = (node("a"), node("b"))
    for first, second in product(nodes, nodes):
        if first is not second:
            (placed,) = place([(first, second)], record=record(a=2, b=1))
            assert order(placed) == ["b", "a"]
