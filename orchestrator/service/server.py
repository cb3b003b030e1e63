"""The service as one process: the queue, who carries orders out, who asks GitHub, and the web."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from orchestrator.core.errors import StoreError
from orchestrator.core.notice import Teller
from orchestrator.core.webhook import Expected
from orchestrator.github.lookup import Lookup
from orchestrator.service.channels import channels_of
from orchestrator.service.desk import ReleaseDesk
from orchestrator.service.headers import add_headers
from orchestrator.service.journal import Journal
from orchestrator.service.listening import listening
from orchestrator.service.live import Live
from orchestrator.service.maker import Maker
from orchestrator.service.notices import Notices
from orchestrator.service.objects import Objects, add_objects
from orchestrator.service.pages import add_pages
from orchestrator.service.poller import Poller
from orchestrator.service.queue import ReleaseQueue
from orchestrator.service.root import add_root
from orchestrator.service.sources import FolderSource, StoreSource
from orchestrator.service.upkeep import Upkeep
from orchestrator.service.webhook import add_webhook
from orchestrator.wiring import GCS_SCHEME, Operator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from orchestrator.core.version import Version
    from orchestrator.github.api import Api
    from orchestrator.service.secrets import Secrets
    from orchestrator.service.sources import Source

_log = logging.getLogger(__name__)
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
    database: str = field(repr=False)
    secrets: Secrets
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
    settings, project = operator.inventory.service, operator.inventory.project.name
    live, notices = Live(), _notices(setup, operator)
    lookup = Lookup(setup.api)
    maker = Maker(read_operator=setup.operator, lookup=lookup, watchers=(Journal(), live, notices))
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(
            ReleaseQueue.open(setup.database, project=project, pin=maker.pin, work=maker.make)
        )
        desk = ReleaseDesk(read_operator=setup.operator, queue=queue, changed=live.touch)
        poller = Poller(
            lookup=lookup,
            queue=queue,
            tag=settings.tag,
            every=settings.poll_every,
            channel_of=_channel_of(operator),
            read_index=desk.index,
            alarm=notices.alarm,
        )
        upkeep = Upkeep(queue=queue, desk=desk, notices=notices)
        for work in (notices.run(), poller.run(), upkeep.run()):
            await stack.enter_async_context(_running(work))
        app = web.Application()
        add_headers(app)
        _add_webhook(app, setup, operator, queue=queue)
        _add_health(app, queue)
        add_pages(app, desk, live, project=project, actions=setup.secrets.action_token)
        objects = Objects(source=_source(operator))
        add_root(app, objects)
        add_objects(app, objects)
        yield await stack.enter_async_context(
            listening(
                app,
                host=setup.host,
                port=setup.port,
                patience_seconds=_PATIENCE_SECONDS,
                is_local=False,
            )
        )


def _notices(setup: Setup, operator: Operator) -> Notices:
    settings, project = operator.inventory.service, operator.inventory.project.name
    return Notices(
        teller=Teller(project=project, link=settings.url and f"{settings.url}/status"),
        channels=channels_of(settings.notices, setup.secrets.notices, project=project),
        file=operator.dist / "service" / "told.json",
    )


def _channel_of(operator: Operator) -> Callable[[Version, bool], str]:
    def channel_of(version: Version, is_prerelease: bool) -> str:  # noqa: FBT001 -- GitHub's flag
        return operator.channel_name(version, is_prerelease=is_prerelease)

    return channel_of


def _add_webhook(
    app: web.Application, setup: Setup, operator: Operator, *, queue: ReleaseQueue
) -> None:
    settings = operator.inventory.service
    add_webhook(
        app,
        secret=(setup.secrets.webhook or "").encode(),
        expected=Expected(
            repository=setup.repository, repository_id=settings.repository_id, tag=settings.tag
        ),
        channel_of=_channel_of(operator),
        intake=queue,
        count=lambda *_: None,
    )


def _source(operator: Operator) -> Source:
    publication = operator.inventory.publication
    if publication.store.startswith(GCS_SCHEME):
        return StoreSource(store=operator.store(), url=publication.url)
    return FolderSource(folder=operator.store_folder())


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
