"""The service as one process: the queue, who carries orders out, who asks GitHub, and the web."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from orchestrator.core.errors import StoreError
from orchestrator.core.retrying import due
from orchestrator.core.webhook import Expected
from orchestrator.github.lookup import Lookup
from orchestrator.service.desk import ReleaseDesk
from orchestrator.service.headers import add_headers
from orchestrator.service.listening import listening
from orchestrator.service.live import Live
from orchestrator.service.maker import Maker
from orchestrator.service.objects import Objects, add_objects
from orchestrator.service.pages import add_pages
from orchestrator.service.poller import Poller
from orchestrator.service.queue import ReleaseQueue
from orchestrator.service.root import add_root
from orchestrator.service.sources import FolderSource, StoreSource
from orchestrator.service.webhook import add_webhook
from orchestrator.wiring import GCS_SCHEME, Operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from orchestrator.core.index import Index
    from orchestrator.github.api import Api
    from orchestrator.service.sources import Source

_log = logging.getLogger(__name__)
_RETRY_LOOK_SECONDS: Final = 15.0
# Who still reads a large file when the service stops is cut off.
_PATIENCE_SECONDS: Final = 1.0
_HEALTH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the service is started with; `port` 0 takes a free one."""

    inventory_file: str
    repository: str
    host: str
    port: int
    database: str
    webhook_secret: bytes = field(repr=False)
    action_token: str | None = field(repr=False)
    api: Api

    def operator(self) -> Operator:
        """Return the operator as the inventory is now."""
        return Operator.at(self.inventory_file)


async def run_service(setup: Setup, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is told the URL as soon as it answers.

    What runs on the nodes at the end goes on there, and the next start attaches to it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with service(setup) as url:
        ready(url)
        await stop.wait()
        _log.info("stopping: what runs on the nodes goes on there")


@asynccontextmanager
async def service(setup: Setup) -> AsyncIterator[str]:
    """Yield the URL of a service that runs until the end of the block."""
    operator = setup.operator()
    live = Live()
    lookup = Lookup(setup.api)
    maker = Maker(read_operator=setup.operator, lookup=lookup, watchers=(live,))
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(
            ReleaseQueue.open(
                setup.database,
                project=operator.inventory.project.name,
                pin=maker.pin,
                work=maker.make,
            )
        )
        desk = ReleaseDesk(read_operator=setup.operator, queue=queue, changed=live.touch)
        for work in (_poller(setup, operator, lookup=lookup, queue=queue).run(), _retry(queue)):
            await stack.enter_async_context(_running(work))
        yield await stack.enter_async_context(
            listening(
                _application(setup, operator, queue=queue, desk=desk, live=live),
                host=setup.host,
                port=setup.port,
                patience_seconds=_PATIENCE_SECONDS,
                is_local=False,
            )
        )


def _poller(setup: Setup, operator: Operator, *, lookup: Lookup, queue: ReleaseQueue) -> Poller:
    settings = operator.inventory.service

    async def read_index(channel: str) -> Index | None:
        current = setup.operator()
        return await current.index(current.trusted_channel(channel))

    return Poller(
        lookup=lookup,
        queue=queue,
        tag=settings.tag,
        every=settings.poll_every,
        channel_of=lambda version, is_prerelease: operator.channel_name(
            version, is_prerelease=is_prerelease
        ),
        read_index=read_index,
        alarm=lambda *_: None,
    )


def _application(
    setup: Setup, operator: Operator, *, queue: ReleaseQueue, desk: ReleaseDesk, live: Live
) -> web.Application:
    settings = operator.inventory.service
    app = web.Application()
    add_headers(app)
    add_webhook(
        app,
        secret=setup.webhook_secret,
        expected=Expected(
            repository=setup.repository, repository_id=settings.repository_id, tag=settings.tag
        ),
        channel_of=lambda wanted: operator.channel_name(
            wanted.version, is_prerelease=wanted.is_prerelease
        ),
        intake=queue,
        count=lambda *_: None,
    )
    _add_health(app, queue)
    add_pages(app, desk, live, project=operator.inventory.project.name, actions=setup.action_token)
    objects = Objects(source=_source(operator))
    add_root(app, objects)
    add_objects(app, objects)
    return app


def _source(operator: Operator) -> Source:
    publication = operator.inventory.publication
    if publication.store.startswith(GCS_SCHEME):
        return StoreSource(store=operator.store(), url=publication.url)
    return FolderSource(folder=operator.store_folder())


async def _retry(queue: ReleaseQueue) -> None:
    """Try again what failed for a reason that passes, when its time has come."""
    while True:
        await asyncio.sleep(_RETRY_LOOK_SECONDS)
        try:
            for order in due(await queue.entries(), datetime.now(UTC)):
                submitted = await queue.submit(order)
                if submitted.is_new:
                    _log.info("tries %s again: attempt %d", order.version, order.attempt)
        except StoreError as error:
            _log.warning("cannot look for what to try again: %s", error.message)


def _add_health(app: web.Application, queue: ReleaseQueue) -> None:
    async def healthy(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                await queue.entries(limit=1)
        except (StoreError, TimeoutError):
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return web.json_response({"status": "the queue does not answer"}, status=status)
        return web.json_response({"status": "ok"})

    app.router.add_get("/healthz", healthy)


@asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
