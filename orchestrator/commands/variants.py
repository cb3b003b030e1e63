"""Is a variant worth it: build it and its base, time both, remember the answer for releases."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from orchestrator.core.gains import Gain
    from orchestrator.core.inventory import Node
    from orchestrator.core.report import Report
    from orchestrator.core.version import Version
    from orchestrator.wiring import Operator


def bench_variants(operator: Operator, version: Version, arguments: argparse.Namespace) -> int:
    """Time the variants of the named nodes, or of all enabled ones, and show what they gain."""
    from orchestrator.console import show_failures
    from orchestrator.core.gains import families, write_gains
    from orchestrator.listing.nodes import show_gains
    from orchestrator.parts import write_whole

    found = families(operator.inventory, arguments.nodes)
    report, gains = asyncio.run(_measure(operator, version, found))
    show_failures(report, sys.stderr)
    if gains:
        path = operator.gains_file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write_gains(gains, version=str(version)).encode())
    data = [gain.as_data() for gain in gains]
    if arguments.json:
        print(json.dumps({"version": str(version), "gains": data}, indent=2))
    else:
        show_gains(data, sys.stdout)
    return report.exit_code


async def _measure(
    operator: Operator, version: Version, found: Sequence[Sequence[Node]]
) -> tuple[Report, list[Gain]]:
    from orchestrator.console import Console
    from orchestrator.coordinator import make_release
    from orchestrator.core.plan import ReleaseRequest, plan_release
    from orchestrator.gains import measure_gains

    names = tuple(node.name for family in found for node in family)
    request = ReleaseRequest(version=version, nodes=names, publish=False)
    plan = plan_release(operator.inventory, request)
    console = Console(sys.stderr)
    async with operator.connections(console.observe) as connect:
        world = operator.world(connect, console.observe)
        with console:
            report = await make_release(plan, world)
        print("timing them ...", file=sys.stderr)
        gains = [
            gain
            for family in found
            for gain in await measure_gains(operator.inventory, family, report, connect=connect)
        ]
    return report, gains
