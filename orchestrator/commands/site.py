"""What people fetch: the installer; and the schema that editors fetch."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse

    from orchestrator.core.index import Row
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore


def render(arguments: argparse.Namespace) -> int:
    """Print install.sh, as it would be published now."""
    from orchestrator.core.installer import render_installer
    from orchestrator.site import installer_values

    operator = Operator.at(arguments.inventory)
    url = operator.inventory.publication.url
    if url is None:
        raise ConfigError(
            "an installer needs `publication.url`, the address that it downloads from",
            hint="for example `url: https://example.org/releases`",
        )
    keys = operator.public_keys()
    if not keys:
        raise operator.no_key()
    channel = operator.channel(None, keys)
    serial, rows = asyncio.run(_published(operator.store(), channel))
    values = installer_values(
        operator.inventory.project, url, channel, keys_serial=serial, rows=rows
    )
    print(render_installer(operator.template(), values), end="")
    return 0


async def _published(store: ReleaseStore, channel: Channel) -> tuple[int, tuple[Row, ...]]:
    """Return what the store has that enters an installer: the serial of its keys.txt, and rows."""
    from orchestrator.stores.channel import read_index
    from orchestrator.stores.keyring import keys_serial

    index = await read_index(store, channel)
    return await keys_serial(store, channel.authority), index.rows if index else ()


def schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema of the inventory."""
    from orchestrator.core.schema import inventory_schema

    print(json.dumps(inventory_schema(), indent=2))
    return 0
