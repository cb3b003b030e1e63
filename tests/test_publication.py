"""Flat names that two targets share, and what follows from an index (policies: tests/release)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.core.index import Status
from orchestrator.core.inventory import Inventory, Node, Project
from orchestrator.core.inventory import Publication as PublicationKeys
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.result import Built, Failed, Floor
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.publication import Publication
from orchestrator.site import Beside, derived_objects, find_statements, renew_derived
from orchestrator.stores.channel import Channel
from orchestrator.stores.store import Created, ObjectKind, kind_of
from orchestrator.world import Outlet
from tests.fakes import (
    MemoryStore,
    ToySigner,
    make_artifact,
    toy_verify,
    toy_verify_raw,
    toy_verify_ssh,
)
from tests.sample_index import make_index, make_row, sample_index

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.stores.pointers import Pointer

WINDOWS = ("x86_64-pc-windows-gnu", "x86_64-pc-windows-msvc")
OPENBSD = "x86_64-unknown-openbsd"
URL = "https://example.org"


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
        verify_ssh=toy_verify_ssh,
        template="",
        url=None,
        today=lambda: date(2026, 11, 21),
    )
    return Publication(plan_release(inventory, request), outlet, lambda _: None)


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


class _Passing(MemoryStore):
    """A store that refuses a bare binary for a reason that will pass."""

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        if name.startswith("1.0.0/"):
            raise StoreError("it answered 503", hint="again")
        return await MemoryStore.create(self, name, data, kind)


async def test_a_bare_binary_that_could_not_be_written_is_a_failure_of_its_node(
    tmp_path: Path,
) -> None:
    store = _Passing()
    publication = _publication(store, node := _node("a", WINDOWS[0]))
    artifact = make_artifact(tmp_path, WINDOWS[0])
    built = Built(
        node=node.name, artifact=artifact, elapsed=timedelta(seconds=1), was_attached=False
    )
    await publication.add(built, stands_for=node.name)
    await publication.finish()
    outcome = publication.settle(built)
    assert isinstance(outcome, Failed)
    assert outcome.message == "it answered 503"
    assert publication.published == ()


CHANNEL = Channel(
    project="tool",
    name="stable",
    keys=(ToySigner().public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)
INVENTORY = Inventory(
    project=Project(name="tool", binaries=("tool",)), publication=PublicationKeys(), nodes=()
)
TEMPLATE = "#!/bin/sh\n: '{{ base_urls }}'\n"
# What a page and an installer take: the toy keys have no form that enters a script.
KEYLESS = replace(CHANNEL, keys=())


def _outlet(store: MemoryStore, *, url: str | None = URL) -> Outlet:
    return Outlet(
        store=store,
        channel=KEYLESS,
        signer=ToySigner(),
        verify_raw=toy_verify_raw,
        verify_ssh=toy_verify_ssh,
        template=TEMPLATE,
        url=url,
        today=lambda: date(2026, 11, 21),
    )


def _derived(channel: Channel) -> tuple[Pointer, ...]:
    index = sample_index()
    return derived_objects(INVENTORY, channel, index, url=URL, template=TEMPLATE, beside=Beside())


async def test_a_release_without_a_url_leaves_the_conveniences_only(tmp_path: Path) -> None:
    store = MemoryStore()
    publication = _publication(store, node := _node("a", OPENBSD, os_release="7.8"))
    floor = Floor(name="openbsd", operator="==", release="7.8")
    artifact = make_artifact(tmp_path, OPENBSD, os_release="7.8", floors=(floor,))
    built = Built(
        node=node.name, artifact=artifact, elapsed=timedelta(seconds=1), was_attached=False
    )
    await publication.add(built, stands_for=node.name)
    await publication.finish()
    assert store.objects[f"latest/{OPENBSD}7.8.txt"].data == b"1.0.0\n"
    assert store.kinds[f"latest/{OPENBSD}7.8.txt"] is ObjectKind.LATEST
    assert json.loads(store.objects["versions.json"].data)["serial"] == 1
    assert store.kinds["versions.json"] is ObjectKind.SUMMARY
    assert not {"install.sh", "index.html"} & store.objects.keys()


def test_with_a_url_the_installer_and_the_page_come_too_each_as_what_its_name_says() -> None:
    found = _derived(KEYLESS)
    names = [pointer.name for pointer in found]
    assert {"install.sh", "index.html", "versions.json"} < set(names)
    assert len(set(names)) == len(names)
    assert all(kind_of(pointer.name) is pointer.kind for pointer in found)


async def test_the_page_links_to_the_statements_that_the_store_has() -> None:
    store = MemoryStore()
    index = make_index([make_row("1.0.0", WINDOWS[0]), make_row("0.9.0", WINDOWS[0])])
    folder = f"releases/1.0.0/{WINDOWS[0]}"
    for name in (f"{folder}/sbom.cdx.json", f"releases/0.9.0/{WINDOWS[0]}/provenance.json"):
        await store.create(name, b"{}", ObjectKind.STATEMENT)
    await store.create(f"{folder}/tool.tar.gz", b"x", ObjectKind.ARCHIVE)
    assert await find_statements(store, index) == {f"{folder}/sbom.cdx.json"}
    await renew_derived(INVENTORY, _outlet(store), index)
    page = store.objects["index.html"].data.decode()
    assert f'href="./{folder}/sbom.cdx.json"' in page
    assert "provenance.json" not in page


async def test_a_target_whose_builds_were_all_withdrawn_says_so_in_its_file() -> None:
    store = MemoryStore()
    target = WINDOWS[0]
    for serial, status in ((1, Status.OK), (2, Status.YANKED)):
        index = make_index([make_row("1.0.0", target, status)], serial=serial)
        await renew_derived(INVENTORY, _outlet(store, url=None), index)
    assert store.objects[f"latest/{target}.txt"].data == b"-\n"


def test_nothing_follows_from_the_index_of_another_channel() -> None:
    other = replace(KEYLESS, name="prerelease")
    assert _derived(other) == ()


async def _deliver(publication: Publication, folder: Path, node: Node, *, level: int = 0) -> None:
    floors = (Floor(name="cpu", operator=">=", release=str(level)),) if level else ()
    artifact = make_artifact(folder / node.name, node.target.triple, floors=floors)
    built = Built(
        node=node.name, artifact=artifact, elapsed=timedelta(seconds=1), was_attached=False
    )
    await publication.add(built, stands_for=node.name)


async def test_a_faster_build_waits_for_the_one_that_runs_everywhere(tmp_path: Path) -> None:
    store = MemoryStore()
    triple = "x86_64-unknown-linux-gnu"
    base = _node("linux", triple)
    flags = (("RUSTFLAGS", "-C target-cpu=x86-64-v3"),)
    faster = _node("linux-v3", triple, env=flags, variant_of="linux")
    publication = _publication(store, base, faster)
    await _deliver(publication, tmp_path, faster, level=3)
    assert not publication.published
    assert list(publication.held_back) == [f"{triple}-v3"]
    await _deliver(publication, tmp_path, base)
    await publication.finish()
    assert not list(publication.held_back)
    assert publication.index is not None
    assert [row.label for row in publication.index.rows] == [f"{triple}-v3", triple]
    flat = [name for name in store.objects if name.startswith("1.0.0/")]
    assert store.objects[min(flat)].data == f"demo of 1.0.0-{triple}".encode()

    # Later, alone: the other one is there already.
    again = _publication(store, base, faster)
    await _deliver(again, tmp_path, faster, level=3)
    assert not again.held_back


async def test_a_faster_build_for_one_release_does_not_stand_on_that_for_another(
    tmp_path: Path,
) -> None:
    triple = "x86_64-unknown-openbsd"
    base = _node("openbsd", triple, os_release="7.7")
    flags = (("RUSTFLAGS", "-C target-cpu=x86-64-v3"),)
    faster = _node("next-v3", triple, env=flags, variant_of="next", os_release="7.8")
    publication = _publication(MemoryStore(), base, faster)
    for node, level in ((base, 0), (faster, 3)):
        bound = Floor(name="openbsd", operator="==", release=str(node.os_release))
        cpu = (Floor(name="cpu", operator=">=", release=str(level)),) if level else ()
        artifact = make_artifact(
            tmp_path / node.name, triple, floors=(bound, *cpu), os_release=node.os_release
        )
        built = Built(
            node=node.name, artifact=artifact, elapsed=timedelta(seconds=1), was_attached=False
        )
        await publication.add(built, stands_for=node.name)
    assert publication.published == (triple,)
    assert list(publication.held_back) == [f"{triple}7.8-v3"]
