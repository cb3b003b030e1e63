"""A wire to a node: a TCP proxy on loopback that fails when, where and how it is told to."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tests.faults.trouble import CUTTING, Kind, Trouble, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Self

_CHUNK_BYTES: Final = 16 * 1024
SLOW_BYTES_PER_SECOND: Final = 50_000 / 8
_ANSWER_SECONDS: Final = 30


@dataclass(eq=False, slots=True)
class _Connection:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    is_dead: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def cut(self, *, is_reset: bool) -> None:
        self.over.set()
        for end in filter(None, (self.near, self.far)):
            if is_reset:
                _reset(end)
            else:
                end.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """One way of a connection."""

    connection: _Connection
    way: Way
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(eq=False, slots=True)
class Wire:
    """A port on loopback that leads to `backend`, which may be another one by and by."""

    backend: int
    port: int = 0
    passed: dict[Way, int] = field(default_factory=lambda: {Way.UP: 0, Way.DOWN: 0})
    # How often the trouble happened: a fault that was not met was not injected.
    happened: int = 0
    _trouble: Trouble | None = None
    _server: asyncio.Server | None = None
    _connections: set[_Connection] = field(default_factory=set)
    _slow_until: float = 0.0
    _silent_until: float = 0.0
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _later: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> Self:
        """Listen, if it does not; the port stays the same over times of refusal."""
        self._flows.set()
        if self._server is not None and self._server.is_serving():
            return self
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def total(self) -> int:
        """The bytes that went by, both ways."""
        return sum(self.passed.values())

    async def close(self) -> None:
        """Cut everything, and listen no more."""
        for task in self._later:
            task.cancel()
        if self._server is not None:
            self._server.close()
        self._cut(is_reset=True)

    async def arm(self, trouble: Trouble) -> None:
        """Let it happen, now if as many bytes went by already."""
        self._trouble = trouble
        if self.passed[trouble.way] >= trouble.at_bytes:
            self._happen(trouble)

    async def relieve(self) -> None:
        """End every trouble that is still going on; what is dead is cut."""
        self._trouble = None
        self._slow_until = self._silent_until = 0.0
        for connection in tuple(self._connections):
            if connection.is_dead:
                connection.cut(is_reset=True)
        await self.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(near=writer)
        self._connections.add(connection)
        try:
            # At the end of the suite what is left of this is cancelled, and nobody has to hear.
            with suppress(OSError, asyncio.CancelledError):
                if await self._is_silent():
                    return
                far_reader, connection.far = await asyncio.open_connection(
                    "127.0.0.1", self.backend
                )
                up = _Stream(
                    connection=connection, way=Way.UP, reader=reader, writer=connection.far
                )
                down = _Stream(
                    connection=connection, way=Way.DOWN, reader=far_reader, writer=writer
                )
                await asyncio.gather(self._pump(up), self._pump(down))
        finally:
            self._connections.discard(connection)
            for end in filter(None, (writer, connection.far)):
                end.close()

    async def _is_silent(self) -> bool:
        """Hold a connection for as long as the wire is silent; nobody ever answers it."""
        was_silent = False
        while time.monotonic() < self._silent_until:
            was_silent = True
            await asyncio.sleep(0.05)
        return was_silent

    async def _pump(self, stream: _Stream) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await stream.reader.read(_CHUNK_BYTES):
                await self._forward(stream, data)
        # The end of one direction ends both: what ssh has to say, it says before.
        stream.connection.cut(is_reset=False)

    async def _forward(self, stream: _Stream, data: bytes) -> None:
        way = stream.way
        while data and not stream.writer.is_closing():
            await self._flows.wait()
            if stream.connection.is_dead:
                await stream.connection.over.wait()
                return
            piece = data[: self._allowance(way, len(data))]
            data = data[len(piece) :]
            self.passed[way] += len(piece)
            stream.writer.write(piece)
            await stream.writer.drain()
            trouble = self._trouble
            if trouble and trouble.way is way and self.passed[way] >= trouble.at_bytes:
                self._happen(trouble)
            if time.monotonic() < self._slow_until:
                await asyncio.sleep(len(piece) / SLOW_BYTES_PER_SECOND)

    def _allowance(self, way: Way, wanted: int) -> int:
        """Return how many bytes may go before something happens."""
        allowed = wanted
        if self._trouble is not None and self._trouble.way is way:
            allowed = min(allowed, max(1, self._trouble.at_bytes - self.passed[way]))
        if time.monotonic() < self._slow_until:
            allowed = min(allowed, 512)
        return allowed

    def _happen(self, trouble: Trouble) -> None:
        self.happened += 1
        again = self.passed[trouble.way] + trouble.every_bytes
        self._trouble = replace(trouble, at_bytes=again) if trouble.every_bytes else None
        if trouble.kind in CUTTING:
            self._cut(is_reset=trouble.kind is not Kind.CLOSE)
        match trouble.kind:
            case Kind.PAUSE:
                self._flows.clear()
                self._after(trouble.seconds, self._flow)
            case Kind.DEAD:
                for connection in self._connections:
                    connection.is_dead = True
            case Kind.SLOW:
                self._slow_until = time.monotonic() + trouble.seconds
            case Kind.SILENT:
                self._silent_until = time.monotonic() + trouble.seconds
            case Kind.REFUSE:
                self._refuse(trouble.seconds)
            case _:
                pass

    def _refuse(self, seconds: float) -> None:
        if self._server is not None:
            self._server.close()
        self._after(seconds, self._listen_again)

    def _cut(self, *, is_reset: bool) -> None:
        for connection in tuple(self._connections):
            connection.cut(is_reset=is_reset)

    def _after(self, seconds: float, action: Callable[[], Coroutine[Any, Any, object]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await action()

        task = asyncio.create_task(wait())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _flow(self) -> None:
        self._flows.set()

    async def _listen_again(self) -> None:
        await self.open()


def _reset(end: asyncio.StreamWriter) -> None:
    # A close that does not linger is a reset, also for what is still on its way.
    with suppress(OSError):
        handle = end.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """The thread that all wires live in."""

    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine there to its end, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_ANSWER_SECONDS)

    @contextmanager
    def wire(self, backend: int) -> Iterator[Wire]:
        """Yield a wire that leads to a port of this machine."""
        wire = self.run(Wire(backend=backend).open())
        try:
            yield wire
        finally:
            self.run(wire.close())


@contextmanager
def wires() -> Iterator[Wires]:
    """Yield what makes wires; they are served by one thread."""
    loop = asyncio.new_event_loop()
    # That a connection broke is what we want, and no news.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    thread = threading.Thread(target=loop.run_forever, name="wires")
    thread.start()
    made = Wires(loop=loop)
    try:
        yield made
    finally:
        made.run(_cancel_all())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
