"""The releases of one repository and their assets, as far as a publisher needs them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from orchestrator.core.errors import StoreError
from orchestrator.github.api import RefusedError, Reply, Request, UncertainError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.github.api import Api


class ImmutableError(StoreError):
    """The release was published for good: nothing can be attached to it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of a tag; a draft is seen only by those who may write."""

    id: int
    tag: str
    is_draft: bool
    is_immutable: bool
    upload_url: str
    page_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file of a release; `sha256` is None where GitHub does not tell it.

    One that is not whole is what an upload left that broke off.
    """

    id: int
    name: str
    is_whole: bool
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRelease:
    """A draft to be made."""

    tag: str
    name: str
    text: str
    is_prerelease: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """The releases of the API's repository; every call raises StoreError for what goes wrong."""

    api: Api

    async def has_tag(self, tag: str) -> bool:
        """Return whether the tag is in the repository; GitHub would make a missing one itself."""
        path = f"git/ref/tags/{quote(tag)}"
        reply = await self.api.ask(self._get(path, f"look for the tag {tag}"), accepted=(200, 404))
        return reply.status != _NOT_FOUND

    async def find(self, tag: str) -> Release | None:
        """Return the published release of a tag, or else its oldest draft, None if there is none.

        Drafts are only in the list of all releases, which is read to its end.
        """
        request = self._get(f"releases/tags/{quote(tag)}", f"look for the release of {tag}")
        reply = await self.api.ask(request, accepted=(200, 404))
        if reply.status != _NOT_FOUND:
            return self._release(request, reply.data)
        found = [
            release
            for request, data in await self._pages("releases", f"list the releases for {tag}")
            if (release := self._release(request, data)).tag == tag
        ]
        return min(found, key=lambda release: (release.is_draft, release.id), default=None)

    async def read(self, release: Release) -> Release:
        """Return the release as it is now."""
        request = self._get(f"releases/{release.id}", f"read the release of {release.tag}")
        return self._release(request, (await self.api.ask(request)).data)

    async def create_draft(self, new: NewRelease) -> Release:
        """Return the draft of a tag that has no release; made anew unless somebody was faster."""
        data = {
            "tag_name": new.tag,
            "name": new.name,
            "body": new.text,
            "draft": True,
            "prerelease": new.is_prerelease,
        }
        request = self._send("POST", "releases", data, what=f"draft the release of {new.tag}")
        own = None
        # Of a request without an answer, the list tells what became.
        with suppress(UncertainError):
            reply = await self.api.ask(request, accepted=(201,))
            own = self._release(request, reply.data)
        # Two publishers may both have found none: all of them then take the oldest.
        oldest = await self.find(new.tag)
        if oldest is None and own is None:
            raise UncertainError(
                f"GitHub cannot draft the release of {new.tag}: it gave no answer",
                hint="run the same command again: it goes on with what is missing",
            )
        if own and oldest and oldest.id != own.id:
            await self.api.ask(
                Request(
                    method="DELETE",
                    url=self._url(f"releases/{own.id}"),
                    what=f"delete the second draft of {new.tag}",
                ),
                accepted=(204, 404),
            )
        return oldest or own  # type: ignore[return-value]  # one of them is there

    async def publish(self, release: Release) -> Release:
        """Return the release, published; whether it is the latest is GitHub's to find out."""
        # By date and version: an old version that is completed late is not the latest.
        data = {"draft": False, "make_latest": "legacy"}
        what = f"publish the release of {release.tag}"
        request = self._send("PATCH", f"releases/{release.id}", data, what=what)
        return self._release(request, (await self.api.ask(request)).data)

    async def list_assets(self, release: Release) -> Mapping[str, Asset]:
        """Return the assets of a release by their names."""
        pages = await self._pages(
            f"releases/{release.id}/assets", f"list the assets of {release.tag}"
        )
        assets = [self._asset(request, data) for request, data in pages]
        return {asset.name: asset for asset in assets}

    async def delete_asset(self, asset: Asset) -> None:
        """Delete what an upload left; it is no error if somebody else did."""
        request = Request(
            method="DELETE",
            url=self._url(f"releases/assets/{asset.id}"),
            what=f"delete the unfinished {asset.name}",
        )
        await self.api.ask(request, accepted=(204, 404))

    async def upload(
        self, release: Release, name: str, data: bytes, *, content_type: str
    ) -> Asset | None:
        """Return the new asset, None if the name is taken.

        ImmutableError if nothing can be attached to the release; UncertainError if there was no
        answer: the list of assets tells.
        """
        request = Request(
            method="POST",
            url=f"{self.upload_url(release)}?name={quote(name)}",
            what=f"take {name}",
            body=data,
            content_type=content_type,
        )
        try:
            reply = await self.api.ask(request, accepted=(201,))
        except RefusedError as error:
            if "already_exists" in error.codes:
                return None
            if "immutable" in error.message.lower():
                raise ImmutableError(error.message) from None
            raise
        return self._asset(request, reply.data)

    def upload_url(self, release: Release) -> str:
        """Return where assets of the release are sent; StoreError if that is somebody else's."""
        url = release.upload_url.partition("{")[0]
        if not _are_kin(url, self.api.url):
            # The token goes along, so it only goes to where the API itself is at home.
            raise StoreError(
                f"GitHub names another host for uploads: {urlsplit(url).hostname}",
                hint="does GITHUB_API_URL name the API of your GitHub?",
            )
        return url

    async def _pages(self, path: str, what: str) -> list[tuple[Request, Any]]:
        found: list[tuple[Request, Any]] = []
        for page in range(1, _MAX_PAGES + 1):
            request = self._get(f"{path}?per_page={_PER_PAGE}&page={page}", what)
            reply: Reply = await self.api.ask(request)
            if not isinstance(reply.data, list):
                raise self.api.unreadable(request)
            found += [(request, item) for item in reply.data]
            if not reply.has_next:
                return found
        raise StoreError(f"GitHub cannot {what}: there are more than {_MAX_PAGES * _PER_PAGE}")

    def _url(self, path: str) -> str:
        return f"{self.api.url}/repos/{self.api.repository}/{path}"

    def _get(self, path: str, what: str) -> Request:
        return Request(method="GET", url=self._url(path), what=what)

    def _send(self, method: str, path: str, data: Mapping[str, object], *, what: str) -> Request:
        body = json.dumps(data).encode()
        return Request(method=method, url=self._url(path), what=what, body=body)

    def _release(self, request: Request, data: Any) -> Release:
        try:
            return Release(
                id=_whole(data["id"]),
                tag=_text(data["tag_name"]),
                is_draft=data["draft"] is True,
                is_immutable=data.get("immutable") is True,
                upload_url=_text(data["upload_url"]),
                page_url=_text(data["html_url"]),
            )
        except (AttributeError, KeyError, TypeError):
            raise self.api.unreadable(request) from None

    def _asset(self, request: Request, data: Any) -> Asset:
        try:
            kind, _, digest = _text(data.get("digest") or "").partition(":")
            return Asset(
                id=_whole(data["id"]),
                name=_text(data["name"]),
                is_whole=data["state"] == "uploaded",
                size_bytes=_whole(data["size"]),
                sha256=digest.lower() if kind == "sha256" and digest else None,
            )
        except (AttributeError, KeyError, TypeError):
            raise self.api.unreadable(request) from None


_NOT_FOUND: Final = 404
# A release is listed with all of its assets, up to a thousand.
_PER_PAGE: Final = 30
_MAX_PAGES: Final = 40


def _whole(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError


def _are_kin(url: str, api: str) -> bool:
    """Whether two URLs are of one host, or of the two that GitHub has: api.x and uploads.x."""
    parts, own = urlsplit(url), urlsplit(api)
    is_pair = parts.netloc == f"uploads.{own.netloc.removeprefix('api.')}"
    return parts.scheme == own.scheme and (parts.netloc == own.netloc or is_pair)
