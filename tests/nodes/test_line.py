from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import BuildError, LinkError, NodeError
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.line import Line
from orchestrator.nodes.local import LocalTransport
from tests.nodes.bench import Bench, bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.nodes.transport import Completed, RemoteProcess, Transport


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.nodes.line.BACKOFF", (0.01, 0.02))


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


class Wire:
    """Links of which some cannot be made, counted."""

    def __init__(self, *, refuses: Callable[[int], bool] = lambda _: False) -> None:
        self.links = 0
        self.open_links = 0
        self.transport: Transport = LocalTransport(os.environ)
        self.troubles: list[tuple[str, timedelta]] = []
        self._refuses = refuses

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Transport]:
        self.links += 1
        if self._refuses(self.links):
            raise LinkError(f"no route ({self.links})")
        self.open_links += 1
        try:
            yield self.transport
        finally:
            self.open_links -= 1

    def line(self, patience: Callable[[], timedelta] = lambda: timedelta(seconds=20)) -> Line:
        return Line(
            self.connect,
            patience=patience,
            on_lost=lambda error, pause: self.troubles.append((error.message, pause)),
        )


async def answer(_: Transport) -> str:
    return "done"


async def test_steps_share_one_link_that_is_closed_at_the_end() -> None:
    wire = Wire()
    async with wire.line() as line:
        assert not line.was_reached
        assert [await line.run(answer), await line.run(answer)] == ["done", "done"]
        assert (line.was_reached, line.is_at_work, wire.links) == (True, True, 1)
        assert line.lost_since is None
    assert (line.is_at_work, wire.open_links, wire.troubles) == (False, 0, [])


async def test_steps_at_once_share_a_link_and_the_one_that_replaces_it() -> None:
    wire = Wire()
    both_began = asyncio.Barrier(2)
    began = {"quick": 0, "late": 0}
    quick_is_done = asyncio.Event()

    async def quick(_: Transport) -> int:
        began["quick"] += 1
        if began["quick"] == 1:
            await both_began.wait()
            raise LinkError("cut")
        return wire.links

    async def late(_: Transport) -> int:
        began["late"] += 1
        if began["late"] == 1:
            await both_began.wait()
            await quick_is_done.wait()
            raise LinkError("cut, as is noticed only now")
        return wire.links

    async with wire.line() as line:
        other = asyncio.create_task(line.run(late))
        assert await line.run(quick) == 2
        quick_is_done.set()
        assert await other == 2
        assert began == {"quick": 2, "late": 2}
        assert wire.open_links == 1
    assert wire.open_links == 0


async def test_a_link_that_cannot_be_made_is_tried_again_with_growing_pauses() -> None:
    wire = Wire(refuses=lambda number: number < 4)
    async with wire.line() as line:
        assert await line.run(answer) == "done"
    assert wire.links == 4
    assert wire.troubles == [
        ("no route (1)", timedelta(seconds=0.01)),
        ("no route (2)", timedelta(seconds=0.02)),
        ("no route (3)", timedelta(seconds=0.02)),
    ]


async def test_the_last_error_is_raised_when_patience_is_over() -> None:
    wire = Wire(refuses=lambda _: True)
    async with wire.line(lambda: timedelta(seconds=0.05)) as line:
        with pytest.raises(LinkError, match=r"no route \([2-9]\)"):
            await line.run(answer)
    assert not line.was_reached


async def test_patience_is_asked_again_during_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.nodes.line.BACKOFF", (60,))
    wire = Wire(refuses=lambda _: True)
    # The others are done: nobody waits for the end of the pause.
    patience = iter((timedelta.max, timedelta.max))
    begun = time.monotonic()
    async with wire.line(lambda: next(patience, timedelta(0))) as line:
        with pytest.raises(LinkError, match="no route"):
            await line.run(answer)
    assert time.monotonic() - begun < 30


async def test_links_that_bring_nothing_are_not_tried_for_ever() -> None:
    wire = Wire()

    async def fail(_: Transport) -> None:
        raise LinkError("cut at once")

    async with wire.line(lambda: timedelta.max) as line:
        with pytest.raises(LinkError, match="cut at once"):
            await line.run(fail)
    assert wire.links == 4
    assert wire.open_links == 0


async def test_links_that_bring_something_are_tried_for_as_long_as_it_takes() -> None:
    wire = Wire()
    brought = 0

    async def bring(_: Transport) -> str:
        nonlocal brought
        brought += 1
        if brought < 12:
            raise LinkError("cut")
        return "all"

    async with wire.line() as line:
        assert await line.run(bring, progress=lambda: brought) == "all"
    assert wire.links == 12


@pytest.mark.parametrize("error", [NodeError("disk full"), BuildError("does not compile")])
async def test_what_is_no_trouble_of_the_link_is_not_tried_again(error: Exception) -> None:
    wire = Wire()

    async def fail(_: Transport) -> None:
        raise error

    async with wire.line() as line:
        with pytest.raises(type(error)):
            await line.run(fail)
    assert wire.links == 1


async def test_a_line_that_is_cancelled_lets_go_of_its_link() -> None:
    wire = Wire()

    reached = asyncio.Event()

    async def hang(_: Transport) -> None:
        reached.set()
        await asyncio.sleep(60)

    async def use() -> None:
        async with wire.line() as line:
            await line.run(hang)

    using = asyncio.create_task(use())
    await reached.wait()
    assert wire.open_links == 1
    using.cancel()
    await asyncio.wait((using,))
    assert using.cancelled()
    assert wire.open_links == 0


# --- a job behind a line that breaks -------------------------------------------------------------


class CutTransport(LocalTransport):
    """Links that break after a few bytes of log."""

    def __init__(self) -> None:
        super().__init__(os.environ)
        self.cuts = 0

    async def open(self, script: str, *args: str) -> RemoteProcess:  # type: ignore[override]  # wrapped
        process = await super().open(script, *args)
        return CutProcess(process, self) if "follow" in args and self.cuts < 3 else process


class CutProcess:
    def __init__(self, process: RemoteProcess, transport: CutTransport) -> None:
        self._process = process
        self._transport = transport
        self._has_read = False

    async def read(self) -> bytes:
        if self._has_read:
            self._transport.cuts += 1
            raise LinkError("the link is lost")
        self._has_read = True
        return await self._process.read()

    async def finish(self) -> Completed:
        return await self._process.finish()

    async def close(self) -> None:
        await self._process.close()


async def test_a_lost_link_is_survived_without_a_lost_byte(node: Bench) -> None:
    job = await node.start(node.spec("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"))
    transport = CutTransport()
    wire = Wire()
    wire.transport = transport
    log = bytearray()
    follower = Follower(
        on_log=log.extend, on_state=lambda _: None, silence_timeout=timedelta(seconds=9)
    )
    async with wire.line() as line:
        end = await line.run(
            lambda link: follow_job(link, job, follower), progress=lambda: follower.cursor.offset
        )
    require_success(end)
    assert transport.cuts == 3
    assert log == b"1\n2\n3\n4\n5\n"


async def test_time_without_a_link_is_no_silence_of_the_build(node: Bench) -> None:
    job = await node.start(node.spec("sleep 0.5; echo done"))
    follower = Follower(
        on_log=lambda _: None, on_state=lambda _: None, silence_timeout=timedelta(seconds=9)
    )
    # The last byte came long ago, over another link.
    follower.cursor.grew_at = time.monotonic() - 3600
    require_success(await follow_job(node.transport, job, follower))
