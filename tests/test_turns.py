"""Whose turn it is: the slots of a group, the longest first, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.turns import Turns

if TYPE_CHECKING:
    import pytest


def node(name: str, group: str | None = "rig", slots: int = 1) -> Node:
    target = parse_target("x86_64-unknown-netbsd")
    return Node(name=name, host="h", target=target, group=group, slots=slots)


class Stage:
    """Builds that begin when it is their turn, and end when they are told to."""

    def __init__(self, *ranks: tuple[Node, int]) -> None:
        self.turns = Turns(ranks)
        self.begun: list[str] = []
        self.changed = asyncio.Event()
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *nodes: Node) -> None:
        for each in nodes:
            self.ends[each.name] = asyncio.Event()
            self.tasks[each.name] = asyncio.create_task(self._build(each))
        await settle()

    async def _build(self, each: Node) -> None:
        async with self.turns.of(each):
            self.begun.append(each.name)
            self.changed.set()
            await self.ends[each.name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


A, B, C = node("a"), node("b"), node("c")


async def test_only_as_many_as_there_are_slots_build_at_once() -> None:
    nodes = [node(name, slots=2) for name in ("a", "b", "c")]
    stage = Stage()
    await stage.come(*nodes)
    assert stage.begun == ["a", "b"]
    await stage.end("b")
    assert stage.begun == ["a", "b", "c"]


async def test_who_has_no_group_waits_for_nobody() -> None:
    stage = Stage()
    free = [node(name, group=None) for name in ("a", "b")]
    await stage.come(*free)
    stage.turns.leave(free[0])
    assert stage.begun == ["a", "b"]


async def test_the_longest_goes_first_also_when_it_comes_last() -> None:
    stage = Stage((A, 3), (B, 2), (C, 1))
    await stage.come(A, B)
    assert stage.begun == []
    await stage.come(C)
    assert stage.begun == ["c"]
    await stage.end("c")
    await stage.end("b")
    assert stage.begun == ["c", "b", "a"]


async def test_whoever_does_not_come_any_more_is_not_waited_for() -> None:
    stage = Stage((A, 2), (B, 1))
    await stage.come(A)
    assert stage.begun == []
    stage.turns.leave(B)
    stage.turns.leave(B)
    await settle()
    assert stage.begun == ["a"]


async def test_a_node_that_is_late_costs_the_others_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.turns._GRACE_SECONDS", 0.05)
    stage = Stage((A, 2), (B, 1))
    await stage.come(A)
    assert stage.begun == []
    async with asyncio.timeout(10):
        await stage.changed.wait()
    assert stage.begun == ["a"]
    await stage.come(B)
    await stage.end("a")
    assert stage.begun == ["a", "b"]


async def test_a_turn_that_is_given_up_while_it_waits_is_nobodys() -> None:
    stage = Stage()
    await stage.come(A, B, C)
    stage.tasks["b"].cancel()
    await stage.end("a")
    assert stage.begun == ["a", "c"]


async def test_a_turn_that_is_given_up_while_it_builds_is_free_for_the_next() -> None:
    stage = Stage()
    await stage.come(A, B, C)
    stage.tasks["a"].cancel()
    await settle()
    assert stage.begun == ["a", "b"]


async def test_a_turn_that_is_given_up_as_it_is_granted_is_free_for_the_next() -> None:
    stage = Stage()
    await stage.come(A, B, C)
    stage.ends["a"].set()
    for _ in range(10):
        if len(stage.turns._groups["rig"]._waiting) == 1:
            break
        await asyncio.sleep(0)
    stage.tasks["b"].cancel()
    await settle()
    assert stage.begun == ["a", "c"]


async def test_turns_that_are_given_up_at_once_are_given_up_quietly() -> None:
    stage = Stage()
    await stage.come(A, B, C)

    # As Ctrl-C does: the one that builds ends while the next one is on its way out.
    for name in ("a", "b"):
        stage.tasks[name].cancel()
    await settle()

    assert stage.tasks["a"].cancelled()
    assert stage.tasks["b"].cancelled()
    assert stage.begun == ["a", "c"]
