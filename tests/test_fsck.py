"""fsck: what is damaged in a store is found and named, and nothing else is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.fsck import State
from orchestrator.core.index import Row, Status
from orchestrator.core.version import parse_version
from orchestrator.fsck import Scope, check_store
from orchestrator.stores.channel import Channel, publish_index
from orchestrator.stores.pointers import Pointer
from orchestrator.stores.publish import publish_artifact
from orchestrator.stores.store import ObjectKind, ObjectStat, StoredObject
from tests.fakes import MemoryStore, ToySigner, make_artifact, toy_verify
from tests.releases import contents
from tests.shop import LINUX, NETBSD, Shop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.core.fsck import FsckReport
    from orchestrator.core.index import Index
    from orchestrator.site import Beside

TOY = ToySigner()
TODAY = date(2026, 11, 21)
CHANNEL = Channel(
    project="demo",
    name="stable",
    keys=(TOY.public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)


@pytest.fixture
def empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(folder=tmp_path, capsys=capsys)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with releases on two channels, to be copied: signing takes most of a test's time."""
    shop = Shop(folder=tmp_path_factory.mktemp("filled"))
    shop.publish("1.0.0-rc.1", LINUX, channel="prerelease")
    shop.publish("1.0.0", LINUX, NETBSD)
    shop.publish("1.0.0", LINUX, NETBSD, channel="prerelease")
    shop.publish("1.1.0", LINUX, pending=(NETBSD,))
    assert shop.run("yank", "1.0.0", "--target", NETBSD, "--channel", "stable").code == 0
    return shop.folder


@pytest.fixture
def shop(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return Shop(folder=tmp_path, capsys=capsys)


def found(shop: Shop, *options: str) -> list[tuple[str, str, str]]:
    data = shop.run("fsck", "--json", *options).data
    return [(each["state"], each["object"], each["message"]) for each in data["findings"]]


def archive(shop: Shop, version: str = "1.0.0", target: str = LINUX) -> Path:
    return shop.store / f"releases/{version}/{target}/demo-{version}-{target}.tar.gz"


@pytest.mark.parametrize("options", [(), ("--deep",), ("--repair", "--deep")])
def test_a_store_that_is_whole_is_clean(shop: Shop, options: tuple[str, ...]) -> None:
    before = contents(shop.store)
    answer = shop.run("fsck", *options)
    assert (answer.code, answer.err) == (0, "")
    # Two indexes with copies, four archives with three files each, and what follows from the one
    # index: install.sh with its signature, the page, versions.json and two of the newest versions.
    assert answer.out == f"{shop.store}: 2 channels, 7 rows, 26 objects: all is well\n"
    assert contents(shop.store) == before


def test_an_empty_store_is_clean(empty: Shop) -> None:
    assert empty.run("fsck").out.endswith("0 channels, 0 rows, 0 objects: all is well\n")


def missing(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (missing, "it is missing"),
        (flipped, "its sha256 is "),
        (cut, "its row says "),
        (longer, "its row says "),
        (linked, "symbolic links"),
    ],
)
def test_a_damaged_archive_is_found(shop: Shop, harm: Callable[[Path], None], said: str) -> None:
    # A yanked one: who asks for it by name still gets it.
    path = archive(shop, target=NETBSD)
    harm(path)
    answer = shop.run("fsck")
    assert answer.code == 5
    [finding] = [each for each in found(shop) if each[0] == "damage"]
    assert finding[1] == str(path.relative_to(shop.store))
    assert said in finding[2]
    assert "1 damaged" in answer.out


@pytest.mark.parametrize("ending", [".sha256", ".minisig", ".sshsig"])
def test_a_side_file_that_is_missing_is_found_and_one_that_is_wrong_with_deep(
    shop: Shop, ending: str
) -> None:
    path = archive(shop).with_name(archive(shop).name + ending)
    kept = path.read_bytes()
    path.unlink()
    assert [each[1:] for each in found(shop)] == [
        (str(path.relative_to(shop.store)), "it is missing")
    ]
    assert [each[1] for each in found(shop, "--deep")] == [str(path.relative_to(shop.store))]
    path.write_bytes(kept)
    other = archive(shop, "1.1.0")
    shutil.copy(other.with_name(other.name + ending), path)
    assert found(shop) == []
    assert [each[0] for each in found(shop, "--deep")] == ["damage"]
    assert shop.run("fsck", "--deep").code == 5


def test_a_good_signature_that_was_made_for_another_version_is_found(shop: Shop) -> None:
    path = archive(shop)
    signer = shop.operator.outlet_of("stable").signer
    other = signer.sign(
        path.read_bytes(), namespace="artifact@demo", comment="file:x version:0.1.0"
    )
    minisig = path.with_name(f"{path.name}.minisig")
    minisig.write_text(other.minisig)
    assert found(shop) == []
    [finding] = found(shop, "--deep")
    assert finding == (
        "damage",
        str(path.relative_to(shop.store)),
        "minisign signature: it was made for the file x",
    )


def test_an_index_that_is_forged_gone_back_or_gone_is_found_and_nothing_is_written(
    shop: Shop,
) -> None:
    index = shop.store / "stable.idx"
    good = index.read_text()
    for text, said in (
        (good.replace("\tok\t", "\tyanked\t", 1), "cannot be trusted"),
        ((shop.store / "index/stable/1.idx").read_text(), "serial 3 was published"),
        (None, "it is gone; copies of it are in index/stable/"),
    ):
        index.unlink()
        if text:
            index.write_text(text)
        before = contents(shop.store)
        damages = [each for each in found(shop, "--repair") if each[0] == "damage"]
        assert [each[1] for each in damages] == ["stable.idx"]
        assert said in damages[0][2]
        assert contents(shop.store) == before


def test_an_index_that_nears_its_end_is_a_warning_and_one_past_it_damage(empty: Shop) -> None:
    for days, state, said in ((60, "warning", "expires on"), (100, "damage", "expired on")):
        empty.publish(f"1.{days}.0", LINUX, ago=timedelta(days=days))
        [finding] = found(empty)
        assert finding[:2] == (state, "stable.idx")
        assert said in finding[2]
        assert "orchestrator renew" in finding[2]
    assert empty.run("fsck").code == 5
    empty.run("renew")
    assert empty.run("fsck").code == 0


def test_what_follows_from_the_index_is_written_again_and_the_copy_too(shop: Shop) -> None:
    whole = contents(shop.store)
    (shop.store / "install.sh").write_text("old")
    (shop.store / "index.html").unlink()
    (shop.store / "index/stable/3.idx").unlink()
    harmed = contents(shop.store)
    seen = found(shop)
    assert [each[:2] for each in seen] == [
        ("damage", "index.html"),
        ("damage", "index/stable/3.idx"),
        ("damage", "install.sh"),
    ]
    assert "does not follow from stable.idx" in seen[2][2]
    assert contents(shop.store) == harmed, "without --repair nothing is written"
    repaired = shop.run("fsck", "--repair")
    assert repaired.code == 0
    assert "3 repaired" in repaired.out
    assert contents(shop.store) == whole
    assert found(shop) == []


def test_a_copy_that_is_another_index_is_not_overwritten(shop: Shop) -> None:
    copies = shop.store / "index/stable"
    shutil.copy(copies / "1.idx", copies / "3.idx")
    before = contents(shop.store)
    assert [each[:2] for each in found(shop, "--repair")] == [("damage", "index/stable/3.idx")]
    assert contents(shop.store) == before


def test_what_no_index_ever_named_is_an_orphan_and_no_failure(shop: Shop) -> None:
    stray = shop.store / "releases/1.0.0" / LINUX / "r2/demo.tar.gz"
    stray.parent.mkdir()
    stray.write_text("given up")
    for name in ("provenance.json", "sbom.cdx.json"):
        (archive(shop).parent / name).write_text("{}")
    answer = shop.run("fsck")
    assert answer.code == 0
    assert "1 to look at" in answer.out
    [finding] = found(shop)
    assert finding[:2] == ("warning", str(stray.relative_to(shop.store)))
    assert found(shop, "--channel", "stable") == [], "other channels may know it"
    assert shop.run("fsck", "--repair").code == 0
    assert stray.exists(), "nothing is ever deleted"


def test_a_bad_copy_is_found_where_orphans_make_it_be_read(shop: Shop) -> None:
    copy = shop.store / "index/stable/2.idx"
    copy.write_text("forged")
    assert found(shop) == []
    (archive(shop).parent / "stray").write_text("stray")
    assert [each[:2] for each in found(shop)] == [
        ("damage", "index/stable/2.idx"),
        ("warning", f"releases/1.0.0/{LINUX}/stray"),
    ]


def test_a_channel_that_is_not_there_is_refused(shop: Shop) -> None:
    refused = shop.run("fsck", "--channel", "beta")
    assert refused.code == 2
    assert "the channels are: prerelease, stable" in refused.err
    assert shop.run("fsck", "--channel", "prerelease").code == 0


def test_without_a_public_key_nothing_can_be_judged(shop: Shop) -> None:
    (shop.folder / "key.pub").unlink()
    assert shop.run("fsck").code == 2


# With stores that answer otherwise than a folder


def derive(channel: Channel, index: Index, beside: Beside | None = None) -> tuple[Pointer, ...]:
    del channel, beside
    return (Pointer("index.html", f"serial {index.serial}".encode(), ObjectKind.PAGE),)


async def publish(
    store: MemoryStore, folder: Path, version: str, *, status: Status = Status.OK
) -> Row:
    artifact = make_artifact(folder, version=version)
    row = await publish_artifact(store, artifact, channel=CHANNEL, signer=TOY, flat=False)
    row = replace(row, status=status)
    index = await publish_index(store, CHANNEL, [row], signer=TOY, today=TODAY)
    for pointer in derive(CHANNEL, index):
        held = store.objects.get(pointer.name)
        expected = held.generation if held else None
        await store.replace(pointer.name, pointer.data, pointer.kind, expected=expected)
    return row


async def check(store: MemoryStore, scope: Scope | None = None) -> FsckReport:
    return await check_store(store, CHANNEL, scope or Scope(), derive=derive, today=TODAY)


@dataclass(slots=True)
class MuteStore(MemoryStore):
    """A store that cannot vouch for a sha256, and counts what is read."""

    read_names: list[str] = field(default_factory=list)

    async def stat(self, name: str) -> ObjectStat | None:
        found = await MemoryStore.stat(self, name)
        return replace(found, sha256=None) if found else None

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        self.read_names.append(name)
        return await MemoryStore.read(self, name, limit_bytes=limit_bytes)


async def test_what_a_store_cannot_vouch_for_is_read(tmp_path: Path) -> None:
    store = MuteStore()
    row = await publish(store, tmp_path, "1.0.0")
    assert row.path
    assert (await check(store)).findings == ()
    assert row.path in store.read_names
    held = store.objects[row.path]
    store.objects[row.path] = replace(held, data=b"x" * len(held.data))
    [finding] = (await check(store)).findings
    assert (finding.name, finding.state) == (row.path, State.DAMAGE)


async def test_an_archive_of_the_wrong_size_is_not_read_at_all(tmp_path: Path) -> None:
    store = MuteStore()
    row = await publish(store, tmp_path, "1.0.0")
    assert row.path
    store.objects[row.path] = replace(store.objects[row.path], data=b"x" * 1000)
    store.read_names.clear()
    [finding] = (await check(store, Scope(is_deep=True))).findings
    assert "it has 1000 bytes" in finding.message
    assert row.path not in store.read_names


@dataclass(slots=True)
class VanishingStore(MuteStore):
    """A store from which archives vanish between being looked at and being read."""

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        if name.startswith("releases/"):
            return None
        return await MemoryStore.read(self, name, limit_bytes=limit_bytes)


async def test_what_vanishes_meanwhile_is_damage(tmp_path: Path) -> None:
    store = VanishingStore()
    row = await publish(store, tmp_path, "1.0.0")
    [finding] = (await check(store)).findings
    assert (finding.name, finding.state) == (row.path, State.DAMAGE)


async def test_versions_that_fell_out_of_the_index_are_explained_by_the_newest_copies(
    tmp_path: Path,
) -> None:
    store = MuteStore()
    for minor in range(33):
        await publish(store, tmp_path, f"1.{minor}.0")
    store.read_names.clear()
    assert (await check(store)).findings == ()
    copies = [name for name in store.read_names if name.startswith("index/stable/")]
    # The index has 1.3.0 to 1.32.0; the copy from before 1.32.0 still has 1.2.0, and so on.
    assert set(copies) == {f"index/stable/{serial}.idx" for serial in (33, 32, 31, 30)}


@dataclass(slots=True)
class BusyStore(MemoryStore):
    """A store that somebody publishes into while it is looked at."""

    folder: Path | None = None

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        folder, self.folder = self.folder, self.folder if name != "index.html" else None
        if folder and name == "index.html":
            await publish(self, folder, "2.0.0")
        return await MemoryStore.read(self, name, limit_bytes=limit_bytes)


async def test_a_release_that_goes_on_meanwhile_is_no_damage(tmp_path: Path) -> None:
    store = BusyStore()
    await publish(store, tmp_path, "1.0.0")
    store.folder = tmp_path
    assert (await check(store, Scope(is_repairing=True))).findings == ()
    assert store.objects["index.html"].data == b"serial 2"
    assert store.folder is None


async def test_revoked_archives_are_checked_too_and_each_once(tmp_path: Path) -> None:
    store = MemoryStore()
    row = await publish(store, tmp_path, "1.0.0", status=Status.REVOKED)
    other = replace(CHANNEL, name="prerelease")
    await publish_index(
        store,
        other,
        [row, Row(target=NETBSD, version=parse_version("9.0.0"), status=Status.PENDING)],
        signer=TOY,
        today=TODAY,
    )
    assert row.path
    del store.objects[row.path]
    report = await check_store(store, CHANNEL, Scope(), derive=lambda *_: (), today=TODAY)
    assert [finding.name for finding in report.findings] == [row.path]
    assert report.exit_code == 5
