"""No order of publishers' operations, and no crash at any of them, harms a release."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.edits import Flip, Selection, flip_rows
from orchestrator.core.version import parse_version
from orchestrator.publication import pass_on
from orchestrator.stores.channel import Channel, edit_index, publish_index, read_index
from orchestrator.stores.pointers import Pointer, publish_pointers
from orchestrator.stores.publish import publish_artifact, publish_reissue
from orchestrator.stores.store import Generation, ObjectKind
from orchestrator.world import Outlet
from tests.fakes import MemoryStore, make_artifact, toy_verify, toy_verify_raw, toy_verify_ssh
from tests.stores.model import POINTERS, TOY, ViolationError, Walk

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.index import Index
    from orchestrator.core.result import Artifact
    from orchestrator.stores.store import ReleaseStore
    from tests.stores.model import Publisher

CHANNEL = Channel(
    project="demo",
    name="stable",
    keys=(TOY.public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)
PRERELEASE = replace(CHANNEL, name="prerelease")
TODAY = date(2026, 11, 21)
X86 = "x86_64-unknown-netbsd"
ARM = "aarch64-unknown-netbsd"
FILES = ("releases/",)
FILES_AND_COPIES = ("releases/", "index/")


# What the commands do to a store


async def publish(store: ReleaseStore, artifact: Artifact, channel: Channel = CHANNEL) -> Index:
    row = await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    return await publish_index(
        store, channel, [row], signer=TOY, today=TODAY, pause=without_waiting
    )


async def release(store: ReleaseStore, artifact: Artifact) -> None:
    await publish(store, artifact)


async def release_to_both(store: ReleaseStore, artifact: Artifact) -> None:
    """Release a stable version where a channel of prereleases is there too."""
    index = await publish(store, artifact)
    outlet = Outlet(
        store=store,
        channel=CHANNEL,
        signer=TOY,
        verify_raw=toy_verify_raw,
        verify_ssh=toy_verify_ssh,
        template="",
        url=None,
        today=lambda: TODAY,
        followers=(PRERELEASE,),
    )
    await pass_on(outlet, index, parse_version(artifact.version), pause=without_waiting)


async def yank(
    store: ReleaseStore, version: str, channels: tuple[Channel, ...] = (CHANNEL,)
) -> None:
    selection = Selection(version=parse_version(version))
    for channel in channels:
        await edit_index(
            store,
            channel,
            lambda index: flip_rows(index.rows, selection, Flip.YANK),
            signer=TOY,
            today=TODAY,
            pause=without_waiting,
        )


async def reissue(store: ReleaseStore, artifact: Artifact) -> None:
    index = await read_index(store, CHANNEL)
    assert index
    [stands] = [row for row in index.rows if str(row.version) == artifact.version]
    if stands.sha256 == artifact.sha256:
        return
    row = await publish_reissue(
        store, artifact, channel=CHANNEL, signer=TOY, flat=False, above=stands.revision
    )
    await publish_index(store, CHANNEL, [row], signer=TOY, today=TODAY, pause=without_waiting)


async def publish_installer(store: ReleaseStore, serial: int) -> None:
    await publish_pointers(
        store,
        CHANNEL,
        (Pointer(name, str(serial).encode(), ObjectKind.PAGE) for name in POINTERS),
        serial=serial,
        pause=without_waiting,
    )


async def publish_all(store: ReleaseStore, artifact: Artifact) -> None:
    await publish(store, artifact)
    await publish_installer(store, 2)


async def without_waiting(attempt: int) -> None:
    del attempt


def rebuilt(folder: Path, text: str) -> Artifact:
    """Stage a build of 1.0.0 that has other bytes than the first one."""
    artifact = make_artifact(folder / text, X86, "1.0.0")
    data = text.encode()
    artifact.path.write_bytes(data)
    return replace(artifact, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(slots=True, kw_only=True)
class Scene:
    """A store with 1.0.0 in it, and what is published into it at the same time."""

    folder: Path
    shared: MemoryStore = field(default_factory=MemoryStore)

    async def with_old(self, *channels: Channel) -> Scene:
        for channel in channels or (CHANNEL,):
            await publish(self.shared, make_artifact(self.folder, X86, "1.0.0"), channel)
        return self

    def new(self, target: str, version: str = "2.0.0") -> Artifact:
        return make_artifact(self.folder, target, version)

    def walk(
        self,
        *publishers: Publisher,
        wanted: dict[str, set[str]],
        make_store: type[MemoryStore] = MemoryStore,
        in_one_go: tuple[str, ...] = (),
    ) -> Walk:
        return Walk(
            initial=self.shared.objects,
            publishers=publishers,
            wanted=wanted,
            make_store=make_store,
            in_one_go=in_one_go,
        )


class CarelessStore(MemoryStore):
    """A store that does not compare before it swaps."""

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        del expected
        held = self.objects.get(name)
        return await MemoryStore.replace(
            self, name, data, kind, expected=held.generation if held else None
        )


# Two publishers


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("targets", [(X86, ARM), (X86, X86)])
@pytest.mark.thorough
async def test_no_interleaving_and_no_crash_harms_a_release(
    tmp_path: Path, targets: tuple[str, str], *, is_first: bool
) -> None:
    scene = Scene(folder=tmp_path)
    if not is_first:
        await scene.with_old()
    old = set() if is_first else {f"{X86} 1.0.0 ok"}
    walk = scene.walk(
        *(partial(release, artifact=scene.new(target)) for target in targets),
        wanted={"stable": old | {f"{target} 2.0.0 ok" for target in targets}},
    )
    require_many(await walk.explore(), 10_000_000)
    # Every write of a publisher leaves another store to recover from.
    assert len(walk.rerun) >= 7


@pytest.mark.thorough
async def test_no_interleaving_takes_the_installer_or_the_page_back(tmp_path: Path) -> None:
    scene = await Scene(folder=tmp_path).with_old()
    new = scene.new(X86)
    walk = scene.walk(
        partial(publish_installer, serial=1),
        partial(publish_all, artifact=new),
        wanted={"stable": {f"{X86} 1.0.0 ok", f"{X86} 2.0.0 ok"}},
    )
    require_many(await walk.explore(), 10_000)
    for objects in walk.rerun:
        store = MemoryStore(dict(objects))
        await publish_all(store, new)
        assert {store.objects[name].data for name in POINTERS} == {b"2"}


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
@pytest.mark.thorough
async def test_no_interleaving_loses_a_yank_or_a_release_beside_it(
    tmp_path: Path, version: str
) -> None:
    scene = await Scene(folder=tmp_path).with_old()
    # The same release once more, too: it does not un-yank.
    beside = () if version == "1.0.0" else (f"{X86} 2.0.0 ok",)
    walk = scene.walk(
        partial(release, artifact=scene.new(X86, version)),
        partial(yank, version="1.0.0"),
        wanted={"stable": {f"{X86} 1.0.0 yanked", *beside}},
    )
    require_many(await walk.explore(), 500)


@pytest.mark.thorough
async def test_no_interleaving_leaves_who_follows_prereleases_behind(tmp_path: Path) -> None:
    scene = await Scene(folder=tmp_path).with_old(CHANNEL, PRERELEASE)
    everything = {f"{X86} 1.0.0 ok", f"{X86} 2.0.0 ok", f"{ARM} 2.0.0 ok"}
    walk = scene.walk(
        *(partial(release_to_both, artifact=scene.new(target)) for target in (X86, ARM)),
        wanted={"stable": everything, "prerelease": everything},
        in_one_go=FILES,
    )
    require_many(await walk.explore(), 1_000_000)


@pytest.mark.thorough
async def test_no_interleaving_mixes_two_re_issues(tmp_path: Path) -> None:
    scene = await Scene(folder=tmp_path).with_old()
    walk = scene.walk(
        *(partial(reissue, artifact=rebuilt(tmp_path, text)) for text in ("one", "two")),
        wanted={"stable": {f"{X86} 1.0.0 ok again"}},
    )
    require_many(await walk.explore(), 1_000_000)


# Three publishers


async def three(
    folder: Path,
    make_store: type[MemoryStore] = MemoryStore,
    *,
    in_one_go: tuple[str, ...] = FILES_AND_COPIES,
) -> Walk:
    """A re-issue of the old version, the release of a new one, and a yank of the old one.

    In single steps it is on two channels, which is more than can be walked in full.
    """
    channels = (CHANNEL,) if in_one_go else (CHANNEL, PRERELEASE)
    scene = await Scene(folder=folder).with_old(*channels)
    new = f"{ARM} 2.0.0 ok"
    wanted = {
        "stable": {f"{X86} 1.0.0 yanked again", new},
        "prerelease": {f"{X86} 1.0.0 yanked", new},
    }
    return scene.walk(
        partial(reissue, artifact=rebuilt(folder, "again")),
        partial(release if in_one_go else release_to_both, artifact=scene.new(ARM)),
        partial(yank, version="1.0.0", channels=channels),
        wanted={channel.name: wanted[channel.name] for channel in channels},
        make_store=make_store,
        in_one_go=in_one_go,
    )


@pytest.mark.thorough
async def test_no_interleaving_of_three_targets_harms_a_release(tmp_path: Path) -> None:
    scene = await Scene(folder=tmp_path).with_old()
    targets = (X86, ARM, "x86_64-unknown-freebsd")
    walk = scene.walk(
        *(partial(release, artifact=scene.new(target)) for target in targets),
        wanted={"stable": {f"{X86} 1.0.0 ok", *(f"{target} 2.0.0 ok" for target in targets)}},
        in_one_go=FILES_AND_COPIES,
    )
    require_many(await walk.explore(), 400)


@pytest.mark.thorough
async def test_no_interleaving_of_a_reissue_a_release_and_a_yank_harms_any(tmp_path: Path) -> None:
    walk = await three(tmp_path)
    require_many(await walk.explore(), 400)


@pytest.mark.thorough
async def test_no_sampled_schedule_of_single_steps_harms_a_reissue_a_release_or_a_yank(
    tmp_path: Path,
) -> None:
    walk = await three(tmp_path, in_one_go=())
    require_many(await walk.sample(Random(20261121), 300), 10_000)


# The model can fail


@pytest.mark.thorough
async def test_the_model_notices_a_store_that_does_not_compare(tmp_path: Path) -> None:
    scene = await Scene(folder=tmp_path).with_old()
    walk = scene.walk(
        *(partial(release, artifact=scene.new(target)) for target in (X86, ARM)),
        wanted={},
        make_store=CarelessStore,
    )
    with pytest.raises(ViolationError, match="lost update"):
        await walk.explore()


@pytest.mark.parametrize("is_sampled", [False, True])
@pytest.mark.thorough
async def test_the_model_notices_that_with_three_publishers_too(
    tmp_path: Path, *, is_sampled: bool
) -> None:
    steps = () if is_sampled else FILES_AND_COPIES
    walk = await three(tmp_path, CarelessStore, in_one_go=steps)
    with pytest.raises(ViolationError, match="lost update"):
        await (walk.sample(Random(1), 300) if is_sampled else walk.explore())


def require_many(count: int, least: int) -> None:
    print(f"{count:,} interleavings or steps")  # noqa: T201 -- with -rP: how much was walked
    assert count >= least
