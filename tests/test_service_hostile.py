"""Whatever is sent to the server: clean answers, published bytes, no word on the terminal."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import logging
import re
from contextlib import closing
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import StoreError
from orchestrator.service.directory import serve_directory
from orchestrator.service.headers import SAFETY, add_headers
from orchestrator.service.listening import listening
from tests.visitors import ask, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TEXT = b"".join(b"line %d\n" % number for number in range(1000))
OBJECTS: Final = {
    "stable.idx": TEXT,
    "install.sh": b"#!/bin/sh\n" + TEXT,
    "index.html": b"<style></style>" + TEXT,
    "latest/x.txt": b"1.0.0\n",
    "releases/1.0.0/x/a.tar.gz": bytes(range(256)) * 300,
    "robots.txt": TEXT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile")
    (place / "secret").write_text("secret")
    (place / "store/.git").mkdir(parents=True)
    (place / "store/.git/config").write_text("secret")
    (place / "store/link").symlink_to(place / "secret")
    for name, data in OBJECTS.items():
        file = place / "store" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return place / "store"


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serve_directory(folder) as served:
        yield served


@pytest.fixture(scope="module")
def tags(url: str) -> dict[str, str]:
    return {name: ask(url, f"/{name}").headers["ETag"] for name in OBJECTS}


# What every answer is, whatever was asked


def names() -> st.SearchStrategy[str]:
    known = st.sampled_from([*OBJECTS, ""])
    odd = st.text(st.sampled_from("./%\\ea2-_~:;?#[]@!$&'()*+,= \x00\u00e9\ud7ff"), max_size=12)
    mixed = st.builds("{}{}{}".format, odd, known, odd)
    return known | known | odd | mixed


def tag_lists() -> st.SearchStrategy[str]:
    places = st.sampled_from(["$tag", "$gzip", "W/$tag", "*", '"other"', "junk", ""])
    return st.lists(places, min_size=1, max_size=3).map(", ".join)


def header_values() -> st.SearchStrategy[str]:
    return st.text(
        st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20
    )


def requests() -> st.SearchStrategy[dict[str, str]]:
    number = st.just("") | st.integers(0, 100_000).map(str)
    ranges = st.builds("bytes={}-{}".format, number, number) | header_values()
    encodings = st.lists(
        st.sampled_from(["gzip", "gzip;q=0", "br", "identity", "*", "x-gzip;q=0.5", ";;", "q=1"]),
        max_size=3,
    ).map(", ".join)
    return st.fixed_dictionaries(
        {},
        optional={
            "Range": ranges,
            "If-Range": tag_lists() | header_values(),
            "If-None-Match": tag_lists() | header_values(),
            "If-Match": tag_lists(),
            "If-Modified-Since": header_values(),
            "Accept-Encoding": encodings | header_values(),
            "User-Agent": st.sampled_from(["curl/8", "Mozilla/5.0"]) | header_values(),
            "Accept": st.sampled_from(["text/html", "*/*"]) | header_values(),
        },
    )


@given(
    name=names(),
    is_quoted=st.booleans(),
    headers=requests(),
    method=st.sampled_from(["GET", "HEAD"]),
)
@settings(max_examples=300)
def test_any_request_gets_a_published_object_or_a_clean_refusal(
    url: str,
    tags: Mapping[str, str],
    name: str,
    *,
    is_quoted: bool,
    headers: dict[str, str],
    method: str,
) -> None:
    path = quote(name) if is_quoted else quote(name, safe="/%?[]@!$&'()*+,;=:\\~")
    wanted = named_by(path, headers)
    tag = tags.get(wanted or "", '"none"')
    headers = {
        key: value.replace("$tag", tag).replace("$gzip", f'{tag[:-1]}-gzip"')
        for key, value in headers.items()
    }
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        connection.putrequest(method, "/" + path, skip_accept_encoding=True)
        for key, value in headers.items():
            connection.putheader(key, value.encode("latin-1"))
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
    if wanted not in OBJECTS:
        assert response.status == 404
        return
    check(
        OBJECTS[wanted],
        tag=tag,
        headers=headers,
        response=response,
        body=body if method == "GET" else None,
    )


def named_by(path: str, headers: Mapping[str, str]) -> str | None:
    """Return the object that a path means, spelled out another way than the server does."""
    before = path.partition("?")[0]
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), before.encode("latin-1")
    )
    name = raw.decode("utf-8", "replace")
    if name == "":
        accept = headers.get("Accept", "")
        is_browser = "text/html" in accept and headers.get("User-Agent", "") not in {"", "curl/8"}
        return "index.html" if is_browser else "install.sh"
    return name


def check(
    data: bytes,
    *,
    tag: str,
    headers: Mapping[str, str],
    response: http.client.HTTPResponse,
    body: bytes | None,
) -> None:
    """Hold an answer against what may be said of this object."""
    said = response.headers
    assert said["ETag"] in {tag, f'{tag[:-1]}-gzip"'} or response.status == 412
    if headers.get("If-None-Match", "").strip() == "*" and "If-Match" not in headers:
        assert response.status == 304
    length = int(said["Content-Length"] or 0)
    assert body is None or response.status == 304 or len(body) == length
    match response.status:
        case 200:
            is_packed = said["ETag"].endswith('-gzip"')
            assert said["Content-Encoding"] == ("gzip" if is_packed else None)
            assert not is_packed or "gzip" in headers["Accept-Encoding"].lower()
            assert not is_packed or "Range" not in headers
            assert body is None or (gzip.decompress(body) if is_packed else body) == data
        case 206:
            found = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)", said["Content-Range"])
            assert found
            first, last, size = map(int, found.groups())
            assert size == len(data)
            assert last - first + 1 == length
            assert body in {None, data[first : last + 1]}
            assert said["ETag"] == tag == headers.get("If-Range", tag)
        case 304:
            known = headers.get("If-None-Match", "")
            assert said["ETag"] in known or known.strip() == "*"
            assert not body
        case 412:
            assert tag not in headers["If-Match"].replace(f"W/{tag}", "")
        case status:
            assert status == 416
            assert said["Content-Range"] == f"bytes */{len(data)}"


# What is no request


LINE: Final = b"GET /stable.idx HTTP/1.1\r\nHost: x\r\n"
CLOSE: Final = b"Connection: close\r\n\r\n"
MALFORMED: Final = (
    b"\r\n\r\n\r\nhello\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"GET\r\n\r\n",
    b"GET /stable.idx HTTP/9\r\n\r\n",
    b"GET /stable.idx HTTP/3.14159\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    LINE + b"Range : bytes=0-1\r\n\r\n",
    LINE + b"no colon\r\n\r\n",
    LINE + b": no name\r\n\r\n",
    LINE + b"Na me: x\r\n\r\n",
    LINE + b"X: \x00\r\n\r\n",
    LINE + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    LINE + b"".join(b"X-%d: y\r\n" % number for number in range(2000)) + b"\r\n",
    LINE + b"Content-Length: -1\r\n\r\n",
    LINE + b"Content-Length: 1x\r\n\r\n",
    LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    LINE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    LINE + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
)


@pytest.mark.parametrize("data", MALFORMED)
def test_what_is_no_request_is_refused_in_one_sentence(
    url: str,
    *,
    data: bytes,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    head, _, body = say(url, data).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status.startswith(("HTTP/1.1 400 ", "HTTP/1.0 400 ")), status
    told = dict(line.split(": ", 1) for line in lines)
    assert body == b"This is not a request in HTTP.\n"
    assert SAFETY.items() <= told.items()
    assert capfd.readouterr().err == ""
    assert [each for each in caplog.records if each.levelno > logging.DEBUG] == []
    assert ask(url, "/stable.idx").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"GET",
        LINE,
        LINE + b"X: half a hea",
        b"POST /stable.idx HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nless",
        b"POST /stable.idx HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_half_a_request_is_not_worth_a_word(
    url: str, *, data: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = say(url, data, hang_up=True)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 405 ", b"HTTP/1.0 400 "))
    assert capfd.readouterr().err == ""
    assert [each for each in caplog.records if each.levelno > logging.DEBUG] == []


@given(data=st.binary(max_size=200) | st.binary(max_size=60).map(lambda junk: LINE + junk))
@settings(max_examples=150)
def test_random_bytes_get_a_clean_answer_or_none(url: str, data: bytes) -> None:
    answer = say(url, data + b"\r\n\r\n" + LINE + CLOSE)
    assert b"Traceback" not in answer
    assert b"secret" not in answer
    assert not answer or re.match(rb"HTTP/1\.[01] (?:2|304|4)", answer), answer[:100]


TRAVERSALS: Final = (
    "/../secret",
    "/..%2fsecret",
    "/%2e%2e/secret",
    "/%252e%252e/secret",
    "/.%2e/secret",
    "/releases/../../secret",
    "/releases/..%2f..%2fsecret",
    "/..\\secret",
    "/..%5csecret",
    "/%5c..%5csecret",
    "/%c0%ae%c0%ae/secret",
    "/%uff0e%uff0e/secret",
    "//secret",
    "/%2fetc/passwd",
    "//etc/passwd",
    "/etc/passwd%00.html",
    "/stable.idx%00",
    "/%2573table.idx",
    "/stable.idx%0a",
    "/stable.idx%20",
    "/stable.idx/",
    "/stable.idx/.",
    "/stable.idx/../stable.idx",
    "/./stable.idx",
    "/.git/config",
    "/%2egit/config",
    "/releases/.git/../../secret",
    "/link",
    "/-",
    "/~root",
    "/releases/1.0.0/x/a.tar.gz/../../../../../secret",
    "/" + "../" * 500 + "etc/passwd",
    "/" + "a/" * 1000,
    "/" + "a" * 3000,
    "/%",
    "/%zz",
    "/%f",
    "/?../secret",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_what_was_published(url: str, path: str) -> None:
    answer = say(url, b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]
    assert b"root:" not in answer
    status = b"200" if path == "/?../secret" else b"404"
    assert answer.startswith(b"HTTP/1.0 %b " % status)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://x/stable.idx", 200),
        ("http://x/stable.idx?y", 200),
        ("http://x/../secret", 404),
        ("http://x/", 200),
        ("*", 400),
        ("stable.idx", 400),
    ],
)
def test_a_target_in_another_form_is_understood(url: str, target: str, status: int) -> None:
    answer = say(url, b"GET %b HTTP/1.1\r\nHost: x\r\n%b" % (target.encode(), CLOSE))
    assert answer.split()[1] == b"%d" % status


# Every answer


def test_every_answer_has_the_headers_for_safety(url: str, tags: Mapping[str, str]) -> None:
    for answer in (
        ask(url, "/stable.idx"),
        ask(url, "/"),
        ask(url, "/none"),
        ask(url, "/stable.idx", "POST"),
        ask(url, "/stable.idx", "OPTIONS"),
        ask(url, "/stable.idx", Range="bytes=999999-"),
        ask(url, "/stable.idx", If_Match='"x"'),
    ):
        assert SAFETY.items() <= dict(answer.headers).items(), answer.status
    unchanged = ask(url, "/stable.idx", If_None_Match=tags["stable.idx"]).headers
    assert unchanged["Server"] == "orchestrator"


async def test_what_fails_is_told_to_the_log_and_not_to_the_visitor(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    app = web.Application()
    add_headers(app)

    async def fail(request: web.Request) -> web.StreamResponse:
        raise {
            "/value": ValueError,
            "/store": StoreError,
            "/link": ConnectionResetError,
            "/body": web.RequestPayloadError,
        }[request.path]("the secret of it")

    async def fail_late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"half")
        raise ValueError("the secret of it")

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise web.HTTPForbidden(text="Not you.")

    async def read(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(len(await request.read())))

    app.router.add_get("/late", fail_late)
    app.router.add_get("/refused", refuse)
    app.router.add_post("/read", read)
    app.router.add_get("/{name}", fail)
    async with listening(app) as url:
        for path in ("/value", "/store", "/link"):
            caplog.clear()
            answer = await asyncio.to_thread(ask, url, path)
            assert answer.status == 500
            assert answer.body == b"Something went wrong here, and it was written down.\n"
            assert answer.headers["Server"] == "orchestrator"
            (record,) = caplog.records
            assert record.getMessage() == f"GET {path} failed"
            assert "the secret of it" in caplog.text
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            await asyncio.to_thread(ask, url, "/late")
        assert (await asyncio.to_thread(ask, url, "/refused")).body == b"Not you.\n"[:-1]
        caplog.clear()
        # What aiohttp says of a body that is not what its headers promised.
        assert (await asyncio.to_thread(ask, url, "/body")).status == 400
        post = b"POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        broken = post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
        answered = await asyncio.to_thread(say, url, broken)
        assert answered == b"" or b" 400 " in answered.split(b"\r\n")[0]
        await asyncio.to_thread(say, url, post + b"Content-Length: 9\r\n\r\nless", hang_up=True)
        # Nobody's body is unpacked here: it is what was sent.
        packed = gzip.compress(b"x" * 100_000)
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        answered = await asyncio.to_thread(say, url, post + head + packed)
        assert answered.endswith(b"\r\n\r\n%d" % len(packed))
        assert caplog.records == []
    assert capfd.readouterr().err == ""
