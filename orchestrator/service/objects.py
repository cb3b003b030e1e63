"""Published objects over HTTP: GET and HEAD, whole or a part, with the headers of their kind."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from aiohttp import web

from orchestrator.core.conditions import CONDITIONAL_HEADERS, Verdict, accepts_gzip, decide
from orchestrator.core.errors import StoreError
from orchestrator.service.compression import Compressor
from orchestrator.service.headers import page_policy, plain
from orchestrator.service.sources import is_compressible
from orchestrator.stores.store import ObjectKind, kind_of

if TYPE_CHECKING:
    from orchestrator.core.conditions import Portion, Version
    from orchestrator.service.sources import Content, Source

_log = logging.getLogger(__name__)


def add_objects(app: web.Application, objects: Objects) -> None:
    """Serve the objects under every path that no route before it has; so it comes last."""
    app.router.add_get("/{name:.*}", objects.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The objects of one source, as answers."""

    source: Source
    compressor: Compressor = field(default_factory=Compressor)
    # How long a client may take nothing of what it asked for.
    stall_seconds: float = 30

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a GET or HEAD of the object that the path names."""
        return await self.send(request, _object_name(request))

    async def send(
        self, request: web.Request, name: str, *, vary: tuple[str, ...] = ()
    ) -> web.StreamResponse:
        """Answer with this object; `vary` are the headers by which it was chosen."""
        try:
            async with self.source.open(name) as content:
                if content is not None:
                    headers = _headers(name, content) | _vary(vary)
                    reply = _Reply(request=request, content=content, headers=headers)
                    if is_compressible(name):
                        reply = await self._negotiated(reply)
                    return await reply.send(self.stall_seconds)
        except StoreError as error:
            _log.error("%s", error.message)
            return plain(503, headers={"Retry-After": "60"})
        url = self.source.elsewhere(name)
        # Not to this server itself, where it would come back from.
        if url is not None and urlsplit(url).netloc.lower() != request.host.lower():
            raise web.HTTPFound(url)
        return plain(404, headers=_vary(vary))

    async def _negotiated(self, reply: _Reply) -> _Reply:
        """Return the reply in gzip, for who asks for that, and for all of it.

        `no-transform` in Cache-Control is for those between: which encodings there are of an
        object is for its origin to say, and each is a version with an entity tag of its own.
        """
        vary = reply.headers.get("Vary")
        headers = reply.headers | _vary((vary, "Accept-Encoding") if vary else ("Accept-Encoding",))
        content = reply.content
        # Who insists on the plain version by its tag has to get that one.
        is_plain = content.version.tag in _sent(reply.request, "If-Match")
        is_plain = is_plain or "Range" in reply.request.headers
        if not is_plain and accepts_gzip(_sent(reply.request, "Accept-Encoding")):
            content = await self.compressor.compress(content)
        if content.version.tag != reply.content.version.tag:
            headers["Content-Encoding"] = "gzip"
        return replace(reply, content=content, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """The answer to one request for an object that is there."""

    request: web.Request
    content: Content
    headers: dict[str, str]

    async def send(self, stall_seconds: float) -> web.StreamResponse:
        version = self.content.version
        portion = decide(_conditions(self.request), version)
        if portion.verdict is Verdict.CHANGED:
            return plain(portion.verdict)
        headers = {**self.headers, "ETag": version.tag, **_extent(portion, version)}
        if portion.verdict not in {Verdict.WHOLE, Verdict.PART}:
            headers = {name: headers[name] for name in headers if name not in _OF_A_BODY}
        response = web.StreamResponse(status=portion.verdict, headers=headers)
        await response.prepare(self.request)
        if self.request.method != "HEAD":
            await self._send_body(response, portion, stall_seconds)
        return response

    async def _send_body(
        self, response: web.StreamResponse, portion: Portion, stall_seconds: float
    ) -> None:
        first, end = portion.first, portion.first + portion.length_bytes
        while first < end:
            # A file that cannot be read on, or was cut off, is a failure of this server.
            data = await self.content.read(first, min(end - first, _CHUNK_BYTES))
            if not data:
                raise EOFError(f"the file ends {end - first} bytes before its end")
            try:
                async with asyncio.timeout(stall_seconds):
                    await response.write(data)
            except TimeoutError:
                # Half an answer was sent: only a broken connection says that it is not all.
                if self.request.transport is not None:
                    self.request.transport.abort()
                return
            first += len(data)


# Read in a thread, this is as fast as sendfile (50 MB in 40 ms), which would wait for the disk in
# the event loop.
_CHUNK_BYTES: Final = 256 * 1024


def _object_name(request: web.Request) -> str:
    return unquote(request.rel_url.raw_path).removeprefix("/")


def _conditions(request: web.Request) -> dict[str, str]:
    return {name: _sent(request, name) for name in CONDITIONAL_HEADERS if name in request.headers}


def _extent(portion: Portion, version: Version) -> dict[str, str]:
    match portion.verdict:
        case Verdict.UNCHANGED:
            return {}
        case Verdict.NO_SUCH_PART:
            return {"Content-Range": f"bytes */{version.size_bytes}", "Content-Length": "0"}
        case Verdict.PART:
            last = portion.first + portion.length_bytes - 1
            part = {"Content-Range": f"bytes {portion.first}-{last}/{version.size_bytes}"}
        case _:
            part = {}
    return {**part, "Content-Length": str(portion.length_bytes)}


# The rest of a 304 takes the place of what a cache has of the object, its policy for one.
_OF_A_BODY: Final = {"Content-Type", "Content-Encoding"}


def _sent(request: web.Request, name: str) -> str:
    return ", ".join(request.headers.getall(name, ()))


def _vary(names: tuple[str, ...]) -> dict[str, str]:
    return {"Vary": ", ".join(names)} if names else {}


def _headers(name: str, content: Content) -> dict[str, str]:
    kind = kind_of(name)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": kind.cache_control if kind else "no-cache",
        "Content-Type": kind.content_type if kind else "application/octet-stream",
    }
    if content.version.modified is not None:
        headers["Last-Modified"] = format_datetime(content.version.modified, usegmt=True)
    if kind is ObjectKind.PAGE:
        headers["Content-Security-Policy"] = page_policy(
            content.body if isinstance(content.body, bytes) else b""
        )
    return headers
