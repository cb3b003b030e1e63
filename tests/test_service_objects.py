"""The store over HTTP: headers, ranges, and nothing but what was published."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from orchestrator.core.conditions import Version
from orchestrator.core.errors import ConfigError
from orchestrator.service.directory import serve_directory
from orchestrator.service.headers import add_headers
from orchestrator.service.listening import listening
from orchestrator.service.objects import Objects, add_objects
from orchestrator.service.sources import Content, FolderSource
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.store import ObjectKind
from tests.visitors import ask, connect, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

ARCHIVE = "releases/1.0.0/x86_64-unknown-netbsd/demo-1.0.0-x86_64-unknown-netbsd.tar.gz"
DATA = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    asyncio.run(fill(DirectoryStore(place / "store")))
    surround_with_secrets(place / "store")
    return place / "store"


async def fill(store: DirectoryStore) -> None:
    await store.create(ARCHIVE, DATA, ObjectKind.ARCHIVE)
    await store.create(f"{ARCHIVE}.sha256", b"sum", ObjectKind.TEXT)
    await store.create("1.0.0/demo-1.0.0-netbsd-x86_64", b"\x7fELF", ObjectKind.BINARY)
    for name, kind in (
        ("stable.idx", ObjectKind.INDEX),
        ("install.sh", ObjectKind.SCRIPT),
        ("index.html", ObjectKind.PAGE),
        ("versions.json", ObjectKind.SUMMARY),
        ("latest/x86_64-unknown-openbsd7.8.txt", ObjectKind.LATEST),
    ):
        await store.replace(name, f"this is {name}".encode(), kind, expected=None)


def surround_with_secrets(folder: Path) -> None:
    (folder.parent / "outside").write_text("secret")
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere/secret").write_text("secret")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/file").write_text("secret")
    (folder / "a b").write_text("secret")
    (folder / "link").symlink_to(folder.parent / "outside")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    os.mkfifo(folder / "fifo")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serve_directory(folder) as served:
        yield served


IMMUTABLE = "public, max-age=31536000, immutable"
POINTER = "public, max-age=60, no-transform"


@pytest.mark.parametrize(
    ("path", "content_type", "cache_control"),
    [
        (f"/{ARCHIVE}", "application/gzip", IMMUTABLE),
        (f"/{ARCHIVE}.sha256", "text/plain; charset=utf-8", IMMUTABLE),
        ("/1.0.0/demo-1.0.0-netbsd-x86_64", "application/octet-stream", IMMUTABLE),
        ("/stable.idx", "text/plain; charset=utf-8", "no-cache, no-transform"),
        ("/install.sh", "text/plain; charset=utf-8", "no-cache, no-transform"),
        ("/index.html", "text/html; charset=utf-8", POINTER),
        ("/versions.json", "application/json", POINTER),
        ("/latest/x86_64-unknown-openbsd7.8.txt", "text/plain; charset=utf-8", POINTER),
    ],
)
def test_each_kind_of_object_has_its_headers(
    url: str, path: str, *, content_type: str, cache_control: str
) -> None:
    answer = ask(url, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Cache-Control"] == cache_control
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Server"] == "orchestrator"
    head = ask(url, path, "HEAD")
    assert head.body == b""
    assert head.status == 200
    for name in ("Content-Type", "Cache-Control", "Content-Length", "ETag", "Last-Modified"):
        assert head.headers[name] == answer.headers[name]


def test_an_object_arrives_whole(url: str) -> None:
    assert ask(url, f"/{ARCHIVE}").body == DATA
    assert ask(url, "/stable.idx?cache=no").body == b"this is stable.idx"
    assert ask(url, "/%73table.idx").body == b"this is stable.idx"


def test_what_lies_in_the_folder_and_is_no_release_is_never_cached(url: str, folder: Path) -> None:
    (folder / "robots.txt").write_text("Allow: /")
    answer = ask(url, "/robots.txt")
    assert (answer.body, answer.headers["Cache-Control"]) == (b"Allow: /", "no-cache")
    assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_a_client_that_has_the_object_is_told_so_until_it_changes(
    url: str, folder: Path
) -> None:
    store = DirectoryStore(folder)
    old = await store.replace("beta.idx", b"old", ObjectKind.INDEX, expected=None)
    tag = ask(url, "/beta.idx").headers["ETag"]
    for condition in (tag, f'"other", W/{tag}', "*"):
        unchanged = ask(url, "/beta.idx", If_None_Match=condition)
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert unchanged.headers["ETag"] == tag
        assert unchanged.headers["Cache-Control"] == "no-cache, no-transform"
    await store.replace("beta.idx", b"new", ObjectKind.INDEX, expected=old)
    changed = ask(url, "/beta.idx", If_None_Match=tag)
    assert (changed.status, changed.body) == (200, b"new")


def test_what_head_says_is_what_get_says(url: str) -> None:
    tag = ask(url, "/stable.idx").headers["ETag"]
    for headers in (
        {},
        {"Range": "bytes=3-5"},
        {"Range": "bytes=999999-"},
        {"If_None_Match": tag},
        {"If_Match": '"other"'},
        {"Accept_Encoding": "gzip"},
    ):
        for path in (f"/{ARCHIVE}", "/stable.idx", "/index.html", "/", "/none"):
            answers = [ask(url, path, method, **headers) for method in ("GET", "HEAD")]
            for answer in answers:
                del answer.headers["Date"]
            whole, head = ([*answer.headers.items()] for answer in answers)
            assert whole == head
            assert answers[0].status == answers[1].status
            assert answers[1].body == b""


def test_a_date_is_a_condition_too(url: str) -> None:
    date = ask(url, "/stable.idx").headers["Last-Modified"]
    unchanged = ask(url, "/stable.idx", If_Modified_Since=date)
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert ask(url, "/stable.idx", If_Unmodified_Since=date).status == 200
    long_ago = "Thu, 01 Jan 1970 00:00:00 GMT"
    assert ask(url, "/stable.idx", If_Modified_Since=long_ago).status == 200
    changed = ask(url, "/stable.idx", If_Unmodified_Since=long_ago)
    assert (changed.status, changed.body) == (412, b"This is not what it was any more.\n")


def test_a_condition_may_come_in_two_headers(url: str) -> None:
    tag = ask(url, "/stable.idx").headers["ETag"]
    known = f'If-None-Match: "other"\r\nIf-None-Match: {tag}\r\n'
    answer = say(
        url, f"GET /stable.idx HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{known}\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 304 ")


def test_a_connection_serves_one_request_after_another(url: str) -> None:
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        for path, status in (("/stable.idx", 200), ("/none", 404), (f"/{ARCHIVE}", 200)):
            # The client connects again by itself when it has to.
            held = connection.sock
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == status
            assert connection.sock is not None
            assert held in {None, connection.sock}


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=255990-", 255_990, 255_999),
        ("bytes=255990-999999999", 255_990, 255_999),
        ("bytes=-5", 255_995, 255_999),
        ("bytes=-999999999", 0, 255_999),
    ],
)
def test_a_part_of_an_object_is_sent_on_request(
    url: str, *, wanted: str, first: int, last: int
) -> None:
    answer = ask(url, f"/{ARCHIVE}", Range=wanted)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/256000"
    assert answer.headers["Content-Length"] == str(last - first + 1)
    assert answer.body == DATA[first : last + 1]


@pytest.mark.parametrize("wanted", ["bytes=256000-", "bytes=300000-400000", "bytes=-0"])
def test_a_part_that_is_not_there_is_refused(url: str, wanted: str) -> None:
    answer = ask(url, f"/{ARCHIVE}", Range=wanted)
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Range"] == "bytes */256000"


@pytest.mark.parametrize("wanted", ["bytes=5-4", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "x"])
def test_a_range_that_makes_no_sense_is_ignored(url: str, wanted: str) -> None:
    answer = ask(url, f"/{ARCHIVE}", Range=wanted)
    assert (answer.status, len(answer.body)) == (200, 256_000)


def test_a_resumed_download_starts_over_when_the_object_changed(url: str) -> None:
    tag = ask(url, f"/{ARCHIVE}").headers["ETag"]
    assert ask(url, f"/{ARCHIVE}", Range="bytes=5-", If_Range=tag).status == 206
    assert ask(url, f"/{ARCHIVE}", Range="bytes=5-", If_Range='"old"').status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/releases",
        "/releases/",
        "/none",
        "/.lock",
        "/.hidden/file",
        "/../outside",
        "/%2e%2e/outside",
        "/releases/../../outside",
        "/releases/%2e%2e/%2e%2e/outside",
        "/..%2foutside",
        "/%00",
        "//[",
        "/%ff",
        "/link",
        "/linked/secret",
        "/fifo",
        "/a%20b",
    ],
)
def test_nothing_but_published_files_is_served(url: str, folder: Path, path: str) -> None:
    assert (folder / ".lock").exists()
    answer = ask(url, path)
    assert answer.status == 404
    assert b"secret" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(url: str, folder: Path, method: str) -> None:
    answer = ask(url, "/stable.idx", method)
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}
    assert answer.body == b"This is not how to ask for it.\n"
    assert (folder / "stable.idx").read_text() == "this is stable.idx"


def test_a_folder_that_does_not_exist_yet_serves_nothing(tmp_path: Path) -> None:
    with serve_directory(tmp_path / "none") as url:
        assert ask(url, "/").status == 404


def test_an_empty_object_is_served(url: str, folder: Path) -> None:
    (folder / "empty").touch()
    answer = ask(url, "/empty")
    assert (answer.status, answer.headers["Content-Length"]) == (200, "0")


def test_a_client_that_goes_away_is_not_worth_a_word(
    url: str, capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "big").write_bytes(b"x" * 20_000_000)
    with connect(url) as client:
        client.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        client.recv(1)
        # Closing with unread data resets the connection.
    assert ask(url, "/stable.idx").status == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "size", "is_held"),
    [
        ("small.bin", 64 * 1024, True),
        ("archive.bin", 64 * 1024 + 1, False),
        ("page.html", 4 * 1024 * 1024, True),
        ("large.html", 4 * 1024 * 1024 + 1, False),
    ],
)
async def test_what_is_large_is_not_held_in_memory(
    tmp_path: Path, name: str, *, size: int, is_held: bool
) -> None:
    (tmp_path / name).write_bytes(bytes(size))
    async with FolderSource(folder=tmp_path).open(name) as content:
        assert content
        assert isinstance(content.body, bytes) is is_held
        assert await content.read(size - 1, 5) == b"\0"


def start_and_take_nothing(url: str, name: str) -> socket.socket:
    client = connect(url)
    client.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(1)
    return client


def test_slow_readers_hold_nobody_up_and_not_the_end(folder: Path) -> None:
    (folder / "big").write_bytes(b"x" * 20_000_000)
    with contextlib.ExitStack() as stack:
        with serve_directory(folder) as url:
            # More than there are threads to read files in.
            for _ in range(50):
                stack.enter_context(start_and_take_nothing(url, "big"))
            assert ask(url, "/stable.idx").status == 200
            assert len(ask(url, "/big").body) == 20_000_000
        with pytest.raises(ConnectionRefusedError):
            connect(url)


async def test_who_takes_nothing_is_cut_off(folder: Path) -> None:
    (folder / "big").write_bytes(b"x" * 20_000_000)
    objects = Objects(source=FolderSource(folder=folder), stall_seconds=0.05)
    app, cut = web.Application(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await objects.answer(request)
        finally:
            cut.set()

    app.router.add_get("/big", answer)
    async with listening(app) as url:
        client = await asyncio.to_thread(start_and_take_nothing, url, "big")
        with client:
            async with asyncio.timeout(60):
                await cut.wait()
            assert await asyncio.to_thread(taken, client) < 20_000_000


def taken(client: socket.socket) -> int:
    count = 0
    with contextlib.suppress(ConnectionError):
        while part := client.recv(1_000_000):
            count += len(part)
    return count


async def test_an_object_that_ends_too_early_breaks_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Cut:
        @contextlib.asynccontextmanager
        async def open(self, _: str) -> AsyncIterator[Content]:
            yield Content(version=Version(tag='"x"', size_bytes=9), body=b"short")

        def elsewhere(self, _: str) -> None:
            pass

    app = web.Application()
    add_headers(app)
    add_objects(app, Objects(source=Cut()))
    async with listening(app) as url:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            await asyncio.to_thread(ask, url, "/install.sh")
    assert "the file ends 4 bytes before its end" in caplog.text


def test_that_no_file_can_be_opened_does_not_say_that_there_is_none(folder: Path) -> None:
    program = """
import asyncio, pathlib, resource, sys
from orchestrator.core.errors import StoreError
from orchestrator.service.sources import FolderSource

async def read():
    source = FolderSource(folder=pathlib.Path(sys.argv[1]))
    async with source.open("stable.idx") as content:
        assert content
    files = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            files.append(open("/dev/null"))
    except OSError:
        pass
    try:
        async with source.open("stable.idx") as content:
            print("there is", content)
    except StoreError as error:
        print(error.message)

asyncio.run(read())
"""
    command = [sys.executable, "-c", program, str(folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told == f"stable.idx in {folder} cannot be read: Too many open files\n"


def test_a_folder_may_go_away_and_come_back(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with serve_directory(store) as url:
        for _ in range(2):
            assert ask(url, "/stable.idx").status == 404
            asyncio.run(fill(DirectoryStore(store)))
            assert ask(url, "/stable.idx").status == 200
            store.rename(tmp_path / f"old {os.urandom(4).hex()}")
            assert ask(url, "/stable.idx").status == 404


def test_the_server_is_gone_at_the_end_of_the_block(folder: Path) -> None:
    before = set(threading.enumerate())
    with serve_directory(folder) as url:
        port = urlsplit(url).port
        assert port
        assert url == f"http://127.0.0.1:{port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
    assert set(threading.enumerate()) <= before
    with serve_directory(folder, port=port) as again:
        assert again == url


def test_it_stops_when_the_block_fails(folder: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError), serve_directory(folder):
        raise RuntimeError
    assert set(threading.enumerate()) <= before


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")
def test_ipv6_loopback_is_served_too(folder: Path) -> None:
    with serve_directory(folder, host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert ask(url, "/none").status == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.org", "127.0.0.1 "])
def test_no_other_machine_is_served(folder: Path, host: str) -> None:
    with (
        pytest.raises(ConfigError, match="is not a loopback address") as caught,
        serve_directory(folder, host=host),
    ):
        pass
    assert caught.value.hint


def test_a_port_that_is_taken_is_an_error_that_says_so(folder: Path) -> None:
    with serve_directory(folder) as url:
        port = urlsplit(url).port
        assert port
        for unusable in (port, 65536):
            with (
                pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {unusable}"),
                serve_directory(folder, port=unusable),
            ):
                pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_fetches_and_resumes(url: str, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(DATA[:1000])
    subprocess.run(["curl", "-sSf", "-C", "-", "-o", str(part), f"{url}/{ARCHIVE}"], check=True)
    assert part.read_bytes() == DATA
    missing = subprocess.run(["curl", "-sf", f"{url}/none"], check=False)
    assert missing.returncode == 22
