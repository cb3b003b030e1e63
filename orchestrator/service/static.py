"""A directory store over HTTP on loopback, with the headers that its objects have elsewhere."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import socketserver
import sys
import threading
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple
from urllib.parse import unquote

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.stores.directory import open_object
from orchestrator.stores.store import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader
    from pathlib import Path


@contextlib.contextmanager
def serve_directory(folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve the folder in the background until the end of the block; yield its URL.

    Port 0 takes a free one. Only a loopback address is served: what goes to other machines needs
    TLS and a server that is made for them.
    """
    _require_loopback(host)
    try:
        server = _Server((host, port), partial(_Request, folder))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="choose another port, or 0 for any that is free",
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    with server:
        thread.start()
        try:
            yield f"http://{_in_url(host)}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


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


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(ThreadingHTTPServer):
    # A client that stopped reading would otherwise hold up the end.
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: Callable[..., _Request]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the resolver for the host's name, seconds without a network.
        socketserver.TCPServer.server_bind(self)

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Print what is a fault of this server; a client that goes away is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Range(NamedTuple):
    first: int
    last: int


class _Request(BaseHTTPRequestHandler):
    """One connection: GET and HEAD of published objects, whole or one range of them."""

    protocol_version = "HTTP/1.1"
    # Seconds that a client may take to send a request or to take what it asked for.
    timeout: ClassVar[float | None] = 30

    def __init__(self, folder: Path, *args: object) -> None:
        self._folder = folder
        super().__init__(*args)  # type: ignore[arg-type]  # what socketserver calls a handler with

    def do_GET(self) -> None:
        """Send the object."""
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        """Send what GET would, without the body."""
        self._send(with_body=False)

    def version_string(self) -> str:
        """Name the program, and no version of anything."""
        return "orchestrator"

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is the user's."""

    def _send(self, *, with_body: bool) -> None:
        name = _object_name(self.path)
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open_object(self._folder, name))
            except (OSError, StoreError):
                # A hidden file, a link, a folder: whatever it is, nothing was published there.
                file = None
            if file is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._send_object(name, file, with_body=with_body)

    def _send_object(self, name: str, file: BufferedReader, *, with_body: bool) -> None:
        found = os.fstat(file.fileno())
        tag = f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"'
        kind = kind_of(name)
        headers = {
            "ETag": tag,
            "Last-Modified": formatdate(found.st_mtime, usegmt=True),
            "Cache-Control": kind.cache_control if kind else "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if _is_known(self.headers.get("If-None-Match"), tag):
            self._send_head(HTTPStatus.NOT_MODIFIED, headers)
            return
        headers["Accept-Ranges"] = "bytes"
        wanted = self._wanted_range(tag, found.st_size)
        if wanted and wanted.first > wanted.last:
            headers |= {"Content-Range": f"bytes */{found.st_size}", "Content-Length": "0"}
            self._send_head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
            return
        headers["Content-Type"] = kind.content_type if kind else "application/octet-stream"
        first, last = wanted or _Range(0, found.st_size - 1)
        headers["Content-Length"] = str(last - first + 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{found.st_size}"
        self._send_head(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK, headers)
        if with_body:
            self._send_body(file, first, last - first + 1)

    def _wanted_range(self, tag: str, size: int) -> _Range | None:
        condition = self.headers.get("If-Range")
        # A date as the condition counts as changed: two writes may share a second.
        if condition is not None and condition != tag:
            return None
        return _parse_range(self.headers.get("Range"), size)

    def _send_head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        # One object for each connection: none is left open when the server stops.
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, file: BufferedReader, first: int, length: int) -> None:
        file.seek(first)
        while data := file.read(min(length, _CHUNK_BYTES)):
            self.wfile.write(data)
            length -= len(data)


_CHUNK_BYTES: Final = 64 * 1024


def _object_name(target: str) -> str:
    path = unquote(target.partition("?")[0])
    return path.removeprefix("/") or "index.html"


def _is_known(condition: str | None, tag: str) -> bool:
    known = [each.strip().removeprefix("W/") for each in (condition or "").split(",")]
    return tag in known or "*" in known


_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def _parse_range(text: str | None, size: int) -> _Range | None:
    """Return the one range that is asked for, an empty one if it cannot be had, None for none.

    RFC 9110 14.2: a range that is not understood, or several, may be ignored.
    """
    match = _RANGE.fullmatch(text or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return _Range(max(0, size - int(last)), size - 1)
    if last and int(last) < int(first):
        return None
    return _Range(int(first), min(int(last), size - 1) if last else size - 1)
