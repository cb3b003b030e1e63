"""Questions to a database that may not answer for a while: nothing but themselves waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Value = TypeVar("Value")

_THREADS: Final = 4
# GitHub hangs up after ten seconds.
PATIENCE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Questions:
    """Asks in threads of its own, so that those that hang are none of the loop's."""

    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="queue")
    )
    _hanging: int = 0

    async def ask(self, question: Callable[[], Value]) -> Value:
        """Return the answer, or raise what the question raises; TimeoutError if there is none.

        A question that was given up may be answered later. While as many hang as there are
        threads, none is asked.
        """
        if self._hanging >= _THREADS:
            raise TimeoutError
        asked = asyncio.get_running_loop().run_in_executor(self._threads, question)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(asked)
        except TimeoutError:
            if not asked.done():
                self._hanging += 1
                asked.add_done_callback(self._answered)
            raise

    def close(self) -> None:
        """Ask nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answered(self, asked: asyncio.Future[Value]) -> None:
        self._hanging -= 1
        # Nobody else looks at what went wrong.
        if not asked.cancelled():
            asked.exception()
