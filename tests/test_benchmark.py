"""What a benchmark does at the same time: the machines of a group boot by turns, too."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from orchestrator.benchmark import Bench
from orchestrator.core.errors import NodeError
from orchestrator.core.inventory import Inventory, Node, Project, Publication
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.core.inventory import Source
    from orchestrator.core.version import Version
    from orchestrator.nodes.transport import Transport
    from orchestrator.source import Bundle

TARGET = parse_target("x86_64-unknown-netbsd")


class Rig:
    """One CPU that machines boot on: how many at once, at most."""

    def __init__(self) -> None:
        self.booting = 0
        self.most = 0

    @asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[Transport]:
        self.booting += 1
        self.most = max(self.most, self.booting)
        for _ in range(20):
            await asyncio.sleep(0)
        self.booting -= 1
        if self.most:
            raise NodeError(f"{node.name} did not come up")
        yield cast("Transport", None)


async def no_bundle(_source: Source, _version: Version, _binaries: tuple[str, ...]) -> Bundle:
    raise AssertionError


async def test_the_machines_of_a_group_boot_by_turns(tmp_path: Path) -> None:
    nodes = tuple(
        Node(name=name, host=f"vm:{name}", vm=name, target=TARGET, group="rig", build_command="b")
        for name in ("one", "two", "three")
    )
    inventory = Inventory(
        project=Project(name="tool", binaries=("tool",)), publication=Publication(), nodes=nodes
    )
    version = parse_version("1.0.0")
    plan = plan_release(inventory, ReleaseRequest(version=version, publish=False))
    rig = Rig()
    world = World(
        connect=rig.connect,
        make_bundle=no_bundle,
        outlet=None,
        dist=tmp_path,
        observe=lambda _: None,
        remember=lambda _: None,
        monotonic=time.monotonic,
    )

    found = await Bench(plan=plan, runs=1, world=world, tell=print, logs=tmp_path).measure()

    assert [node.failures[0].message for node in found.nodes] == [
        f"{name} did not come up" for name in ("one", "two", "three")
    ]
    assert rig.most == 1
