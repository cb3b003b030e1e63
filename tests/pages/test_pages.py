"""The pages over HTTP, from a real server."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.events import LogAppended, Phase
from orchestrator.core.order import State
from orchestrator.service import pages
from orchestrator.service.log_text import LIMIT_BYTES
from tests.fakes import FakeDesk
from tests.pages.scenes import (
    HOSTILE,
    Scene,
    busy_release,
    end_release,
    entry,
    past,
    phase,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from orchestrator.core.order import Entry


@asynccontextmanager
async def visiting(scene: Scene, **more: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client of a server with the pages of a scene."""
    async with serving(scene, **more) as url, aiohttp.ClientSession(url) as session:
        yield session


async def text(session: aiohttp.ClientSession, path: str, status: int = 200) -> str:
    async with session.get(path) as answer:
        assert answer.status == status
        return await answer.text()


async def messages(session: aiohttp.ClientSession) -> AsyncGenerator[dict[str, Any]]:
    async with session.get("/status/events") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["Cache-Control"] == "no-store"
        async for line in stream.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


def busy() -> Scene:
    scene = Scene()
    past(scene)
    busy_release(scene.begin())
    return scene


def over() -> Scene:
    scene = Scene()
    past(scene)
    running = scene.begin()
    busy_release(running)
    end_release(running)
    return scene


async def test_a_release_is_on_the_page_and_its_news_arrive() -> None:
    scene = Scene()
    past(scene)
    running = scene.begin()
    busy_release(running)
    async with visiting(scene) as session:
        assert "Compiling tool v1.2.3" in await text(session, "/status")

        stream = messages(session)
        first = await anext(stream)
        [release] = first["releases"]
        names = ["linux", "netbsd", "netbsd-2", "openbsd", "windows"]
        assert release["release"] == "1.2.3#1"
        assert [row["node"] for row in release["rows"]] == names

        running.at(121, phase("windows", Phase.GATING), LogAppended(node="windows", data=b"ok\n"))
        [row] = (await anext(stream))["releases"][0]["rows"]
        assert (row["node"], row["phase"], row["lines"]) == ("windows", "gating", ["ok"])
        await stream.aclose()


@pytest.mark.parametrize(
    "path",
    [
        "/status",
        "/status.json",
        "/status/releases",
        "/status/releases/1.2.3",
        "/status/releases/1.2.3.json",
        "/status/releases/1.2.3?attempt=1",
        "/status/releases/9.9.9",
        "/status/releases/1.2.3/logs/linux",
        "/status/status.css",
        "/status/status.js",
    ],
)
async def test_every_answer_allows_nothing_from_elsewhere(path: str) -> None:
    async with visiting(over()) as session, session.get(path) as answer:
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert policy == [
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "charset=utf-8" in answer.headers["Content-Type"]


async def test_the_events_allow_nothing_from_elsewhere_either() -> None:
    async with visiting(over()) as session, session.get("/status/events") as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["X-Accel-Buffering"] == "no"


async def test_a_page_is_not_kept_by_a_cache_and_its_style_is_under_its_digest() -> None:
    async with visiting(busy()) as session:
        page = await text(session, "/status")
        style = page.partition('href="/status/status.css?')[2].partition('"')[0]
        script = page.partition('src="/status/status.js?')[2].partition('"')[0]
        async with session.get("/status") as answer:
            assert answer.headers["Cache-Control"] == "no-store"
        for path, kind in (
            (f"/status/status.css?{style}", "text/css"),
            (f"/status/status.js?{script}", "text/javascript"),
        ):
            async with session.get(path) as answer:
                assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                assert answer.content_type == kind
                assert await answer.text()
        assert len(style) == len(script) == 16


async def test_the_page_of_a_version_is_its_newest_attempt_and_others_can_be_asked_for() -> None:
    scene = over()
    [newest] = [each for each in scene.desk.orders if each.order.version == "1.2.3"]
    again = replace(newest.order, attempt=2)
    scene.desk.orders.insert(0, replace(newest, order=again, state=State.CANCELLED))
    async with visiting(scene) as session:
        assert "attempt 2 (shown here)" in plain(await text(session, "/status/releases/1.2.3"))
        first = await text(session, "/status/releases/1.2.3?attempt=1")
        assert "attempt 1 (shown here)" in plain(first)
        await text(session, "/status/releases/1.2.3?attempt=7", 404)
        await text(session, "/status/releases/1.2.3?attempt=x", 404)


def plain(page: str) -> str:
    return page.replace("<b>", "").replace("</b>", "")


@pytest.mark.parametrize(
    "version", ["9.9.9", "v1.2.3", "..", "%2e%2e", "1.2.3%2f..", "%3Cscript%3E", "1" * 400, "%00"]
)
async def test_a_release_that_is_not_there_is_a_plain_404(version: str) -> None:
    async with visiting(over()) as session:
        for path in (
            f"/status/releases/{version}",
            f"/status/releases/{version}.json",
            f"/status/releases/{version}/logs/linux",
        ):
            async with session.get(path) as answer:
                page = await answer.text()
            assert answer.status == 404
            assert "<script>" not in page


async def test_the_history_is_a_page() -> None:
    async with visiting(over()) as session:
        page = await text(session, "/status/releases")

    assert "/status/releases/1.2.0?attempt=1" in page


async def test_the_same_is_there_as_data() -> None:
    async with visiting(busy()) as session:
        async with session.get("/status.json") as answer:
            told = await answer.json()
        async with session.get("/status/releases/1.2.3.json") as answer:
            one = await answer.json()

    assert [each["version"] for each in told["running"]] == ["1.2.3"]
    assert told["platforms"][1]["late"] is True
    assert len(one["attempts"][0]["outcome"]["rows"]) == 5


async def test_a_release_that_was_cancelled_without_a_word_runs_no_more() -> None:
    scene = busy()
    scene.desk.orders[0] = replace(scene.desk.orders[0], state=State.CANCELLED)
    async with visiting(scene) as session:
        assert "Nothing is being released." in await text(session, "/status")
        assert json.loads(await text(session, "/status.json"))["running"] == []
        # It may find out later than the page that it is cancelled.
        scene.live.observe(scene.desk.orders[0].order, phase("linux", Phase.GATING), scene.clock())
        assert list(scene.live.releases()) == []


class MutinousDesk(FakeDesk):
    """A desk that cannot read its own configuration."""

    def log_path(self, version: str, node: str) -> Path | None:
        raise ConfigError(f"no inventory for {version} {node}")


async def test_a_log_that_cannot_be_looked_for_is_told_of() -> None:
    async with visiting(Scene(desk=MutinousDesk())) as session:
        said = await text(session, "/status/releases/1.2.3/logs/linux", 409)

    assert said == "no inventory for 1.2.3 linux\n"


@dataclass(slots=True)
class BrokenDesk(FakeDesk):
    """A desk whose database is away."""

    is_broken: bool = True

    async def entries(self, limit: int) -> Sequence[Entry]:
        if not self.is_broken:
            return []
        raise StoreError(f"no database for {limit} <entries>", hint="start it")

    async def attempts(self, version: str) -> Sequence[Entry]:
        raise StoreError(f"no database for {version}")


@pytest.mark.parametrize("path", ["/status", "/status/releases", "/status/releases/1.2.3"])
async def test_a_desk_that_cannot_answer_is_told_of_on_the_page(path: str) -> None:
    async with visiting(Scene(desk=BrokenDesk())) as session:
        page = await text(session, path, 503)

    assert "no database for" in page
    assert "<entries>" not in page


async def test_a_desk_that_cannot_answer_is_told_of_as_data() -> None:
    async with visiting(Scene(desk=BrokenDesk())) as session:
        told = json.loads(await text(session, "/status.json", 503))
        one = json.loads(await text(session, "/status/releases/1.2.3.json", 503))

    assert told == {"error": "no database for 50 <entries>", "hint": "start it"}
    assert one == {"error": "no database for 1.2.3", "hint": None}


async def test_a_desk_that_is_back_is_asked_again() -> None:
    desk = BrokenDesk()
    async with visiting(Scene(desk=desk)) as session:
        await text(session, "/status", 503)
        desk.is_broken = False
        await text(session, "/status", 200)


async def test_fifty_who_look_at_once_are_one_question_to_the_desk() -> None:
    scene = busy()
    async with visiting(scene) as session:
        found = await asyncio.gather(*(text(session, "/status") for _ in range(50)))
        assert scene.desk.reads == 1
        scene.live.touch()
        await text(session, "/status")

    assert len(set(found)) == 1
    assert scene.desk.reads == 2


async def test_a_log_is_plain_text_that_shows_what_it_holds(tmp_path: Path) -> None:
    scene = over()
    log = tmp_path / "build.log"
    log.write_bytes(b"one\r\n" + HOSTILE + b"10 %\r20 %\nlast")
    scene.desk.logs["1.2.3", "linux"] = log
    async with visiting(scene) as session:
        async with session.get("/status/releases/1.2.3/logs/linux") as answer:
            body = await answer.text()
            kind = answer.headers["Content-Type"]
        await text(session, "/status/releases/1.2.3/logs/windows", 404)

    assert kind == "text/plain; charset=utf-8"
    shown = (
        "red \\x1b]52;c;aGk=\\x07 \\x1b[2J</pre></script><script>document.title='owned'</script>"
        "<img src=x onerror=document.title='owned'> \\u202eevil \ufffd &amp; \\x00"
    )
    assert body.split("\n") == ["one", shown, "10 %\\r20 %", "last"]


async def test_of_a_long_log_the_end_is_there(tmp_path: Path) -> None:
    scene = over()
    log = tmp_path / "build.log"
    log.write_bytes(b"first\n" + b"x" * 99 + b"\n" + b"line of 16 bytes\n" * 100_000 + b"last\n")
    scene.desk.logs["1.2.3", "linux"] = log
    async with visiting(scene) as session:
        lines = (await text(session, "/status/releases/1.2.3/logs/linux")).split("\n")

    assert lines[0] == "[the first 700.1 kB are left out]"
    assert lines[1] == "line of 16 bytes"
    assert lines[-2] == "last"
    assert sum(map(len, lines)) <= LIMIT_BYTES


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "missing"])
async def test_what_is_no_file_of_its_own_is_no_log(kind: str, tmp_path: Path) -> None:
    scene = over()
    log = tmp_path / "build.log"
    if kind == "link":
        (tmp_path / "secret").write_text("secret")
        log.symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(log)
    elif kind == "folder":
        log.mkdir()
    scene.desk.logs["1.2.3", "linux"] = log
    async with visiting(scene) as session:
        body = await text(session, "/status/releases/1.2.3/logs/linux", 404)

    assert "secret" not in body


async def test_more_followers_than_there_is_room_for_are_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "MAX_FOLLOWERS", 2)
    async with visiting(busy()) as session:
        one, two = messages(session), messages(session)
        await anext(one)
        await anext(two)
        async with session.get("/status/events") as answer:
            assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
        await one.aclose()
        await two.aclose()


async def test_a_follower_that_goes_away_is_noticed() -> None:
    scene = busy()
    async with visiting(scene) as session:
        stream = messages(session)
        await anext(stream)
        assert scene.live.followers == 1
        await stream.aclose()
        async with asyncio.timeout(10):
            while scene.live.followers:  # noqa: ASYNC110 -- nobody tells of it
                await asyncio.sleep(0)


async def test_a_follower_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_WRITE_SECONDS", 0.05)
    scene = Scene(pause_seconds=0)
    running = scene.begin()
    busy_release(running)
    async with serving(scene) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /status/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.read(1)
        async with asyncio.timeout(20):
            while scene.live.followers:
                running.tell(LogAppended(node="linux", data=b"x" * 900 + b"\n"))
                await asyncio.sleep(0)
        writer.close()


async def test_at_the_end_of_the_service_followers_are_let_go() -> None:
    scene = busy()
    async with serving(scene) as url, aiohttp.ClientSession(url) as session:
        stream = messages(session)
        await anext(stream)
        # Leaving the block before the stream: the server does not wait for it.
        server_end = asyncio.ensure_future(drain(stream))
        await asyncio.sleep(0)
        scene.live.close()
        await server_end


async def drain(stream: AsyncGenerator[dict[str, Any]]) -> None:
    async for _ in stream:
        pass


async def test_without_a_past_there_is_a_page_too() -> None:
    async with visiting(Scene()) as session:
        page = await text(session, "/status")

    assert "No release has ended yet." in page
    assert "Nothing is published yet." in page


async def test_a_page_of_what_only_waits() -> None:
    scene = Scene()
    scene.desk.orders.append(entry(State.QUEUED))
    async with visiting(scene) as session:
        assert "queued" in await text(session, "/status/releases/1.2.3")
