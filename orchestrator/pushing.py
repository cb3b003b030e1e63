"""The source on its way to the nodes: once to each host, and of it what is not there yet."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.nodes.bundle import Parcel, Sending, push_bundle
from orchestrator.source.bundle import reduced

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Node
    from orchestrator.nodes.line import Line
    from orchestrator.nodes.transport import Transport
    from orchestrator.source import Bundle


class Pushes:
    """The pushes of one run: of nodes that share a folder the second finds what the first sent."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, int, str], asyncio.Lock] = {}

    async def push(self, line: Line, node: Node, *, facts: NodeFacts, bundle: Bundle) -> None:
        """Bring the bundle to the node, over as many links as it takes.

        Raise NodeError when the node has no room for it.
        """
        crates = frozenset(piece.crate for piece in bundle.pieces if piece.crate)
        parcel = Parcel(
            archive=bundle.path,
            archive_sha256=bundle.archive_sha256,
            digest=bundle.digest,
            crates=crates,
            reduced=partial(reduced, bundle),
        )
        sending = Sending()

        def step(transport: Transport) -> Awaitable[str]:
            return push_bundle(transport, facts, parcel, sending=sending)

        place = (node.host, node.port, facts.workdir)
        async with self._turns.setdefault(place, asyncio.Lock()):
            await line.run(step, progress=lambda: sending.written_bytes)
