"""The wire of the fault suite: it fails at the byte that it was told."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.trouble import Kind, Trouble, Way
from tests.faults.wire import Wire, wires

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.wire import Wires


@pytest.fixture(scope="module")
def made() -> Iterator[Wires]:
    with wires() as made:
        yield made


@pytest.fixture
def wire(made: Wires) -> Iterator[Wire]:
    with _echo() as port, made.wire(port) as wire:
        yield wire


@contextmanager
def _echo() -> Iterator[int]:
    """Serve what comes back as it went."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1000):
                    connection.sendall(data)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _connected(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=10)


def _received(connection: socket.socket, wanted: int) -> bytes:
    data = b""
    try:
        while len(data) < wanted and (piece := connection.recv(wanted)):
            data += piece
    except ConnectionResetError:
        return data + b"reset"
    return data


def test_what_is_sent_comes_back_and_is_counted(wire: Wire) -> None:
    with _connected(wire) as connection:
        connection.sendall(bytes(5000))
        assert _received(connection, 5000) == bytes(5000)
    assert wire.passed == {Way.UP: 5000, Way.DOWN: 5000}
    assert not wire.happened


def test_a_reset_comes_at_the_byte(made: Wires, wire: Wire) -> None:
    made.run(wire.arm(Trouble(kind=Kind.RESET, way=Way.UP, at_bytes=1234)))
    with _connected(wire) as connection:
        connection.sendall(bytes(5000))
        assert _received(connection, 5000).endswith(b"reset")
    assert wire.passed[Way.UP] == 1234
    assert wire.happened == 1
    with _connected(wire) as connection:
        connection.sendall(b"again")
        assert _received(connection, 5) == b"again"


def test_a_close_comes_at_the_byte_and_is_no_reset(made: Wires, wire: Wire) -> None:
    made.run(wire.arm(Trouble(kind=Kind.CLOSE, way=Way.DOWN, at_bytes=100)))
    with _connected(wire) as connection:
        connection.sendall(bytes(300))
        assert _received(connection, 300) == bytes(100)


def test_it_happens_again_and_again(made: Wires, wire: Wire) -> None:
    made.run(wire.arm(Trouble(kind=Kind.RESET, way=Way.UP, at_bytes=100, every_bytes=100)))
    for _ in range(3):
        with _connected(wire) as connection:
            connection.sendall(bytes(150))
            _received(connection, 150)
    assert wire.happened == 3


@pytest.mark.parametrize("kind", [Kind.PAUSE, Kind.SLOW])
def test_what_was_held_or_slow_arrives_whole(made: Wires, wire: Wire, kind: Kind) -> None:
    made.run(wire.arm(Trouble(kind=kind, way=Way.UP, at_bytes=1, seconds=0.2)))
    with _connected(wire) as connection:
        connection.sendall(b"x" * 5000)
        assert _received(connection, 5000) == b"x" * 5000


def test_of_a_dead_wire_new_connections_work(made: Wires, wire: Wire) -> None:
    made.run(wire.arm(Trouble(kind=Kind.DEAD, way=Way.UP, at_bytes=10)))
    with _connected(wire) as dead, _connected(wire) as other:
        dead.sendall(bytes(20))
        dead.settimeout(0.2)
        assert _until_timeout(dead) <= 10
        del other
        with _connected(wire) as fresh:
            fresh.sendall(b"fresh")
            assert _received(fresh, 5) == b"fresh"
        made.run(wire.relieve())
        dead.settimeout(10)
        assert _received(dead, 100).endswith(b"reset")


def _until_timeout(connection: socket.socket) -> int:
    count = 0
    try:
        while data := connection.recv(100):
            count += len(data)
    except TimeoutError:
        pass
    return count


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.SILENT])
def test_it_is_out_of_reach_until_it_is_relieved(made: Wires, wire: Wire, kind: Kind) -> None:
    made.run(wire.arm(Trouble(kind=kind, seconds=1000)))
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        _ask(wire)
    made.run(wire.relieve())
    with _connected(wire) as connection:
        connection.sendall(b"back")
        assert _received(connection, 4) == b"back"


def _ask(wire: Wire) -> None:
    with _connected(wire) as connection:
        connection.settimeout(0.3)
        connection.sendall(b"x")
        connection.recv(1)


def test_it_leads_elsewhere_when_it_is_told(made: Wires, wire: Wire) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        writer.close()

    server = made.run(asyncio.start_server(shout, "127.0.0.1", 0))
    wire.backend = server.sockets[0].getsockname()[1]
    with _connected(wire) as connection:
        connection.sendall(b"elsewhere")
        assert _received(connection, 9) == b"ELSEWHERE"
    made.loop.call_soon_threadsafe(server.close)
