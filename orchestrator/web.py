"""The one door for HTTP: https only (http on loopback), with a limit for size and for time.

Who calls says who must act: a status such as 404 is an answer, and what is no answer is a WebError.
"""

from __future__ import annotations

import ipaddress
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from orchestrator.core.wording import redacted

if TYPE_CHECKING:
    import urllib.request
    from collections.abc import Iterator, Mapping

_CHUNK_BYTES: Final = 1 << 20
_SILENCE: Final = timedelta(seconds=60)
_AGENT: Final = "orchestrator"
_DEFAULT_TIMEOUT: Final = timedelta(seconds=60)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class WebError(Exception):
    """No answer, or one that was cut off, is too large or takes too long; says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered, whatever its status; `url` is where the redirects led.

    The names of the headers are in lower case; a header that came twice is joined with a comma.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer whose body is still to come; `chunks` raises WebError when it is not whole."""

    status: int
    reason: str
    headers: Mapping[str, str]
    url: str
    chunks: Iterator[bytes]


def fetch(
    url: str,
    *,
    limit_bytes: int,
    timeout: timedelta = _DEFAULT_TIMEOUT,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """Return what the server answers, its body whole; WebError if there is no such answer.

    `timeout` is for all of it. Redirects are followed for GET and HEAD, to https only, and headers
    that hold a secret stay with the host that they were meant for. It blocks: call it in a thread.
    """
    with open_url(
        url,
        limit_bytes=limit_bytes,
        timeout=timeout,
        method=method,
        headers=headers,
        body=body,
    ) as stream:
        whole = b"".join(stream.chunks)
        return Answer(status=stream.status, headers=stream.headers, body=whole, url=stream.url)


@contextmanager
def open_url(
    url: str,
    *,
    limit_bytes: int,
    timeout: timedelta = _DEFAULT_TIMEOUT,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Iterator[Stream]:
    """Yield the answer as its head arrives, for what is too large to be held; see fetch."""
    import urllib.request  # noqa: PLC0415 -- lazy: 20 ms that most commands have no use for

    if not is_allowed(url):
        raise WebError(f"it is not an https URL: {redacted(url)[:200]!r}")
    request = urllib.request.Request(  # noqa: S310 -- the URL was checked above
        url, data=body, method=method, headers={"User-Agent": _AGENT, **(headers or {})}
    )
    # What is sent has to be taken within the socket's timeout as a whole.
    silence = timeout if body else min(timeout, _SILENCE)
    with closing(_open(_opener(url), request, silence)) as answer:
        told = _joined(answer.headers.items())
        expected = None if method == "HEAD" else told.get("content-length")
        limits = _Limits(limit_bytes, time.monotonic() + timeout.total_seconds(), timeout)
        yield Stream(
            status=answer.status,
            reason=answer.reason or "",
            headers=told,
            url=answer.url,
            chunks=_whole(_chunks(answer, limits), expected),
        )


def is_allowed(url: str) -> bool:
    """Whether the URL is one of https, or of http on this machine."""
    try:
        parts = urlsplit(url)
        is_here = parts.scheme == "http" and is_loopback(parts.hostname)
        _ = parts.port
    except ValueError:
        return False
    is_plain = url.isprintable() and " " not in url
    return bool(parts.hostname) and is_plain and (parts.scheme == "https" or is_here)


def is_loopback(host: str | None) -> bool:
    """Whether the host is this machine, without asking a name server."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class _Response(Protocol):
    """What urllib returns for every status, as used here."""

    status: int
    reason: str
    headers: Any
    url: str

    def read1(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class _Limits(NamedTuple):
    size_bytes: int
    deadline: float
    timeout: timedelta


@contextmanager
def _explained() -> Iterator[None]:
    from http.client import HTTPException  # noqa: PLC0415 -- lazy, see above

    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        raise WebError(str(getattr(error, "reason", None) or error)) from None


def _open(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, silence: timedelta
) -> _Response:
    from urllib.error import HTTPError  # noqa: PLC0415 -- lazy, see above

    answer: Any
    with _explained():
        try:
            answer = opener.open(request, timeout=silence.total_seconds())
        except HTTPError as error:
            answer = error
    return answer  # type: ignore[no-any-return]  # urllib's own types say less than its manual


def _chunks(answer: _Response, limits: _Limits) -> Iterator[bytes]:
    left = limits.size_bytes
    while True:
        with _explained():
            chunk = answer.read1(_CHUNK_BYTES)
        if not chunk:
            return
        left -= len(chunk)
        if left < 0:
            raise WebError(f"it is larger than {limits.size_bytes} bytes")
        if time.monotonic() > limits.deadline:
            raise WebError(f"it took longer than {limits.timeout}")
        yield chunk


def _whole(chunks: Iterator[bytes], expected: str | None) -> Iterator[bytes]:
    received = 0
    for chunk in chunks:
        received += len(chunk)
        yield chunk
    if expected is not None and expected.isdecimal() and received < int(expected):
        raise WebError(f"it was cut off after {received} of {expected} bytes")


def _joined(items: Any) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in items:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _opener(url: str) -> urllib.request.OpenerDirector:
    import urllib.request  # noqa: PLC0415 -- lazy, see above

    class SafeRedirects(urllib.request.HTTPRedirectHandler):
        """Follow redirects only to where the first URL itself might have been."""

        def redirect_request(  # noqa: PLR0917 -- the signature of the overridden method
            self,
            req: urllib.request.Request,
            fp: IO[bytes],
            code: int,
            msg: str,
            headers: Any,
            newurl: str,
        ) -> urllib.request.Request | None:
            if req.get_method() not in {"GET", "HEAD"}:
                return None
            _require_safe(req.full_url, newurl, fp)
            following = super().redirect_request(req, fp, code, msg, headers, newurl)
            if following is not None:
                following.method = req.get_method()
                if _origin(newurl) != _origin(req.full_url):
                    for secret in ("Authorization", "Cookie"):
                        following.remove_header(secret)
            return following

    # A proxy cannot reach this machine's own loopback.
    is_local = is_loopback(urlsplit(url).hostname)
    proxies = [urllib.request.ProxyHandler({})] if is_local else []
    return urllib.request.build_opener(SafeRedirects(), *proxies)


def _require_safe(old: str, new: str, answer: IO[bytes]) -> None:
    came_from_here = is_loopback(urlsplit(old).hostname)
    is_far = urlsplit(new).scheme == "https"
    if not is_allowed(new) or not (is_far or came_from_here):
        answer.close()
        raise ValueError(f"it redirects to {redacted(new)[:200]!r}, which is not https")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
