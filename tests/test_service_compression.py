"""Texts in gzip: for whom, which, and once."""

from __future__ import annotations

import asyncio
import gzip
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.conditions import Version
from orchestrator.service.compression import Compressor
from orchestrator.service.directory import serve_directory
from orchestrator.service.sources import Content
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.store import ObjectKind
from tests.installer_site import needs
from tests.visitors import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = b"".join(b"line %d of a long text\n" % number for number in range(5000))
NAMES = ("stable.idx", "install.sh", "index.html", "versions.json", "latest/x.txt", "keys.txt")
ARCHIVE = "releases/1.0.0/x/demo.tar.gz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    for name in (*NAMES, ARCHIVE, "releases/1.0.0/x/sbom.cdx.json", "1.0.0/demo", "robots.txt"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(TEXT)
    (place / "short.sh").write_bytes(b"x" * 1023)
    (place / "random.html").write_bytes(random.Random(1).randbytes(5000))
    (place / "large.html").write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    return place


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serve_directory(folder) as served:
        yield served


@pytest.mark.parametrize("name", [*NAMES, "releases/1.0.0/x/sbom.cdx.json"])
def test_a_text_is_compressed_for_who_asks_for_it(url: str, name: str) -> None:
    plain = ask(url, f"/{name}")
    packed = ask(url, f"/{name}", Accept_Encoding="gzip, br")
    assert packed.status == plain.status == 200
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body == TEXT
    assert packed.headers["Content-Length"] == str(len(packed.body))
    assert len(packed.body) < len(TEXT) / 3
    for same in ("Content-Type", "Cache-Control", "Last-Modified", "Vary"):
        assert packed.headers[same] == plain.headers[same]
    assert plain.headers["Vary"] == "Accept-Encoding"
    head = ask(url, f"/{name}", "HEAD", Accept_Encoding="gzip")
    assert (head.body, head.headers["ETag"]) == (b"", packed.headers["ETag"])
    assert head.headers["Content-Length"] == packed.headers["Content-Length"]
    assert head.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("name", [ARCHIVE, "1.0.0/demo", "robots.txt"])
def test_what_is_no_text_by_its_name_stays_as_it_is(url: str, name: str) -> None:
    answer = ask(url, f"/{name}", Accept_Encoding="gzip")
    assert answer.body == TEXT
    assert "Content-Encoding" not in answer.headers
    assert "Vary" not in answer.headers


@pytest.mark.parametrize("name", ["short.sh", "random.html", "large.html"])
def test_what_would_gain_nothing_or_cost_too_much_stays_as_it_is(
    url: str, folder: Path, name: str
) -> None:
    for _ in range(2):
        answer = ask(url, f"/{name}", Accept_Encoding="gzip")
        assert answer.body == (folder / name).read_bytes()
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["ETag"] == ask(url, f"/{name}").headers["ETag"]


def test_each_encoding_has_a_tag_of_its_own(url: str) -> None:
    plain, packed = (
        ask(url, "/stable.idx", Accept_Encoding=each).headers["ETag"]
        for each in ("identity", "gzip")
    )
    assert plain != packed
    assert not packed.startswith("W/")
    for encoding, known, status in (
        ("identity", plain, 304),
        ("gzip", packed, 304),
        ("gzip", f"{plain}, {packed}", 304),
        ("identity", packed, 200),
        ("gzip", plain, 200),
    ):
        answer = ask(url, "/stable.idx", Accept_Encoding=encoding, If_None_Match=known)
        assert answer.status == status
        assert answer.headers["ETag"] == (plain if encoding == "identity" else packed)
        assert answer.headers["Vary"] == "Accept-Encoding"


def test_who_names_the_tag_of_a_version_gets_that_one(url: str) -> None:
    plain = ask(url, "/stable.idx")
    packed = ask(url, "/stable.idx", Accept_Encoding="gzip")
    for version in (plain, packed):
        tag = version.headers["ETag"]
        again = ask(url, "/stable.idx", Accept_Encoding="gzip", If_Match=tag)
        assert (again.status, again.headers["ETag"]) == (200, tag)
        assert again.body == version.body


def test_a_part_is_one_of_the_object_as_it_is(url: str) -> None:
    packed = ask(url, "/stable.idx", Accept_Encoding="gzip").headers["ETag"]
    answer = ask(url, "/stable.idx", Accept_Encoding="gzip", Range="bytes=5-9")
    assert (answer.status, answer.body) == (206, TEXT[5:10])
    assert "Content-Encoding" not in answer.headers
    # Half of the compressed object cannot be completed from here.
    again = ask(url, "/stable.idx", Accept_Encoding="gzip", Range="bytes=5-9", If_Range=packed)
    assert (again.status, again.body) == (200, TEXT)


async def test_a_changed_object_is_compressed_anew(url: str, folder: Path) -> None:
    store = DirectoryStore(folder)
    first = await store.replace("beta.idx", TEXT, ObjectKind.INDEX, expected=None)
    before = ask(url, "/beta.idx", Accept_Encoding="gzip")
    await store.replace("beta.idx", TEXT[::-1], ObjectKind.INDEX, expected=first)
    after = ask(url, "/beta.idx", Accept_Encoding="gzip")
    assert gzip.decompress(after.body) == TEXT[::-1]
    assert after.headers["ETag"] != before.headers["ETag"]


@needs("curl")
def test_curl_decodes_only_what_it_asked_for(url: str) -> None:
    for options in ((), ("--compressed",)):
        line = ["curl", "-sSf", *options, f"{url}/install.sh"]
        assert subprocess.run(line, check=True, capture_output=True).stdout == TEXT
    # As it comes over the wire.
    line = ["curl", "-sSf", "--compressed", "--raw", f"{url}/install.sh"]
    raw = subprocess.run(line, check=True, capture_output=True).stdout
    assert gzip.decompress(raw) == TEXT


def content(number: int) -> Content:
    data = b"%d" % number * 2000
    return Content(version=Version(tag=f'"{number}"', size_bytes=len(data)), body=data)


async def test_many_who_ask_at_once_get_the_work_of_one() -> None:
    compressor = Compressor()
    packed = await asyncio.gather(*(compressor.compress(content(7)) for _ in range(20)))
    assert all(each is packed[0] for each in packed)
    assert await compressor.compress(content(7)) is packed[0]


async def test_who_goes_away_takes_it_from_nobody() -> None:
    compressor = Compressor()
    first, second = (asyncio.create_task(compressor.compress(content(7))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).version.tag == '"7-gzip"'


async def test_what_was_not_asked_for_lately_is_forgotten() -> None:
    size = (await Compressor().compress(content(1))).version.size_bytes
    compressor = Compressor(limit_bytes=2 * size)
    one, two = [await compressor.compress(content(number)) for number in (1, 2)]
    assert await compressor.compress(content(1)) is one
    await compressor.compress(content(3))
    assert await compressor.compress(content(1)) is one
    assert await compressor.compress(content(2)) is not two
