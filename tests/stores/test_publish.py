"""The order of publication, with real keys and what may go wrong between any two steps."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator import signing
from orchestrator.core.errors import StoreError
from orchestrator.core.index import Row, Status, parse_index, split_signed
from orchestrator.core.result import Floor
from orchestrator.core.signature import Signatures
from orchestrator.core.target import TARGETS, parse_target
from orchestrator.core.version import parse_version
from orchestrator.stores.channel import Channel, pause_briefly, publish_index, read_index
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.pointers import Pointer, publish_pointers
from orchestrator.stores.publish import pending_rows, publish_artifact
from orchestrator.stores.store import (
    ConflictError,
    Created,
    Generation,
    ObjectKind,
    kind_of,
)
from tests.fakes import MemoryStore, ToySigner, make_artifact, toy_verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.result import Artifact
    from orchestrator.core.signature import Signer
    from orchestrator.stores.store import ReleaseStore

REPOSITORY = Path(__file__).parents[2]
TODAY = date(2026, 11, 21)
TOY = ToySigner()
CHANNEL = Channel(
    project="demo",
    name="stable",
    keys=(TOY.public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)
NETBSD = "releases/1.0.0/x86_64-unknown-netbsd/demo-1.0.0-x86_64-unknown-netbsd.tar.gz"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    path = tmp_path_factory.mktemp("key") / "key"
    signing.generate_key(path, passphrase=None)
    return signing.load_signer(path, None)


async def at_once(attempt: int) -> None:
    del attempt


def row(triple: str = "x86_64-unknown-netbsd", version: str = "1.0.0") -> Row:
    return Row(
        target=triple,
        version=parse_version(version),
        status=Status.OK,
        size_bytes=3,
        sha256=hashlib.sha256(f"{triple} {version}".encode()).hexdigest(),
        path=f"releases/{version}/{triple}/demo.tar.gz",
    )


def pointers(script: str, page: str) -> tuple[Pointer, ...]:
    return (
        Pointer("install.sh", script.encode(), ObjectKind.SCRIPT),
        Pointer("index.html", page.encode(), ObjectKind.PAGE),
    )


async def text_of(store: ReleaseStore, name: str) -> str:
    found = await store.read(name, limit_bytes=1_000_000)
    assert found
    return found.data.decode()


# Artifacts


async def test_an_artifact_is_published_with_its_checksum_and_signatures(
    tmp_path: Path, signer: Signer
) -> None:
    store = MemoryStore()
    floors = (Floor(name="netbsd", operator=">=", release="10.0"),)
    artifact = make_artifact(tmp_path, floors=floors)
    published = await publish_artifact(store, artifact, channel=CHANNEL, signer=signer, flat=False)
    assert await store.list("") == (
        NETBSD,
        f"{NETBSD}.minisig",
        f"{NETBSD}.sha256",
        f"{NETBSD}.sshsig",
    )
    data = store.objects[NETBSD].data
    assert data == artifact.path.read_bytes()
    file_name = NETBSD.rpartition("/")[2]
    assert await text_of(store, f"{NETBSD}.sha256") == f"{artifact.sha256}  {file_name}\n"
    signatures = Signatures(
        sshsig=await text_of(store, f"{NETBSD}.sshsig"),
        minisig=await text_of(store, f"{NETBSD}.minisig"),
    )
    signing.verify(data, signatures, keys=(signer.public,), namespace="artifact@demo")
    comment = signing.verify_minisig(data, signatures.minisig, keys=(signer.public,))
    assert comment == f"file:{file_name} version:1.0.0"
    assert published == Row(
        target="x86_64-unknown-netbsd",
        version=parse_version("1.0.0"),
        status=Status.OK,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        floors=floors,
        path=NETBSD,
    )


@pytest.mark.parametrize(
    ("triple", "name"),
    [
        ("x86_64-unknown-netbsd", "1.0.0/demo-1.0.0-netbsd-x86_64"),
        ("aarch64-apple-darwin", "1.0.0/demo-1.0.0-macos-aarch64"),
        ("x86_64-unknown-linux-musl", "1.0.0/demo-1.0.0-linux-x86_64-musl"),
        ("x86_64-pc-windows-msvc", "1.0.0/demo-1.0.0-windows-x86_64.exe"),
    ],
)
async def test_the_flat_layout_has_the_first_binary_bare_and_its_checksum(
    tmp_path: Path, triple: str, name: str
) -> None:
    store = MemoryStore()
    artifact = make_artifact(tmp_path, triple)
    await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=True)
    assert await store.list("1.0.0/") == (name, f"{name}.sha256")
    binary = artifact.binaries[0]
    assert store.objects[name].data == binary.path.read_bytes()
    line = f"{binary.sha256}  {name.removeprefix('1.0.0/')}\n"
    assert await text_of(store, f"{name}.sha256") == line


async def test_every_object_is_written_as_what_its_name_says_it_is(tmp_path: Path) -> None:
    store = MemoryStore()
    for triple in TARGETS:
        release = "7.8" if "openbsd" in triple else None
        artifact = make_artifact(tmp_path, triple, os_release=release)
        flat = triple != "x86_64-pc-windows-gnu"
        await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=flat)
    await publish_index(store, CHANNEL, [row()], signer=TOY, today=TODAY)
    await publish_pointers(store, CHANNEL, pointers("#!/bin/sh\n", "<p>"), serial=1)
    assert len(store.kinds) > 150
    assert {name: kind_of(name) for name in store.kinds} == store.kinds


async def test_an_openbsd_release_is_part_of_the_path_and_of_the_file_name(tmp_path: Path) -> None:
    store = MemoryStore()
    paths = []
    for release in ("7.7", "7.8"):
        artifact = make_artifact(tmp_path, "x86_64-unknown-openbsd", os_release=release)
        published = await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
        assert published.target == "x86_64-unknown-openbsd"
        paths.append(published.path)
    assert paths == [
        "releases/1.0.0/x86_64-unknown-openbsd7.7/demo-1.0.0-x86_64-unknown-openbsd7.7.tar.gz",
        "releases/1.0.0/x86_64-unknown-openbsd7.8/demo-1.0.0-x86_64-unknown-openbsd7.8.tar.gz",
    ]


async def test_an_openbsd_artifact_of_unknown_release_is_not_published(tmp_path: Path) -> None:
    store = MemoryStore()
    artifact = make_artifact(tmp_path, "x86_64-unknown-openbsd")
    with pytest.raises(StoreError, match="which release of openbsd") as caught:
        await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    assert caught.value.hint == "set `os_release` on the node that built it"
    assert not store.objects


async def test_another_coordinator_finds_the_same_bytes(tmp_path: Path, signer: Signer) -> None:
    store = MemoryStore()
    first = make_artifact(tmp_path / "here")
    second = make_artifact(tmp_path / "there")
    rows = [
        await publish_artifact(store, artifact, channel=CHANNEL, signer=signer, flat=True)
        for artifact in (first, second)
    ]
    assert rows[0] == rows[1]
    assert store.writes == 6


async def test_other_bytes_for_a_published_version_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    artifact = make_artifact(tmp_path)
    await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    before = dict(store.objects)
    artifact.path.write_bytes(b"rebuilt")
    rebuilt = replace(artifact, size_bytes=7, sha256=hashlib.sha256(b"rebuilt").hexdigest())
    with pytest.raises(StoreError, match="already holds other bytes"):
        await publish_artifact(store, rebuilt, channel=CHANNEL, signer=TOY, flat=False)
    assert store.objects == before


def overwrite(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"X")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize("part", ["archive", "binary"])
@pytest.mark.parametrize("change", [overwrite, append, truncate, link_elsewhere, Path.unlink])
async def test_a_staged_file_that_changed_since_it_was_checked_is_not_published(
    tmp_path: Path, change: Callable[[Path], None], part: str
) -> None:
    store = MemoryStore()
    artifact = make_artifact(tmp_path)
    path = artifact.path if part == "archive" else artifact.binaries[0].path
    change(path)
    with pytest.raises(StoreError, match=path.name) as caught:
        await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=True)
    assert caught.value.hint
    assert not store.objects


async def test_an_artifact_whose_size_is_not_its_files_is_not_published(tmp_path: Path) -> None:
    store = MemoryStore()
    artifact = make_artifact(tmp_path)
    misjudged = replace(artifact, size_bytes=artifact.size_bytes + 1)
    with pytest.raises(StoreError, match="has changed since it was checked"):
        await publish_artifact(store, misjudged, channel=CHANNEL, signer=TOY, flat=False)
    assert not store.objects


class RottenStore(MemoryStore):
    """A store that keeps other bytes than it was given under some names."""

    rotten = ""

    async def holds(self, name: str, data: bytes) -> bool:
        held = self.objects.get(name)
        if held and self.rotten and name.endswith(self.rotten):
            self.objects[name] = replace(held, data=b"?" + held.data[1:])
        return await MemoryStore.holds(self, name, data)


class ForgetfulStore(MemoryStore):
    async def holds(self, name: str, data: bytes) -> bool:
        self.objects.pop(name)
        return await MemoryStore.holds(self, name, data)


@pytest.mark.parametrize("suffix", [".tar.gz", ".sha256", ".minisig", "netbsd-x86_64"])
async def test_what_reads_back_other_than_it_was_written_gets_no_row(
    tmp_path: Path, suffix: str
) -> None:
    store = RottenStore()
    store.rotten = suffix
    with pytest.raises(StoreError, match="reads back from memory other than it was") as caught:
        await publish_artifact(
            store, make_artifact(tmp_path), channel=CHANNEL, signer=TOY, flat=True
        )
    assert caught.value.hint


async def test_what_cannot_be_read_back_gets_no_row(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="reads back from memory other than it was"):
        await publish_artifact(
            ForgetfulStore(), make_artifact(tmp_path), channel=CHANNEL, signer=TOY, flat=False
        )


# Signatures that are there already


class Wire(MemoryStore):
    """A store at the end of a line on which one thing may overtake another."""

    chance: random.Random

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        for _ in range(self.chance.randrange(12)):
            await asyncio.sleep(0)
        return await MemoryStore.create(self, name, data, kind)


def rebuilt(artifact: Artifact, data: bytes) -> Artifact:
    artifact.path.write_bytes(data)
    return replace(artifact, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


async def test_of_two_different_builds_at_once_one_is_published_with_its_own_signatures(
    tmp_path: Path,
) -> None:
    builds = [
        make_artifact(tmp_path / "one"),
        rebuilt(make_artifact(tmp_path / "two"), b"another build of it"),
    ]
    for seed in range(50):
        store = Wire()
        store.chance = random.Random(seed)
        outcomes = await asyncio.gather(
            *(
                publish_artifact(store, build, channel=CHANNEL, signer=TOY, flat=False)
                for build in builds
            ),
            return_exceptions=True,
        )
        [row] = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        data = store.objects[NETBSD].data
        assert hashlib.sha256(data).hexdigest() == row.sha256
        signatures = Signatures(
            sshsig=await text_of(store, f"{NETBSD}.sshsig"),
            minisig=await text_of(store, f"{NETBSD}.minisig"),
        )
        toy_verify(data, signatures, keys=CHANNEL.keys, namespace="artifact@demo")


async def test_signatures_by_another_key_of_the_project_stay(tmp_path: Path) -> None:
    store, other = MemoryStore(), ToySigner("other")
    artifact = make_artifact(tmp_path)
    await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    before = dict(store.objects)
    both = replace(CHANNEL, keys=(other.public, TOY.public))
    await publish_artifact(store, artifact, channel=both, signer=other, flat=False)
    assert store.objects == before


@pytest.mark.parametrize("ending", [".minisig", ".sshsig"])
async def test_a_signature_of_nobody_known_is_a_conflict(tmp_path: Path, ending: str) -> None:
    store, stranger = MemoryStore(), ToySigner("stranger")
    artifact = make_artifact(tmp_path)
    made = MemoryStore()
    channel = replace(CHANNEL, keys=(stranger.public,))
    await publish_artifact(made, artifact, channel=channel, signer=stranger, flat=False)
    planted = made.objects[f"{NETBSD}{ending}"].data
    await store.create(f"{NETBSD}{ending}", planted, ObjectKind.TEXT)
    with pytest.raises(StoreError, match="holds another signature beside") as caught:
        await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    assert "--reissue" in (caught.value.hint or "")


# The index


async def test_the_first_index_is_signed_and_has_serial_one(signer: Signer) -> None:
    store = MemoryStore()
    channel = replace(CHANNEL, keys=(signer.public,), verify=signing.verify)
    assert await read_index(store, channel) is None
    index = await publish_index(store, channel, [row()], signer=signer, today=TODAY)
    assert (index.serial, index.issued, index.expires) == (1, TODAY, date(2027, 2, 19))
    assert index.rows == (row(),)
    assert await read_index(store, channel) == index
    text, sshsig, minisig = split_signed(await text_of(store, "stable.idx"))
    assert parse_index(text) == index
    signatures = Signatures(sshsig=sshsig, minisig=minisig)
    signing.verify(text.encode(), signatures, keys=(signer.public,), namespace="index@demo")
    comment = signing.verify_minisig(text.encode(), minisig, keys=(signer.public,))
    assert comment == "file:stable.idx serial:1"


async def test_each_serial_merges_and_is_kept(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for version in ("1.0.0", "1.1.0", "1.0.1"):
        await publish_index(store, CHANNEL, [row(version=version)], signer=TOY, today=TODAY)
    index = await read_index(store, CHANNEL)
    assert index
    assert index.serial == 3
    assert [str(row.version) for row in index.rows] == ["1.1.0", "1.0.1", "1.0.0"]
    history = await store.list("index/")
    assert history == tuple(f"index/stable/{serial}.idx" for serial in (1, 2, 3))
    assert await text_of(store, history[-1]) == await text_of(store, "stable.idx")


async def test_rows_that_are_there_use_up_no_serial() -> None:
    store = MemoryStore()
    first = await publish_index(store, CHANNEL, [row()], signer=TOY, today=TODAY)
    writes = store.writes
    again = await publish_index(
        store,
        CHANNEL,
        [row(), *pending_rows(parse_version("1.0.0"), [parse_target("x86_64-unknown-netbsd")])],
        signer=TOY,
        today=TODAY + timedelta(days=1),
    )
    assert again == first
    assert store.writes == writes


@dataclass(slots=True)
class LossyStore(MemoryStore):
    """A store whose first answers to `replace` are lost, after or before it was done."""

    lost_after: int = 0
    lost_before: int = 0

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        if self.lost_before:
            self.lost_before -= 1
            raise ConflictError("lost")
        done = await MemoryStore.replace(self, name, data, kind, expected=expected)
        if self.lost_after:
            self.lost_after -= 1
            raise ConflictError("lost")
        return done


async def test_a_lost_answer_uses_up_one_serial_only() -> None:
    store = LossyStore(lost_after=1)
    index = await publish_index(store, CHANNEL, [row()], signer=TOY, today=TODAY, pause=at_once)
    assert index.serial == 1
    assert await store.list("") == ("index/stable/1.idx", "stable.idx")


async def test_waiting_for_others_is_bounded_and_gets_longer() -> None:
    attempts: list[int] = []

    async def pause(attempt: int) -> None:
        attempts.append(attempt)

    store = LossyStore(lost_before=1000)
    with pytest.raises(ConflictError):
        await publish_index(store, CHANNEL, [row()], signer=TOY, today=TODAY, pause=pause)
    assert attempts == list(range(39))
    assert not store.objects


async def test_the_first_pause_is_short() -> None:
    await asyncio.wait_for(pause_briefly(0), timeout=1)


async def test_the_copy_of_a_publisher_who_died_is_made_by_the_next() -> None:
    store = MemoryStore()
    for version in ("1.0.0", "1.0.0", "1.1.0"):
        await publish_index(store, CHANNEL, [row(version=version)], signer=TOY, today=TODAY)
        store.objects.pop("index/stable/1.idx", None)
    await publish_index(store, CHANNEL, [row()], signer=TOY, today=TODAY)
    assert await store.list("index/") == ("index/stable/2.idx",)
    store.objects.pop("index/stable/2.idx")
    await publish_index(store, CHANNEL, [row(version="1.2.0")], signer=TOY, today=TODAY)
    assert await store.list("index/") == ("index/stable/2.idx", "index/stable/3.idx")


def flipped(text: str) -> str:
    return text.replace("\tok\t", "\tyanked\t")


def extended(text: str) -> str:
    return text.replace("#end 1", text.splitlines()[6].replace("1.0.0", "9.0.0") + "\n#end 2")


def unsigned(text: str) -> str:
    return text.partition("-----BEGIN")[0]


def cut_off(text: str) -> str:
    return text[: len(text) // 2]


def not_ascii(text: str) -> str:
    return text.replace("demo", "d\u00e9mo", 1)


def empty(text: str) -> str:
    del text
    return ""


@pytest.mark.parametrize("tamper", [flipped, extended, unsigned, cut_off, not_ascii, empty])
async def test_a_tampered_index_stops_everything(
    tamper: Callable[[str], str], signer: Signer
) -> None:
    store = MemoryStore()
    channel = replace(CHANNEL, keys=(signer.public,), verify=signing.verify)
    await publish_index(store, channel, [row()], signer=signer, today=TODAY)
    held = store.objects["stable.idx"]
    forged = tamper(held.data.decode()).encode()
    assert forged != held.data
    store.objects["stable.idx"] = replace(held, data=forged)
    before = dict(store.objects)
    for attempt in (
        publish_index(store, channel, [row(version="2.0.0")], signer=signer, today=TODAY),
        publish_pointers(store, channel, pointers("x", "y"), serial=2),
        read_index(store, channel),
    ):
        with pytest.raises(StoreError, match=r"stable.idx in memory cannot be trusted") as caught:
            await attempt
        assert caught.value.hint
    assert store.objects == before


async def test_an_index_that_another_key_signed_is_not_trusted() -> None:
    store = MemoryStore()
    await publish_index(store, CHANNEL, [row()], signer=ToySigner("thief"), today=TODAY)
    with pytest.raises(StoreError, match="cannot be trusted"):
        await publish_index(store, CHANNEL, [row(version="2.0.0")], signer=TOY, today=TODAY)


@pytest.mark.parametrize("change", [{"name": "beta"}, {"project": "other"}])
async def test_a_genuine_index_of_another_channel_or_project_is_not_taken_for_this_one(
    change: dict[str, str],
) -> None:
    store = MemoryStore()
    other = replace(CHANNEL, **change)  # type: ignore[arg-type]  # a field's name and a text
    await publish_index(store, other, [row()], signer=TOY, today=TODAY)
    store.objects["stable.idx"] = store.objects[other.index_name]
    with pytest.raises(StoreError, match="cannot be trusted"):
        await read_index(store, CHANNEL)


@pytest.mark.parametrize("restored", ["index/stable/1.idx", None])
async def test_an_index_that_went_back_is_noticed_before_a_serial_is_used_twice(
    restored: str | None,
) -> None:
    store = MemoryStore()
    for version in ("1.0.0", "1.1.0"):
        await publish_index(store, CHANNEL, [row(version=version)], signer=TOY, today=TODAY)
    old = store.objects.get(restored) if restored else None
    del store.objects["stable.idx"]
    if old:
        store.objects["stable.idx"] = old
    before = dict(store.objects)
    with pytest.raises(StoreError, match="went back to before serial") as caught:
        await publish_index(store, CHANNEL, [row(version="1.2.0")], signer=TOY, today=TODAY)
    assert not isinstance(caught.value, ConflictError)
    assert caught.value.hint
    assert store.objects == before


async def test_fourteen_publishers_at_once_lose_nothing(tmp_path: Path) -> None:
    triples = list(TARGETS)[:14]
    indexes = await asyncio.gather(
        *(
            publish_index(DirectoryStore(tmp_path), CHANNEL, [row(each)], signer=TOY, today=TODAY)
            for each in triples
        )
    )
    final = await read_index(DirectoryStore(tmp_path), CHANNEL)
    assert final
    assert {row.target for row in final.rows} == set(triples)
    assert final.serial == 14
    assert max(index.serial for index in indexes) == 14
    assert len(await DirectoryStore(tmp_path).list("index/stable/")) == 14


def test_pending_rows_announce_what_is_late() -> None:
    netbsd, openbsd = parse_target("x86_64-unknown-netbsd"), parse_target("x86_64-unknown-openbsd")
    version = parse_version("1.0.0")
    rows = pending_rows(version, [netbsd, openbsd], os_release="7.8")
    assert [(row.target, row.status, [str(floor) for floor in row.floors]) for row in rows] == [
        ("x86_64-unknown-netbsd", Status.PENDING, []),
        ("x86_64-unknown-openbsd", Status.PENDING, ["openbsd==7.8"]),
    ]
    assert pending_rows(version, [openbsd])[0].floors == ()
    assert {row.path for row in rows} == {None}


# Pointers


async def publish_serial(store: ReleaseStore, serial: int) -> None:
    for number in range(1, serial + 1):
        await publish_index(store, CHANNEL, [row(version=f"1.{number}.0")], signer=TOY, today=TODAY)


async def test_the_installer_and_the_page_follow_the_index() -> None:
    store = MemoryStore()
    await publish_serial(store, 2)
    await publish_pointers(store, CHANNEL, pointers("script 1", "page 1"), serial=1)
    assert await store.list("in") == ("index/stable/1.idx", "index/stable/2.idx")
    await publish_pointers(store, CHANNEL, pointers("script 2", "page 2"), serial=2)
    assert await text_of(store, "install.sh") == "script 2"
    assert await text_of(store, "index.html") == "page 2"
    writes = store.writes
    await publish_pointers(store, CHANNEL, pointers("script 2", "page 2"), serial=2)
    assert store.writes == writes
    await publish_pointers(store, CHANNEL, pointers("script 2b", "page 2"), serial=2)
    assert store.writes == writes + 1


@dataclass(slots=True)
class OvertakenStore(MemoryStore):
    """A store where somebody publishes a newer release just before the first pointer is written."""

    is_armed: bool = field(default=True)

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        if name == "install.sh" and self.is_armed:
            self.is_armed = False
            await publish_serial(self, 2)
            await publish_pointers(self, CHANNEL, pointers("new", "new"), serial=2)
        return await MemoryStore.replace(self, name, data, kind, expected=expected)


async def test_a_slow_publisher_never_takes_the_installer_back() -> None:
    store = OvertakenStore()
    await publish_serial(store, 1)
    await publish_pointers(store, CHANNEL, pointers("old", "old"), serial=1, pause=at_once)
    assert await text_of(store, "install.sh") == "new"
    assert await text_of(store, "index.html") == "new"


@dataclass(slots=True)
class OverlookedStore(MemoryStore):
    """A store where the newer release finds the pointers as it would write them, just before."""

    is_armed: bool = field(default=True)

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        if name == "install.sh" and self.is_armed:
            self.is_armed = False
            await publish_serial(self, 2)
            writes = self.writes
            await publish_pointers(self, CHANNEL, pointers("as it was", "page"), serial=2)
            assert self.writes == writes, "it left both alone"
        return await MemoryStore.replace(self, name, data, kind, expected=expected)


async def test_a_slow_publisher_takes_back_what_a_faster_one_could_not_see() -> None:
    store = OverlookedStore()
    await publish_serial(store, 1)
    store.is_armed = False
    await publish_pointers(store, CHANNEL, pointers("as it was", "page"), serial=1)
    store.is_armed = True
    await publish_pointers(store, CHANNEL, pointers("old", "page"), serial=1, pause=at_once)
    assert await text_of(store, "install.sh") == "as it was"


# Kill -9


KILLED = """
import asyncio, os, shutil, signal, sys
from datetime import date, timedelta
from pathlib import Path
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.channel import Channel, publish_index
from orchestrator.stores.publish import publish_artifact
from tests.fakes import ToySigner, make_artifact, toy_verify

async def publish(root, staging):
    store, signer = DirectoryStore(root, link=os.link), ToySigner()
    channel = Channel(project="demo", name="stable", keys=(signer.public,), verify=toy_verify,
                      lifetime=timedelta(days=90))
    artifact = make_artifact(staging, version="2.0.0")
    row = await publish_artifact(store, artifact, channel=channel, signer=signer, flat=False)
    await publish_index(store, channel, [row], signer=signer, today=date(2026, 11, 22))

def die_at(moment):
    left = [moment]
    def deadly(call):
        def wrapped(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return wrapped
    for name in ("link", "mkdir", "rename", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    os.fsync = lambda descriptor: None  # against power cuts; what a killed process wrote stays

folder = Path(sys.argv[1])
moment, survived = 0, False
while not survived:
    moment += 1
    root = folder / str(moment)
    shutil.copytree(folder / "old", root)
    child = os.fork()
    if child == 0:
        die_at(moment)
        asyncio.run(publish(root, folder / "staging"))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    survived = status == 0
    if not survived and os.WTERMSIG(status) != signal.SIGKILL:
        sys.exit(f"the publisher failed with status {status}")
print(moment)
"""


async def publish_release(root: Path, staging: Path, version: str) -> None:
    artifact = make_artifact(staging, version=version)
    store = DirectoryStore(root)
    published = await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    await publish_index(store, CHANNEL, [published], signer=TOY, today=TODAY)


async def whole_versions(root: Path) -> list[str]:
    """Return the versions that can be installed, after a look at every one of them."""
    store = DirectoryStore(root)
    index = await read_index(store, CHANNEL)
    assert index
    for published in index.rows:
        assert published.path
        found = await store.stat(published.path)
        assert found
        assert (found.size_bytes, found.sha256) == (published.size_bytes, published.sha256)
        for suffix in (".sha256", ".minisig", ".sshsig"):
            assert await store.stat(published.path + suffix)
    return [str(published.version) for published in index.rows]


@pytest.mark.thorough
async def test_a_publisher_killed_at_any_system_call_leaves_the_last_release_whole(
    tmp_path: Path,
) -> None:
    await publish_release(tmp_path / "old", tmp_path / "staging", "1.0.0")
    program = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    moments = int(program.stdout)
    assert moments > 20
    outcomes = []
    for moment in range(1, moments + 1):
        root = tmp_path / str(moment)
        outcomes.append(await whole_versions(root))
        await publish_release(root, tmp_path / "staging", "2.0.0")
        assert await whole_versions(root) == ["2.0.0", "1.0.0"]
        assert await DirectoryStore(root).list("index/") == (
            "index/stable/1.idx",
            "index/stable/2.idx",
        )
    assert outcomes == sorted(outcomes, key=len)
    assert outcomes[0] == ["1.0.0"]
    assert outcomes[-1] == ["2.0.0", "1.0.0"]
