"""Nodes that are virtual machines: started for whoever needs them first, stopped after the last."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pytest

from orchestrator.core.errors import NodeError, PassingError
from orchestrator.core.inventory import Node
from orchestrator.nodes.vm.guests import Guests
from orchestrator.nodes.vm.lock import open_lock, try_lock
from orchestrator.nodes.vm.machine import Machine
from tests.nodes import sshd
from tests.releases import wait_for
from tests.vms.test_machine import Bench, bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.nodes.transport import Transport

__all__ = ["bench"]

pytestmark = sshd.needs_sshd


class Desk:
    """What a run connects to, and what it was told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.reached: list[Node] = []
        self.told: list[tuple[str, str]] = []

    def guests(self, *, starts: bool = True) -> Guests:
        return Guests(
            connect=self._connect,
            machine_of=lambda _name, _say: self.bench.machine,
            on_boot=lambda node, text: self.told.append((node.name, text)),
            warn=lambda text: self.told.append(("", text)),
            starts=starts,
        )

    @asynccontextmanager
    async def _connect(self, node: Node) -> AsyncIterator[Transport]:
        self.reached.append(node)
        yield cast("Transport", None)

    def node(self, name: str = "guest", *, vm: str | None = "debian", host: str = "") -> Node:
        return Node(
            name=name,
            host=host or f"vm:{vm}",
            target=self.bench.machine.vm.target,
            vm=vm,
            connect_timeout=timedelta(seconds=1),
        )


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


async def use(guests: Guests, *nodes: Node) -> None:
    async def once(node: Node) -> None:
        async with guests.open(node):
            pass

    await asyncio.gather(*map(once, nodes))


async def test_a_machine_of_two_nodes_is_started_once_and_stopped_at_the_end(desk: Desk) -> None:
    async with desk.guests() as guests:
        await use(guests, desk.node("builds"), desk.node("gates"))
        assert desk.bench.folder.is_running
        await use(guests, desk.node("builds"))
        assert desk.bench.folder.is_running

    assert desk.bench.starts == ["max"]
    assert not desk.bench.folder.is_running


async def test_a_guest_is_reached_by_the_keys_that_it_was_made_with(desk: Desk) -> None:
    async with desk.guests() as guests:
        await use(guests, desk.node())

    reached, way = desk.reached[0], desk.bench.machine.way_in()
    assert (reached.host, reached.port) == (way.host, way.port)
    assert (reached.host_key, reached.identity) == (way.host_key, way.identity)
    assert reached.name == "guest"
    # A handshake with an emulated machine takes longer than the node's own second.
    assert reached.connect_timeout > timedelta(seconds=1)
    assert ("guest", "") in desk.told


async def test_a_node_with_an_address_of_its_own_is_reached_there(desk: Desk) -> None:
    node = desk.node(host="alex@vm.example.org")

    async with desk.guests() as guests:
        await use(guests, node)
        assert desk.bench.folder.is_running

    assert desk.reached == [node]


async def test_a_node_without_a_machine_is_none_of_its_business(desk: Desk) -> None:
    node = desk.node(vm=None, host="alex@vm.example.org")

    async with desk.guests() as guests:
        await use(guests, node)

    assert desk.reached == [node]
    assert not desk.bench.folder.is_running


async def test_a_machine_that_runs_by_hand_goes_on_running(desk: Desk) -> None:
    await desk.bench.machine.start()

    async with desk.guests() as guests:
        await use(guests, desk.node())

    assert desk.bench.folder.is_running
    assert desk.bench.starts == ["max"]


async def test_the_last_of_two_runs_stops_the_machine(desk: Desk) -> None:
    async with desk.guests() as first:
        await use(first, desk.node())
        async with desk.guests() as second:
            await use(second, desk.node())
            await first.__aexit__(None, None, None)
            assert await desk.bench.machine.status() == "running"

    assert await desk.bench.machine.status() == "stopped"


async def test_a_run_that_breaks_off_leaves_the_guest_and_the_next_one_stops_it(desk: Desk) -> None:
    async def break_off() -> None:
        async with desk.guests() as guests:
            await use(guests, desk.node())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await break_off()
    assert await desk.bench.machine.status() == "running"

    async with desk.guests() as guests:
        await use(guests, desk.node())

    assert await desk.bench.machine.status() == "stopped"
    assert desk.bench.starts == ["max"]


async def test_who_only_looks_starts_nothing_and_stops_nothing(desk: Desk) -> None:
    async with desk.guests(starts=False) as guests:
        with pytest.raises(NodeError, match="is not running"):
            await use(guests, desk.node())
    assert not desk.bench.folder.file("starts").exists()

    await desk.bench.machine.start(on_demand=True)
    async with desk.guests(starts=False) as guests:
        await use(guests, desk.node())
    assert await desk.bench.machine.status() == "running"


async def test_a_machine_that_ends_while_it_is_used_may_be_tried_again(desk: Desk) -> None:
    async with desk.guests() as guests:
        await use(guests, desk.node())
        pid = desk.bench.folder.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: not desk.bench.folder.is_running)

        with pytest.raises(PassingError, match="has ended while it was used"):
            await use(guests, desk.node())
        await use(guests, desk.node())

    assert desk.bench.starts == ["max", "max"]


@pytest.mark.thorough
async def test_a_boot_that_failed_is_told_to_all_and_not_repeated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "dies")

    async with desk.guests() as guests:
        for _ in range(2):
            with pytest.raises(NodeError, match="did not come up"):
                await use(guests, desk.node())

    # Each of these is the boot and its one repetition.
    assert len(desk.bench.starts) == 2


async def test_a_machine_that_cannot_be_stopped_takes_nothing_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Machine) -> str | None:
        raise NodeError("the QEMU cannot be ended")

    monkeypatch.setattr(Machine, "stop", refuse)

    async with desk.guests() as guests:
        await use(guests, desk.node())

    name = desk.bench.machine.vm.name
    told = f"the virtual machine {name} is not stopped: the QEMU cannot be ended"
    assert ("", told) in desk.told


async def test_who_comes_while_another_run_stops_the_machine_waits_and_then_shares_it(
    desk: Desk,
) -> None:
    lock = desk.bench.folder.users_lock
    leaving = open_lock(lock)
    assert try_lock(leaving)
    async with desk.guests() as guests:
        coming = asyncio.create_task(use(guests, desk.node()))
        await asyncio.to_thread(wait_for, lambda: desk.told)
        assert not desk.bench.folder.is_running
        os.close(leaving)
        await coming

        # A third one that leaves now does not stop it under this one.
        third = open_lock(lock)
        assert not try_lock(third)
        os.close(third)


async def test_who_only_looks_does_not_keep_a_machine_on(desk: Desk) -> None:
    async with desk.guests(starts=False) as onlooker:
        async with desk.guests() as guests:
            await use(guests, desk.node())
            await use(onlooker, desk.node())

        assert await desk.bench.machine.status() == "stopped"


async def test_a_state_that_cannot_be_written_is_one_nodes_trouble(desk: Desk) -> None:
    folder = desk.bench.folder
    folder.file("accelerator").mkdir()

    async with desk.guests() as guests:
        with pytest.raises(NodeError, match="Is a directory"):
            await use(guests, desk.node())
