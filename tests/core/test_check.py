"""What was found on all nodes together: who must act, and whether a release can start."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.core.check import Check, CheckedNode, check_as_data, nodes_to_check
from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.finding import Finding, fine, problem, warning
from orchestrator.core.inventory import Inventory, Node, Policy, Project, Publication
from orchestrator.core.preflight import GATE_ONLY, Needs, needs_of
from orchestrator.core.target import parse_target

NETBSD = parse_target("x86_64-unknown-netbsd")
PROJECT = Project(name="tool", binaries=("tool",), build_command="make")
BAD_CONFIG = Finding.of("key", ConfigError("no key", hint="make one"))
BAD_STORE = Finding.of("store", StoreError("read-only", hint="let me"))
BAD_NODE = problem("disk", "full", "make room")
MEAGRE = warning("memory", "small", "add some")


def node(name: str, **keys: object) -> Node:
    return Node(name=name, host=f"{name}.example", target=NETBSD, **keys)  # type: ignore[arg-type]  # a test's own keywords


def checked(
    each: Node, *findings: Finding, needs: Needs | None = None, counts: bool = True
) -> CheckedNode:
    return CheckedNode(node=each, findings=findings, needs=needs or Needs(), counts=counts)


def check(*nodes: CheckedNode, coordinator: tuple[Finding, ...] = ()) -> Check:
    return Check(project="tool", coordinator=coordinator, nodes=nodes)


@pytest.mark.parametrize(
    ("coordinator", "found", "code"),
    [
        ((), (), 0),
        ((MEAGRE,), (MEAGRE,), 0),
        ((), (BAD_NODE, MEAGRE), 3),
        ((BAD_STORE,), (), 5),
        ((BAD_STORE,), (BAD_NODE,), 3),
        ((BAD_STORE, BAD_CONFIG), (BAD_NODE,), 2),
    ],
)
def test_the_exit_code_is_the_lowest_of_those_who_must_act(
    coordinator: tuple[Finding, ...], found: tuple[Finding, ...], code: int
) -> None:
    assert check(checked(node("a"), *found), coordinator=coordinator).exit_code == code


def test_a_node_that_does_not_count_is_named_and_changes_no_exit_code() -> None:
    result = check(checked(node("a")), checked(node("b"), BAD_NODE, counts=False))
    assert result.exit_code == 0
    assert result.verdict == "a release can start, without b"


def test_a_release_starts_when_all_is_well_whatever_is_only_a_warning() -> None:
    result = check(checked(node("a"), MEAGRE), coordinator=(MEAGRE,))
    assert (result.can_start, result.verdict) == (True, "a release can start")


def test_what_is_wrong_here_stops_a_release_and_a_node_stops_itself() -> None:
    here = check(checked(node("a")), coordinator=(BAD_STORE,))
    assert not here.can_start
    assert here.verdict == "a release cannot start: see what is wrong on this machine"

    for nodes in ((), (checked(node("a"), BAD_NODE),)):
        none = check(*nodes)
        assert not none.can_start
        assert none.verdict == "a release cannot start: no node can build"

    one = check(checked(node("a"), BAD_NODE), checked(node("b")))
    assert one.can_start
    assert one.verdict == "a release can start, without a"


def test_without_a_required_node_a_release_builds_and_publishes_nothing() -> None:
    needed = checked(node("a", policy=Policy.REQUIRED), BAD_NODE)
    result = check(needed, checked(node("b"), BAD_NODE), checked(node("c")))
    assert result.verdict == "a release can start, but publishes nothing without a"
    assert result.can_start


def test_a_node_is_ready_when_one_of_its_gates_is() -> None:
    builder = checked(node("a", gate_on=("b", "c")))
    bad, good = checked(node("b"), BAD_NODE, needs=GATE_ONLY), checked(node("c"), needs=GATE_ONLY)
    assert check(builder, bad, good).verdict == "a release can start"
    assert check(builder, bad).verdict == "a release cannot start: no node can build"
    # Who only runs gates is no builder.
    assert check(good).verdict == "a release cannot start: no node can build"


def test_all_enabled_nodes_are_checked_and_the_gates_that_they_name() -> None:
    inventory = Inventory(
        project=PROJECT,
        publication=Publication(),
        nodes=(
            node("a", gate_on=("gate",)),
            node("off", enabled=False),
            node("gate", enabled=False),
            node("b"),
        ),
    )
    builds = needs_of(PROJECT, inventory.nodes[0])

    def chosen(*names: str) -> list[tuple[str, Needs]]:
        return [(each.node.name, each.needs) for each in nodes_to_check(inventory, names)]

    assert chosen() == [("a", builds), ("gate", GATE_ONLY), ("b", builds)]
    assert chosen("off") == [("off", builds)]
    assert chosen("gate", "a") == [("a", builds), ("gate", builds)]
    assert chosen("b", "b") == [("b", builds)]
    with pytest.raises(ConfigError, match="no node is named `c`") as caught:
        chosen("a", "c")
    assert caught.value.hint == "the nodes are: a, off, gate, b"


def test_a_best_effort_node_counts_when_it_is_named_and_a_gate_when_its_builder_does() -> None:
    effort = Policy.BEST_EFFORT
    inventory = Inventory(
        project=PROJECT,
        publication=Publication(),
        nodes=(
            node("a", gate_on=("first",)),
            node("b", policy=effort, gate_on=("first", "second")),
            node("first", enabled=False, policy=effort),
            node("second", enabled=False),
        ),
    )

    def counted(*names: str) -> list[str]:
        return [each.node.name for each in nodes_to_check(inventory, names) if each.counts]

    assert counted() == ["a", "first"]
    assert counted("b") == ["b", "first", "second"]


def test_a_check_is_plain_data() -> None:
    each = replace(checked(node("a")), findings=(fine("linker", "/usr/bin/cc"), MEAGRE))
    data = check_as_data(check(each, coordinator=(BAD_STORE,)))
    assert json.loads(json.dumps(data)) == {
        "project": "tool",
        "exit_code": 5,
        "can_start": False,
        "verdict": "a release cannot start: see what is wrong on this machine",
        "coordinator": [
            {"check": "store", "state": "problem", "message": "read-only", "hint": "let me"}
        ],
        "nodes": [
            {
                "node": "a",
                "target": "x86_64-unknown-netbsd",
                "host": "a.example",
                "policy": "expected",
                "builds": True,
                "findings": [
                    {"check": "linker", "state": "ok", "message": "/usr/bin/cc", "hint": None},
                    {"check": "memory", "state": "warning", "message": "small", "hint": "add some"},
                ],
            }
        ],
    }
