"""Carry a part of the store to where there is no network."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse


def bundle(arguments: argparse.Namespace) -> int:
    """Write a bundle, and say how to install from it."""
    from orchestrator.core.offline import BundleRequest
    from orchestrator.core.version import parse_version
    from orchestrator.core.wording import human_size
    from orchestrator.offline import make_offline_bundle

    operator = Operator.at(arguments.inventory)
    request = BundleRequest(
        installer_channel=operator.inventory.publication.channel,
        version=parse_version(arguments.version) if arguments.version else None,
        targets=tuple(arguments.target),
    )
    report = asyncio.run(
        make_offline_bundle(
            operator.store(),
            operator.trusted_channel(arguments.channel),
            request,
            output=Path(arguments.output),
            today=operator.today(),
        )
    )
    if arguments.json:
        print(json.dumps(report.as_data(), indent=2))
        return 0
    size = human_size(report.size_bytes)
    print(f"wrote {report.output}: {len(report.files)} files, {size} of archives")
    for row in report.rows:
        print(f"  {row.version} {row.label}")
    print(f"{report.index.channel}: serial {report.index.serial}, until {report.index.expires}")
    print(f"install from it, without a network: {report.command}")
    return 0
