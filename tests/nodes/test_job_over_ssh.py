from __future__ import annotations

import asyncio
import getpass
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from examples.loopback_node import LoopbackNode
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.nodes.collect import collect
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.gate import Gate, GateBinary, run_gate
from orchestrator.nodes.line import Line
from orchestrator.nodes.probe import probe
from orchestrator.nodes.ssh import SshConnections
from tests.nodes.bench import bench

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from orchestrator.nodes.job_state import JobState


async def test_a_build_outlives_its_links_and_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.nodes.line.BACKOFF", (0.05,))
    counter = tmp_path / "counter"
    command = (
        f"echo built >>{counter}\n"
        "for part in 1 2 3 4 5 6; do echo $part; sleep 0.1; done\n"
        "printf '#!/bin/sh\\necho demo 1.0.0\\n' >demo\n"
    )
    async with LoopbackNode.start(tmp_path / "node") as server, SshConnections() as ssh:
        node = Node(
            name="node",
            host=f"{getpass.getuser()}@127.0.0.1",
            port=server.port,
            target=parse_target("x86_64-unknown-linux-gnu"),
            host_key=server.host_key,
            identity=str(server.identity),
        )
        link = partial(ssh.connect, node)
        async with link() as transport:
            facts = await probe(transport)
            assert facts.home == str(server.home)
            work = replace(bench(tmp_path, transport), facts=facts)
            job = await work.start(work.spec(command, binaries=(("demo", "demo"),)))

        log = bytearray()
        states: list[JobState] = []

        def cut_twice(data: bytes) -> None:
            log.extend(data)
            if len(log) in {4, 8}:
                server.disconnect()

        follower = Follower(
            on_log=cut_twice, on_state=states.append, silence_timeout=timedelta(seconds=20)
        )
        line = Line(link, patience=lambda: timedelta(seconds=20), on_lost=lambda *_: None)
        async with asyncio.timeout(30), line:
            require_success(
                await line.run(
                    lambda transport: follow_job(transport, job, follower),
                    progress=lambda: follower.cursor.offset,
                )
            )
        assert log == b"1\n2\n3\n4\n5\n6\n"
        assert counter.read_text() == "built\n"

        async with link() as transport:
            (binary,) = await collect(transport, job, names=("demo",), into=tmp_path / "dist")
            here = GateBinary(
                name="demo",
                path=binary.path,
                sha256=binary.sha256,
                remote_path=f"{job.directory}/out/demo",
            )
            gate = Gate(version="1.0.0", target="t", name="node")
            for candidate in (here, replace(here, remote_path=None)):
                report = await run_gate(transport, facts, binaries=(candidate,), gate=gate)
                assert report.runs[0].stdout == b"demo 1.0.0\n"
