"""What a person would do at a guest's serial line: wait until it asks, and type the answer.

What it says is read from the log that QEMU writes, which misses nothing; the socket is for typing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import NodeError
from orchestrator.core.wording import without_escapes
from orchestrator.nodes.vm.diagnosis import last_lines
from orchestrator.nodes.vm.folder import PATHS
from orchestrator.nodes.vm.qmp import short_way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from orchestrator.core.vm_seed import Line
    from orchestrator.nodes.vm.folder import VmFolder

_GLANCE_SECONDS: Final = 0.1
_CONNECT_SECONDS: Final = 20
# A kernel may write something behind the question; it waits for the answer all the same.
_SILENCE_SECONDS: Final = 5.0
# A BIOS looks at its serial line at each tick of a clock, and has room for 16 characters.
_KEY_SECONDS: Final = 0.06
_CHUNK_BYTES: Final = 65536


@dataclass(slots=True, kw_only=True)
class SerialLine:
    """The serial line of a guest that runs."""

    folder: VmFolder
    writer: asyncio.StreamWriter
    # How much of its log was answered already, and how much there was when it was looked at last.
    _answered_bytes: int = 0
    _seen_bytes: int = 0
    _changed_at: float = field(default_factory=time.monotonic)

    async def answer(self, lines: Sequence[Line], *, patience_seconds: float) -> None:
        """Type each line when the guest asks for it, with so much patience for each.

        Raise NodeError, with what the guest said last, if it never asks, or ends before.
        """
        for line in lines:
            await self.wait_for(line.awaits, patience_seconds=patience_seconds)
            await self.type(line.says)

    async def wait_for(self, prompt: str, *, patience_seconds: float) -> None:
        """Return when the guest waits behind this prompt; raise NodeError as above."""
        deadline = time.monotonic() + patience_seconds
        while not self.is_waiting_at(prompt):
            if not self.folder.is_running:
                raise self._failure(f"the guest has ended, and has not said `{prompt.strip()}`")
            if time.monotonic() > deadline:
                raise self._failure(f"no `{prompt.strip()}` within {patience_seconds:g} s")
            await asyncio.sleep(_GLANCE_SECONDS)

    def is_waiting_at(self, prompt: str, *, silence_seconds: float = 0.0) -> bool:
        """Whether the guest has said this since the last answer, and has been silent since then."""
        size = self._size()
        if size != self._seen_bytes:
            self._seen_bytes, self._changed_at = size, time.monotonic()
        new = self._new(size)
        silent_for = time.monotonic() - self._changed_at
        if new.rstrip(" ").endswith(prompt.rstrip(" ")):
            return silent_for >= silence_seconds
        return prompt in new and silent_for >= max(silence_seconds, _SILENCE_SECONDS)

    def _size(self) -> int:
        try:
            return self.folder.file(PATHS.serial_log).stat().st_size
        except OSError:
            return 0

    def _new(self, size: int) -> str:
        """Return what it has said since the last answer: the end of it, if that is long."""
        new = min(size - self._answered_bytes, _CHUNK_BYTES)
        if new <= 0:
            return ""
        with self.folder.file(PATHS.serial_log).open("rb") as log:
            log.seek(size - new)
            return without_escapes(log.read(new).decode(errors="replace"))

    async def type(self, line: str) -> None:
        """Type a line, no faster than a boot loader reads; raise NodeError if nobody is there."""
        self._answered_bytes = self._size()
        self._changed_at = time.monotonic()
        try:
            for character in f"{line}\r":
                self.writer.write(character.encode())
                await self.writer.drain()
                await asyncio.sleep(_KEY_SECONDS)
        except OSError as error:
            raise self._failure(f"the serial line broke off: {error.strerror}") from error

    async def until_end(self, *, prompt: str, patience_seconds: float) -> None:
        """Return when the guest has ended, or has halted and cannot switch itself off.

        Raise NodeError if it asks again instead, or takes too long.
        """
        deadline = time.monotonic() + patience_seconds
        while self.folder.is_running and _HALTED not in self._new(self._size()):
            if self.is_waiting_at(prompt, silence_seconds=_GIVEN_UP_SECONDS):
                raise self._failure("the guest asks again instead of ending: what was begun failed")
            if time.monotonic() > deadline:
                raise self._failure(f"the guest has not ended within {patience_seconds:g} s")
            await asyncio.sleep(_GLANCE_SECONDS)

    def _failure(self, message: str) -> NodeError:
        return NodeError(f"{message}{last_lines(self.folder.tail(PATHS.serial_log))}")


_GIVEN_UP_SECONDS: Final = 20.0
_HALTED: Final = "operating system has halted"


@asynccontextmanager
async def open_line(folder: VmFolder) -> AsyncIterator[SerialLine]:
    """Yield the serial line of a machine that was just started; raise NodeError without one."""
    reader, writer = await _connected(folder)
    # Unread, it would make QEMU wait, and the guest with it.
    draining = asyncio.create_task(_drain(reader))
    try:
        yield SerialLine(folder=folder, writer=writer)
    finally:
        draining.cancel()
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(draining, writer.wait_closed(), return_exceptions=True)


async def _connected(folder: VmFolder) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            with short_way(folder.file(PATHS.console)) as way:
                return await asyncio.open_unix_connection(way)
        except OSError as error:
            if time.monotonic() > deadline:
                raise NodeError(
                    f"the serial line cannot be reached: {error.strerror}"
                    f"{last_lines(folder.tail('qemu.log'))}"
                ) from error
        await asyncio.sleep(_GLANCE_SECONDS)


async def _drain(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(_CHUNK_BYTES):
            pass
