"""What people fetch: the installer; and the schema that editors fetch."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse


def render(arguments: argparse.Namespace) -> int:
    """Print install.sh."""
    from orchestrator.core.installer import render_installer
    from orchestrator.site import installer_values
    from orchestrator.stores.keyring import keys_serial

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
    # As a release would publish it, so what the store says of keys counts.
    authority = channel.authority
    serial = asyncio.run(keys_serial(operator.store(), authority)) if authority else 0
    values = installer_values(operator.inventory.project, url, channel, keys_serial=serial)
    print(render_installer(operator.template(), values), end="")
    return 0


def schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema of the inventory."""
    from orchestrator.core.schema import inventory_schema

    print(json.dumps(inventory_schema(), indent=2))
    return 0
