"""A server that gives whatever answer it was told to, down to a false length and a cut."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_SLICES: Final = 8
_PAUSE_SECONDS: Final = 0.01
# So that a reset sends no more and does not wait.
_AT_ONCE: Final = struct.pack("ii", 1, 0)


class Framing(StrEnum):
    """How a body goes over the wire."""

    WHOLE = "with its length"
    SLOWLY = "in slices, with its length"
    UNTIL_CLOSED = "without a length"
    CLOSED_EARLY = "closed before the length that was promised"
    RESET_EARLY = "reset before the length that was promised"
    BAD_CHUNKS = "in chunks, and then something that is none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; `promised` is a length that is not the one of the body."""

    body: bytes
    framing: Framing = Framing.WHOLE
    status: int = 200
    promised: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """The server: its address, and the answers by path. What is not there is answered with 404."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)


@contextmanager
def tell_lies() -> Generator[Liar]:
    """Run the server on loopback; it knows no ranges, so that a second try gets the same."""
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                _send(self, answers.get(self.path) or Answer(body=b"not here\n", status=404))
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            del args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Liar(url=f"http://127.0.0.1:{server.server_port}", answers=answers)
        finally:
            server.shutdown()
            thread.join()


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(answer.status)
    for name, value in (*answer.headers, ("Connection", "close")):
        handler.send_header(name, value)
    body = answer.body
    match answer.framing:
        case Framing.UNTIL_CLOSED:
            handler.end_headers()
        case Framing.BAD_CHUNKS:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            body = b"%x\r\n%b\r\nzz\r\n\x00\xff\r\n" % (len(body), body)
        case _:
            length = len(body) if answer.promised is None else answer.promised
            handler.send_header("Content-Length", str(length))
            handler.end_headers()
    if answer.framing is Framing.SLOWLY:
        _send_slowly(handler, body)
    else:
        handler.wfile.write(body)
    if answer.framing is Framing.RESET_EARLY:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        handler.connection.close()


def _send_slowly(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    never = threading.Event()
    size = len(body) // _SLICES + 1
    for start in range(0, len(body), size):
        handler.wfile.write(body[start : start + size])
        never.wait(_PAUSE_SECONDS)
