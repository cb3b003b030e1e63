"""`/healthz` and `/metrics`: what other programs watch the service by."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.service.metrics import Metrics, Platform

if TYPE_CHECKING:
    from orchestrator.core.freshness import Freshness
    from orchestrator.service.desk import ReleaseDesk
    from orchestrator.service.intake import Orders

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS: Final = 5.0


def add_observation(
    app: web.Application, *, queue: Orders, desk: ReleaseDesk, metrics: Metrics
) -> None:
    """Add both routes; a scrape looks at queue and store, at most every few seconds."""

    async def healthy(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await queue.entries(limit=1)
        except (StoreError, TimeoutError):
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return web.json_response({"status": "the queue does not answer"}, status=status)
        return web.json_response({"status": "ok"})

    async def scrape(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await _look(metrics, queue, desk)
        except (OrchestratorError, TimeoutError) as error:
            # What was counted here is known all the same.
            _log.warning("metrics of queue and store are those of before: %s", error)
        text, kind = metrics.render()
        return web.Response(body=text, headers={"Content-Type": kind, "Cache-Control": "no-store"})

    app.router.add_get("/healthz", healthy)
    app.router.add_get("/metrics", scrape)


async def _look(metrics: Metrics, queue: Orders, desk: ReleaseDesk) -> None:
    metrics.queue(await queue.entries())
    now = datetime.now(UTC)
    metrics.freshness([_platform(each, now) for each in await desk.freshness()])
    # An index is good to the end of its last day.
    ends = {index.channel: index.expires for index in await desk.indexes()}
    metrics.expires(
        {name: datetime.combine(day, time.max, tzinfo=UTC) for name, day in ends.items()}
    )


def _platform(each: Freshness, now: datetime) -> Platform:
    age = (now - each.released).total_seconds() if each.released else None
    return Platform(target=each.name, age_seconds=age, behind=each.behind)
