"""The least that a copy over the network can cost: a TCP connection, and nothing around the bytes.

python -m benchmarks.raw_copy serve PORT=…             (of `raw_serving`)
python -m benchmarks.raw_copy fetch INTO ADDRESS:PORT…  each file to INTO, as node0, node1, …
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measuring import print_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_CHUNK_BYTES: Final = 1 << 18


@contextmanager
def raw_serving(files: Mapping[tuple[str, int], Path], *, prefix: Sequence[str]) -> Iterator[None]:
    """Serve each file at its address and port until the end of the block."""
    places = [f"{address}:{port}={path}" for (address, port), path in files.items()]
    command = [*prefix, sys.executable, "-m", "benchmarks.raw_copy", "serve", *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None  # noqa: S101 -- a pipe
        try:
            if not server.stdout.readline():
                raise OSError("the raw server could not start")
            yield
        finally:
            server.terminate()


def main(words: Sequence[str]) -> None:
    """Serve or fetch, as the words say; all at once."""
    verb, *rest = words
    if verb == "serve":
        listening = []
        for word in rest:
            place, path = word.split("=", 1)
            listening.append((socket.create_server(_address(place)), path))
        print("ready", flush=True)
        _at_once(_serve, listening)
    else:
        into, *places = rest
        begun = time.perf_counter()
        _at_once(_fetch, [(place, Path(into) / f"node{n}") for n, place in enumerate(places)])
        print_seconds(time.perf_counter() - begun)


def _at_once(work: Callable[..., None], each: Sequence[tuple[object, ...]]) -> None:
    threads = [threading.Thread(target=work, args=args) for args in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(server: socket.socket, path: str) -> None:
    while True:
        connection, _ = server.accept()
        with connection, Path(path).open("rb") as file:
            connection.sendfile(file)


def _fetch(place: str, into: Path) -> None:
    digest = hashlib.sha256()
    with (
        socket.create_connection(_address(place)) as connection,
        into.open("wb", buffering=0) as file,
    ):
        while data := connection.recv(_CHUNK_BYTES):
            digest.update(data)
            file.write(data)
        os.fsync(file.fileno())
    into.with_name(f"{into.name}.sha256").write_text(f"{digest.hexdigest()}\n")


def _address(place: str) -> tuple[str, int]:
    address, port = place.rsplit(":", 1)
    return address, int(port)


if __name__ == "__main__":
    main(sys.argv[1:])
