"""The status pages over HTTP: what runs, what was, live updates, logs, data for scripts."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

from orchestrator.core.status_page import render_status
from orchestrator.core.status_shell import Present, Site
from orchestrator.core.status_style import STYLE
from orchestrator.service.answers import (
    FRESH,
    SECURITY_HEADERS,
    asset_answer,
    html_answer,
)
from orchestrator.service.live import MAX_FOLLOWERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.freshness import Freshness
    from orchestrator.core.order import Entry
    from orchestrator.service.live import Live

_ENTRIES: Final = 50
# A follower that takes nothing for so long is gone.
_WRITE_SECONDS: Final = 30.0


class Desk(Protocol):
    """What the pages show and do beside what is live."""

    async def entries(self, limit: int) -> Sequence[Entry]:
        """Return the newest orders first."""
        ...

    async def attempts(self, version: str) -> Sequence[Entry]:
        """Return the orders of one version, the newest first."""
        ...

    async def freshness(self) -> Sequence[Freshness]:
        """Return what each platform gets."""
        ...

    async def retry(self, version: str) -> None:
        """Ask for another attempt; OrchestratorError says why there is none."""
        ...

    async def cancel(self, version: str) -> None:
        """Take back what waits, and end what runs; OrchestratorError says why not."""
        ...

    async def yank(self, version: str) -> None:
        """Withdraw a version; OrchestratorError says why not."""
        ...

    def log_path(self, version: str, node: str) -> Path | None:
        """Return where the log of a node's newest build of a version is, None if there is none."""
        ...


def add_pages(
    app: web.Application,
    desk: Desk,
    live: Live,
    *,
    project: str,
    actions: str | None,
    downloads: str = "/",
) -> None:
    """Add the pages below /status; `actions` is the token of those who may act, None for nobody.

    `downloads` is the address of the download page.
    """
    site = Site(
        project=project,
        downloads=downloads,
        script=_script_digest(),
        has_actions=actions is not None,
    )
    pages = _Pages(desk=desk, live=live, site=site)
    app.router.add_get("/status", pages.status)
    app.router.add_get("/status/status.css", pages.style)
    app.router.add_get("/status/status.js", pages.script)
    app.router.add_get("/status/events", pages.events)

    async def close(_: web.Application) -> None:
        live.close()

    app.on_shutdown.append(close)


@cache
def _script() -> str:
    return (Path(__file__).parent / "status.js").read_text()


def _script_digest() -> str:
    return hashlib.sha256(_script().encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pages:
    desk: Desk
    live: Live
    site: Site

    def present(self) -> Present:
        # The mark first: what changes after it is seen by whoever compares.
        mark = self.live.mark
        running = {each.order.key: each for each in self.live.releases()}
        return Present(now=self.live.now(), mark=mark, running=running)

    async def status(self, _: web.Request) -> web.Response:
        present = self.present()
        entries = await self.desk.entries(_ENTRIES)
        platforms = await self.desk.freshness()
        return html_answer(render_status(self.site, present, entries=entries, platforms=platforms))

    async def style(self, _: web.Request) -> web.Response:
        return asset_answer(STYLE, "text/css")

    async def script(self, _: web.Request) -> web.Response:
        return asset_answer(_script(), "text/javascript")

    async def events(self, request: web.Request) -> web.StreamResponse:
        if self.live.followers >= MAX_FOLLOWERS:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=SECURITY_HEADERS)
        # The last one is for nginx, which would keep the updates back.
        headers = {**SECURITY_HEADERS, **FRESH, "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        response.content_type = "text/event-stream"
        await response.prepare(request)
        async with aclosing(self.live.follow()) as frames:
            try:
                async for frame in frames:
                    async with asyncio.timeout(_WRITE_SECONDS):
                        await response.write(frame)
            except (ConnectionError, TimeoutError):
                pass  # gone
        return response
