"""`POST /webhook`: GitHub tells of a release, and is answered when the order is in the queue."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from orchestrator.core.errors import StoreError
from orchestrator.core.order import Order, Origin
from orchestrator.core.webhook import MAX_BODY_BYTES, Decision, Expected, decide
from orchestrator.service.addresses import client_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.version import Version
    from orchestrator.service.intake import Intake

_log = logging.getLogger(__name__)
# GitHub gives up after ten seconds; a body that takes longer is somebody else's.
_PATIENCE_SECONDS: Final = 10.0
_LOGGED: Final = 100


def add_webhook(
    app: web.Application,
    *,
    secret: bytes,
    expected: Expected,
    channel_of: Callable[[Version, bool], str],
    intake: Intake,
    count: Callable[[str], None],
) -> None:
    """Add the route; `channel_of` says which index a release joins, `count` counts decisions."""

    async def receive(request: web.Request) -> web.Response:
        body = await _read(request)
        if isinstance(body, bytes):
            headers = {name.lower(): value for name, value in request.headers.items()}
            decision = decide(headers, body, secret=secret, expected=expected)
        else:
            decision = body
        outcome = await _act(decision)
        _tell(request, outcome)
        count(_word(outcome))
        return _answer(outcome)

    async def _act(decision: Decision) -> Decision:
        wanted = decision.wanted
        if wanted is None:
            return decision
        order = Order(
            version=str(wanted.version),
            channel=channel_of(wanted.version, wanted.is_prerelease),
            asked=datetime.now(UTC),
            origin=Origin.WEBHOOK,
            tag=wanted.tag,
            page=wanted.page,
        )
        try:
            submitted = await intake.submit(order)
        except StoreError as error:
            # Not taken: GitHub shows it as failed, and the poller finds the release.
            _log.error("a release cannot be queued: %s", error.message)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return Decision(status=status, reason="the queue does not answer: deliver it again")
        reason = "queued" if submitted.is_new else "known already"
        return Decision(status=HTTPStatus.ACCEPTED, reason=f"{submitted.order.version} is {reason}")

    app.router.add_post("/webhook", receive)


async def _read(request: web.Request) -> bytes | Decision:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return _TOO_LARGE
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await _read_capped(request)
    except TimeoutError:
        return Decision(status=HTTPStatus.REQUEST_TIMEOUT, reason="the body took too long")


async def _read_capped(request: web.Request) -> bytes | Decision:
    # Not request.read(): it would also take apart what says that it is compressed.
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return _TOO_LARGE
        parts.append(part)
    return b"".join(parts)


_TOO_LARGE: Final = Decision(
    status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason="the body is too large"
)


def _word(decision: Decision) -> str:
    if decision.status is HTTPStatus.ACCEPTED:
        return "accepted"
    return "refused" if decision.is_refusal else "ignored"


def _tell(request: web.Request, decision: Decision) -> None:
    level = logging.WARNING if decision.is_refusal else logging.INFO
    headers = request.headers
    _log.log(
        level,
        "webhook %s: %d %s",
        _word(decision),
        decision.status,
        decision.reason,
        extra={
            "fields": {
                "delivery": headers.get("X-GitHub-Delivery", "")[:_LOGGED],
                "event": headers.get("X-GitHub-Event", "")[:_LOGGED],
                "remote": client_address(request),
            }
        },
    )


def _answer(decision: Decision) -> web.Response:
    if decision.status is HTTPStatus.NO_CONTENT:
        return web.Response(status=decision.status)
    response = web.json_response({"message": decision.reason}, status=decision.status)
    if decision.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # What is still to come of the body is not read.
        response.force_close()
    return response
