"""What a node that cannot be asked leaves of the evidence: all that is known without it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pytest

from orchestrator.core.errors import LinkError
from orchestrator.core.inventory import Inventory, Node, Project, Publication
from orchestrator.core.plan import BuildPlan, NodeTask, ReleaseRequest
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.evidence import Witness
from orchestrator.inspection import Gated
from orchestrator.nodes.job import Job
from orchestrator.nodes.line import Line
from tests.nodes.bench import bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.nodes.transport import Transport


def witness(home: Path, *, transport: Transport | None = None) -> Witness:
    node = Node(name="n", host="n.localnet", target=parse_target("x86_64-unknown-linux-gnu"))
    here = bench(home, transport)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Transport]:
        yield here.transport

    return Witness(
        plan=BuildPlan(
            request=ReleaseRequest(version=parse_version("1.0.0")),
            inventory=Inventory(
                project=Project(name="demo", binaries=("demo",)),
                publication=Publication(),
                nodes=(node,),
            ),
            tasks=(),
            skipped=(),
        ),
        task=NodeTask(
            node=replace(node, dedicated=True),
            command=f"cd {home}/x && curl https://me:secret@example.org && make",
            binary_paths=("out/demo",),
            gate_nodes=(),
        ),
        line=Line(connect, patience=lambda: timedelta(0), on_lost=lambda *_: None),
        facts=replace(here.facts, rustc="1.95.0"),
        job=Job(id="1" * 32, workdir=here.facts.workdir, attempt=1, was_attached=False),
        bundle=None,
    )


def gated(who: Witness) -> Gated:
    return Gated(node=who.task.node, facts=who.facts, floors=(), os_release=None, archive=b"")


async def test_a_node_that_cannot_say_leaves_a_warning_and_what_is_known(
    scratch_home: Path,
) -> None:
    who = witness(scratch_home)
    who = replace(who, facts=replace(who.facts, workdir="/proc/none"))
    async with who.line:
        evidence, warnings = await who.tell(await who.project(), gated(who))
    (warning,) = warnings
    assert warning.startswith("no bill of materials: the node could not say what it built")
    assert evidence.sbom is None
    record = evidence.record
    assert record.rustc == "rustc 1.95.0"
    assert (record.started, record.lockfile_sha256, record.level) == (None, None, 2)


async def test_the_command_is_told_without_passwords_and_homes(scratch_home: Path) -> None:
    who = witness(scratch_home)
    async with who.line:
        evidence, _ = await who.tell(await who.project(), gated(who))
    assert evidence.record.command == "cd ~/x && curl https://example.org && make"
    # A home that is the root of everything stands for nothing.
    who = replace(who, facts=replace(who.facts, home="/"))
    async with who.line:
        evidence, _ = await who.tell(await who.project(), gated(who))
    assert evidence.record.command.startswith(f"cd {scratch_home}/x")


class Cut:
    """A link that is lost at every step."""

    async def open(self, script: str, *args: str) -> object:
        raise LinkError(f"lost with {len(script)} bytes and {len(args)} words")


async def test_a_lost_link_is_the_delivery_s_to_mend(scratch_home: Path) -> None:
    who = witness(scratch_home, transport=cast("Transport", Cut()))
    async with who.line:
        with pytest.raises(LinkError):
            await who.tell(await who.project(), gated(who))
