"""A server of a store, as strangers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.stores.store import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path


class Mirror:
    """A server of the store that tells the truth, but for what a test changes."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.bodies: dict[str, Callable[[bytes], bytes]] = {}
        self.headers: dict[str, dict[str, str | None]] = {}
        self.statuses: dict[str, list[int]] = {}
        self.asked: list[str] = []
        # What happens right before an object is looked up.
        self.before: dict[str, Callable[[], None]] = {}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/")
        self.asked.append(name)
        if name in self.before:
            self.before[name]()
        path, kind = self.store / name, kind_of(name)
        statuses = self.statuses.get(name, [])
        status = (statuses.pop(0) if len(statuses) > 1 else statuses[0]) if statuses else 200
        if not path.is_file() or kind is None or status != 200:
            request.send_error(404 if status == 200 else status)
            return
        body = self.bodies.get(name, bytes)(path.read_bytes())
        headers: dict[str, str | None] = {
            "Content-Type": kind.content_type,
            "Cache-Control": kind.cache_control,
            "Content-Length": str(len(body)),
        }
        headers |= self.headers.get(name, {})
        request.send_response(200)
        for key, value in headers.items():
            if value is not None:
                request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body)
