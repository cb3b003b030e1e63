"""What every ReleaseStore promises: one suite for all of them, the fake included."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.gcs import GcsStore
from orchestrator.stores.store import ConflictError, Created, Generation, ObjectKind, kind_of
from tests.fakes import MemoryStore
from tests.gcs.server import client_of, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.stores.store import ReleaseStore
    from tests.gcs.server import Service

ARCHIVE = ObjectKind.ARCHIVE
INDEX = ObjectKind.INDEX
NAME = "releases/1.0.0/x86_64-unknown-netbsd/demo-1.0.0-x86_64-unknown-netbsd.tar.gz"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


def gcs_store(service: Service, *, is_there: bool = True) -> GcsStore:
    bucket = service.add_bucket().name if is_there else "no-such-bucket"
    return GcsStore(bucket, "some/prefix", client=lambda: client_of(service))


REAL = pytest.param("bucket", marks=pytest.mark.bucket)


@pytest.fixture(params=["directory", "memory", "gcs", REAL])
def store(request: pytest.FixtureRequest, tmp_path: Path, service: Service) -> ReleaseStore:
    match request.param:
        case "bucket":
            return GcsStore.at(request.getfixturevalue("scratch_url"))
        case "directory":
            return DirectoryStore(tmp_path / "not" / "there" / "yet")
        case "gcs":
            return gcs_store(service)
        case _:
            return MemoryStore()


@pytest.fixture(params=["directory", "memory", "gcs"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path, service: Service) -> ReleaseStore:
    match request.param:
        case "directory":
            (tmp_path / "file").touch()
            return DirectoryStore(tmp_path / "file" / "store")
        case "gcs":
            return gcs_store(service, is_there=False)
        case _:
            return MemoryStore(is_writable=False)


async def content(store: ReleaseStore, name: str) -> bytes | None:
    found = await store.read(name, limit_bytes=MIB)
    return found.data if found else None


async def generation(store: ReleaseStore, name: str) -> Generation | None:
    found = await store.read(name, limit_bytes=MIB)
    return found.generation if found else None


async def test_what_is_created_is_read_back(store: ReleaseStore) -> None:
    assert await store.create(NAME, b"\0\xff\n", ARCHIVE) is Created.NEW
    assert await content(store, NAME) == b"\0\xff\n"


async def test_creating_the_same_bytes_again_is_a_success_that_says_so(store: ReleaseStore) -> None:
    await store.create(NAME, b"bytes", ARCHIVE)
    assert await store.create(NAME, b"bytes", ARCHIVE) is Created.SAME


@pytest.mark.parametrize("other", [b"bytez", b"byte", b"bytes and more", b""])
async def test_creating_other_bytes_is_loud_and_changes_nothing(
    store: ReleaseStore, other: bytes
) -> None:
    await store.create(NAME, b"bytes", ARCHIVE)
    with pytest.raises(StoreError, match="already holds other bytes as releases/") as caught:
        await store.create(NAME, other, ARCHIVE)
    assert not isinstance(caught.value, ConflictError)
    assert caught.value.hint
    assert await content(store, NAME) == b"bytes"


async def test_of_many_who_create_one_name_with_their_own_bytes_one_wins(
    store: ReleaseStore,
) -> None:
    outcomes = await asyncio.gather(
        *(store.create(NAME, b"racer %d" % racer, ARCHIVE) for racer in range(16)),
        return_exceptions=True,
    )
    [winner] = [racer for racer, outcome in enumerate(outcomes) if outcome is Created.NEW]
    assert sum(isinstance(outcome, StoreError) for outcome in outcomes) == 15
    assert await content(store, NAME) == b"racer %d" % winner


async def test_of_many_who_create_one_name_with_the_same_bytes_all_succeed(
    store: ReleaseStore,
) -> None:
    outcomes = await asyncio.gather(*(store.create(NAME, b"same", ARCHIVE) for _ in range(16)))
    assert sorted(outcome.name for outcome in outcomes) == ["NEW"] + ["SAME"] * 15


async def test_what_is_not_there_is_none(store: ReleaseStore) -> None:
    assert await store.read("stable.idx", limit_bytes=MIB) is None
    assert await store.stat(NAME) is None
    assert await store.list("") == ()
    await store.create("releases/1.0.0/other", b"", ARCHIVE)
    assert await store.stat(NAME) is None
    assert await store.read("stable.idx", limit_bytes=MIB) is None
    assert await store.list("index/") == ()


async def test_reading_more_than_the_limit_is_refused(store: ReleaseStore) -> None:
    await store.create("stable.idx", b"12345", INDEX)
    found = await store.read("stable.idx", limit_bytes=5)
    assert found
    assert found.data == b"12345"
    with pytest.raises(StoreError, match="larger than 4 bytes"):
        await store.read("stable.idx", limit_bytes=4)


async def test_stat_says_what_the_store_holds(store: ReleaseStore) -> None:
    data = b"x" * 300_000
    await store.create(NAME, data, ARCHIVE)
    found = await store.stat(NAME)
    assert found
    assert found.size_bytes == 300_000
    assert found.sha256 == hashlib.sha256(data).hexdigest()


async def test_a_store_says_whether_it_holds_these_bytes(store: ReleaseStore) -> None:
    assert not await store.holds(NAME, b"bytes")
    await store.create(NAME, b"bytes", ARCHIVE)
    assert await store.holds(NAME, b"bytes")
    for other in (b"bytez", b"byte", b"bytes and more", b""):
        assert not await store.holds(NAME, other)


async def test_an_empty_object_is_an_object(store: ReleaseStore) -> None:
    await store.create("stable.idx", b"", INDEX)
    found = await store.read("stable.idx", limit_bytes=0)
    assert found
    assert found.data == b""
    with pytest.raises(ConflictError):
        await store.replace("stable.idx", b"new", INDEX, expected=None)


async def test_replacing_what_was_read_succeeds_and_tells_the_new_generation(
    store: ReleaseStore,
) -> None:
    first = await store.replace("stable.idx", b"1", INDEX, expected=None)
    assert await generation(store, "stable.idx") == first
    second = await store.replace("stable.idx", b"2", INDEX, expected=first)
    assert await generation(store, "stable.idx") == second
    assert second != first
    assert await content(store, "stable.idx") == b"2"


async def test_replacing_what_somebody_else_replaced_is_a_conflict(store: ReleaseStore) -> None:
    first = await store.replace("stable.idx", b"1", INDEX, expected=None)
    await store.replace("stable.idx", b"2", INDEX, expected=first)
    with pytest.raises(ConflictError, match="somebody else replaced stable") as caught:
        await store.replace("stable.idx", b"3", INDEX, expected=first)
    assert caught.value.exit_code == 5
    assert await content(store, "stable.idx") == b"2"


async def test_replacing_what_does_not_exist_is_a_conflict(store: ReleaseStore) -> None:
    gone = await store.replace("other.idx", b"1", INDEX, expected=None)
    with pytest.raises(ConflictError):
        await store.replace("stable.idx", b"2", INDEX, expected=gone)
    assert await store.read("stable.idx", limit_bytes=MIB) is None


async def test_replacing_what_should_not_exist_is_a_conflict(store: ReleaseStore) -> None:
    await store.replace("stable.idx", b"1", INDEX, expected=None)
    with pytest.raises(ConflictError):
        await store.replace("stable.idx", b"2", INDEX, expected=None)
    assert await content(store, "stable.idx") == b"1"


async def test_nothing_is_lost_when_many_count_at_once(store: ReleaseStore) -> None:
    async def count(writer: int) -> None:
        done = 0
        while done < 5:
            held = await store.read("count.idx", limit_bytes=MIB)
            number = int(held.data.split()[0]) if held else 0
            # The writer's own mark: a directory knows contents, and two may count to the same one.
            data = b"%d %d" % (number + 1, writer)
            try:
                await store.replace(
                    "count.idx", data, INDEX, expected=held.generation if held else None
                )
            except ConflictError:
                continue
            done += 1

    await asyncio.gather(*(count(writer) for writer in range(4)))
    final = await content(store, "count.idx")
    assert final
    assert final.split()[0] == b"20"


async def test_names_are_listed_by_their_beginning(store: ReleaseStore) -> None:
    for name in ("releases/1.0.0/b", "releases/1.0.0/a/c", "releases/1.0.1/a", "stable.idx"):
        await store.create(name, b"", ARCHIVE)
    assert await store.list("releases/1.0.0/") == ("releases/1.0.0/a/c", "releases/1.0.0/b")
    assert await store.list("releases/1.0") == (
        "releases/1.0.0/a/c",
        "releases/1.0.0/b",
        "releases/1.0.1/a",
    )
    assert await store.list("sta") == ("stable.idx",)
    assert len(await store.list("")) == 4


HOSTILE_NAMES = (
    "",
    "/etc/passwd",
    "../outside",
    "releases/../../outside",
    "releases/./a",
    "releases//a",
    "releases/",
    ".hidden",
    "releases/.hidden/a",
    "-rf",
    "releases/-rf",
    "a b",
    "a\n",
    "a\0b",
    "a\\b",
    "C:a",
    "caf\u00e9",
    "a%2e",
    "~root",
    "$(id)",
    "a" * 201,
    "/".join(["a" * 100] * 6),
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_a_name_that_could_lead_elsewhere_is_refused_everywhere(
    store: ReleaseStore, name: str
) -> None:
    for attempt in (
        store.create(name, b"", ARCHIVE),
        store.read(name, limit_bytes=1),
        store.replace(name, b"", INDEX, expected=None),
        store.stat(name),
        store.holds(name, b""),
    ):
        with pytest.raises(StoreError, match="not a name for a published object") as caught:
            await attempt
        assert caught.value.hint


@pytest.mark.parametrize("prefix", ["/", "../", "releases/../..", ".", "a//", "a b", "-"])
async def test_a_prefix_that_could_lead_elsewhere_is_refused(
    store: ReleaseStore, prefix: str
) -> None:
    with pytest.raises(StoreError, match="not a name"):
        await store.list(prefix)


async def test_names_of_the_whole_alphabet_work(store: ReleaseStore) -> None:
    name = "0.1.0-rc.1+build_5/demo-0.1.0-rc.1+build_5-linux-x86_64.exe"
    await store.create(name, b"", ObjectKind.BINARY)
    assert await store.list("0.1.0-rc.1+build_5/") == (name,)


def test_a_store_says_what_it_is(store: ReleaseStore) -> None:
    assert store.describe()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("stable.idx", ObjectKind.INDEX),
        ("index/stable/42.idx", ObjectKind.TEXT),
        ("install.sh", ObjectKind.SCRIPT),
        ("index.html", ObjectKind.PAGE),
        (NAME, ObjectKind.ARCHIVE),
        (NAME + ".sha256", ObjectKind.TEXT),
        (NAME + ".minisig", ObjectKind.TEXT),
        (NAME + ".sshsig", ObjectKind.TEXT),
        ("releases/1.0.0/x86_64-unknown-netbsd/provenance.json", ObjectKind.STATEMENT),
        ("releases/1.0.0/x86_64-unknown-netbsd/sbom.cdx.json", ObjectKind.STATEMENT),
        ("1.0.0/demo-1.0.0-netbsd-x86_64", ObjectKind.BINARY),
        ("1.0.0/demo-1.0.0-windows-x86_64.exe", ObjectKind.BINARY),
        ("1.0.0/demo-1.0.0-netbsd-x86_64.sha256", ObjectKind.TEXT),
        ("versions.json", ObjectKind.SUMMARY),
        ("latest/x86_64-unknown-openbsd7.8.txt", ObjectKind.LATEST),
        ("keys.txt", ObjectKind.KEYS),
        ("keys/3.txt", ObjectKind.TEXT),
        ("robots.txt", None),
        ("releases/1.0.0/notes", None),
        ("other/stable.idx", None),
    ],
)
def test_a_name_tells_what_an_object_is(name: str, kind: ObjectKind | None) -> None:
    assert kind_of(name) is kind


def test_only_what_never_changes_is_cached_for_long() -> None:
    for_ever = {kind for kind in ObjectKind if "immutable" in kind.cache_control}
    assert for_ever == {
        ObjectKind.ARCHIVE,
        ObjectKind.BINARY,
        ObjectKind.TEXT,
        ObjectKind.STATEMENT,
    }
    assert ObjectKind.INDEX.cache_control == "no-cache, no-transform"
    assert ObjectKind.SCRIPT.cache_control == "no-cache, no-transform"
    assert ObjectKind.PAGE.cache_control == "public, max-age=60, no-transform"
    assert ObjectKind.SCRIPT.content_type == "text/plain; charset=utf-8"
    assert ObjectKind.ARCHIVE.content_type == "application/gzip"


async def test_a_store_that_can_be_written_is_left_as_it_was(store: ReleaseStore) -> None:
    await store.check_writable()
    assert await store.list("") == ()
    await store.create(NAME, b"bytes", ARCHIVE)
    await store.check_writable()
    assert await store.list("") == (NAME,)
    assert await content(store, NAME) == b"bytes"


async def test_a_store_that_cannot_be_written_says_so_with_a_hint(unwritable: ReleaseStore) -> None:
    with pytest.raises(StoreError) as caught:
        await unwritable.check_writable()
    assert caught.value.hint
