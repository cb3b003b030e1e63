"""The root of the site: the installer for a program that downloads, the page for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.visitor import wants_page
from orchestrator.stores.pointers import INSTALL_SCRIPT, PAGE

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.service.objects import Objects


def add_root(app: web.Application, objects: Objects) -> None:
    """Answer `/` with what the visitor can use, so that `curl … | sh` works with the bare URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        is_person = wants_page(
            request.headers.get("User-Agent", ""), request.headers.get("Accept", "")
        )
        name = PAGE if is_person else INSTALL_SCRIPT
        return await objects.send(request, name, vary=("User-Agent", "Accept"))

    app.router.add_get("/", answer)
