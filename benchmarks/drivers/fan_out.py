"""Run one command on many nodes, over the connections that a release makes.

    python -m benchmarks.drivers.fan_out FLEET.json COMMAND

FLEET.json is a list of nodes: name, host, port, host_key, identity. A line `NAME: ANSWER` is
printed for each. With `--idle`, all connections are open before the first command runs, and a line
of JSON follows: `connect_seconds` is how long they took, `kib_per_node` the memory of one that is
open and idle, `lag_milliseconds` how late the event loop woke up a task (99 of 100 times it was
less).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from orchestrator.core.errors import NodeError
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.nodes.ssh import SshConnections
from orchestrator.nodes.transport import Transport, run

_TIMEOUT: Final = timedelta(minutes=5)
_TICK_SECONDS: Final = 0.01
_PAGE_KIB: Final = 4


def main() -> None:
    """Do it, and print what came back."""
    fleet, command, *flags = sys.argv[1:]
    nodes = [_node(entry) for entry in json.loads(Path(fleet).read_text())]
    asyncio.run(_fan_out(nodes, command, is_idle_first="--idle" in flags))


def _node(entry: dict[str, str]) -> Node:
    return Node(
        name=entry["name"],
        host=entry["host"],
        target=parse_target("x86_64-unknown-linux-gnu"),
        port=int(entry["port"]),
        host_key=entry["host_key"],
        identity=entry["identity"],
        connect_timeout=timedelta(minutes=2),
    )


async def _fan_out(nodes: list[Node], command: str, *, is_idle_first: bool) -> None:
    told: dict[str, float] = {}
    async with SshConnections() as ssh:
        if is_idle_first:
            # The first connection brings asyncssh, which is there once and for all.
            async with ssh.connect(nodes[0]):
                pass
            delays: list[float] = []
            ticking = asyncio.create_task(_tick(delays))
            answers, told = await _run_on_idle(ssh, nodes, command)
            ticking.cancel()
            told["lag_milliseconds"] = 1000 * sorted(delays)[len(delays) * 99 // 100]
        else:
            answers = await asyncio.gather(
                *(_connect_and_run(ssh, node, command) for node in nodes)
            )
    for node, answer in zip(nodes, answers, strict=True):
        print(f"{node.name}: {answer}")
    print(json.dumps(told))


async def _run_on_idle(
    ssh: SshConnections, nodes: list[Node], command: str
) -> tuple[list[str], dict[str, float]]:
    gc.collect()
    before, begun = _resident_kib(), time.monotonic()
    async with AsyncExitStack() as stack:
        transports = await asyncio.gather(
            *(stack.enter_async_context(ssh.connect(node)) for node in nodes)
        )
        connected = time.monotonic()
        gc.collect()
        told = {
            "connect_seconds": connected - begun,
            "kib_per_node": (_resident_kib() - before) / len(nodes),
        }
        answering = (_answer(transport, command) for transport in transports)
        return await asyncio.gather(*answering), told


async def _connect_and_run(ssh: SshConnections, node: Node, command: str) -> str:
    try:
        async with ssh.connect(node) as transport:
            return await _answer(transport, command)
    except NodeError as error:
        return f"error: {error.message}"


async def _answer(transport: Transport, command: str) -> str:
    with suppress(NodeError):
        completed = await run(transport, command, timeout=_TIMEOUT)
        if completed.exit_status == 0:
            return completed.stdout.decode().strip()
    return "no answer"


async def _tick(delays: list[float]) -> None:
    while True:
        due = time.monotonic() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        delays.append(time.monotonic() - due)


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KIB


if __name__ == "__main__":
    main()
