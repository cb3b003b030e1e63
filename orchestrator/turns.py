"""Whose turn it is: the machines of a group share a CPU, and the longest build goes first."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    from orchestrator.core.inventory import Node

# So long a machine is kept for a longer build whose node is still on its way. One that is down
# costs the others no more than that.
_GRACE_SECONDS: Final = 5.0


class Turns:
    """The turns of one run.

    The lock on each host does not see the other hosts of a group; this does, for one run. `ranks`
    pairs the nodes that will come with their rank: the lower one goes first.
    """

    def __init__(self, ranks: Iterable[tuple[Node, int]] = ()) -> None:
        self._groups: dict[str, _Group] = {}
        self._ranks: dict[str, int] = {}
        for node, rank in ranks:
            self._ranks[node.name] = rank
            if node.group:
                self._group(node.group, node.slots).coming[node.name] = rank

    def of(self, node: Node) -> AbstractAsyncContextManager[object]:
        """Return what the node's build waits for, and holds while it runs."""
        if node.group is None:
            return nullcontext()
        group = self._group(node.group, node.slots)
        # Who takes over for another is late already, and goes first.
        return group.turn(node.name, self._ranks.get(node.name, 0))

    def leave(self, node: Node) -> None:
        """Take note that the node does not come any more: it has failed, or is done."""
        if node.group:
            self._group(node.group, node.slots).leave(node.name)

    def _group(self, name: str, slots: int) -> _Group:
        return self._groups.setdefault(name, _Group(slots))


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """Who waits for its turn; who is impatient waits only for those that have come."""

    rank: tuple[int, int]
    granted: asyncio.Future[None]
    is_impatient: bool = False


class _Group:
    """Machines that share a CPU: who builds, who waits, and who is on the way."""

    def __init__(self, slots: int) -> None:
        self.coming: dict[str, int] = {}
        self._free = slots
        self._arrivals = 0
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, name: str, rank: int) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.coming.pop(name, None)
        self._arrivals += 1
        waiting = _Waiting(rank=(rank, self._arrivals), granted=loop.create_future())
        self._waiting.append(waiting)
        alarm = loop.call_later(_GRACE_SECONDS, self._lose_patience, waiting)
        self._advance()
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._free += 1
            self._advance()
            raise
        finally:
            alarm.cancel()
        try:
            yield
        finally:
            self._free += 1
            self._advance()

    def leave(self, name: str) -> None:
        if self.coming.pop(name, None) is not None:
            self._advance()

    def _advance(self) -> None:
        for waiting in sorted(self._waiting, key=lambda each: each.rank):
            # One that was cancelled is on its way out.
            if not waiting.granted.cancelled() and self._may_go(waiting):
                self._free -= 1
                self._waiting.remove(waiting)
                waiting.granted.set_result(None)

    def _may_go(self, one: _Waiting) -> bool:
        ahead = sum(other.rank < one.rank for other in self._waiting)
        if not one.is_impatient:
            ahead += sum(rank < one.rank[0] for rank in self.coming.values())
        return self._free > ahead

    def _lose_patience(self, waiting: _Waiting) -> None:
        waiting.is_impatient = True
        self._advance()
