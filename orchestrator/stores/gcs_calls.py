"""How Google's library is called: the client, what is tried again, and what its errors mean.

It is imported where it is used: 0.2 s that a store in a folder must not cost.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.wording import human_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from google.cloud.storage import Client
    from requests import Response

THREADS: Final = 16
_CONNECT_SECONDS: Final = 10
_SILENCE_SECONDS: Final = 30
_FIRST_PAUSE_SECONDS: Final = 1
_LONGEST_PAUSE_SECONDS: Final = 8


def open_client() -> Client:
    """Return a client with the credentials of this environment."""
    from google.cloud.storage import Client  # noqa: PLC0415 -- see above

    # None: a project, which only making a bucket needs, is not asked of anybody.
    return Client(project=None)


def prepare(client: Client) -> Client:
    """Return the client, ready for THREADS threads at once."""
    from requests.adapters import HTTPAdapter  # noqa: PLC0415 -- see above

    # It asks for the bucket's own metadata on the side, for traces that nobody wants, in threads
    # that outlive us, and a publisher may not read that.
    client._bucket_metadata_cache = None  # noqa: SLF001 -- there is no other switch but environ
    session = client._http  # noqa: SLF001 -- it has no other way to size the pool
    session.hooks["response"].append(_drain)
    if not session.is_mtls:
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=THREADS))
    return client


def _drain(response: Response, *_: object, **__: object) -> None:
    # The library drops the refusal of a download half read, and with it the connection.
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        response.content  # noqa: B018 -- reading it is what it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What an operation does, in words, and the role that an account needs for it."""

    words: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation, of one or more requests, and whether anybody still waits for it."""

    patience: timedelta
    is_over: threading.Event = field(default_factory=threading.Event)

    def options(self) -> dict[str, Any]:
        """Return what every call of the library is given.

        What passes is tried again until `patience` is over, or at once no more when `is_over`.
        """
        return {"timeout": (_CONNECT_SECONDS, _SILENCE_SECONDS), "retry": self._retry()}

    def _retry(self) -> Callable[..., Any]:
        from google.api_core.retry import Retry  # noqa: PLC0415 -- see above
        from google.cloud.storage.retry import DEFAULT_RETRY  # noqa: PLC0415 -- see above

        passes = DEFAULT_RETRY._predicate  # noqa: SLF001 -- the library's own list of what passes
        failures = 0

        def wait(error: Exception) -> None:
            nonlocal failures
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**failures)
            failures += 1
            # Those who were refused together must not come again together.
            if self.is_over.wait(pause * random.uniform(0.75, 1.25)):  # noqa: S311 -- no secret
                raise error

        return Retry(
            predicate=lambda error: not self.is_over.is_set() and passes(error),
            initial=0,  # its own pauses could not be interrupted
            timeout=self.patience.total_seconds(),
            on_error=wait,
        )


def explain(
    error: Exception, purpose: Purpose, *, store: str, patience: timedelta
) -> StoreError | None:
    """Return what an error of the library means to a person, None if it is none of those."""
    from google.api_core import exceptions as api  # noqa: PLC0415 -- see above
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 -- see above
    from requests import RequestException  # noqa: PLC0415 -- see above

    what = f"{store}: cannot {purpose.words}"
    match error:
        case api.RetryError():
            return StoreError(
                f"{what}: tried for {human_time(patience)}, and then {reason(error.cause)}",
                hint="run the same command again: it goes on where this stopped",
            )
        case GoogleAuthError() | api.Unauthorized():
            # Their own words may hold what a token server has answered.
            return StoreError(f"{what}: there are no credentials that it takes", hint=_LOGIN_HINT)
        case api.Forbidden():
            return StoreError(
                f"{what}: {reason(error)}",
                hint=f"grant the account that runs this {purpose.role}; docs/gcs.md says how",
            )
        case api.NotFound():
            bucket = "/".join(store.split("/")[:3])
            return StoreError(
                f"{what}: there is no bucket {bucket}",
                hint="create it, as docs/gcs.md says, or correct `publication.store`",
            )
        case api.GoogleAPICallError() | RequestException() | OSError():
            return StoreError(f"{what}: {reason(error)}", hint="docs/gcs.md says what it needs")
        case _:
            return None


_LOGIN_HINT: Final = (
    "run `gcloud auth application-default login`, or let GOOGLE_APPLICATION_CREDENTIALS name the "
    "file of an account that is still valid"
)


def reason(error: BaseException | None) -> str:
    """Return why a request failed; never its URL, which is a secret for an upload in parts."""
    if said := answer(error):
        return f"it answered {said}"
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        if "Timeout" in type(error).__name__:
            return "it did not answer"
        error = error.__cause__ or error.__context__
    return "the connection broke"


def answer(error: BaseException | None) -> str:
    """Return what the server said, on one line without control characters; "" if nothing."""
    response = getattr(error, "response", None)
    if response is None:
        return ""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason
    text = "".join(char if char.isprintable() else " " for char in str(message))
    return f"{response.status_code} {text[:300]}"
