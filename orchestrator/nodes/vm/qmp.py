"""QEMU's monitor: JSON lines over a Unix socket (https://www.qemu.org/docs/master/interop/qmp-spec.html)."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_ANSWER_SECONDS: Final = 10
_MAX_LINE_BYTES: Final = 1024 * 1024
# sockaddr_un has 108 bytes on Linux and 104 on the BSDs and macOS, with a closing NUL.
_MAX_PATH_BYTES: Final = 103


class Monitor:
    """A conversation with one QEMU; only one can talk at a time, the next one waits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str) -> Any:
        """Return what QEMU answers; raise NodeError if it refuses, says nothing, or ends."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._writer.write(json.dumps({"execute": command}).encode() + b"\n")
                await self._writer.drain()
                while True:
                    answer = await self._receive()
                    if "return" in answer:
                        return answer["return"]
                    if "error" in answer:
                        raise NodeError(f"QEMU refuses `{command}`: {answer['error']}")
        except TimeoutError:
            raise NodeError(f"QEMU does not answer `{command}`: it hangs") from None
        except (OSError, ValueError) as error:
            raise NodeError(f"QEMU's monitor broke off at `{command}`: {error}") from error

    async def _receive(self) -> dict[str, Any]:
        line = await self._reader.readline()
        if not line:
            raise NodeError("QEMU has ended")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise NodeError("QEMU's monitor says what is no message")
        return message

    async def begin(self) -> None:
        """Greet, after which commands are taken; raise NodeError if nobody does."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if "QMP" not in await self._receive():
                    raise NodeError("what answers is no monitor of QEMU")
        except TimeoutError:
            raise NodeError("QEMU's monitor is silent: it hangs, or talks to another") from None
        except (OSError, ValueError) as error:
            raise NodeError(f"QEMU's monitor broke off: {error}") from error
        await self.execute("qmp_capabilities")


@contextmanager
def short_way(socket: Path) -> Iterator[Path]:
    """Yield a path of a Unix socket that is short enough to be connected to."""
    if len(os.fsencode(socket)) <= _MAX_PATH_BYTES:
        yield socket
        return
    with tempfile.TemporaryDirectory(prefix="vm-") as folder:
        Path(folder, "vm").symlink_to(socket.parent)
        yield Path(folder, "vm", socket.name)


@asynccontextmanager
async def open_monitor(socket: Path) -> AsyncIterator[Monitor]:
    """Yield the monitor at that socket; raise NodeError if there is none, or if it hangs."""
    try:
        with short_way(socket) as way:
            reader, writer = await asyncio.open_unix_connection(way, limit=_MAX_LINE_BYTES)
    except OSError as error:
        raise NodeError(f"QEMU's monitor cannot be reached: {error.strerror}") from error
    try:
        monitor = Monitor(reader, writer)
        await monitor.begin()
        yield monitor
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
