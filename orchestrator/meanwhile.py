"""Work that goes on beside other work, and does not outlive it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

_T = TypeVar("_T")


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, _T]) -> AsyncIterator[asyncio.Task[_T]]:
    """Yield the task that does the work beside the block, which awaits it for its result.

    Whoever leaves the block before it is done cancels it; nobody hears of its failure then.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
        # Or the loop would complain that nobody asked.
        if not task.cancelled():
            task.exception()
