"""Requests to the REST API for one repository: who may, what it costs, and what an error means.

A request that changes something and gets no answer is UncertainError: whoever sent it looks first.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.wording import human_time, visible
from orchestrator.web import WebError, fetch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.web import Answer

PUBLIC_API: Final = "https://api.github.com"


class UncertainError(StoreError):
    """There was no answer, or one of a server in trouble: it may have been done all the same."""


class RefusedError(StoreError):
    """GitHub understood the request and will not do it (422); `codes` are its own words for why."""

    codes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask; `what` completes the sentence `GitHub cannot …`."""

    method: str
    url: str
    what: str
    body: bytes | None = None
    content_type: str = "application/json"
    # What the answer was called before: one that has not changed is 304, and costs no limit.
    etag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an answer says: its JSON (None for an empty body), and whether a page follows."""

    status: int
    data: Any
    has_next: bool
    etag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One repository and who asks; `pause` takes seconds, `clock` tells seconds since 1970.

    Without a token, what is public is read, sixty times an hour.
    """

    repository: str
    token: str | None = field(repr=False)
    url: str = PUBLIC_API
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.time

    async def ask(self, request: Request, *, accepted: tuple[int, ...] = (200,)) -> Reply:
        """Return a reply with an accepted status; raise StoreError for any other.

        Waits for a rate limit that ends soon. What changes nothing, or ends the same when it is
        done twice, is tried again while the server is in trouble; a POST is UncertainError.
        """
        attempt = 0
        while True:
            try:
                answer = await self._send(request)
            except WebError as error:
                trouble: StoreError = self._uncertain(request, str(error))
            else:
                if answer.status in accepted:
                    return self._reply(request, answer)
                trouble = self._trouble(request, answer)
            wait = self._wait(request, trouble, attempt)
            if wait is None:
                raise trouble
            await self.pause(wait)
            attempt += 1

    async def _send(self, request: Request) -> Answer:
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if request.etag:
            headers["If-None-Match"] = request.etag
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        size = len(request.body or b"")
        send = partial(
            fetch,
            request.url,
            limit_bytes=_LIMIT_BYTES,
            timeout=_PATIENCE + timedelta(seconds=size / _SLOWEST_BYTES_PER_SECOND),
            method=request.method,
            headers=headers,
            body=request.body,
        )
        return await asyncio.to_thread(send)

    def _wait(self, request: Request, trouble: StoreError, attempt: int) -> float | None:
        """Return how many seconds to wait before another try, None if there is to be none."""
        if attempt == _ATTEMPTS - 1:
            return None
        if isinstance(trouble, _LimitedError):
            return trouble.seconds if trouble.seconds <= _LONGEST_WAIT else None
        is_repeatable = request.method != "POST" and isinstance(trouble, UncertainError)
        return float(2**attempt) if is_repeatable else None

    def _reply(self, request: Request, answer: Answer) -> Reply:
        try:
            data = json.loads(answer.body) if answer.body else None
        except (ValueError, RecursionError):
            raise self.unreadable(request) from None
        has_next = 'rel="next"' in answer.headers.get("link", "")
        etag = answer.headers.get("etag")
        return Reply(status=answer.status, data=data, has_next=has_next, etag=etag)

    def unreadable(self, request: Request) -> StoreError:
        """Return the error of an answer that is not what the API is documented to say."""
        return StoreError(
            f"GitHub cannot {request.what}: the answer is not one of its API",
            hint="does GITHUB_API_URL name an API, such as https://HOST/api/v3?",
        )

    def _uncertain(self, request: Request, why: str) -> UncertainError:
        return UncertainError(
            f"GitHub cannot {request.what}: {self._safe(why)}",
            hint="run the same command again: it goes on with what is missing",
        )

    def _trouble(self, request: Request, answer: Answer) -> StoreError:
        said, codes = _explanation(answer)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._uncertain(request, f"it answers {answer.status}")
        seconds = _limited_for(answer, said, self.clock())
        if seconds is not None:
            return _LimitedError(request, seconds)
        message = f"GitHub cannot {request.what}: {answer.status} {self._safe(said)}".rstrip()
        if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            refused = RefusedError(message)
            refused.codes = codes
            return refused
        hint = _HINTS.get(answer.status, _MOVED if answer.status < _CLIENT_ERRORS else None)
        return StoreError(message, hint=hint and hint.format(repository=self.repository))

    def _safe(self, text: str) -> str:
        """Return text from elsewhere as one short line without the token, should it be in there."""
        return visible(text.replace(self.token, "…") if self.token else text)[:200]


class _LimitedError(StoreError):
    """Too many requests: the same is answered after so many seconds."""

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(
            f"GitHub cannot {request.what}: its rate limit is used up for another "
            f"{human_time(timedelta(seconds=seconds))}",
            hint="run the same command again then: it goes on with what is missing",
        )
        self.seconds = seconds


_ATTEMPTS: Final = 4
_LONGEST_WAIT: Final = 120.0
# What GitHub asks for when it does not say how long a limit lasts.
_UNSAID_WAIT: Final = 60.0
_LONGEST_LIMIT: Final = 86_400
_LIMIT_BYTES: Final = 64 << 20
_PATIENCE: Final = timedelta(seconds=60)
_SLOWEST_BYTES_PER_SECOND: Final = 100_000
_CLIENT_ERRORS: Final = 400
_MOVED: Final = "has the repository {repository} moved? name the new one in the inventory"
_HINTS: Final = {
    401: "the token in GITHUB_TOKEN, or in the inventory's `token_file`, is wrong or has expired",
    403: "the token needs `contents: write` on {repository} to attach files, `commit statuses: "
    "write` to set statuses, and `contents: read` for all else",
    404: "is {repository} right, and may the token see it?",
}


def _explanation(answer: Answer) -> tuple[str, frozenset[str]]:
    """Return the message of an error and its codes; nothing if it is not in the API's form."""
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        return "", frozenset()
    if not isinstance(data, dict):
        return "", frozenset()
    errors = data.get("errors")
    details = (
        [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    )
    words = [str(data.get("message", "")), *(str(each.get("message", "")) for each in details)]
    codes = frozenset(str(each.get("code")) for each in details)
    return "; ".join(word for word in words if word), codes


def _limited_for(answer: Answer, said: str, now: float) -> float | None:
    """Return how many seconds a rate limit lasts, None if the answer is not about one."""
    if answer.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}:
        return None
    after = answer.headers.get("retry-after", "")
    if _SECONDS.fullmatch(after):
        return float(min(int(after), _LONGEST_LIMIT))
    reset = answer.headers.get("x-ratelimit-reset", "")
    if answer.headers.get("x-ratelimit-remaining") == "0" and _SECONDS.fullmatch(reset):
        return min(max(1.0, int(reset) - now + 1), float(_LONGEST_LIMIT))
    is_limit = answer.status == HTTPStatus.TOO_MANY_REQUESTS or "rate limit" in said.lower()
    return _UNSAID_WAIT if is_limit else None


_SECONDS: Final = re.compile(r"[0-9]{1,12}")
