from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.inventory import ArchiveSource
from orchestrator.source.archive import DownloadLimits, check_url, download, unpack_archive
from orchestrator.source.command import Stopped
from orchestrator.source.tree import Limits
from tests.servers import bytes_of, moved_to, serving

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tests.source.conftest import Make, Program

GOING = threading.Event()


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(1 << 16))
            time.sleep(0.001)  # slow enough that the deadline comes before the size limit
    except OSError:
        pass


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def thing(program: Program, tmp_path: Path) -> bytes:
    """The program as an archive with one top folder, as a forge serves it."""
    folder = program()
    with tarfile.open(tmp_path / "thing.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname="thing-1.2.3")
    return (tmp_path / "thing.tar.gz").read_bytes()


def source(url: str, data: bytes) -> ArchiveSource:
    digest = hashlib.sha256(data).hexdigest().upper()
    return ArchiveSource(archive=f"{url}/v{{version}}.tar.gz", sha256=(("1.2.3", digest),))


async def test_an_archive_becomes_a_bundle_and_is_downloaded_once(make: Make, thing: bytes) -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        bytes_of(thing)(request)

    with serving(answer) as url:
        first = await make(source(url, thing))
        assert await make(source(url, thing)) == first
    assert asked == ["/v1.2.3.tar.gz"]
    assert first.description == f"{url}/v1.2.3.tar.gz"
    assert first.revision is None
    with tarfile.open(first.path) as archive:
        assert "source/src/main.rs" in archive.getnames()


async def test_a_changed_archive_is_refused_before_it_is_unpacked(make: Make, thing: bytes) -> None:
    told = pytest.raises(ConfigError, match=r"has the SHA-256 [0-9a-f]{64}, not")
    with serving(bytes_of(b"not even an archive")) as url, told:
        await make(source(url, thing))


async def test_a_version_without_a_digest_is_refused(make: Make, thing: bytes) -> None:
    with pytest.raises(ConfigError, match=r"no digest for 1\.2\.4"):
        await make(source("https://example.org", thing), version="1.2.4")


@pytest.mark.parametrize("url", ["http://example.org/x", "file:///etc/passwd", "https:///x", "x"])
def test_only_https_is_downloaded(url: str) -> None:
    with pytest.raises(ConfigError, match="not an https URL"):
        check_url(url)


@pytest.mark.parametrize(
    "place", ["http://example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/"]
)
def test_a_redirect_away_from_https_is_refused(tmp_path: Path, place: str) -> None:
    with serving(moved_to(place)) as url, pytest.raises(NodeError, match=r"not https|not allowed"):
        download(url, tmp_path / "x", sha256="", stop=GOING)


def test_a_redirect_on_loopback_is_followed(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    with serving(bytes_of(b"x")) as there, serving(moved_to(there)) as url:
        download(url, tmp_path / "x", sha256=digest, stop=GOING)
    assert (tmp_path / "x").read_bytes() == b"x"


def test_an_endless_download_ends_at_its_size(tmp_path: Path) -> None:
    limits = DownloadLimits(size_bytes=100_000)
    with serving(endless) as url, pytest.raises(NodeError, match="larger than 100000 bytes"):
        download(url, tmp_path / "x", sha256="", stop=GOING, limits=limits)


def test_an_endless_download_ends_at_its_deadline(tmp_path: Path) -> None:
    limits = DownloadLimits(deadline=timedelta(seconds=0.05))
    with serving(endless) as url, pytest.raises(NodeError, match="took longer than"):
        download(url, tmp_path / "x", sha256="", stop=GOING, limits=limits)


def test_a_download_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with serving(endless) as url, pytest.raises(Stopped):
        download(url, tmp_path / "x", sha256="", stop=stop)


def test_what_the_server_says_is_shown(tmp_path: Path) -> None:
    told = pytest.raises(NodeError, match="the server says 404")
    with serving(lambda request: request.send_error(404)) as url, told:
        download(url, tmp_path / "x", sha256="", stop=GOING)


def test_a_server_that_is_not_there_is_an_error_of_the_network(tmp_path: Path) -> None:
    with serving(endless) as url:
        pass
    with pytest.raises(NodeError, match="cannot be downloaded"):
        download(url, tmp_path / "x", sha256="", stop=GOING)


def test_files_modes_and_links_arrive(tmp_path: Path) -> None:
    file = packed(
        tmp_path / "x.tar.gz",
        member(".", type=tarfile.DIRTYPE),
        member("./x-1/", type=tarfile.DIRTYPE),
        member("./x-1/link", type=tarfile.SYMTYPE, linkname="a/run"),
        member("./x-1/a/run", b"#!/bin/sh\n", mode=0o775),
        member("./x-1/" + "n" * 150, b"long"),
        member("./x-1/plain", b"plain", mode=0o666),
    )
    unpack_archive(file, tmp_path / "out", stop=GOING)
    out = tmp_path / "out"
    assert (out / "link").read_bytes() == b"#!/bin/sh\n"
    assert (out / ("n" * 150)).read_bytes() == b"long"
    assert (out / "a/run").stat().st_mode & 0o100
    assert not (out / "plain").stat().st_mode & 0o122


@pytest.mark.parametrize(
    "members",
    [
        (member("x/../../out", b"x"),),
        (member("/etc/x", b"x"),),
        (member("x//etc/x", b"x"),),
        (member("x/.git/config", b"x"),),
        (member("x/null", type=tarfile.CHRTYPE),),
        (member("x/pipe", type=tarfile.FIFOTYPE),),
        (member("x/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),),
        (member("x/odd", type=b"Z"),),
        (member("x/a", b"1"), member("x/a", b"2")),
        (member("x/a", b"1"), member("x/a/b", b"2")),
        (member("x/a", type=tarfile.SYMTYPE, linkname="/etc"),),
        (member("x/a", type=tarfile.SYMTYPE, linkname="../etc"),),
        (member("x/a", type=tarfile.SYMTYPE, linkname="b/../../etc"),),
        (member("x/a", type=tarfile.SYMTYPE, linkname="."), member("x/a/b", b"2")),
        (
            member("x/a", type=tarfile.SYMTYPE, linkname="b"),
            member("x/a/c", type=tarfile.SYMTYPE, linkname="../d"),
        ),
        (member("x/a", b"1"), member("y/a", b"2")),
        (member("x", b"a file at the top"),),
        (member("x/" + "n" * 2000, b"1"),),
        (member("x/pax", bytes(2 << 20), type=tarfile.XHDTYPE),),
        (member("x/many", b"1"), *(member(f"x/{i}") for i in range(101))),
        (member("x/bomb", bytes(200_000)),),
    ],
)
def test_an_unsafe_archive_is_refused_and_writes_nothing_outside(
    tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...]
) -> None:
    (tmp_path / "here" / "in").mkdir(parents=True)
    here = tmp_path / "here"
    file = packed(here / "x.tar.gz", *members)
    limits = Limits(files=100, total_bytes=100_000)
    with pytest.raises(ConfigError):
        unpack_archive(file, here / "in" / "out", stop=GOING, limits=limits)
    assert sorted(path.name for path in here.iterdir()) == ["in", "x.tar.gz"]
    assert {path.name for path in (here / "in").iterdir()} <= {"out"}


def test_the_long_path_that_escapes_the_standard_library_stays_inside(tmp_path: Path) -> None:
    """The shape of CVE-2025-4517: links whose expanded path is too long for realpath to follow."""
    long = "d" * 247
    members = []
    path = "x"
    for step in "abcdefghijklmnop":
        members.append(member(f"{path}/{long}", type=tarfile.DIRTYPE))
        members.append(member(f"{path}/{step}", type=tarfile.SYMTYPE, linkname=long))
        path += f"/{step}"
    link = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    members += [
        member(f"x/{link}", type=tarfile.SYMTYPE, linkname="../" * 16),
        member("x/escape", type=tarfile.SYMTYPE, linkname=f"{link}/../../outside"),
        member("x/escape", b"planted"),
    ]
    (tmp_path / "outside").write_text("mine")
    file = packed(tmp_path / "x.tar.gz", *members)
    with pytest.raises(ConfigError):
        unpack_archive(file, tmp_path / "out", stop=GOING)
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_decompression_bomb_ends_early(tmp_path: Path) -> None:
    limits = Limits(files=10, total_bytes=1 << 20)
    data = io.BytesIO()
    # A header of a kind whose content tarfile would skip, so that only the stream's own cap counts.
    info = member("x/dir", type=tarfile.DIRTYPE, size=64 << 20)[0]
    with gzip.GzipFile(fileobj=data, mode="wb", mtime=0) as out:
        out.write(info.tobuf())
        for _ in range(64):
            out.write(bytes(1 << 20))
    (tmp_path / "x.tar.gz").write_bytes(data.getvalue())
    with pytest.raises(ConfigError):
        unpack_archive(tmp_path / "x.tar.gz", tmp_path / "out", stop=GOING, limits=limits)


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", gzip.compress(b"x" * 5000, mtime=0), b"\x1f\x8b\x08"],
    ids=["nothing", "a page", "no tar", "cut off"],
)
def test_something_else_than_an_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be unpacked"):
        unpack_archive(tmp_path / "x.tar.gz", tmp_path / "out", stop=GOING)
