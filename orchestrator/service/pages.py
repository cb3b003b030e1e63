"""The status pages over HTTP: what runs, what was, live updates, logs, data for scripts."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aiohttp import web

from orchestrator.core.errors import ConfigError, OrchestratorError
from orchestrator.core.status_data import release_as_data, status_as_data
from orchestrator.core.status_page import render_history, render_problem, render_status
from orchestrator.core.status_release import render_release
from orchestrator.core.status_shell import Present, Site
from orchestrator.core.status_style import STYLE
from orchestrator.core.status_words import release_address
from orchestrator.core.version import parse_version
from orchestrator.service.actions import Gate, Refusal, is_script
from orchestrator.service.answers import (
    EVENT_HEADERS,
    asset_answer,
    html_answer,
    json_answer,
    text_answer,
)
from orchestrator.service.live import MAX_FOLLOWERS
from orchestrator.service.log_text import read_log
from orchestrator.service.sharing import Shared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from orchestrator.core.freshness import Freshness
    from orchestrator.core.order import Entry
    from orchestrator.service.live import Live

_ENTRIES: Final = 50
_ALL_ENTRIES: Final = 500
# What a page says of the time may be as old as this.
_KEPT_SECONDS: Final = 1.0
_NO_RELEASE: Final = "There is no such release here."
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
        """Return where the log of a node's newest build of a version is, None if there is none.

        It is asked in a thread.
        """
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

    `downloads` is the address of the download page. A desk that raises OrchestratorError is told
    of on the page.
    """
    site = Site(
        project=project,
        downloads=downloads,
        script=_digest(_script()),
        has_actions=actions is not None,
    )
    made = Shared[_Page](_KEPT_SECONDS, time.monotonic)
    pages = _Pages(desk=desk, live=live, site=site, made=made)
    get = app.router.add_get
    get("/status", pages.status)
    get("/status.json", pages.status_data)
    get("/status/status.css", pages.style)
    get("/status/status.js", pages.script)
    get("/status/events", pages.events)
    get("/status/releases", pages.history)
    # Before the page: a version may hold dots, too.
    get("/status/releases/{version}.json", pages.release_data)
    get("/status/releases/{version}", pages.release)
    get("/status/releases/{version}/logs/{node}", pages.log)
    if actions is not None:
        gate = Gate(actions, time.monotonic)
        for name, act in (("retry", desk.retry), ("cancel", desk.cancel), ("yank", desk.yank)):
            app.router.add_post(f"/status/releases/{{version}}/{name}", pages.acting(gate, act))

    async def close(_: web.Application) -> None:
        live.close()

    app.on_shutdown.append(close)


@cache
def _script() -> str:
    return (Path(__file__).parent / "status.js").read_text()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Page(NamedTuple):
    text: str
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pages:
    desk: Desk
    live: Live
    site: Site
    made: Shared[_Page]

    async def status(self, request: web.Request) -> web.Response:
        return await self._page(request, self._status)

    async def history(self, request: web.Request) -> web.Response:
        return await self._page(request, self._history)

    async def release(self, request: web.Request) -> web.Response:
        return await self._page(request, lambda mark: self._release(request, mark))

    async def status_data(self, _: web.Request) -> web.Response:
        try:
            entries, platforms = await self.desk.entries(_ENTRIES), await self.desk.freshness()
        except OrchestratorError as error:
            return _unable_data(error)
        present = self._present(self.live.mark, entries)
        return json_answer(status_as_data(self.site, present, entries, platforms=platforms))

    async def release_data(self, request: web.Request) -> web.Response:
        try:
            attempts = await self._attempts(request)
        except OrchestratorError as error:
            return _unable_data(error)
        if not attempts:
            return json_answer({"error": _NO_RELEASE}, HTTPStatus.NOT_FOUND)
        return json_answer(release_as_data(self._present(self.live.mark, attempts), attempts))

    async def _page(
        self, request: web.Request, make: Callable[[str], Coroutine[None, None, _Page]]
    ) -> web.Response:
        # The mark first: what changes from here on is noticed by whoever compares it later.
        mark = self.live.mark
        try:
            page = await self.made.get(f"{mark} {request.path_qs}", lambda: make(mark))
        except OrchestratorError as error:
            return self._unable(error)
        return html_answer(page.text, page.status)

    async def _status(self, mark: str) -> _Page:
        entries, platforms = await self.desk.entries(_ENTRIES), await self.desk.freshness()
        present = self._present(mark, entries)
        return _Page(render_status(self.site, present, entries=entries, platforms=platforms))

    async def _history(self, mark: str) -> _Page:
        entries = await self.desk.entries(_ALL_ENTRIES)
        return _Page(render_history(self.site, self._present(mark, entries), entries))

    async def _release(self, request: web.Request, mark: str) -> _Page:
        attempts = await self._attempts(request)
        present = self._present(mark, attempts)
        entry = _chosen(attempts, request)
        if entry is None:
            page = render_problem(self.site, present, _NO_RELEASE)
            return _Page(page, HTTPStatus.NOT_FOUND)
        return _Page(render_release(self.site, present, entry=entry, attempts=attempts))

    async def log(self, request: web.Request) -> web.Response:
        version, node = _version(request), request.match_info["node"]
        try:
            text = await asyncio.to_thread(self._log_text, version, node) if version else None
        except OrchestratorError as error:
            return text_answer(f"{error.message}\n", _status(error))
        if text is None:
            return text_answer("There is no such log here.\n", HTTPStatus.NOT_FOUND)
        return text_answer(text)

    def _log_text(self, version: str, node: str) -> str | None:
        path = self.desk.log_path(version, node)
        return read_log(path) if path else None

    async def style(self, _: web.Request) -> web.Response:
        return asset_answer(STYLE, "text/css")

    async def script(self, _: web.Request) -> web.Response:
        return asset_answer(_script(), "text/javascript")

    async def events(self, request: web.Request) -> web.StreamResponse:
        if self.live.followers >= MAX_FOLLOWERS:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return text_answer("Too many follow already: look at the page again later.\n", status)
        response = web.StreamResponse(headers=EVENT_HEADERS)
        await response.prepare(request)
        async with aclosing(self.live.follow()) as frames:
            try:
                async for frame in frames:
                    async with asyncio.timeout(_WRITE_SECONDS):
                        await response.write(frame)
            except (ConnectionError, TimeoutError):
                pass  # gone
        return response

    def acting(
        self, gate: Gate, act: Callable[[str], Awaitable[None]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return what does one thing with a release for those whom the gate lets through."""

        async def handle(request: web.Request) -> web.Response:
            refusal = await gate.refusal(request)
            if refusal is not None:
                return self._refused(request, refusal)
            version = _version(request)
            if version is None:
                missing = Refusal(status=HTTPStatus.NOT_FOUND, sentence=_NO_RELEASE)
                return self._refused(request, missing)
            try:
                await act(version)
            except OrchestratorError as error:
                if is_script(request):
                    return _unable_data(error)
                return self._unable(error)
            self.live.touch()
            if is_script(request):
                return json_answer({"version": version, "done": True})
            raise web.HTTPSeeOther(release_address(version))

        return handle

    async def _attempts(self, request: web.Request) -> Sequence[Entry]:
        version = _version(request)
        return await self.desk.attempts(version) if version else ()

    def _present(self, mark: str, entries: Sequence[Entry]) -> Present:
        # Who is cancelled may not have said goodbye.
        self.live.forget(entry.order.key for entry in entries if entry.state.is_final)
        running = {each.order.key: each for each in self.live.releases()}
        return Present(now=self.live.now(), mark=mark, running=running)

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        if is_script(request):
            answer = json_answer({"error": refusal.sentence}, refusal.status)
        else:
            present = self._present(self.live.mark, ())
            page = render_problem(self.site, present, refusal.sentence)
            answer = html_answer(page, refusal.status)
        # What is left of the body is not read.
        answer.force_close()
        return answer

    def _unable(self, error: OrchestratorError) -> web.Response:
        present = self._present(self.live.mark, ())
        return html_answer(
            render_problem(self.site, present, error.message, hint=error.hint), _status(error)
        )


def _unable_data(error: OrchestratorError) -> web.Response:
    return json_answer({"error": error.message, "hint": error.hint}, _status(error))


def _status(error: OrchestratorError) -> HTTPStatus:
    # What is asked for does not fit what is; anything else is a machine or a store that is away.
    is_asked_wrong = isinstance(error, ConfigError)
    return HTTPStatus.CONFLICT if is_asked_wrong else HTTPStatus.SERVICE_UNAVAILABLE


def _version(request: web.Request) -> str | None:
    try:
        return str(parse_version(request.match_info["version"]))
    except ConfigError:
        return None


def _chosen(attempts: Sequence[Entry], request: web.Request) -> Entry | None:
    """Return the attempt that is asked for: the newest, if none is named."""
    wanted = request.query.get("attempt")
    return next((each for each in attempts if wanted in {None, str(each.order.attempt)}), None)
