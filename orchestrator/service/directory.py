"""A directory store over HTTP on loopback, in the background of a program that has no loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.service.headers import add_headers
from orchestrator.service.listening import listening
from orchestrator.service.objects import Objects, add_objects
from orchestrator.service.root import add_root
from orchestrator.service.sources import FolderSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def serve_directory(folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve the folder in the background until the end of the block; yield its URL.

    Port 0 takes a free one; only a loopback address is served.
    """
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        async with listening(_application(folder), host=host, port=port) as url:
            started.set_result((url, asyncio.get_running_loop(), ended))
            await ended.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    # A daemon, for an interrupt that comes before it can be told to end.
    thread = threading.Thread(target=run, name="serve", daemon=True)
    thread.start()
    url, loop, ended = started.result()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def _application(folder: Path) -> web.Application:
    app = web.Application()
    add_headers(app)
    objects = Objects(source=FolderSource(folder=folder))
    add_root(app, objects)
    add_objects(app, objects)
    return app
