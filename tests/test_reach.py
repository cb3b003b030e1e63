"""How long a node that is lost is waited for, and what the lines of a run tell one another."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from orchestrator.core.errors import LinkError
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.reach import Reach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.nodes.line import Line
    from orchestrator.nodes.transport import Transport

CONNECT: Final = timedelta(seconds=20)
RECONNECT: Final = timedelta(minutes=7)
LONG: Final = timedelta(hours=3)


def node(name: str, host: str | None = None, **changes: object) -> Node:
    values: dict[str, object] = {
        "name": name,
        "host": host or f"{name}.example",
        "target": parse_target("x86_64-unknown-netbsd"),
        "connect_timeout": CONNECT,
        "reconnect_timeout": RECONNECT,
        "timeout": LONG,
    }
    return Node(**(values | changes))  # type: ignore[arg-type]  # a test's own keywords


class Network:
    """Hosts that can be taken down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.dialled: list[str] = []

    @asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[Transport]:
        self.dialled.append(node.name)
        if node.host in self.down:
            raise LinkError(f"{node.host} is silent")
        yield object()  # type: ignore[misc]  # nothing is asked of it


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.nodes.line.BACKOFF", (0.01,))
    monkeypatch.setattr("orchestrator.reach._FIRST_PATIENCE", timedelta(seconds=0.02))


async def greet(_: object) -> str:
    return "hello"


class Fleet:
    """Lines of one run, each reached and with a job at its end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.reach = Reach()
        self.network = Network()
        self._stack = stack

    async def line(self, node: Node, *, has_spare: bool = False, has_job: bool = True) -> Line:
        line = await self._stack.enter_async_context(
            self.reach.line(
                self.network.connect, node, has_spare=has_spare, on_lost=lambda *_: None
            )
        )
        assert await line.run(greet) == "hello"
        line.has_job = has_job
        return line


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield Fleet(stack)


async def lose(line: Line) -> timedelta:
    """Lose the link to the node, and return how long it is waited for now."""
    await line._hang_up()
    assert line.contact_at is not None
    line.lost_since = line.contact_at + 1
    return line._patience()


async def test_before_there_is_a_job_a_node_has_its_connect_timeout(fleet: Fleet) -> None:
    assert await lose(await fleet.line(node("a"), has_job=False)) == CONNECT


async def test_when_nobody_answers_it_may_be_our_own_network(fleet: Fleet) -> None:
    a, b = await fleet.line(node("a")), await fleet.line(node("b"))
    assert await lose(b) == RECONNECT
    assert await lose(a) == RECONNECT


async def test_a_lost_node_is_waited_for_as_long_as_others_work(fleet: Fleet) -> None:
    a, b = await fleet.line(node("a")), await fleet.line(node("b"))
    assert await lose(a) == RECONNECT, "nobody was heard of since"
    assert a.lost_since is not None
    b.contact_at = a.lost_since + 1
    assert a._patience() == LONG
    await b.__aexit__()
    assert a._patience() == CONNECT, "the others are done"


async def test_who_waits_for_the_lost_node_is_not_at_work(fleet: Fleet) -> None:
    a, b = await fleet.line(node("a")), await fleet.line(node("b"))
    await lose(a)
    assert a.lost_since is not None
    b.contact_at = a.lost_since + 1
    # Its turn comes when a's has ended: each would wait for the other.
    b.is_waiting = True
    assert a._patience() == CONNECT


async def test_a_node_with_a_spare_is_not_waited_for(fleet: Fleet) -> None:
    a, b = await fleet.line(node("a"), has_spare=True), await fleet.line(node("b"))
    await lose(a)
    assert a.lost_since is not None
    b.contact_at = a.lost_since + 1
    assert a._patience() == CONNECT


async def test_only_another_host_proves_that_the_network_works(fleet: Fleet) -> None:
    a = await fleet.line(node("a"))
    same = await fleet.line(node("same", host="a.example"))
    here = await fleet.line(node("here", host="local"))
    await lose(a)
    assert a.lost_since is not None
    same.contact_at = here.contact_at = a.lost_since + 1
    assert a._patience() == RECONNECT


async def test_a_dead_host_is_dialled_in_one_place_only(fleet: Fleet) -> None:
    fleet.network.down.add("a.example")
    with pytest.raises(LinkError, match=r"^a\.example is silent$"):
        await visit(fleet, node("a"))
    dialled = len(fleet.network.dialled)
    for other in (node("a"), node("second", host="a.example")):
        with pytest.raises(LinkError, match=r"is silent \(as found earlier in this run"):
            await visit(fleet, other)
    assert len(fleet.network.dialled) == dialled
    await visit(fleet, node("b"))


async def visit(fleet: Fleet, node: Node) -> None:
    async with fleet.reach.line(
        fleet.network.connect, node, has_spare=False, on_lost=lambda *_: None
    ) as line:
        await line.run(greet)


async def test_a_host_that_was_reached_once_is_not_given_up(fleet: Fleet) -> None:
    line = await fleet.line(node("a", connect_timeout=timedelta(0)), has_job=False)
    await line._hang_up()
    fleet.network.down.add("a.example")
    with pytest.raises(LinkError, match="silent"):
        await line.run(greet)
    fleet.network.down.clear()
    await fleet.line(node("a"))
