"""A running script on a node, as asyncssh tells of it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import LinkError
from orchestrator.nodes.address import reason_of
from orchestrator.nodes.transport import Completed, Tail

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncssh

_HIGH_WATER_BYTES: Final = 256 * 1024
_CLOSING_SECONDS: Final = 1.0


class SshProcess:
    """A running script on a node, and the session that asyncssh reports to.

    What is not read stays on the node: at most a window of 2 MiB is under way.
    """

    def __init__(self, place: str, on_close: Callable[[SshProcess], None]) -> None:
        self._place = place
        self._on_close = on_close
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._tail = Tail()
        self._changed = asyncio.Event()
        self._has_ended = False
        self._is_closed = False
        self._failure: Exception | None = None
        self._exit_status: int | None = None

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end; raise NodeError if the link is lost before."""
        await self._until(lambda: bool(self._chunks) or self._has_ended or self._is_closed)
        if self._chunks:
            return self._take_chunks()
        if not self._has_ended and self._failure is not None:
            raise lost(self._place, self._failure)
        return b""

    async def finish(self) -> Completed:
        """Return the exit status and the end of stderr."""
        await self._until(lambda: self._exit_status is not None or self._is_closed)
        if self._exit_status is None:
            raise lost(self._place, self._failure)
        # The rest of stderr, unless something that was left behind holds it open.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self._until(lambda: self._is_closed)
        return Completed(exit_status=self._exit_status, stdout=b"", stderr=bytes(self._tail))

    async def close(self) -> None:
        """Close the channel; the process is not signalled."""
        if not self._is_closed and self._channel is not None:
            self._channel.close()
        self._end(None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _take_chunks(self) -> bytes:
        # All at once: a packet has 32 KiB at most, and whoever reads has work with each piece.
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered_bytes = 0
        if len(data) >= _HIGH_WATER_BYTES and self._channel is not None:
            # This calls data_received, and so may pause again at once.
            self._channel.resume_reading()
        return data

    def _end(self, failure: Exception | None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._failure = failure
            self._changed.set()
            self._on_close(self)

    # The rest is what asyncssh calls.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Remember the channel."""
        self._channel = chan

    def session_started(self) -> None:
        """Do nothing: `open` sends the script."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep what came; ask for no more while the reader is behind."""
        if datatype is not None:
            self._tail.append(data)
            return
        self._chunks.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes >= _HIGH_WATER_BYTES and self._channel is not None:
            self._channel.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        """Both outputs are closed; True: the exit status is still to come."""
        self._has_ended = True
        self._changed.set()
        return True

    def exit_status_received(self, status: int) -> None:
        """Keep the status."""
        self._exit_status = status
        self._changed.set()

    def exit_signal_received(self, name: str, *_: object) -> None:
        """Keep the signal as a negative status."""
        number = getattr(signal, f"SIG{name}", None)
        self._exit_status = -(number or _UNKNOWN_SIGNAL)
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the channel is closed; with an exception, that the link is lost."""
        if exc is None and self._exit_status is not None:
            self._has_ended = True
        self._end(exc or _Unanswered())

    def pause_writing(self) -> None:
        """Leave the script in asyncssh's buffer."""

    def resume_writing(self) -> None:
        """Do nothing: asyncssh sends on."""

    def xon_xoff_requested(self, client_can_do: bool) -> None:  # noqa: FBT001 -- asyncssh's signature
        """Do nothing: there is no terminal."""


# Signals that RFC 4254 does not name come as one word for all of them; no system has this number.
_UNKNOWN_SIGNAL: Final = 127


class _Unanswered(Exception):  # noqa: N818 -- it completes a sentence
    def __str__(self) -> str:
        return "the session was closed without an exit status"


def lost(place: str, cause: BaseException | None) -> LinkError:
    """Return the error of a link that is gone, and took no job with it."""
    why = "it was closed here" if cause is None else reason_of(cause)
    return LinkError(
        f"lost the link to {place}: {why}",
        hint="what runs there goes on: run the same command again to go on from there",
    )
