"""Which nodes of a release can be reached, and how long one that cannot is worth waiting for."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import LinkError
from orchestrator.nodes.line import Line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.core.inventory import Node
    from orchestrator.nodes.line import OnLost
    from orchestrator.nodes.transport import Connect

# A machine that refuses, instead of being silent, is up: sshd may just be starting again.
_FIRST_PATIENCE: Final = timedelta(seconds=20)
_FIRST_PATIENCE_WITH_SPARE: Final = timedelta(seconds=3)

_Host = tuple[str, int]


class Reach:
    """What the lines of one run tell about one another.

    A dead host costs its connect timeout once in a run: whoever needs it after that is told at
    once. A node that is lost while it builds is waited for as long as others are at work anyway.
    """

    def __init__(self) -> None:
        self._lines: list[tuple[Node, Line]] = []
        self._given_up: dict[_Host, LinkError] = {}

    @asynccontextmanager
    async def line(
        self, connect: Connect, node: Node, *, has_spare: bool, on_lost: OnLost
    ) -> AsyncIterator[Line]:
        """Yield the way to a node; raise LinkError at once if its host was given up in this run.

        `has_spare` says that another node can do the same: then nobody waits longer than is needed.
        """
        host = _host(node)
        if host in self._given_up:
            error = self._given_up[host]
            raise LinkError(f"{error.message} (as found earlier in this run)", hint=error.hint)

        def patience() -> timedelta:
            return self._patience(node, line, has_spare=has_spare)

        line = Line(lambda: connect(node), patience=patience, on_lost=on_lost)
        self._lines.append((node, line))
        try:
            async with line:
                yield line
        except LinkError as error:
            if not line.was_reached:
                self._given_up[host] = error
            raise

    def _patience(self, node: Node, line: Line, *, has_spare: bool) -> timedelta:
        if not line.was_reached:
            first = _FIRST_PATIENCE_WITH_SPARE if has_spare else _FIRST_PATIENCE
            return min(node.connect_timeout, first)
        if not line.has_job:
            return node.connect_timeout
        others = [
            other_line
            for other, other_line in self._lines
            if not other.is_local and _host(other) != _host(node)
        ]
        if not any(_was_heard_since(line.lost_since, other) for other in others):
            # Nobody answers: it may be our own network, and no fault of the node's.
            return max(node.reconnect_timeout, node.connect_timeout)
        if not has_spare and any(other.is_at_work for other in others):
            return node.timeout
        return node.connect_timeout


def _host(node: Node) -> _Host:
    return node.host, node.port


def _was_heard_since(moment: float | None, line: Line) -> bool:
    return moment is not None and line.contact_at is not None and line.contact_at > moment
