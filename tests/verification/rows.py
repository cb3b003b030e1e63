"""Change what a site says of what it has published."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.core.version import parse_version
from orchestrator.stores.channel import publish_index, read_index

if TYPE_CHECKING:
    from tests.verification.site import Site


def restate(site: Site, **changes: Any) -> None:
    """Publish every row again with another status, or for another target."""

    async def run() -> None:
        outlet = site.operator.outlet(parse_version("1.0.0"))
        index = await read_index(outlet.store, outlet.channel)
        assert index is not None
        rows = [replace(row, **changes) for row in index.rows]
        today = datetime.now(UTC).date()
        await publish_index(outlet.store, outlet.channel, rows, signer=outlet.signer, today=today)

    asyncio.run(run())
