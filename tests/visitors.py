"""Those who ask a server: one request each, as it is, and what came back."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


class Answer:
    """What came back, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """Send one request; in the names of headers, _ stands for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask_with(url, path, named, method=method)


def ask_with(url: str, path: str, headers: Mapping[str, str], *, method: str = "GET") -> Answer:
    """Send one request."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        connection.request(method, path, headers=dict(headers))
        return Answer(connection.getresponse())


def connect(url: str) -> socket.socket:
    """Return a connection to the server, to speak on as one likes."""
    place = urlsplit(url)
    assert place.hostname
    assert place.port
    return socket.create_connection((place.hostname, place.port), timeout=30)


def say(url: str, data: bytes, *, hang_up: bool = False) -> bytes:
    """Send these bytes and perhaps an end; return all that came back until the server closed."""
    with connect(url) as client:
        client.sendall(data)
        if hang_up:
            client.shutdown(socket.SHUT_WR)
        parts = []
        while part := client.recv(65536):
            parts.append(part)
        return b"".join(parts)
