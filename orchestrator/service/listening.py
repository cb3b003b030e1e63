"""An application on a loopback address: its limits, its patience, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

from orchestrator.core.errors import ConfigError
from orchestrator.service.headers import SAFETY, plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)

# Longer than a proxy in front keeps a connection for its next request: who closes first loses it.
_IDLE_SECONDS: Final = 150
# For the rest of what a request was refused without.
_LINGERING_SECONDS: Final = 2


@contextlib.asynccontextmanager
async def listening(
    app: web.Application,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    patience_seconds: float = 0.5,
    is_local: bool = True,
) -> AsyncIterator[str]:
    """Serve the application until the end of the block; yield its URL.

    Port 0 takes a free one. If it is local, only a loopback address is served: what goes to other
    machines needs TLS and a server that is made for them. At the end, requests that are under way
    have this patience twice, once to be done and once to be cancelled; must be above 0.
    """
    if is_local:
        _require_loopback(host)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=patience_seconds)
    await runner.setup()
    try:
        server = await _listen(runner, host, port)
        try:
            taken = server.sockets[0].getsockname()[1]
            yield f"http://{f'[{host}]' if ':' in host else host}:{taken}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _require_loopback(host: str) -> None:
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"{host[:80]!r} is not a loopback address",
            hint="use 127.0.0.1 or ::1; put a web server in front to serve other machines",
        )


async def _listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    manager = cast("web.Server", runner.server)  # there is one from setup on

    def connection() -> _Connection:
        return _Connection(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # so does aiohttp's own runner
            # Nobody sends anything compressed, and a signature is over the bytes as they came.
            auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            logger=_log,
        )

    try:
        return await loop.create_server(connection, host, port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="choose another port, or 0 for any that is free",
        ) from error


class _Connection(web.RequestHandler):
    """One connection, which ends without a word when the other side breaks it or the rules."""

    __slots__ = ()

    def force_close(self) -> None:
        """End now: what the client has not taken by then it never takes."""
        if self.transport is not None:
            self.transport.abort()
        super().force_close()

    def handle_error(  # noqa: PLR0917 -- the signature of the overridden method
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request in HTTP; that is nobody's fault here, so none is logged."""
        if status != 400:  # noqa: PLR2004 -- a status of HTTP
            return super().handle_error(request, status, exc, message)
        response = plain(status, headers=SAFETY)
        response.force_close()
        return response
