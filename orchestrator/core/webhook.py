"""A delivery of GitHub's: its headers and raw body → a decision, before anything acts on it.

The signature covers the body only, so a replay can come with another event's name and another
delivery id: neither is believed beyond what the body itself says.
docs.github.com/en/webhooks/webhook-events-and-payloads#release
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.version import parse_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.version import Version

# A release is told with all of its assets, up to a thousand; GitHub itself stops at 25 MB.
MAX_BODY_BYTES: Final = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A published release, as the payload tells it: nothing in it has been looked up yet."""

    version: Version
    tag: str
    is_prerelease: bool
    page: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to answer, and in a sentence why; `wanted` is there only for what is to be released."""

    status: HTTPStatus
    reason: str
    wanted: Wanted | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether the sender did something wrong."""
        return self.status >= HTTPStatus.BAD_REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Whose releases are made: `repository` is `owner/name`, `tag` has `{version}` in it."""

    repository: str
    tag: str
    repository_id: int | None = None


def decide(
    headers: Mapping[str, str], body: bytes, *, secret: bytes, expected: Expected
) -> Decision:
    """Return what becomes of a delivery; the names of the headers are in lower case."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return _refuse(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "the content type must be application/json: choose it in the webhook's settings",
        )
    if not is_signed(headers.get("x-hub-signature-256", ""), body, secret):
        return _refuse(HTTPStatus.UNAUTHORIZED, "the signature is missing or wrong")
    try:
        payload = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return _refuse(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
    return _decide_event(headers.get("x-github-event", ""), payload, expected)


def is_signed(header: str, body: bytes, secret: bytes) -> bool:
    """Whether the header is `sha256=` and the body's HMAC; it takes the same time if it is not."""
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    # Compared as bytes: text with other letters than ASCII would be a TypeError.
    given = header.encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, f"sha256={digest}".encode())


def version_of_tag(tag: str, pattern: str) -> Version | None:
    """Return the version that a tag names by the pattern, None if it is another kind of tag.

    Raises ConfigError for a tag that looks like one of ours and is none that can be released: no
    shell, no git and no path ever sees it.
    """
    before, _, after = pattern.partition("{version}")
    if not (tag.startswith(before) and tag.endswith(after)):
        return None
    text = tag.removeprefix(before).removesuffix(after)
    if not re.match("[0-9]", text):
        return None
    return parse_version(text)


def _decide_event(event: str, payload: Mapping[str, Any], expected: Expected) -> Decision:
    match event:
        case "release":
            return _decide_release(payload, expected)
        # A hook of an organisation has no repository.
        case "ping" if "repository" in payload and not _is_ours(payload, expected):
            return _not_ours(expected)
        case "ping":
            return Decision(status=HTTPStatus.OK, reason="pong")
        case _:
            return _ignore("only release events are acted upon")


def _decide_release(payload: Mapping[str, Any], expected: Expected) -> Decision:
    release, action = payload.get("release"), payload.get("action")
    if not isinstance(release, dict) or not isinstance(action, str):
        return _refuse(HTTPStatus.BAD_REQUEST, "the body tells of no release")
    if not _is_ours(payload, expected):
        return _not_ours(expected)
    if action != "published":
        return _ignore("only the action `published` is acted upon")
    if release.get("draft") is not False:
        return _ignore("it is a draft")
    return _decide_tag(release, expected)


def _decide_tag(release: Mapping[str, Any], expected: Expected) -> Decision:
    tag = release.get("tag_name")
    if not isinstance(tag, str) or not tag or not _TAG.fullmatch(tag):
        return _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, "the tag's name cannot be released")
    try:
        version = version_of_tag(tag, expected.tag)
    except ConfigError:
        return _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, "the tag names no semantic version")
    if version is None:
        return _ignore(f"the tag is none of {expected.tag}")
    page = release.get("html_url")
    is_page = isinstance(page, str) and _PAGE.fullmatch(page)
    return Decision(
        status=HTTPStatus.ACCEPTED,
        reason="it is released",
        wanted=Wanted(
            version=version,
            tag=tag,
            is_prerelease=version.is_prerelease or release.get("prerelease") is not False,
            page=page if is_page else None,
        ),
    )


# Letters that neither a shell nor git's revision syntax reads as anything else.
_TAG: Final = re.compile(r"(?![-.])(?!.*(?:\.\.|//|\.lock$))[A-Za-z0-9._/+-]{1,100}")
_PAGE: Final = re.compile(r"https://[A-Za-z0-9.-]{1,200}/[A-Za-z0-9._~/%+-]{1,500}")


def _is_ours(payload: Mapping[str, Any], expected: Expected) -> bool:
    repository = payload.get("repository")
    if not isinstance(repository, dict):
        return False
    if expected.repository_id is not None:
        return repository.get("id") == expected.repository_id
    name = repository.get("full_name")
    # GitHub keeps the case of a name, and does not tell names apart by it.
    return isinstance(name, str) and name.lower() == expected.repository.lower()


def _not_ours(expected: Expected) -> Decision:
    return _refuse(HTTPStatus.FORBIDDEN, f"it is not about {expected.repository}")


def _refuse(status: HTTPStatus, reason: str) -> Decision:
    return Decision(status=status, reason=reason)


def _ignore(reason: str) -> Decision:
    return Decision(status=HTTPStatus.NO_CONTENT, reason=reason)


def _refuse_constant(_: str) -> None:
    raise ValueError
