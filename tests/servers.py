"""HTTP servers on loopback that answer as a test says."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Respond = Callable[[BaseHTTPRequestHandler], None]

ROOT: Final = Path(__file__).parent.parent


@contextmanager
def serving(answer: Respond) -> Iterator[str]:
    """Yield the URL of a server whose every request is answered by that function."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def do_PATCH(self) -> None:
            answer(self)

        def do_DELETE(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def bytes_of(data: bytes, status: int = 200, **headers: str) -> Respond:
    """Answer with these bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def moved_to(url: str, status: int = 302) -> Respond:
    """Answer with a redirect."""
    return bytes_of(b"", status, Location=url)


@contextmanager
def orchestrator_serve(store: Path) -> Iterator[str]:
    """Yield the URL at which the real command serves a folder, in a process of its own."""
    command = [sys.executable, "-m", "orchestrator", "serve", "--port", "0", "--store", str(store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        try:
            yield serving.stdout.readline().split()[-1]
            serving.send_signal(signal.SIGINT)
            assert serving.wait(timeout=20) == 0
        finally:
            serving.kill()
