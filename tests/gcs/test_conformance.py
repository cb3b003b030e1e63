"""What a server must do to stand for Google Cloud Storage, asked with Google's own client.

GCS_SERVER=http://127.0.0.1:PORT asks another server. fake-gcs-server 1.56.1 passes 26 of these 40
(docs/gcs.md says which it fails), so the tests bring a server of their own.
"""

from __future__ import annotations

import io
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from tests.gcs.server import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.storage import Blob, Bucket

KIB: Final = 1024
SECONDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The server that is asked, where it is, and where in it there is room."""

    client: Client
    bucket: Bucket
    api: str
    public: str
    folder: str


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving("conformance") as service:
        yield os.environ.get("GCS_SERVER", service.url)


@pytest.fixture(params=["server", pytest.param("bucket", marks=pytest.mark.bucket)])
def asked(request: pytest.FixtureRequest, server: str) -> Asked:
    if request.param == "bucket":
        url = request.getfixturevalue("scratch_url")
        bucket, _, folder = url.removeprefix("gs://").partition("/")
        client = Client(project=None)
        api = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")
    else:
        bucket, folder, api = "conformance", secrets.token_hex(8), server
        client = Client(
            project="none",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]  # no types
            client_options={"api_endpoint": server},
        )
        if "GCS_SERVER" in os.environ and client.lookup_bucket(bucket) is None:
            client.create_bucket(bucket)
    return Asked(
        client=client,
        bucket=client.bucket(bucket),
        api=api,
        public=f"{api}/{bucket}",
        folder=folder,
    )


@pytest.fixture
def client(asked: Asked) -> Client:
    return asked.client


@pytest.fixture
def bucket(asked: Asked) -> Bucket:
    return asked.bucket


@pytest.fixture
def name(asked: Asked) -> str:
    return f"{asked.folder}/object"


@pytest.fixture
def url(asked: Asked) -> str:
    return asked.api


@pytest.fixture
def address(asked: Asked, name: str) -> str:
    return f"{asked.public}/{name}"


def write(bucket: Bucket, name: str, data: bytes = b"bytes", **options: Any) -> Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(data, retry=None, **options)
    return blob


def get(address: str, **headers: str) -> requests.Response:
    return requests.get(address, headers=headers, timeout=SECONDS)


# Preconditions of writes


def test_create_only_makes_what_is_not_there(bucket: Bucket, name: str) -> None:
    assert write(bucket, name, if_generation_match=0).generation


def test_create_only_refuses_what_is_there(bucket: Bucket, name: str) -> None:
    write(bucket, name)
    with pytest.raises(api.PreconditionFailed):
        write(bucket, name, b"other", if_generation_match=0)
    assert bucket.blob(name).download_as_bytes() == b"bytes"


def test_the_expected_generation_is_replaced_by_a_greater_one(bucket: Bucket, name: str) -> None:
    first = write(bucket, name).generation
    assert write(bucket, name, b"2", if_generation_match=first).generation > first


def test_another_generation_is_not_replaced(bucket: Bucket, name: str) -> None:
    first = write(bucket, name).generation
    write(bucket, name, b"2")
    with pytest.raises(api.PreconditionFailed):
        write(bucket, name, b"3", if_generation_match=first)
    assert bucket.blob(name).download_as_bytes() == b"2"


def test_a_generation_of_what_is_not_there_is_not_replaced(bucket: Bucket, name: str) -> None:
    with pytest.raises(api.PreconditionFailed):
        write(bucket, name, if_generation_match=1)
    assert not bucket.blob(name).exists()


def test_a_generation_may_be_excluded(bucket: Bucket, name: str) -> None:
    first = write(bucket, name).generation
    with pytest.raises(api.PreconditionFailed):
        write(bucket, name, b"2", if_generation_not_match=first)


def test_a_write_may_depend_on_the_metageneration(bucket: Bucket, name: str) -> None:
    write(bucket, name)
    with pytest.raises(api.PreconditionFailed):
        write(bucket, name, b"2", if_metageneration_match=7)
    write(bucket, name, b"2", if_metageneration_match=1)


def test_a_patch_may_depend_on_the_metageneration(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name)
    blob.metadata = {"a": "b"}
    blob.patch(if_metageneration_match=1)
    assert blob.metageneration == 2
    blob.metadata = {"a": "c"}
    with pytest.raises(api.PreconditionFailed):
        blob.patch(if_metageneration_match=1)


def test_a_patch_may_depend_on_the_generation(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name)
    blob.metadata = {"a": "b"}
    with pytest.raises(api.PreconditionFailed):
        blob.patch(if_generation_match=blob.generation + 1)


def test_only_the_expected_generation_is_deleted(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name)
    with pytest.raises(api.PreconditionFailed):
        bucket.blob(name).delete(if_generation_match=blob.generation + 1)
    bucket.blob(name).delete(if_generation_match=blob.generation)
    assert not bucket.blob(name).exists()


# Preconditions of reads


def test_metadata_may_depend_on_the_generation(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name)
    bucket.blob(name).reload(if_generation_match=blob.generation)
    with pytest.raises(api.PreconditionFailed):
        bucket.blob(name).reload(if_generation_match=blob.generation + 1)


def test_metadata_that_is_known_is_not_sent_again(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name)
    with pytest.raises(api.NotModified):
        bucket.blob(name).reload(if_generation_not_match=blob.generation)


def test_metadata_may_depend_on_the_metageneration(bucket: Bucket, name: str) -> None:
    write(bucket, name)
    with pytest.raises(api.PreconditionFailed):
        bucket.blob(name).reload(if_metageneration_match=7)


def test_content_may_depend_on_the_generation(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name)
    with pytest.raises(api.PreconditionFailed):
        bucket.blob(name).download_as_bytes(if_generation_match=blob.generation + 1)


def test_a_generation_that_is_gone_is_not_found(bucket: Bucket, name: str) -> None:
    first = write(bucket, name).generation
    write(bucket, name, b"2")
    with pytest.raises(api.NotFound):
        bucket.blob(name, generation=first).download_as_bytes()


# Races


def test_of_sixteen_who_create_a_name_one_wins(bucket: Bucket, name: str) -> None:
    def create(racer: int) -> bool:
        try:
            write(bucket, name, b"%d" % racer, if_generation_match=0)
        except api.PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(create, range(16)))
    assert wins.count(True) == 1
    assert bucket.blob(name).download_as_bytes() == b"%d" % wins.index(True)


def test_no_increment_is_lost(bucket: Bucket, name: str) -> None:
    write(bucket, name, b"0")

    def count(_: int) -> None:
        done = 0
        while done < 10:
            blob = bucket.get_blob(name)
            try:
                number = int(blob.download_as_bytes(if_generation_match=blob.generation))
                write(bucket, name, b"%d" % (number + 1), if_generation_match=blob.generation)
            except (api.PreconditionFailed, api.NotFound):
                continue
            except api.TooManyRequests:
                time.sleep(1)
                continue
            done += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert bucket.blob(name).download_as_bytes() == b"80"


# Uploads in parts


def upload_in_parts(bucket: Bucket, name: str, data: bytes, **options: Any) -> Blob:
    blob = bucket.blob(name, chunk_size=256 * KIB)
    stream = io.BytesIO(data)
    # Without its size the library chooses this way for anything.
    blob.upload_from_file(stream, retry=None, **options)
    return blob


def test_an_upload_in_parts_is_one_object(bucket: Bucket, name: str) -> None:
    data = secrets.token_bytes(700 * KIB)
    blob = upload_in_parts(bucket, name, data, if_generation_match=0)
    assert (blob.size, bucket.blob(name).download_as_bytes()) == (len(data), data)


def session_of(bucket: Bucket, url: str, name: str, *, query: str = "") -> str:
    begun = bucket.client._http.post(
        f"{url}/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name={name}{query}",
        json={"contentType": "text/plain"},
        timeout=SECONDS,
    )
    assert begun.status_code == 200
    return str(begun.headers["Location"])


def send(session: str, data: bytes, content_range: str) -> requests.Response:
    headers = {"Content-Range": content_range}
    return requests.put(session, data=data, headers=headers, timeout=SECONDS)


def test_an_upload_that_broke_off_tells_where_and_goes_on(
    bucket: Bucket, url: str, name: str
) -> None:
    data = secrets.token_bytes(300 * KIB)
    session = session_of(bucket, url, name)
    first = send(session, data[: 256 * KIB], f"bytes 0-{256 * KIB - 1}/{len(data)}")
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")
    asked = send(session, b"", f"bytes */{len(data)}")
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{256 * KIB - 1}")
    assert not bucket.blob(name).exists()
    last = send(session, data[256 * KIB :], f"bytes {256 * KIB}-{len(data) - 1}/{len(data)}")
    assert last.status_code == 200
    assert bucket.blob(name).download_as_bytes() == data


def test_a_finished_upload_answers_the_same_again(bucket: Bucket, url: str, name: str) -> None:
    session = session_of(bucket, url, name)
    done = send(session, b"bytes", "bytes 0-4/5").json()
    assert send(session, b"", "bytes */5").json()["generation"] == done["generation"]
    assert bucket.get_blob(name).generation == int(done["generation"])


def test_an_upload_in_parts_is_refused_at_its_start(bucket: Bucket, url: str, name: str) -> None:
    write(bucket, name)
    begun = bucket.client._http.post(
        f"{url}/upload/storage/v1/b/{bucket.name}/o"
        f"?uploadType=resumable&name={name}&ifGenerationMatch=0",
        json={},
        timeout=SECONDS,
    )
    assert begun.status_code == 412


def test_an_upload_in_parts_that_was_overtaken_is_refused_at_its_end(
    bucket: Bucket, url: str, name: str
) -> None:
    session = session_of(bucket, url, name, query="&ifGenerationMatch=0")
    write(bucket, name, b"faster")
    assert send(session, b"bytes", "bytes 0-4/5").status_code == 412
    assert bucket.blob(name).download_as_bytes() == b"faster"


# Checksums


def test_what_was_written_is_described_with_its_checksums(bucket: Bucket, name: str) -> None:
    blob = write(bucket, name, b"Hello, world!")
    found = bucket.get_blob(name)
    assert (blob.crc32c, blob.md5_hash) == ("yKEG5Q==", "bNNVbesNpUvKBgtMOUeYOQ==")
    assert (found.crc32c, found.md5_hash, found.size) == (blob.crc32c, blob.md5_hash, 13)


def test_bytes_other_than_the_declared_crc32c_are_refused(bucket: Bucket, name: str) -> None:
    blob = bucket.blob(name)
    blob.crc32c = "AAAAAA=="
    with pytest.raises(api.BadRequest):
        blob.upload_from_string(b"bytes", checksum=None, retry=None)
    assert not bucket.blob(name).exists()


def test_bytes_other_than_the_declared_md5_are_refused(bucket: Bucket, name: str) -> None:
    blob = bucket.blob(name)
    blob.md5_hash = "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(api.BadRequest):
        blob.upload_from_string(b"bytes", checksum=None, retry=None)
    assert not bucket.blob(name).exists()


def test_parts_other_than_the_declared_crc32c_are_refused(bucket: Bucket, name: str) -> None:
    with pytest.raises(api.BadRequest):
        upload_in_parts(bucket, name, b"bytes", checksum=None, crc32c_checksum_value="AAAAAA==")
    assert not bucket.blob(name).exists()


# Lists and names


def test_a_list_knows_prefixes_and_folders(bucket: Bucket, name: str) -> None:
    top = name.rpartition("/")[0]
    for leaf in ("a/1", "a/2", "b", "c/d/e"):
        write(bucket, f"{top}/{leaf}")
    found = bucket.client.list_blobs(bucket, prefix=f"{top}/", delimiter="/")
    assert [blob.name for blob in found] == [f"{top}/b"]
    assert found.prefixes == {f"{top}/a/", f"{top}/c/"}
    every = bucket.client.list_blobs(bucket, prefix=f"{top}/a")
    assert [blob.name for blob in every] == [f"{top}/a/1", f"{top}/a/2"]


def test_a_list_comes_in_pages(bucket: Bucket, name: str) -> None:
    for number in range(5):
        write(bucket, f"{name}{number}")
    found = bucket.client.list_blobs(bucket, prefix=name, page_size=2)
    assert [[blob.name[-1] for blob in page] for page in found.pages] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]


def test_odd_names_are_names(bucket: Bucket, name: str) -> None:
    top = name.rpartition("/")[0]
    odd = [f"{top}/{leaf}" for leaf in ("../dot", "#", "?", "%20", "\u00e9", "a b", "+", "a//b")]
    for each in odd:
        write(bucket, each, each.encode())
    assert {blob.name for blob in bucket.client.list_blobs(bucket, prefix=f"{top}/")} == {*odd}
    assert [bucket.blob(each).download_as_bytes() for each in odd] == [o.encode() for o in odd]


# What strangers get


def test_a_stranger_gets_the_bytes(bucket: Bucket, name: str, address: str) -> None:
    write(bucket, name)
    found = get(address)
    assert (found.status_code, found.content) == (200, b"bytes")


def test_a_stranger_gets_a_part(bucket: Bucket, name: str, address: str) -> None:
    write(bucket, name)
    found = get(address, Range="bytes=1-3")
    assert (found.status_code, found.content) == (206, b"yte")
    assert found.headers["Content-Range"] == "bytes 1-3/5"
    assert get(address, Range="bytes=3-").content == b"es"
    assert get(address, Range="bytes=-1").content == b"s"
    assert get(address, Range="bytes=9-").status_code == 416


def test_a_stranger_may_ask_for_the_headers_only(bucket: Bucket, name: str, address: str) -> None:
    write(bucket, name)
    found = requests.head(address, timeout=SECONDS)
    assert (found.status_code, found.headers["Content-Length"]) == (200, "5")


def test_a_stranger_gets_the_headers_that_were_uploaded(
    bucket: Bucket, name: str, address: str
) -> None:
    blob = bucket.blob(name)
    blob.cache_control = "no-cache, no-transform"
    blob.metadata = {"sha256": "ab"}
    blob.upload_from_string(b"bytes", content_type="text/plain; charset=utf-8")
    found = get(address)
    assert found.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert found.headers["Cache-Control"] == "no-cache, no-transform"
    assert found.headers["x-goog-meta-sha256"] == "ab"


def test_without_cache_control_a_stranger_is_told_an_hour(
    bucket: Bucket, name: str, address: str
) -> None:
    write(bucket, name)
    assert get(address).headers["Cache-Control"] == "public, max-age=3600"


def test_a_stranger_is_told_which_generation_it_is(bucket: Bucket, name: str, address: str) -> None:
    blob = write(bucket, name, b"Hello, world!")
    found = get(address)
    assert found.headers["x-goog-generation"] == str(blob.generation)
    assert "crc32c=yKEG5Q==" in found.headers["x-goog-hash"]
    assert found.headers["Last-Modified"].endswith(" GMT")


def test_a_stranger_who_has_it_is_told_so(bucket: Bucket, name: str, address: str) -> None:
    write(bucket, name)
    etag = get(address).headers["ETag"]
    known = get(address, **{"If-None-Match": etag})
    assert (known.status_code, known.content) == (304, b"")
    write(bucket, name, b"other")
    assert get(address, **{"If-None-Match": etag}).content == b"other"


def test_a_stranger_is_told_what_is_not_there(address: str) -> None:
    assert get(address).status_code == 404


# The rest


def test_what_is_not_there_is_not_found(bucket: Bucket, name: str, client: Client) -> None:
    with pytest.raises(api.NotFound):
        bucket.blob(name).reload()
    with pytest.raises(api.NotFound):
        bucket.blob(name).delete()
    with pytest.raises(api.NotFound):
        write(client.bucket("no-such-bucket"), name)


def test_a_bucket_tells_what_one_may_do(bucket: Bucket) -> None:
    assert bucket.exists()
    asked = ["storage.objects.create", "storage.objects.get"]
    assert sorted(bucket.test_iam_permissions(asked)) == asked


def test_requests_share_connections(bucket: Bucket, name: str, address: str) -> None:
    write(bucket, name)
    with requests.Session() as session:
        seen = set()
        for _ in range(3):
            answer = session.get(address, timeout=SECONDS, stream=True)
            seen.add(answer.raw.connection.sock.getsockname())
            assert answer.content == b"bytes"
    assert len(seen) == 1
