"""What every answer of the service has: headers for safety, and errors in a plain sentence."""

from __future__ import annotations

import base64
import hashlib
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_log = logging.getLogger(__name__)

SAFETY: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    # The name of the program, and no version of anything.
    "Server": "orchestrator",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer that does not say otherwise."""


def add_headers(app: web.Application) -> None:
    """Give every answer of the application these headers, and every error its sentence."""
    app.on_response_prepare.append(_add_safety)
    app.middlewares.append(answer_plainly)


async def _add_safety(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in SAFETY.items():
        response.headers.setdefault(name, value)
    # By now aiohttp has put its own there.
    response.headers["Server"] = SAFETY["Server"]


@web.middleware
async def answer_plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer for what failed: a sentence for the visitor, the details for the log."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _with_a_sentence(error)
    except web.RequestPayloadError:
        return plain(400)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the visitor gets an answer
        if isinstance(error, ConnectionError) and _is_gone(request):
            return plain(400)
        _log.exception("%s %s failed", request.method, request.rel_url.raw_path[:200])
        if request.writer.output_size and request.transport:
            # Half an answer was sent: only a broken connection says that it is not all.
            request.transport.abort()
        return plain(500)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _with_a_sentence(error: web.HTTPException) -> web.Response:
    if error.text != f"{error.status}: {error.reason}":
        # Whoever raised it had something to say.
        raise error
    headers = {
        name: value
        for name, value in error.headers.items()
        if not name.lower().startswith("content-")
    }
    return plain(error.status, headers=headers)


def plain(status: int, *, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer that says in one line what a status means."""
    sentence = _SENTENCES.get(status, f"This cannot be done ({status}).")
    return web.Response(
        status=status,
        text=f"{sentence}\n",
        headers={"Cache-Control": "no-cache", **(headers or {})},
    )


_SENTENCES: Final = {
    302: "It is elsewhere.",
    400: "This is not a request in HTTP.",
    404: "There is nothing here.",
    405: "This is not how to ask for it.",
    412: "This is not what it was any more.",
    413: "This is too much.",
    500: "Something went wrong here, and it was written down.",
    503: "This cannot be read now; try again in a minute.",
}


def page_policy(page: bytes) -> str:
    """Return the Content-Security-Policy of a download page: its own style, and nothing else.

    From the page itself, since another version than this may have written it. Before its first
    style there is only the project's name, so no text that was slipped in can add to this.
    """
    _, _, rest = page.partition(b"<style>")
    style, end, _ = rest.partition(b"</style>")
    if not end:
        return SAFETY["Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return f"{SAFETY['Content-Security-Policy']}; style-src 'sha256-{digest}'"
