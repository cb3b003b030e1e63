"""Answers to browsers: pages that may load nothing from elsewhere and run nothing from inside."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: a browser would then say `Origin: null` when a form is sent.
    "Referrer-Policy": "same-origin",
}
FRESH: Final = {"Cache-Control": "no-store"}
EVENT_HEADERS: Final = {
    **SECURITY_HEADERS,
    **FRESH,
    "Content-Type": "text/event-stream; charset=utf-8",
    # nginx would keep the updates back.
    "X-Accel-Buffering": "no",
}
# Their addresses have the digest of what they are.
_FOREVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


def html_answer(page: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return a page."""
    return _answer(page, "text/html", status=status, headers=FRESH)


def text_answer(text: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return text that is shown as it is."""
    return _answer(text, "text/plain", status=status, headers=FRESH)


def json_answer(data: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return data."""
    return _answer(
        json.dumps(data, indent=2) + "\n", "application/json", status=status, headers=FRESH
    )


def asset_answer(text: str, content_type: str) -> web.Response:
    """Return a file whose address changes with it."""
    return _answer(text, content_type, headers=_FOREVER)


def _answer(
    text: str,
    content_type: str,
    *,
    headers: Mapping[str, str],
    status: HTTPStatus = HTTPStatus.OK,
) -> web.Response:
    return web.Response(
        text=text,
        status=status,
        content_type=content_type,
        charset="utf-8",
        headers={**SECURITY_HEADERS, **headers},
    )
