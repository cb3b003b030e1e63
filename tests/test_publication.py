"""Which artifact has a flat name that two targets share; the policies are in tests/release."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.inventory import Inventory, Node, Project
from orchestrator.core.inventory import Publication as PublicationKeys
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.result import Built, Floor
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.publication import Publication
from orchestrator.stores.channel import Channel
from orchestrator.world import Outlet
from tests.fakes import MemoryStore, ToySigner, make_artifact, toy_verify, toy_verify_raw

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS = ("x86_64-pc-windows-gnu", "x86_64-pc-windows-msvc")
OPENBSD = "x86_64-unknown-openbsd"


def _node(name: str, triple: str, **more: Any) -> Node:
    return Node(
        name=name,
        host="local",
        target=parse_target(triple),
        build_command="true",
        binary_path="/tmp/demo",
        **more,
    )


def _publication(store: MemoryStore, *nodes: Node) -> Publication:
    keys = PublicationKeys(flat=True)
    inventory = Inventory(
        project=Project(name="demo", binaries=("demo", "demo-extra")),
        publication=keys,
        nodes=nodes,
    )
    request = ReleaseRequest(version=parse_version("1.0.0"), nodes=tuple(n.name for n in nodes))
    channel = Channel(
        project="demo",
        name="stable",
        keys=(ToySigner().public,),
        verify=toy_verify,
        lifetime=timedelta(days=90),
    )
    outlet = Outlet(
        store=store,
        channel=channel,
        signer=ToySigner(),
        verify_raw=toy_verify_raw,
        template="",
        url=None,
        today=lambda: date(2026, 11, 21),
    )
    return Publication(plan_release(inventory, request, expected={}), outlet, lambda _: None)


async def _flat_binary(folder: Path, *nodes: Node, releases: tuple[str | None, ...]) -> bytes:
    store = MemoryStore()
    publication = _publication(store, *nodes)
    # The one that was ready first must not decide.
    for node, release in reversed(list(zip(nodes, releases, strict=True))):
        floors = (Floor(name="openbsd", operator="==", release=release),) if release else ()
        artifact = make_artifact(folder, node.target.triple, os_release=release, floors=floors)
        built = Built(
            node=node.name, artifact=artifact, elapsed=timedelta(seconds=1), was_attached=False
        )
        await publication.add(built, stands_for=node.name)
        assert publication.settle(built) is built
    await publication.finish()
    assert len(publication.published) == len({node.target for node in nodes})
    flat = [name for name in store.objects if name.startswith("1.0.0/")]
    assert len(flat) == 2, "a binary and its checksum"
    return store.objects[min(flat)].data


@pytest.mark.parametrize("order", [WINDOWS, WINDOWS[::-1]])
async def test_of_two_targets_with_one_flat_name_the_first_enabled_one_has_it(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    nodes = (_node("a", order[0]), _node("b", order[1]))
    data = await _flat_binary(tmp_path, *nodes, releases=(None, None))
    assert data == f"demo of 1.0.0-{order[0]}".encode()


async def test_of_two_openbsd_releases_the_first_enabled_node_has_the_flat_name(
    tmp_path: Path,
) -> None:
    nodes = (_node("a", OPENBSD, os_release="7.8"), _node("b", OPENBSD, os_release="7.7"))
    data = await _flat_binary(tmp_path, *nodes, releases=("7.8", "7.7"))
    assert data == f"demo of 1.0.0-{OPENBSD}7.8".encode()


async def test_a_node_that_is_tried_while_disabled_has_its_flat_name(tmp_path: Path) -> None:
    node = _node("a", WINDOWS[0], enabled=False)
    data = await _flat_binary(tmp_path, node, releases=(None,))
    assert data == f"demo of 1.0.0-{WINDOWS[0]}".encode()
