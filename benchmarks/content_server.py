"""A server of files over TLS that writes down each connection and each request.

    python -m benchmarks.content_server FOLDER CERTIFICATE PORT RECORD

The certificate's file has its key too. It serves until its input ends.
"""

from __future__ import annotations

import ssl
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen, run
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a client has asked for: its connections, and the paths of its requests in order."""

    connections: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentServer:
    """A server that runs: where it is, whom to trust, and what it has been asked."""

    url: str
    certificate: Path
    record: Path

    def take_record(self) -> Served:
        """Return what was asked since the last time."""
        lines = self.record.read_text().splitlines()
        self.record.write_text("")
        return Served(
            connections=lines.count("connection"),
            paths=tuple(line for line in lines if line != "connection"),
        )


@contextmanager
def serving(
    folder: Path, scratch: Path, *, address: str, place: Sequence[str] = ()
) -> Iterator[ContentServer]:
    """Serve a folder until the end of the block; `place` are the words of the network to be in."""
    certificate, record = scratch / "certificate.pem", scratch / "record"
    _make_certificate(certificate, address)
    record.write_text("")
    words = [str(folder), str(certificate), address, str(record)]
    command = [*place, sys.executable, "-m", "benchmarks.content_server", *words]
    root = Path(__file__).parent.parent
    with Popen(command, stdin=PIPE, stdout=PIPE, cwd=root, text=True) as server:
        assert server.stdout is not None  # noqa: S101 -- a pipe
        port = server.stdout.readline().strip()
        if not port:
            raise OSError("the server of files did not start")
        yield ContentServer(url=f"https://{address}:{port}", certificate=certificate, record=record)


def _make_certificate(file: Path, address: str) -> None:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=benchmark", "-addext", f"subjectAltName=IP:{address}"]
    words = ["openssl", "req", "-x509", *curve, *name, "-keyout", f"{file}", "-out", f"{file}.new"]
    run(words, check=True, capture_output=True)
    with file.open("a") as both:
        both.write(Path(f"{file}.new").read_text())


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    record: Path

    def setup(self) -> None:
        super().setup()
        self._write_down("connection")

    def send_head(self) -> Any:
        self._write_down(self.path)
        return super().send_head()

    def log_message(self, *args: object) -> None:
        del args

    def _write_down(self, line: str) -> None:
        with self.record.open("a") as record:
            record.write(f"{line}\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # The handshake is the handler's, so that none waits for that of another.
        wrapped = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return wrapped, address

    def handle_error(self, *args: object) -> None:
        del args


def main(words: Sequence[str]) -> None:
    """Serve until the end of the input."""
    folder, certificate, address, record = words
    _Handler.record = Path(record)

    def handler(*args: Any) -> _Handler:
        return _Handler(*args, directory=folder)

    with _Server((address, 0), handler) as server:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(certificate)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
