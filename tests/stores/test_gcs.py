"""GcsStore over HTTP, where answers get lost, servers refuse, and bodies break off."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from google.auth.exceptions import DefaultCredentialsError, RefreshError

from orchestrator.core.errors import StoreError
from orchestrator.stores import gcs_calls
from orchestrator.stores.gcs import GcsStore
from orchestrator.stores.store import ConflictError, Created, Generation, ObjectKind
from tests.gcs.objects import Conditions, Fields
from tests.gcs.server import client_of, serving
from tests.gcs.trouble import ANY_WRITE, Kind, nobody, publisher, reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from google.cloud.storage import Client

    from tests.gcs.objects import Bucket
    from tests.gcs.server import Service

MIB: Final = 1024 * 1024
ARCHIVE: Final = ObjectKind.ARCHIVE
INDEX: Final = ObjectKind.INDEX
NAME: Final = "releases/1.0.0/x86_64-unknown-netbsd/demo.tar.gz"
# More than one request holds.
BIG: Final = secrets.token_bytes(9 * MIB)
BRIEF: Final = timedelta(seconds=0.3)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_calls, "_FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(gcs_calls, "_LONGEST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a server for silent that has said nothing for a moment."""
    monkeypatch.setattr(gcs_calls, "_SILENCE_SECONDS", 0.2)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving("bucket") as service:
        yield service


@pytest.fixture
def bucket(service: Service) -> Bucket:
    return service.bucket("bucket")


def store_of(service: Service, token: str | None = None, **options: Any) -> GcsStore:
    return GcsStore("bucket", client=lambda: client_of(service, token), **options)


@pytest.fixture
def store(service: Service) -> GcsStore:
    return store_of(service)


def put(bucket: Bucket, name: str, data: bytes, **fields: Any) -> Generation:
    """Write as somebody else does."""
    held = bucket.insert(name, data, Fields(**fields), Conditions())
    return Generation(str(held.generation))


# What passes: the same call again finds out what was done

PASSING: Final = [Kind.LOSE, Kind.RESET, 408, 429, 500, 502, 503, 504]


def plan(service: Service, how: Kind | int, **which: Any) -> None:
    """Let requests go wrong, with a status where that is the trouble."""
    if isinstance(how, Kind):
        service.plan(how, **which)
    else:
        service.plan(Kind.REFUSE, status=how, **which)


@pytest.mark.parametrize("how", PASSING)
async def test_a_new_object_survives_what_passes(
    service: Service, store: GcsStore, how: Kind | int
) -> None:
    plan(service, how, op="upload", times=1 if how is Kind.LOSE else 2)
    created = await store.create(NAME, b"bytes", ARCHIVE)
    # Who did not hear the answer cannot know whose bytes these are.
    assert created is (Created.SAME if how is Kind.LOSE else Created.NEW)
    assert service.bucket("bucket").find(NAME).data == b"bytes"
    assert service.writes == 1


@pytest.mark.parametrize("how", PASSING)
async def test_a_replacement_survives_what_passes(
    service: Service, store: GcsStore, how: Kind | int
) -> None:
    first = await store.replace("stable.idx", b"1", INDEX, expected=None)
    plan(service, how, op="upload", times=1 if how is Kind.LOSE else 2)
    second = await store.replace("stable.idx", b"2", INDEX, expected=first)
    held = service.bucket("bucket").find("stable.idx")
    assert (held.data, held.generation) == (b"2", int(second))
    assert await store.replace("stable.idx", b"3", INDEX, expected=second)


async def test_a_lost_answer_to_the_first_index_is_no_conflict(
    service: Service, store: GcsStore
) -> None:
    service.plan(Kind.LOSE, op="upload")
    generation = await store.replace("stable.idx", b"1", INDEX, expected=None)
    found = await store.read("stable.idx", limit_bytes=MIB)
    assert found
    assert (found.data, found.generation) == (b"1", generation)


async def test_a_lost_answer_is_no_excuse_when_somebody_was_faster_afterwards(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    first = await store.replace("stable.idx", b"1", INDEX, expected=None)
    service.plan(Kind.LOSE, op="upload")

    def overtake(_: str, number: int) -> None:
        if number == 2:
            put(bucket, "stable.idx", b"theirs")

    service.after_write = overtake
    with pytest.raises(ConflictError):
        await store.replace("stable.idx", b"2", INDEX, expected=first)
    assert bucket.find("stable.idx").data == b"theirs"


async def test_a_lost_answer_hides_no_other_bytes(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    put(bucket, NAME, b"theirs")
    service.plan(Kind.RESET, op="upload")
    with pytest.raises(StoreError, match="already holds other bytes"):
        await store.create(NAME, b"bytes!", ARCHIVE)


async def test_what_is_there_already_is_no_success_of_an_older_expectation(
    store: GcsStore,
) -> None:
    first = await store.replace("stable.idx", b"1", INDEX, expected=None)
    gone = Generation(str(int(first) + 10**9))
    with pytest.raises(ConflictError):
        await store.replace("stable.idx", b"1", INDEX, expected=gone)


@pytest.mark.parametrize("how", [*PASSING, Kind.TRUNCATE])
async def test_reading_survives_what_passes(
    service: Service, store: GcsStore, how: Kind | int
) -> None:
    data = secrets.token_bytes(100_000)
    await store.create(NAME, data, ARCHIVE)
    plan(service, how, op="media", bytes=70_000)
    plan(service, how, op="look|list", times=2)
    found = await store.read(NAME, limit_bytes=MIB)
    assert found
    assert found.data == data
    assert await store.holds(NAME, data)
    assert await store.list("") == (NAME,)


async def test_a_body_that_breaks_off_is_continued_not_begun_again(
    service: Service, store: GcsStore
) -> None:
    data = secrets.token_bytes(1_000_000)
    await store.create(NAME, data, ARCHIVE)
    service.plan(Kind.TRUNCATE, op="media", bytes=300_000, times=2)
    found = await store.read(NAME, limit_bytes=MIB)
    assert found
    assert found.data == data
    assert [each.status for each in service.ops("media")] == [200, 206, 206]


async def test_a_slow_body_arrives(service: Service, store: GcsStore) -> None:
    data = secrets.token_bytes(50_000)
    await store.create(NAME, data, ARCHIVE)
    service.plan(Kind.DRIP, op="media", bytes=5_000)
    found = await store.read(NAME, limit_bytes=MIB)
    assert found
    assert found.data == data


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("op", ["upload", "look", "media"])
async def test_a_server_that_falls_silent_is_asked_again(
    service: Service, store: GcsStore, op: str
) -> None:
    service.plan(Kind.STALL if op == "media" else Kind.SILENT, op=op)
    await store.create(NAME, b"bytes and more bytes", ARCHIVE)
    found = await store.read(NAME, limit_bytes=MIB)
    assert found
    assert found.data == b"bytes and more bytes"
    assert len(service.ops(op)) > 1


async def test_more_than_one_write_a_second_waits_its_turn(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    now = [0.0]
    service.seconds_between_writes, service.clock = 1, lambda: now[0]
    generation = await store.replace("stable.idx", b"0", INDEX, expected=None)
    refused = threading.Event()

    def pass_time(name: str, number: int) -> None:
        del name
        if number > 3:
            refused.set()
            now[0] += 1

    service.before_write = pass_time
    await store.replace("stable.idx", b"1", INDEX, expected=generation)
    assert refused.is_set()
    assert [each.status for each in service.ops("upload")] == [200, 429, 429, 200]
    assert bucket.find("stable.idx").data == b"1"


# Uploads in parts


async def test_what_is_big_is_uploaded_in_parts(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    assert await store.create(NAME, BIG, ARCHIVE) is Created.NEW
    assert [each.op for each in service.log] == ["begin", "chunk", "chunk", "chunk"]
    assert bucket.find(NAME).data == BIG
    assert await store.holds(NAME, BIG)
    assert await store.create(NAME, BIG, ARCHIVE) is Created.SAME


@pytest.mark.parametrize("how", [Kind.LOSE, Kind.RESET, 503])
@pytest.mark.parametrize("moment", range(4))
async def test_an_upload_that_breaks_off_goes_on_where_it_was(
    service: Service, store: GcsStore, *, how: Kind | int, moment: int
) -> None:
    plan(service, how, op="begin|chunk", skip=moment)
    assert await store.create(NAME, BIG, ARCHIVE) is Created.NEW
    assert service.bucket("bucket").find(NAME).data == BIG
    assert len(service.ops("begin|chunk")) == 5
    assert service.writes == 1


async def test_an_upload_of_which_a_part_was_forgotten_is_an_error_and_can_be_repeated(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    service.plan(Kind.FORGET, op="chunk", bytes=1000)
    with pytest.raises(StoreError, match="lost its place") as caught:
        await store.create(NAME, BIG, ARCHIVE)
    assert caught.value.hint
    assert bucket.live == {}
    assert await store.create(NAME, BIG, ARCHIVE) is Created.NEW


async def test_who_is_overtaken_during_an_upload_in_parts_is_told(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    def overtake(name: str, _: int) -> None:
        service.before_write = None
        put(bucket, name, b"faster")

    service.before_write = overtake
    with pytest.raises(StoreError, match="already holds other bytes"):
        await store.create(NAME, BIG, ARCHIVE)
    assert bucket.find(NAME).data == b"faster"


# Beyond the deadline


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (503, "it answered 503 on purpose"),
        (429, "it answered 429 on purpose"),
        (Kind.RESET, "Connection reset by peer"),
    ],
)
async def test_what_does_not_pass_in_time_says_what_was_tried(
    service: Service, how: Kind | int, why: str
) -> None:
    plan(service, how, op=ANY_WRITE, times=10**6)
    store = store_of(service, patience=BRIEF)
    with pytest.raises(
        StoreError, match=f"cannot create {NAME}: tried for 0.3s, and then {why}"
    ) as caught:
        await store.create(NAME, b"bytes", ARCHIVE)
    assert "the same command again: it goes on" in (caught.value.hint or "")
    assert service.ops("upload")


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_stays_silent_is_given_up(service: Service) -> None:
    service.plan(Kind.SILENT, op="look", times=10**6)
    store = store_of(service, patience=BRIEF)
    with pytest.raises(StoreError, match=r"read stable.idx: tried for .* it did not answer"):
        await store.read("stable.idx", limit_bytes=MIB)


async def test_where_nobody_listens_the_reason_is_the_system_s() -> None:
    with serving() as service:
        client = client_of(service)
    store = GcsStore("bucket", client=lambda: client, patience=BRIEF)
    with pytest.raises(StoreError, match="Connection refused"):
        await store.list("")


async def test_the_address_of_an_upload_is_never_shown(service: Service) -> None:
    service.plan(Kind.RESET, op="chunk", times=10**6)
    store = store_of(service, patience=BRIEF)
    with pytest.raises(StoreError) as caught:
        await store.create(NAME, BIG, ARCHIVE)
    [session] = service.sessions
    assert session not in caught.value.message
    assert "http" not in caught.value.message


# Cancelling


async def test_who_is_cancelled_tries_no_more(
    service: Service, store: GcsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_calls, "_FIRST_PAUSE_SECONDS", 3600)
    monkeypatch.setattr(gcs_calls, "_LONGEST_PAUSE_SECONDS", 3600)
    service.plan(Kind.REFUSE, times=10**6)
    is_pausing = threading.Event()

    def uniform(*_: float) -> float:
        is_pausing.set()
        return 1

    # It is asked right before the pause.
    monkeypatch.setattr(gcs_calls, "random", SimpleNamespace(uniform=uniform))
    task = asyncio.create_task(store.create(NAME, b"bytes", ARCHIVE))
    await asyncio.to_thread(is_pausing.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Returns when the thread has ended, which was to wait for an hour and then to ask again.
    await asyncio.to_thread(store._threads.shutdown)
    assert len(service.log) == 1


async def test_who_is_cancelled_in_the_middle_of_an_upload_sends_no_further_part(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    is_sending, is_cancelled = threading.Event(), threading.Event()
    requests_seen = 0

    def hold_the_first_part() -> None:
        nonlocal requests_seen
        requests_seen += 1
        if requests_seen == 2:  # the first one begins the upload
            is_sending.set()
            is_cancelled.wait()

    service.on_request = hold_the_first_part
    task = asyncio.create_task(store.create(NAME, BIG, ARCHIVE))
    await asyncio.to_thread(is_sending.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    is_cancelled.set()
    # What the interpreter waits for when it exits.
    await asyncio.to_thread(store._threads.shutdown)
    assert [each.op for each in service.log] == ["begin", "chunk"]
    assert bucket.live == {}


# Lies and damage


def wrong_checksum(resource: dict[str, Any]) -> dict[str, Any]:
    return {**resource, "crc32c": "AAAAAA=="}


def wrong_size(resource: dict[str, Any]) -> dict[str, Any]:
    return {**resource, "size": "4"}


@pytest.mark.parametrize("alter", [wrong_checksum, wrong_size])
@pytest.mark.parametrize("data", [b"bytes", BIG], ids=["small", "big"])
async def test_an_answer_with_another_checksum_is_an_error_and_removes_nothing(
    service: Service, store: GcsStore, *, alter: Callable[..., dict[str, Any]], data: bytes
) -> None:
    service.plan(Kind.ALTER, op="upload|chunk", alter=alter, skip=0 if len(data) < MIB else 2)
    with pytest.raises(StoreError, match="not what the store says that it holds") as caught:
        await store.create(NAME, data, ARCHIVE)
    assert caught.value.hint
    assert service.ops("delete") == []
    assert not isinstance(caught.value, ConflictError)


@pytest.mark.parametrize("alter", [wrong_checksum, wrong_size])
async def test_content_other_than_its_checksum_is_not_believed(
    service: Service, store: GcsStore, alter: Callable[..., dict[str, Any]]
) -> None:
    await store.create(NAME, b"bytes", ARCHIVE)
    assert await store.holds(NAME, b"bytes")
    service.plan(Kind.ALTER, op="look", alter=alter, times=10)
    assert not await store.holds(NAME, b"bytes")
    with pytest.raises(StoreError):
        await store.read(NAME, limit_bytes=MIB)


async def test_the_server_is_told_the_checksum_of_what_was_sent(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    await store.create(NAME, b"Hello, world!", ARCHIVE)
    await store.create(f"{NAME}.big.tar.gz", BIG, ARCHIVE)
    assert bucket.find(NAME).fields.crc32c == "yKEG5Q=="
    assert bucket.find(f"{NAME}.big.tar.gz").fields.crc32c is not None
    del service


async def test_an_object_of_somebody_else_is_compared_by_its_content(
    store: GcsStore, bucket: Bucket
) -> None:
    put(bucket, NAME, b"bytes")
    assert await store.create(NAME, b"bytes", ARCHIVE) is Created.SAME
    with pytest.raises(StoreError, match="already holds other bytes"):
        await store.create(NAME, b"bytez", ARCHIVE)


async def test_an_object_that_claims_another_hash_is_not_the_same(
    store: GcsStore, bucket: Bucket
) -> None:
    put(bucket, NAME, b"bytes", metadata={"sha256": "0" * 64})
    with pytest.raises(StoreError, match="already holds other bytes"):
        await store.create(NAME, b"bytes", ARCHIVE)


@pytest.mark.parametrize("metadata", [{}, {"sha256": "none"}, {"other": "x"}])
async def test_the_hash_of_an_object_of_somebody_else_is_not_known(
    store: GcsStore, bucket: Bucket, metadata: dict[str, str]
) -> None:
    put(bucket, NAME, b"bytes", metadata=metadata)
    found = await store.stat(NAME)
    assert found
    assert (found.size_bytes, found.sha256) == (5, None)
    assert await store.holds(NAME, b"bytes")


async def test_an_object_that_says_it_is_compressed_is_read_as_it_is(
    store: GcsStore, bucket: Bucket
) -> None:
    put(bucket, "stable.idx", b"bytes", content_encoding="gzip")
    found = await store.read("stable.idx", limit_bytes=5)
    assert found
    assert found.data == b"bytes"


async def test_what_is_too_large_is_not_even_fetched(service: Service, store: GcsStore) -> None:
    await store.create("stable.idx", b"12345", INDEX)
    with pytest.raises(StoreError, match="larger than 4 bytes"):
        await store.read("stable.idx", limit_bytes=4)
    assert service.ops("media") == []


async def test_what_grows_while_it_is_read_is_cut_off(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    put(bucket, "stable.idx", b"x" * 1000)
    service.plan(Kind.ALTER, op="look", alter=lambda resource: {**resource, "size": "10"}, times=10)
    with pytest.raises(StoreError, match=r"cannot read stable\.idx"):
        await store.read("stable.idx", limit_bytes=100)


async def test_what_is_replaced_while_it_is_read_is_read_again(
    store: GcsStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "stable.idx", b"1")
    look, overtakings = store._look, iter([b"2", b"3"])

    def overtaken(name: str, call: Any) -> Any:
        found = look(name, call)
        if (data := next(overtakings, None)) is not None:
            put(bucket, name, data)
        return found

    monkeypatch.setattr(store, "_look", overtaken)
    found = await store.read("stable.idx", limit_bytes=MIB)
    assert found
    assert found.data == b"3"


async def test_what_is_replaced_each_time_it_is_read_is_given_up(
    store: GcsStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "stable.idx", b"1")
    look = store._look

    def overtaken(name: str, call: Any) -> Any:
        found = look(name, call)
        put(bucket, name, b"another")
        return found

    monkeypatch.setattr(store, "_look", overtaken)
    with pytest.raises(StoreError, match="was replaced each time") as caught:
        await store.read("stable.idx", limit_bytes=MIB)
    assert caught.value.hint


async def test_a_generation_that_the_bucket_still_keeps_is_what_is_read(
    store: GcsStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.is_versioned = True
    first = put(bucket, "stable.idx", b"1")
    look = store._look

    def overtaken(name: str, call: Any) -> Any:
        found = look(name, call)
        put(bucket, name, b"another")
        return found

    monkeypatch.setattr(store, "_look", overtaken)
    found = await store.read("stable.idx", limit_bytes=MIB)
    assert found
    assert (found.data, found.generation) == (b"1", first)


async def test_what_is_removed_while_it_is_compared_is_an_error(
    store: GcsStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, NAME, b"bytes")
    look = store._look

    def removed(name: str, call: Any) -> Any:
        bucket.delete(name, Conditions())
        return look(name, call)

    monkeypatch.setattr(store, "_look", removed)
    with pytest.raises(StoreError, match="was removed from gs://bucket") as caught:
        await store.create(NAME, b"bytes", ARCHIVE)
    assert caught.value.hint


# What strangers get


@pytest.mark.parametrize("kind", list(ObjectKind))
async def test_every_kind_of_object_has_its_headers(
    service: Service, store: GcsStore, kind: ObjectKind
) -> None:
    await store.create("small", b"bytes", kind)
    await store.replace("other", b"1", kind, expected=None)
    for name in ("small", "other"):
        answer = await asyncio.to_thread(requests.get, f"{service.url}/bucket/{name}", timeout=30)
        assert answer.headers["Content-Type"] == kind.content_type
        assert answer.headers["Cache-Control"] == kind.cache_control
        digest = hashlib.sha256(answer.content).hexdigest()
        assert answer.headers["x-goog-meta-sha256"] == digest
        assert "Content-Encoding" not in answer.headers


async def test_what_is_big_has_its_headers_too(service: Service, store: GcsStore) -> None:
    await store.create(NAME, BIG, ARCHIVE)
    answer = await asyncio.to_thread(requests.head, f"{service.url}/bucket/{NAME}", timeout=30)
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Length"] == str(len(BIG))


@pytest.mark.parametrize("knob", ["is_stale", "is_cached"])
async def test_a_stale_cache_for_strangers_is_never_asked(
    service: Service, store: GcsStore, knob: str
) -> None:
    url = f"{service.url}/bucket/index.html"
    setattr(service, knob, True)
    first = await store.replace("index.html", b"1", ObjectKind.PAGE, expected=None)
    assert (await asyncio.to_thread(requests.get, url, timeout=30)).content == b"1"
    await store.replace("index.html", b"2", ObjectKind.PAGE, expected=first)
    assert (await asyncio.to_thread(requests.get, url, timeout=30)).content == b"1"
    found = await store.read("index.html", limit_bytes=MIB)
    assert found
    assert found.data == b"2"
    assert await store.holds("index.html", b"2")


# Prefixes and lists


async def test_stores_below_two_prefixes_of_a_bucket_do_not_meet(
    service: Service, bucket: Bucket
) -> None:
    one, two = (
        GcsStore("bucket", prefix, client=lambda: client_of(service)) for prefix in ("a", "a/b")
    )
    await one.create("stable.idx", b"1", INDEX)
    await two.create("stable.idx", b"2", INDEX)
    assert sorted(bucket.live) == ["a/b/stable.idx", "a/stable.idx"]
    assert await one.list("stable") == ("stable.idx",)
    assert await two.list("") == ("stable.idx",)
    assert await one.list("") == ("b/stable.idx", "stable.idx")
    assert (one.describe(), two.describe()) == ("gs://bucket/a", "gs://bucket/a/b")


async def test_a_list_of_more_than_a_page_is_whole(
    service: Service, store: GcsStore, bucket: Bucket
) -> None:
    names = [f"index/stable/{serial}.idx" for serial in range(2345)]
    for name in names:
        put(bucket, name, b"")
    assert await store.list("index/") == tuple(sorted(names))
    assert len(service.ops("list")) == 3


async def test_what_is_no_object_of_a_release_is_not_listed(
    store: GcsStore, bucket: Bucket
) -> None:
    for name in ("releases/", "releases/1.0.0/", ".hidden", "releases/a b", "releases/1.0.0/a"):
        put(bucket, name, b"")
    assert await store.list("") == ("releases/1.0.0/a",)


# Who may do what


async def test_a_publisher_with_the_least_rights_can_publish(service: Service) -> None:
    service.accounts["it"] = publisher
    store = store_of(service, "it")
    await store.check_writable()
    assert service.buckets["bucket"].live == {}
    assert await store.create(NAME, b"bytes", ARCHIVE) is Created.NEW
    # It may not replace, so the server says 403 and not 412.
    assert await store.create(NAME, b"bytes", ARCHIVE) is Created.SAME
    with pytest.raises(StoreError, match="already holds other bytes"):
        await store.create(NAME, b"other", ARCHIVE)
    first = await store.replace("stable.idx", b"1", INDEX, expected=None)
    second = await store.replace("stable.idx", b"2", INDEX, expected=first)
    await store.check_writable()
    found = await store.read("stable.idx", limit_bytes=MIB)
    assert found
    assert (found.data, found.generation) == (b"2", second)
    held = Generation(str(service.buckets["bucket"].find(NAME).generation))
    with pytest.raises(StoreError, match=r"403 .*storage\.objects\.delete"):
        await store.replace(NAME, b"other", ARCHIVE, expected=held)
    assert service.buckets["bucket"].find(NAME).data == b"bytes"


def operations(store: GcsStore) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        f"create {NAME}": partial(store.create, NAME, b"bytes", ARCHIVE),
        "replace stable.idx": partial(store.replace, "stable.idx", b"1", INDEX, expected=None),
        "read stable.idx": partial(store.read, "stable.idx", limit_bytes=MIB),
        f"look at {NAME}": partial(store.stat, NAME),
        "list releases": partial(store.list, "releases/"),
        "write releases/check.tar.gz": store.check_writable,
    }


async def test_who_has_no_credentials_is_told_how_to_get_some(service: Service) -> None:
    service.accounts["it"] = publisher
    for store in (store_of(service), store_of(service, "secret-token")):
        for words, operation in operations(store).items():
            with pytest.raises(StoreError, match=f"gs://bucket: cannot {words}") as caught:
                await operation()
            assert "gcloud auth application-default login" in (caught.value.hint or "")
            assert "secret-token" not in caught.value.message


@pytest.mark.parametrize("error", [DefaultCredentialsError, RefreshError])
async def test_credentials_that_cannot_be_had_are_named_without_showing_them(
    error: type[Exception],
) -> None:
    def open_client() -> Client:
        raise error("secret-token")

    store = GcsStore("bucket", client=open_client)
    with pytest.raises(StoreError, match="there are no credentials that it takes") as caught:
        await store.list("")
    assert "secret-token" not in str(caught.value)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in (caught.value.hint or "")


async def test_credentials_are_looked_for_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/not/there.json")
    with pytest.raises(StoreError, match="there are no credentials that it takes"):
        await GcsStore("bucket").list("")


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (f"create {NAME}", "roles/storage.objectCreator on releases/"),
        ("replace stable.idx", "roles/storage.objectUser on what each release replaces"),
        ("read stable.idx", "roles/storage.objectViewer on the bucket"),
        ("list releases", "roles/storage.objectViewer on the bucket"),
        ("write releases/check.tar.gz", "roles/storage.objectCreator on releases/"),
    ],
)
async def test_who_may_not_is_told_which_role_is_missing(
    service: Service, words: str, role: str
) -> None:
    service.accounts["it"] = nobody
    with pytest.raises(StoreError, match=f"cannot {words}.*403 publisher@example.org") as caught:
        await operations(store_of(service, "it"))[words]()
    assert role in (caught.value.hint or "")
    assert len(service.log) <= 2, "a refusal is not tried again"


async def test_who_may_only_read_is_told_before_anything_is_built(service: Service) -> None:
    service.accounts["it"] = reader
    store = store_of(service, "it")
    with pytest.raises(StoreError, match=r"cannot write releases/check\.tar\.gz"):
        await store.check_writable()
    service.accounts["it"] = lambda permission, name: (
        reader(permission, name) or name.startswith("releases/")
    )
    with pytest.raises(StoreError, match=r"cannot write stable\.idx") as caught:
        await store.check_writable()
    assert "roles/storage.objectUser" in (caught.value.hint or "")


async def test_a_bucket_that_is_not_there_is_named(service: Service) -> None:
    store = GcsStore("no-such-bucket", "x", client=lambda: client_of(service))
    for words, operation in operations(store).items():
        with pytest.raises(StoreError, match=f"cannot {words}.*no bucket gs://no-such-b") as caught:
            await operation()
        assert "create it" in (caught.value.hint or "")
        assert "publication.store" in (caught.value.hint or "")


async def test_an_emulator_that_ignores_conditions_is_refused(
    service: Service, store: GcsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Conditions, "check", lambda *_, **__: None)
    with pytest.raises(StoreError, match="does not heed the conditions of a write") as caught:
        await store.check_writable()
    assert caught.value.hint
    assert "stable.idx" not in service.buckets["bucket"].live


async def test_any_other_refusal_is_passed_on(service: Service, store: GcsStore) -> None:
    service.plan(Kind.REFUSE, status=400)
    with pytest.raises(StoreError, match=r"cannot list .*: it answered 400 on purpose") as caught:
        await store.list("")
    assert caught.value.hint


async def test_a_bug_is_no_trouble_of_the_store() -> None:
    def open_client() -> Client:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await GcsStore("bucket", client=open_client).list("")


async def test_without_a_client_of_its_own_the_environment_says_where(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
    store = GcsStore.at("gs://bucket/tool")
    await asyncio.gather(
        *(store.create(f"releases/{number}", b"x", ARCHIVE) for number in range(40))
    )
    assert len(await store.list("releases/")) == 40
