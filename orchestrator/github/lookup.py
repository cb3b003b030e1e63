"""What a repository has released, and what its tags name: read only, by somebody or by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator.core.errors import ConfigError, NotYetError
from orchestrator.github.api import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.github.api import Api


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """What a tag names: `commit`, through `reference`, which is an annotated tag or the same."""

    reference: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A release that is no draft."""

    tag: str
    is_prerelease: bool
    published: datetime
    page: str | None


@dataclass(slots=True)
class Lookup:
    """Questions to the API; StoreError for what goes wrong, None for what has not changed."""

    api: Api
    _releases_etag: str | None = None

    async def tag(self, name: str) -> Tag:
        """Return what the tag names now; NotYetError if there is no such tag."""
        what = f"look for the tag {name}"
        request = self._get(f"git/ref/tags/{quote(name)}", what)
        reply = await self.api.ask(request, accepted=(200, 404))
        if reply.status != 200:  # noqa: PLR2004 -- OK
            raise NotYetError(
                f"{self.api.repository} has no tag {name}",
                hint="push the tag before the release is published",
            )
        kind, sha = self._object(request, reply.data)
        reference = sha
        # An annotated tag may name another one; nobody means a chain of them.
        for _ in range(_LONGEST_CHAIN):
            if kind == "commit":
                return Tag(reference=reference, commit=sha)
            request = self._get(f"git/tags/{sha}", what)
            kind, sha = self._object(request, (await self.api.ask(request)).data)
        raise ConfigError(f"the tag {name} of {self.api.repository} names no commit")

    async def releases(self) -> Sequence[Published] | None:
        """Return the newest releases; None if they are the same as the last time."""
        request = self._get("releases?per_page=30", "list the releases", self._releases_etag)
        reply = await self.api.ask(request, accepted=(200, 304))
        if reply.status == _UNCHANGED:
            return None
        if not isinstance(reply.data, list):
            raise self.api.unreadable(request)
        found = [self._published(request, each) for each in reply.data]
        self._releases_etag = reply.etag
        return [each for each in found if each is not None]

    def forget(self) -> None:
        """Forget what was seen: the next answer is news."""
        self._releases_etag = None

    def _get(self, path: str, what: str, etag: str | None = None) -> Request:
        url = f"{self.api.url}/repos/{self.api.repository}/{path}"
        return Request(method="GET", url=url, what=what, etag=etag)

    def _object(self, request: Request, data: Any) -> tuple[str, str]:
        try:
            return _text(data["object"], "type"), _text(data["object"], "sha")
        except (KeyError, TypeError):
            raise self.api.unreadable(request) from None

    def _published(self, request: Request, data: Any) -> Published | None:
        try:
            if data["draft"] or data["published_at"] is None:
                return None
            return Published(
                tag=_text(data, "tag_name"),
                is_prerelease=data["prerelease"] is True,
                published=datetime.fromisoformat(_text(data, "published_at")),
                page=_text(data, "html_url"),
            )
        except (KeyError, TypeError, ValueError):
            raise self.api.unreadable(request) from None


_UNCHANGED = 304
_LONGEST_CHAIN = 4


def _text(data: Any, key: str) -> str:
    value = data[key]
    if isinstance(value, str):
        return value
    raise TypeError
