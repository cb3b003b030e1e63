"""Change the status of what a site has published."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.core.version import parse_version
from orchestrator.stores.channel import publish_index, read_index

if TYPE_CHECKING:
    from orchestrator.core.index import Status
    from tests.verification.site import Site


def restate(site: Site, status: Status) -> None:
    """Publish every row again with another status."""

    async def run() -> None:
        outlet = site.operator.outlet(parse_version("1.0.0"))
        index = await read_index(outlet.store, outlet.channel)
        assert index is not None
        rows = [replace(row, status=status) for row in index.rows]
        today = datetime.now(UTC).date()
        await publish_index(outlet.store, outlet.channel, rows, signer=outlet.signer, today=today)

    asyncio.run(run())
