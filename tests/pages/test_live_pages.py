"""The pages over HTTP, from a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp

from orchestrator.core.events import LogAppended, Phase
from tests.pages.scenes import Scene, busy_release, past, phase, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def messages(url: str) -> AsyncIterator[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/status/events") as stream:
        async for line in stream.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


async def test_a_release_is_on_the_page_and_its_news_arrive() -> None:
    scene = Scene()
    past(scene)
    running = scene.begin()
    busy_release(running)
    async with serving(scene) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/status") as answer:
            page = await answer.text()
        assert answer.status == 200
        assert "<h1>tool" in page
        assert "Compiling tool v1.2.3" in page

        stream = messages(url)
        first = await anext(stream)
        [release] = first["releases"]
        assert release["release"] == "1.2.3#1"
        assert [row["node"] for row in release["rows"]] == [
            "linux",
            "netbsd",
            "netbsd-2",
            "openbsd",
            "windows",
        ]

        running.at(121, phase("windows", Phase.GATING), LogAppended(node="windows", data=b"ok\n"))
        [row] = (await anext(stream))["releases"][0]["rows"]
        assert (row["node"], row["phase"], row["lines"]) == ("windows", "gating", ["ok"])
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
