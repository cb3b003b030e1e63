"""One answer for all who ask the same thing at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Value = TypeVar("Value")

_MOST: Final = 64


@dataclass(slots=True)
class Shared(Generic[Value]):
    """Values that are made once and then kept for so many seconds; `clock` counts them.

    Fifty pages that follow a release all ask for the same page when a node is done.
    """

    seconds: float
    clock: Callable[[], float]
    _kept: dict[str, tuple[float, asyncio.Task[Value]]] = field(default_factory=dict)

    async def get(self, key: str, make: Callable[[], Coroutine[None, None, Value]]) -> Value:
        """Return the value for a key; what fails is not kept."""
        kept = self._kept.get(key)
        if kept is None or self.clock() - kept[0] >= self.seconds:
            if len(self._kept) >= _MOST:
                self._kept.clear()
            kept = self._kept[key] = (self.clock(), asyncio.create_task(make()))
        try:
            # Who goes away does not take it from the others.
            return await asyncio.shield(kept[1])
        except Exception:
            if self._kept.get(key) is kept:
                del self._kept[key]
            raise
