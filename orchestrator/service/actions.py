"""Who may act: the token, where a request comes from, and how often somebody may be wrong."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from orchestrator.service.addresses import client_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

_log = logging.getLogger(__name__)
_MAX_BODY_BYTES: Final = 4096
_MAX_FIELDS: Final = 10
_PATIENCE_SECONDS: Final = 10.0
_MISTAKES: Final = 5
_MEMORY_SECONDS: Final = 60.0
_MAX_ADDRESSES: Final = 1000
_SAME_SITE: Final = frozenset(("same-origin", "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request may not act, as a status and a sentence."""

    status: HTTPStatus
    sentence: str


@dataclass(slots=True)
class Gate:
    """Lets those act who know the token; `clock` counts seconds."""

    token: str = field(repr=False)
    clock: Callable[[], float]
    # When somebody at an address was wrong, the oldest address first.
    _mistakes: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    async def refusal(self, request: web.Request) -> Refusal | None:
        """Return why the request may not act, None if it may.

        A browser's form has the token in a field, a script has it in `Authorization: Bearer`. What
        another site makes a browser send is refused, whatever it knows.
        """
        if not _is_from_here(request):
            return Refusal(status=HTTPStatus.FORBIDDEN, sentence="This comes from another site.")
        address = client_address(request)
        if self._is_tried_out(address):
            return Refusal(
                status=HTTPStatus.TOO_MANY_REQUESTS,
                sentence="There were too many wrong tokens: wait for a minute.",
            )
        token = await _token(request)
        if isinstance(token, Refusal):
            return token
        if _is_same(token, self.token):
            return None
        self._note_mistake(address)
        _log.warning("wrong token", extra={"fields": {"remote": address, "path": request.path}})
        return Refusal(status=HTTPStatus.FORBIDDEN, sentence="The token is not right.")

    def _is_tried_out(self, address: str) -> bool:
        since = self.clock() - _MEMORY_SECONDS
        recent = [at for at in self._mistakes.get(address, ()) if at > since]
        return len(recent) >= _MISTAKES

    def _note_mistake(self, address: str) -> None:
        times = self._mistakes.setdefault(address, [])
        times.append(self.clock())
        del times[:-_MISTAKES]
        self._mistakes.move_to_end(address)
        while len(self._mistakes) > _MAX_ADDRESSES:
            self._mistakes.popitem(last=False)


def is_script(request: web.Request) -> bool:
    """Whether it is not a browser's form, and wants data for an answer."""
    return "Authorization" in request.headers


def _is_from_here(request: web.Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in _SAME_SITE
    origin = request.headers.get("Origin")
    # Who sends neither is no browser of the last years: a script.
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")


async def _token(request: web.Request) -> str | Refusal:
    if is_script(request):
        scheme, _, token = request.headers["Authorization"].partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    if request.content_type != "application/x-www-form-urlencoded":
        return ""
    body = await _body(request)
    if body is None:
        return Refusal(
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence="This is no form from here."
        )
    try:
        fields = parse_qs(body.decode("latin-1"), max_num_fields=_MAX_FIELDS)
    except ValueError:
        return ""
    return fields.get("token", [""])[0]


async def _body(request: web.Request) -> bytes | None:
    parts = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for part in request.content.iter_any():
                parts += part
                if len(parts) > _MAX_BODY_BYTES:
                    return None
    except TimeoutError:
        return None
    return bytes(parts)


def _is_same(told: str, token: str) -> bool:
    # Digests are of one length: nothing is learnt from how long it takes.
    return bool(token) and hmac.compare_digest(_digest(told), _digest(token))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
