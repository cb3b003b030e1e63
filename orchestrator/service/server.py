"""The service as one process: the queue, who carries orders out, who asks GitHub, and the web."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from orchestrator.core.notice import Teller
from orchestrator.core.webhook import Expected
from orchestrator.github.lookup import Lookup
from orchestrator.github.statuses import Statuses
from orchestrator.service.channels import channels_of
from orchestrator.service.desk import ReleaseDesk
from orchestrator.service.headers import add_headers
from orchestrator.service.journal import Journal
from orchestrator.service.listening import listening
from orchestrator.service.live import Live
from orchestrator.service.maker import Maker
from orchestrator.service.metrics import Metrics
from orchestrator.service.notices import Notices
from orchestrator.service.objects import Objects, add_objects
from orchestrator.service.observation import add_observation
from orchestrator.service.pages import add_pages
from orchestrator.service.poller import Poller
from orchestrator.service.queue import ReleaseQueue, missing_packages
from orchestrator.service.root import add_root
from orchestrator.service.sources import FolderSource, StoreSource
from orchestrator.service.statuses import CommitStatuses
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

    _read: dict[tuple[int, int, int], Operator] = field(default_factory=dict, repr=False)

    def operator(self) -> Operator:
        """Return the operator as the inventory is now; the same one while that is the same file."""
        try:
            found = Path(self.inventory_file).stat()
        except OSError:
            return Operator.at(self.inventory_file)
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state not in self._read:
            # Reading it takes a tenth of a second, and may ask rustc.
            operator = Operator.at(self.inventory_file)
            self._read.clear()
            self._read[state] = operator
        return self._read[state]


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
    live, notices, metrics = Live(), _notices(setup, operator), _metrics()
    statuses = _statuses(setup, operator)
    lookup = Lookup(setup.api)
    maker = Maker(
        read_operator=setup.operator,
        lookup=lookup,
        watchers=(Journal(), live, notices, metrics, *statuses),
    )
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
        work = [notices.run(), poller.run(), upkeep.run(), *(each.run() for each in statuses)]
        for each in work:
            await stack.enter_async_context(_running(each))
        app = web.Application()
        add_headers(app)
        _add_webhook(app, setup, operator, queue=queue, count=metrics.webhook)
        add_observation(app, queue=queue, desk=desk, metrics=metrics)
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


def _metrics() -> Metrics:
    try:
        return Metrics()
    except ImportError as error:
        raise missing_packages(error) from error


def _statuses(setup: Setup, operator: Operator) -> tuple[CommitStatuses, ...]:
    settings = operator.inventory.service
    if not settings.statuses:
        return ()
    return (
        CommitStatuses(
            statuses=Statuses(api=setup.api),
            project=operator.inventory.project.name,
            page=settings.url and f"{settings.url}/status",
        ),
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
    app: web.Application,
    setup: Setup,
    operator: Operator,
    *,
    queue: ReleaseQueue,
    count: Callable[[str], None],
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
        count=count,
    )


def _source(operator: Operator) -> Source:
    publication = operator.inventory.publication
    if publication.store.startswith(GCS_SCHEME):
        return StoreSource(store=operator.store(), url=publication.url)
    return FolderSource(folder=operator.store_folder())


@asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
