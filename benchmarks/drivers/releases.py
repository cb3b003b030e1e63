"""Make several releases at once, as one coordinator, and tell what it took.

    python -m benchmarks.drivers.releases VERSION INVENTORY…

Nothing is published, and every node of a target builds. One line of JSON is printed: `built`,
`seconds`, and `lag_milliseconds`, how late the event loop woke up a task (99 of 100 times it was
less), with the longest as `longest_lag_milliseconds`. What the console says goes to stderr.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

from orchestrator.console import Console
from orchestrator.core.plan import ReleaseRequest
from orchestrator.core.result import Built
from orchestrator.core.version import parse_version
from orchestrator.release import release_for
from orchestrator.wiring import Operator

_TICK_SECONDS: Final = 0.01


def main() -> None:
    """Do it, and print what it took."""
    version, *inventories = sys.argv[1:]
    asyncio.run(_release(version, inventories))


async def _release(version: str, inventories: list[str]) -> None:
    request = ReleaseRequest(version=parse_version(version), publish=False, compare=True)
    operators = [Operator.at(inventory) for inventory in inventories]
    delays: list[float] = []
    ticking = asyncio.create_task(_tick(delays))
    begun = time.monotonic()
    outcomes = await asyncio.gather(*(_one(operator, request) for operator in operators))
    seconds = time.monotonic() - begun
    ticking.cancel()
    delays.sort()
    told = {
        "built": sum(outcomes),
        "seconds": seconds,
        "lag_milliseconds": 1000 * delays[len(delays) * 99 // 100],
        "longest_lag_milliseconds": 1000 * delays[-1],
    }
    print(json.dumps(told))


async def _one(operator: Operator, request: ReleaseRequest) -> int:
    console = Console(sys.stderr)
    _, report = await release_for(operator, request, console.observe, shown=console)
    return sum(isinstance(result, Built) for result in report.results)


async def _tick(delays: list[float]) -> None:
    while True:
        due = time.monotonic() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        delays.append(time.monotonic() - due)


if __name__ == "__main__":
    main()
