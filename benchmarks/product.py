"""What the product does on one fleet, as a program whose time and memory can be measured.

    python -m benchmarks.product build FLEET INTO COMMAND…     run it on each node, its log to INTO
    python -m benchmarks.product collect FLEET INTO COMMAND…   bring home what that has left

FLEET is what `describe` has written.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.console import Console
from orchestrator.core.events import LogAppended
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.nodes.collect import collect
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.job import Job, JobSpec, job_id, start_job
from orchestrator.nodes.probe import probe
from orchestrator.nodes.ssh import SshConnections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fleet import Fleet, FleetNode
    from orchestrator.nodes.transport import Transport

# What a job is to leave, if it leaves anything.
PROGRAM: Final = "program"
_LONG: Final = timedelta(hours=1)


def workdir_of(node: FleetNode) -> Path:
    """Return where the product works on a node."""
    return node.folder / "workdir"


def describe(fleet: Fleet, file: Path) -> Path:
    """Write what the program has to know of the fleet, and return the file."""
    nodes = [
        {
            "name": node.name,
            "host": f"{fleet.user}@{node.address}",
            "port": node.port,
            "identity": str(fleet.identity),
            "host_key": fleet.host_key,
            "workdir": str(workdir_of(node)),
        }
        for node in fleet.nodes
    ]
    file.write_text(json.dumps(nodes))
    return file


def main(words: Sequence[str]) -> None:
    """Do what the words say."""
    verb, fleet, into, *command = words
    target = parse_target("x86_64-unknown-linux-gnu")
    nodes = [Node(target=target, **node) for node in json.loads(Path(fleet).read_text())]
    work = Work(Path(into), shlex.join(command))
    asyncio.run(work.build_all(nodes) if verb == "build" else work.collect_all(nodes))


class Work:
    """A command that runs on each node, and where its logs and programs go."""

    def __init__(self, into: Path, command: str) -> None:
        self._into = into
        self._command = command

    async def build_all(self, nodes: Sequence[Node]) -> None:
        """Run the command on all nodes at once, as a release does, with its live table."""
        self._into.mkdir(parents=True, exist_ok=True)
        screen, terminal = pty.openpty()
        threading.Thread(target=_read_all, args=(screen,), daemon=True).start()
        with os.fdopen(terminal, "w") as stream, Console(stream) as console:
            async with SshConnections() as connections, asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(self._build(connections, node, console))

    async def collect_all(self, nodes: Sequence[Node]) -> None:
        """Bring home what the command has left on all nodes."""
        async with SshConnections() as connections, asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self._collect(connections, node))

    def _id(self, node: Node) -> str:
        return job_id(
            project="benchmark",
            version="1.0.0",
            target=node.name,
            command=self._command,
            source_digest=None,
            env=(),
        )

    async def _build(self, connections: SshConnections, node: Node, console: Console) -> None:
        async with connections.connect(node) as transport:
            job = await self._start(transport, node)
            with (self._into / node.name).open("wb", buffering=0) as log:

                def on_log(data: bytes) -> None:
                    log.write(data)
                    console.observe(LogAppended(node=node.name, data=data))

                follower = Follower(
                    on_log=on_log, on_state=lambda _: None, silence_timeout=_LONG, timeout=_LONG
                )
                require_success(await follow_job(transport, job, follower))

    async def _start(self, transport: Transport, node: Node) -> Job:
        spec = JobSpec(
            id=self._id(node),
            command=self._command,
            binaries=((PROGRAM, None),) if "ORCHESTRATOR_OUT" in self._command else (),
            # The nodes are one machine, and its home has one lock for a host.
            lock=f"benchmark-{node.name}",
            timeout=_LONG,
            log_limit_bytes=1 << 40,
        )
        return await start_job(transport, await probe(transport, workdir=node.workdir), spec)

    async def _collect(self, connections: SshConnections, node: Node) -> None:
        job = Job(id=self._id(node), workdir=str(node.workdir), attempt=1, was_attached=True)
        async with connections.connect(node) as transport:
            await collect(transport, job, names=(PROGRAM,), into=self._into / node.name)


def _read_all(screen: int) -> None:
    with suppress(OSError):
        while os.read(screen, 1 << 16):
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
