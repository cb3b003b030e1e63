"""Who asks: through a web server on this machine, the address that it has seen."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from orchestrator.web import is_loopback

if TYPE_CHECKING:
    from aiohttp import web

_HEADER: Final = "X-Forwarded-For"


def client_address(request: web.Request) -> str:
    """Return the address of whoever asks, nothing if that is not known.

    Only who comes from this machine is believed when it speaks for somebody else, and of what it
    says only the last address: that one it has seen itself, the others it was told.
    """
    remote = request.remote or ""
    if not is_loopback(remote):
        return remote
    told = ",".join(request.headers.getall(_HEADER, ())).rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(told))
    except ValueError:
        return remote
