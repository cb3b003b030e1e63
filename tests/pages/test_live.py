"""Who follows what runs: news in order, made once, and never more than can be taken."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from orchestrator.core.events import LogAppended, NodeFinished, Phase, ReleaseStarted, Warned
from orchestrator.core.log_tail import TAIL_BYTES
from orchestrator.service.live import STILL_HERE
from tests.pages.scenes import Scene, busy_release, end_release, failed, order, phase, plan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def news(frames: AsyncGenerator[bytes]) -> dict[str, Any]:
    """Return what the next event tells."""
    async for frame in frames:
        if frame != STILL_HERE:
            assert frame.startswith(b"data: ")
            assert frame.endswith(b"\n\n")
            assert frame.count(b"\n") == 2
            return dict(json.loads(frame.removeprefix(b"data: ")))
    raise AssertionError("nobody told anything")


def nodes(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["node"]: row for release in told["releases"] for row in release["rows"]}


async def test_who_comes_gets_all_that_is_there_and_then_only_what_changed() -> None:
    scene = Scene()
    running = scene.begin()
    busy_release(running)
    async with aclosing(scene.live.follow()) as frames:
        first = nodes(await news(frames))
        running.at(121, phase("windows", Phase.GATING))
        second = nodes(await news(frames))

    assert list(first) == ["linux", "netbsd", "netbsd-2", "openbsd", "windows"]
    assert first["linux"]["lines"] == ["   Compiling serde v1.0", "   Compiling tool v1.2.3"]
    assert [(name, row["phase"]) for name, row in second.items()] == [("windows", "gating")]
    assert second["windows"]["since"] == "2026-11-26T08:02:01.000Z"


async def test_lines_of_a_log_are_told_once_and_by_their_numbers() -> None:
    scene = Scene()
    running = scene.begin()
    running.at(0, ReleaseStarted(plan=plan()))
    running.at(1, LogAppended(node="linux", data=b"one\ntwo\n"))
    async with aclosing(scene.live.follow()) as frames:
        first = nodes(await news(frames))["linux"]
        running.at(2, LogAppended(node="linux", data=b"three\nfo"))
        second = nodes(await news(frames))["linux"]
        running.at(3, LogAppended(node="linux", data=b"ur\n"))
        third = nodes(await news(frames))["linux"]

    assert (first["first"], first["lines"]) == (0, ["one", "two"])
    assert (second["first"], second["lines"]) == (2, ["three"])
    assert (third["first"], third["lines"]) == (3, ["four"])


async def test_what_happens_in_a_moment_is_told_at_once() -> None:
    scene = Scene()
    running = scene.begin()
    running.at(0, ReleaseStarted(plan=plan()))
    async with aclosing(scene.live.follow()) as frames:
        await news(frames)
        for number in range(1000):
            running.tell(phase("linux", Phase.BUILDING, f"{number}"))
            running.tell(LogAppended(node="linux", data=b"%d\n" % number))
        row = nodes(await news(frames))["linux"]

    assert row["note"] == "999"
    assert (row["lines"][-1], len(row["lines"])) == ("999", 200)


async def test_fifty_followers_share_the_bytes() -> None:
    scene = Scene()
    running = scene.begin()
    busy_release(running)
    followers = [scene.live.follow() for _ in range(50)]
    await asyncio.gather(*(anext(each) for each in followers))
    running.at(121, phase("windows", Phase.GATING))
    frames = await asyncio.gather(*(anext(each) for each in followers))
    for each in followers:
        await each.aclose()

    assert len({id(frame) for frame in frames}) == 1
    assert scene.live.followers == 0


async def test_a_slow_follower_misses_what_was_between_and_gets_what_is() -> None:
    scene = Scene(pause_seconds=0)
    running = scene.begin()
    busy_release(running)
    async with aclosing(scene.live.follow()) as slow, aclosing(scene.live.follow()) as quick:
        await news(slow)
        await news(quick)
        for number in range(300):
            running.tell(LogAppended(node="windows", data=b"%d\n" % number))
            running.tell(phase("openbsd", Phase.BUILDING, f"{number}"))
            await news(quick)
        told = nodes(await news(slow))

    assert list(told) == ["openbsd", "windows"]
    assert told["openbsd"]["note"] == "299"
    lines = told["windows"]["lines"]
    assert (told["windows"]["first"], len(lines), lines[-1]) == (100, 200, "299")


async def test_an_event_stays_small_whatever_a_node_writes() -> None:
    scene = Scene()
    running = scene.begin()
    running.at(0, ReleaseStarted(plan=plan()))
    async with aclosing(scene.live.follow()) as frames:
        await anext(frames)
        for _ in range(100):
            running.tell(LogAppended(node="linux", data=b"\x1b\xff<\n" * 100_000))
        frame = await anext(frames)

    assert len(frame) < 2 * TAIL_BYTES


async def test_a_mark_changes_when_a_page_has_to_be_made_again_and_not_for_each_line() -> None:
    scene = Scene()
    marks = [scene.live.mark]
    running = scene.begin()
    marks.append(scene.live.mark)
    running.at(0, ReleaseStarted(plan=plan()))
    marks.append(scene.live.mark)
    running.at(1, phase("linux", Phase.CONNECTING))
    marks.append(scene.live.mark)
    running.at(2, phase("linux", Phase.BUILDING), LogAppended(node="linux", data=b"x\n"))
    assert scene.live.mark == marks[-1]
    running.at(3, Warned(message="look out"))
    marks.append(scene.live.mark)
    scene.live.touch()
    marks.append(scene.live.mark)
    running.end(4, error="stopped")
    marks.append(scene.live.mark)

    assert len(set(marks)) == len(marks)
    assert Scene().live.mark != Scene().live.mark


async def test_a_new_mark_is_told_even_if_no_node_changed() -> None:
    scene = Scene()
    async with aclosing(scene.live.follow()) as frames:
        first = await news(frames)
        scene.live.touch()
        second = await news(frames)

    assert first["mark"] != second["mark"] == scene.live.mark
    assert second["releases"] == []


async def test_a_release_that_ended_is_not_told_of_any_more() -> None:
    scene = Scene()
    running = scene.begin()
    busy_release(running)
    async with aclosing(scene.live.follow()) as frames:
        await news(frames)
        end_release(running)
        told = await news(frames)

    assert told["releases"] == []
    assert list(scene.live.releases()) == []


async def test_an_end_that_was_told_already_is_no_trouble() -> None:
    scene = Scene()
    scene.live.end(order(), {})

    assert list(scene.live.releases()) == []


async def test_the_end_of_a_log_without_an_end_of_line_is_told_when_the_node_is_done() -> None:
    scene = Scene()
    running = scene.begin()
    busy_release(running)
    running.tell(LogAppended(node="windows", data=b"error: out of memory"))
    [before] = scene.live.releases()
    running.tell(NodeFinished(node="windows", result=failed("windows")))
    [after] = scene.live.releases()

    assert before.logs["windows"].lines == ()
    assert after.logs["windows"].lines == ("error: out of memory",)


async def test_who_follows_in_silence_is_told_that_somebody_is_here() -> None:
    scene = Scene()
    async with aclosing(scene.live.follow()) as frames:
        await news(frames)

        assert await anext(frames) == STILL_HERE
        assert await anext(frames) == STILL_HERE


async def test_at_the_end_all_followers_are_let_go() -> None:
    scene = Scene()
    running = scene.begin()
    running.at(0, ReleaseStarted(plan=plan()))
    async with aclosing(scene.live.follow()) as frames:
        await news(frames)
        running.at(1, phase("linux", Phase.BUILDING))
        scene.live.close()

        assert [frame async for frame in frames if frame != STILL_HERE] == []
    assert [frame async for frame in scene.live.follow()] == []
    scene.live.touch()


async def test_what_happened_while_nobody_followed_is_told_to_who_comes() -> None:
    scene = Scene()
    running = scene.begin()
    running.at(0, ReleaseStarted(plan=plan()))
    async with aclosing(scene.live.follow()) as frames:
        await news(frames)
    running.at(1, phase("linux", Phase.BUILDING), LogAppended(node="linux", data=b"one\n"))
    async with aclosing(scene.live.follow()) as frames:
        told = nodes(await news(frames))["linux"]

    assert (told["phase"], told["lines"]) == ("building", ["one"])
