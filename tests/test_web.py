from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.web import Answer, WebError, fetch, is_allowed, open_url
from tests.servers import bytes_of, moved_to, serving

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

LIMIT = 1000


def test_an_answer_has_status_headers_body_and_place() -> None:
    with serving(bytes_of(b"hello", ETag='"1"', Cache_Control="no-cache")) as url:
        answer = fetch(f"{url}/x", limit_bytes=LIMIT)
    assert (answer.status, answer.body, answer.url) == (200, b"hello", f"{url}/x")
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["cache-control"] == "no-cache"


def test_a_header_that_comes_twice_is_joined() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Cache-Control", "no-cache")
        request.send_header("Cache-Control", "no-transform")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with serving(answer) as url:
        assert fetch(url, limit_bytes=LIMIT).headers["cache-control"] == "no-cache, no-transform"


@pytest.mark.parametrize("status", [201, 304, 403, 404, 500])
def test_any_status_is_an_answer(status: int) -> None:
    body = b"" if status == 304 else b"why"
    with serving(bytes_of(body, status)) as url:
        answer = fetch(url, limit_bytes=LIMIT)
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_is_sent_with_its_headers(method: str) -> None:
    said: list[object] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers["Content-Length"])
        said.extend((request.command, request.rfile.read(length), request.headers["X-Word"]))
        said.append(request.headers["User-Agent"])
        bytes_of(b"{}", 201)(request)

    with serving(answer) as url:
        made = fetch(
            url,
            limit_bytes=LIMIT,
            method=method,
            headers={"X-Word": "w"},
            body=b'{"a": 1}',
        )
    assert made.status == 201
    assert said == [method, b'{"a": 1}', "w", "orchestrator"]


def test_a_head_request_has_no_body_and_is_whole() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "500")
        request.end_headers()

    with serving(answer) as url:
        assert fetch(url, limit_bytes=LIMIT, method="HEAD").headers["content-length"] == "500"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "https:///x",
        "https://example.org:port/x",
        "https://[::1/x",
        "https://example.org/a b",
        "https://example.org/\r\nHost: x",
        "x",
        "",
    ],
)
def test_only_https_is_asked(url: str) -> None:
    assert not is_allowed(url)
    with pytest.raises(WebError, match="not an https URL"):
        fetch(url, limit_bytes=LIMIT)


@pytest.mark.parametrize(
    "url", ["https://example.org/x", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"]
)
def test_https_and_this_machine_are_allowed(url: str) -> None:
    assert is_allowed(url)


def test_a_password_in_a_refused_url_is_not_told() -> None:
    with pytest.raises(WebError) as told:
        fetch("http://me:secret@example.org/x", limit_bytes=LIMIT)
    assert "secret" not in str(told.value)


def test_a_redirect_to_plain_http_is_not_followed() -> None:
    with serving(moved_to("http://example.org/x")) as url, pytest.raises(WebError, match="not htt"):
        fetch(url, limit_bytes=LIMIT)


def test_a_redirect_to_a_file_is_not_followed() -> None:
    # urllib itself refuses it: the redirect is the answer then.
    with serving(moved_to("file:///etc/passwd")) as url:
        assert fetch(url, limit_bytes=LIMIT).status == 302


def test_a_redirect_is_followed_and_told() -> None:
    with serving(bytes_of(b"there")) as there, serving(moved_to(f"{there}/y")) as url:
        answer = fetch(url, limit_bytes=LIMIT)
    assert answer == Answer(status=200, headers=answer.headers, body=b"there", url=f"{there}/y")


def test_a_head_request_stays_one_over_a_redirect() -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.command)
        bytes_of(b"")(request)

    with serving(answer) as there, serving(moved_to(there)) as url:
        fetch(url, limit_bytes=LIMIT, method="HEAD")
    assert asked == ["HEAD"]


def test_a_post_is_not_sent_on() -> None:
    with serving(bytes_of(b"there")) as there, serving(moved_to(there)) as url:
        assert fetch(url, limit_bytes=LIMIT, method="POST", body=b"x").status == 302


def test_a_secret_stays_with_its_host() -> None:
    heard: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        heard.extend(request.headers[name] for name in ("Authorization", "Accept"))
        bytes_of(b"")(request)

    given = {"Authorization": "Bearer t", "Accept": "*/*"}
    with serving(answer) as there, serving(moved_to(there)) as url:
        fetch(url, limit_bytes=LIMIT, headers=given)
    assert heard == [None, "*/*"]


def test_a_secret_goes_along_on_its_own_host() -> None:
    heard: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        heard.append(request.headers["Authorization"])
        (moved_to("/there") if request.path == "/" else bytes_of(b""))(request)

    with serving(answer) as url:
        fetch(f"{url}/", limit_bytes=LIMIT, headers={"Authorization": "Bearer t"})
    assert heard == ["Bearer t", "Bearer t"]


def test_more_than_the_limit_is_refused() -> None:
    with serving(bytes_of(b"x" * 1001)) as url, pytest.raises(WebError, match="larger than 1000"):
        fetch(url, limit_bytes=LIMIT)


def test_a_body_that_is_cut_off_is_refused() -> None:
    cut = bytes_of(b"x" * 10, Content_Length="500")
    with serving(cut) as url, pytest.raises(WebError, match="cut off after 10 of 500 bytes"):
        fetch(url, limit_bytes=LIMIT)


def test_a_body_in_chunks_that_is_cut_off_is_refused() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"5\r\nhello\r\n")

    with serving(answer) as url, pytest.raises(WebError):
        fetch(url, limit_bytes=LIMIT)


def test_a_body_that_drips_ends_at_the_deadline() -> None:
    done = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not done.is_set():
                request.wfile.write(b"x")
                time.sleep(0.001)  # a slow server, not a wait for something
        except OSError:
            pass

    with serving(drip) as url:
        with pytest.raises(WebError, match="took longer than"):
            fetch(url, limit_bytes=1 << 30, timeout=timedelta(seconds=0.05))
        done.set()


def test_a_server_that_says_nothing_ends_at_the_deadline() -> None:
    done = threading.Event()
    with serving(lambda _: (done.wait(30), None)[1]) as url:
        with pytest.raises(WebError, match="timed out"):
            fetch(url, limit_bytes=LIMIT, timeout=timedelta(seconds=0.05))
        done.set()


def test_what_is_no_http_is_refused() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"hello\r\n")

    with serving(answer) as url, pytest.raises(WebError):
        fetch(url, limit_bytes=LIMIT)


def test_a_server_that_is_gone_is_a_web_error() -> None:
    with serving(bytes_of(b"")) as url:
        pass
    with pytest.raises(WebError, match="refused"):
        fetch(url, limit_bytes=LIMIT)


def test_an_error_of_the_reader_is_not_the_web_s() -> None:
    with (
        serving(bytes_of(b"x")) as url,
        pytest.raises(OSError, match="disk"),
        open_url(url, limit_bytes=LIMIT),
    ):
        raise OSError("disk full")


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(bytes_of(b"x")) as url:
        assert fetch(url, limit_bytes=LIMIT).body == b"x"
