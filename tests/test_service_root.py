"""The root of the site: the installer for real downloaders, the page for browsers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import html5lib
import pytest
from aiohttp import web

from orchestrator.core.errors import StoreError
from orchestrator.core.installer import render_installer
from orchestrator.core.page import render_page
from orchestrator.service.directory import serve_directory
from orchestrator.service.headers import add_headers, page_policy
from orchestrator.service.listening import listening
from orchestrator.service.objects import Objects, add_objects
from orchestrator.service.root import add_root
from orchestrator.service.sources import StoreSource
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.store import ObjectKind
from tests.fakes import MemoryStore
from tests.installer_site import (
    MUSL,
    TEMPLATE,
    Host,
    Server,
    needs,
    said,
    serve,
)
from tests.sample_index import sample_index
from tests.visitors import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.stores.store import StoredObject
    from tests.visitors import Answer

SCRIPT = b"#!/bin/sh\necho installed\n"
PAGE = b"<!DOCTYPE html>\n<html lang='en'><style>\np { margin: 0 }\n</style><p>page"
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
BROWSER = {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Accept": HTML}
POINTER = "public, max-age=60, no-transform"


async def fill(store: DirectoryStore | MemoryStore) -> None:
    await store.replace("install.sh", SCRIPT, ObjectKind.SCRIPT, expected=None)
    await store.replace("install.sh.sig", b"signed", ObjectKind.SIGNATURE, expected=None)
    await store.replace("index.html", PAGE, ObjectKind.PAGE, expected=None)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    asyncio.run(fill(DirectoryStore(folder)))
    with serve_directory(folder) as served:
        yield served


@pytest.mark.parametrize(
    "line",
    [
        "curl -sSf",
        "curl -sSfL -A ''",
        "wget -qO-",
        "busybox wget -qO-",
        "tnftp -Vo -",
    ],
)
def test_a_real_downloader_gets_the_installer(url: str, line: str) -> None:
    command = [each.strip("'") for each in line.split()]
    # No skip: of each there is a package that the tests name.
    assert shutil.which(command[0]), f"install {command[0]}"
    for address in (url, f"{url}/", f"{url}/install.sh"):
        got = subprocess.run([*command, address], check=True, capture_output=True)
        assert got.stdout == SCRIPT


def test_a_browser_gets_the_page(url: str) -> None:
    answer = ask(url, "/", **BROWSER)
    assert (answer.status, answer.body) == (200, PAGE)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    script = ask(url, "/", User_Agent="curl/7.88.1")
    assert script.headers["Content-Type"] == "text/plain; charset=utf-8"
    for each in (answer, script):
        assert each.headers["Vary"] == "User-Agent, Accept, Accept-Encoding"
    assert answer.headers["Cache-Control"] == POINTER
    assert script.headers["Cache-Control"] == "no-cache, no-transform"
    head = ask(url, "/", "HEAD", **BROWSER)
    assert head.headers["Content-Length"] == str(len(PAGE))


def test_a_page_may_use_its_own_style_and_nothing_else(url: str) -> None:
    style = base64.b64encode(hashlib.sha256(b"\np { margin: 0 }\n").digest()).decode()
    for path in ("/", "/index.html"):
        policy = ask(url, path, **BROWSER).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith(f"; style-src 'sha256-{style}'")
        known = ask(url, path, If_None_Match="*", **BROWSER)
        assert known.status == 304
        assert known.headers["Content-Security-Policy"] == policy
    assert "style-src" not in page_policy(b"<p>no style")
    assert "style-src" not in page_policy(b"<style>p {}")
    assert "style-src" not in ask(url, "/install.sh").headers["Content-Security-Policy"]


def test_the_style_of_a_real_page_is_the_one_that_is_allowed(published: Server) -> None:
    page = render_page(published.site().values, sample_index())
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    (style,) = tree.iter("style")
    digest = base64.b64encode(hashlib.sha256("".join(style.itertext()).encode()).digest()).decode()
    assert page_policy(page.encode()).endswith(f"; style-src 'sha256-{digest}'")
    # All else that the policy forbids is not there to begin with.
    assert {each.tag for each in tree.iter()}.isdisjoint(
        {"script", "img", "link", "iframe", "form", "base", "object"}
    )
    assert not any("style" in each.attrib for each in tree.iter())


def test_before_the_first_release_there_is_nothing_at_the_root(tmp_path: Path) -> None:
    with serve_directory(tmp_path / "none") as url:
        for visitor in ({}, BROWSER):
            answer = ask(url, "/", **visitor)
            assert (answer.status, answer.body) == (404, b"There is nothing here.\n")
            assert answer.headers["Vary"] == "User-Agent, Accept"
            assert answer.headers["Cache-Control"] == "no-cache"


def test_what_cannot_be_a_root_is_not_one(url: str) -> None:
    for path in ("//", "/%2f", "/.", "/./", "/index.html/", "/install.sh/.."):
        assert ask(url, path).status == 404, path


@pytest.fixture
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("published"))


@needs("curl")
def test_the_bare_address_piped_into_a_shell_installs(tmp_path: Path, published: Server) -> None:
    site = published.site()
    with serve_directory(site.root) as url:
        site.url = url
        site.add("1.0.0", MUSL)
        site.publish()
        (site.root / "install.sh").write_text(render_installer(TEMPLATE, site.values))
        host = Host(root=tmp_path / "host")
        result = host.run(f"curl -sSf {url} | sh")
        assert result.returncode == 0, said(result)
        assert subprocess.run([host.binary], check=True, capture_output=True).stdout
        page = ask(url, "/", **BROWSER)
        assert page.status == 404


# A store that is not a folder


class CountingStore(MemoryStore):
    """A store that counts, that can be in trouble, and answers when it may."""

    reads = 0
    is_in_trouble = False
    at_once = 0
    most_at_once = 0

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Event()
        self.turn.set()
        self.asked = asyncio.Event()

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        self.reads += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if not self.turn.is_set():
                self.asked.set()
            await self.turn.wait()
            await asyncio.sleep(0)
            if self.is_in_trouble:
                raise StoreError("no network", hint="wait")
            return await super().read(name, limit_bytes=limit_bytes)
        finally:
            self.at_once -= 1


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def application(source: StoreSource) -> web.Application:
    app = web.Application()
    add_headers(app)
    objects = Objects(source=source)
    add_root(app, objects)
    add_objects(app, objects)
    return app


async def get(url: str, path: str, **headers: str) -> Answer:
    return await asyncio.to_thread(ask, url, path, **headers)


async def test_from_another_store_the_installer_and_the_page_are_served() -> None:
    store = CountingStore()
    await fill(store)
    async with listening(application(StoreSource(store=store))) as url:
        for path, data in (
            ("/", SCRIPT),
            ("/install.sh", SCRIPT),
            ("/install.sh.sig", b"signed"),
            ("/index.html", PAGE),
        ):
            answer = await get(url, path)
            assert (answer.status, answer.body) == (200, data)
        assert (await get(url, "/", **BROWSER)).body == PAGE
        answer = await get(url, "/index.html")
        tag = answer.headers["ETag"]
        assert (await get(url, "/index.html", If_None_Match=tag)).status == 304
        assert (await get(url, "/install.sh", Range="bytes=0-1")).body == SCRIPT[:2]
        assert "Last-Modified" not in answer.headers
        for path in ("/stable.idx", "/releases/1.0.0/x/a.tar.gz", "/none"):
            assert (await get(url, path)).status == 404
        assert store.reads == 3


async def test_the_store_is_read_once_a_minute_at_most() -> None:
    store, clock = CountingStore(), Clock()
    await fill(store)
    async with listening(application(StoreSource(store=store, now=clock))) as url:
        answers = await asyncio.gather(*(get(url, "/install.sh") for _ in range(20)))
        assert {answer.body for answer in answers} == {SCRIPT}
        assert store.reads == 1
        store.objects.clear()
        clock.seconds = 59.9
        assert (await get(url, "/install.sh")).status == 200
        clock.seconds = 60
        assert (await get(url, "/install.sh")).status == 404
        assert (await get(url, "/install.sh")).status == 404
        assert store.reads == 2
        await asyncio.gather(*(get(url, path) for path in ("/index.html", "/install.sh.sig")))
        assert (store.reads, store.most_at_once) == (4, 1)


async def test_a_store_that_does_not_answer_holds_up_nothing_that_is_kept() -> None:
    store = CountingStore()
    await fill(store)
    async with listening(application(StoreSource(store=store))) as url:
        assert (await get(url, "/install.sh")).status == 200
        store.turn.clear()
        waiting = asyncio.create_task(get(url, "/index.html"))
        await store.asked.wait()
        assert (await get(url, "/install.sh")).status == 200
        store.turn.set()
        assert (await waiting).body == PAGE


async def test_a_store_in_trouble_is_not_asked_for_each_visitor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, clock = CountingStore(), Clock()
    await fill(store)
    store.is_in_trouble = True
    async with listening(application(StoreSource(store=store, now=clock))) as url:
        for _ in range(3):
            answer = await get(url, "/install.sh")
            assert answer.status == 503
            assert answer.body == b"This cannot be read now; try again in a minute.\n"
            assert answer.headers["Retry-After"] == "60"
        assert store.reads == 1
        assert "no network" in caplog.text
        store.is_in_trouble = False
        clock.seconds = 5
        assert (await get(url, "/install.sh")).status == 200


async def test_what_is_served_elsewhere_is_pointed_to() -> None:
    source = StoreSource(store=CountingStore(), url="https://example.org/tool/")
    async with listening(application(source)) as url:
        for name in ("stable.idx", "releases/1.0.0/x/a.tar.gz", "versions.json"):
            answer = await get(url, f"/{name}")
            assert answer.status == 302
            assert answer.headers["Location"] == f"https://example.org/tool/{name}"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for name in ("none", "install.sh", "releases/../a.tar.gz", "1/%0d%0aX:1", "/stable.idx"):
            assert (await get(url, f"/{name}")).status == 404
        # That is where the visitor is already.
        assert (await get(url, "/stable.idx", Host="Example.org")).status == 404


async def test_a_script_that_is_too_large_is_not_served() -> None:
    store = CountingStore()
    await fill(store)
    held = store.objects["install.sh"]
    await store.replace("install.sh", b"x" * 5_000_000, ObjectKind.SCRIPT, expected=held.generation)
    async with listening(application(StoreSource(store=store))) as url:
        assert (await get(url, "/")).status == 503
