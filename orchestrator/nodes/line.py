"""The way to a node over as many links as it takes: what a lost one broke off is done again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self, TypeVar

from orchestrator.core.errors import LinkError
from orchestrator.nodes.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

OpenTransport = Callable[[], AbstractAsyncContextManager[Transport]]
# How long a loss may last, as it is judged now: the longer others work, the longer one can wait.
Patience = Callable[[], timedelta]
# Told of each failure and of the pause before the next try.
OnLost = Callable[[LinkError, timedelta], None]

# Seconds. sshd counts connections that come to nothing against their source, so never faster.
BACKOFF: Final = (1, 2, 4, 8, 15, 30)
# A link that held for so long was a link; a silent compile brings no bytes either.
_FRUITFUL_SECONDS: Final = 5
_MAX_FRUITLESS: Final = 3
# A pause is looked at again so often: the last of the others may have finished meanwhile.
_GLANCE_SECONDS: Final = 0.5

_T = TypeVar("_T")


class Line:
    """The way to one node; inside its `async with` block steps are done over it, several at once.

    `was_reached` says whether there ever was a link, `lost_since` (monotonic seconds) since when
    there is none although one is needed, `contact_at` when the node was last heard of. These are
    for its user to set: `has_job`, a job of ours is at the other end; `is_waiting`, it is used by
    somebody who waits for another node.
    """

    def __init__(
        self, open_transport: OpenTransport, *, patience: Patience, on_lost: OnLost
    ) -> None:
        self._open = open_transport
        self._patience = patience
        self._on_lost = on_lost
        self._link: AsyncExitStack | None = None
        self._transport: Transport | None = None
        self._opening = asyncio.Lock()
        self._is_open = False
        self.has_job = False
        self.is_waiting = False
        self.was_reached = False
        self.lost_since: float | None = None
        self.contact_at: float | None = None

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        await self._hang_up()

    @property
    def is_at_work(self) -> bool:
        """Whether it is used, over a link that is not known to be lost."""
        return self._is_open and self._transport is not None and not self.is_waiting

    def touch(self) -> None:
        """Note that the node was heard of just now."""
        self.contact_at = time.monotonic()

    async def run(
        self,
        step: Callable[[Transport], Awaitable[_T]],
        *,
        progress: Callable[[], int] = lambda: 0,
    ) -> _T:
        """Return what the step returns, done again over a new link for each that is lost.

        `progress` grows with what the step brings home before it is over. Raise the last LinkError
        when the patience is over, or when links that were made brought nothing several times in
        a row: then it is not the link that is at fault.
        """
        delays: Iterator[int] = iter(BACKOFF)
        delay = BACKOFF[-1]
        fruitless = 0
        while True:
            reached, begun = progress(), time.monotonic()
            link = None
            try:
                transport = await self._connected()
                link = self._link
                value = await step(transport)
            except LinkError as error:
                if link is not None:
                    held = time.monotonic() - begun
                    if progress() > reached or held > _FRUITFUL_SECONDS:
                        delays, fruitless = iter(BACKOFF), 0
                    fruitless += 1
                    await self._lose(link)
                if self._transport is None and self.lost_since is None:
                    self.lost_since = time.monotonic()
                if fruitless > _MAX_FRUITLESS:
                    raise
                delay = next(delays, delay)
                await self._pause(delay, error)
            else:
                self.touch()
                return value

    async def _connected(self) -> Transport:
        async with self._opening:
            if self._transport is None:
                if self.lost_since is None:
                    self.lost_since = time.monotonic()
                async with AsyncExitStack() as link:
                    transport = await link.enter_async_context(self._open())
                    self._link = link.pop_all()
                self._transport = transport
                self.was_reached = True
                self.lost_since = None
                self.touch()
            return self._transport

    async def _pause(self, seconds: float, error: LinkError) -> None:
        """Wait, or raise the error as soon as the patience is over."""
        left = self._patience_left()
        if left <= 0:
            raise error
        end = time.monotonic() + min(seconds, left)
        self._on_lost(error, timedelta(seconds=min(seconds, left)))
        while (rest := end - time.monotonic()) > 0:
            await asyncio.sleep(min(rest, _GLANCE_SECONDS))
            if self._patience_left() < -_GLANCE_SECONDS:
                raise error

    def _patience_left(self) -> float:
        since = time.monotonic() if self.lost_since is None else self.lost_since
        return since + self._patience().total_seconds() - time.monotonic()

    async def _lose(self, link: AsyncExitStack) -> None:
        # Another step may be at work over a newer one by now.
        if link is self._link:
            await self._hang_up()

    async def _hang_up(self) -> None:
        link, self._link, self._transport = self._link, None, None
        if link is not None:
            await link.aclose()
