"""A server on loopback that speaks the part of GitHub's REST API which a publisher uses.

Written from GitHub's documentation: the real one was never at hand.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from tests.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.server import BaseHTTPRequestHandler

    Words = tuple[str, ...]
    Query = Mapping[str, str]
    # A status, what becomes the JSON of the body, and headers.
    Outcome = tuple[int, Any, dict[str, str]]

TOKEN: Final = "github_pat_11ABCDEF0123456789"
REPOSITORY: Final = "owner/tool"
NOT_FOUND: Final = (404, {"message": "Not Found"}, dict[str, str]())


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens instead of an answer to one request, or after it was done."""

    method: str
    path: str
    status: int = 502
    headers: Mapping[str, str] = field(default_factory=dict)
    data: Any = None
    # Done all the same, but whoever asked hears nothing of it.
    is_done: bool = False
    # No answer at all: the connection ends.
    is_cut: bool = False


@dataclass(slots=True)
class FakeGitHub:
    """One repository: its tags and releases, faults to come, and the requests that there were."""

    tags: set[str] = field(default_factory=lambda: {"v1.0.0"})
    releases: dict[int, dict[str, Any]] = field(default_factory=dict)
    assets: dict[int, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    # What a tag names, where that is not the commit that `commit_of` makes up.
    commits: dict[str, str] = field(default_factory=dict)
    annotated: dict[str, str] = field(default_factory=dict)
    # Of a commit, newest first.
    statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    is_immutable: bool = False
    tells_digests: bool = True
    needs_token: bool = True
    largest_page: int = 100
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last_id: int = 0

    def add_release(self, tag: str, *, is_draft: bool = False, **more: Any) -> dict[str, Any]:
        """Add a release that somebody else made."""
        number = self._next()
        self.releases[number] = {
            "id": number,
            "tag_name": tag,
            "draft": is_draft,
            "immutable": False,
            "prerelease": False,
            "published_at": None if is_draft else f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "upload_url": f"{self.url}/repos/{REPOSITORY}/releases/{number}/assets{{?name,label}}",
            "html_url": f"https://github.com/{REPOSITORY}/releases/{number}",
            **more,
        }
        return self.releases[number]

    def commit_of(self, tag: str) -> str:
        """Return the commit that a tag names."""
        return self.commits.get(tag) or hashlib.sha1(tag.encode()).hexdigest()

    def add_asset(
        self, release: Mapping[str, Any], name: str, data: bytes, *, state: str = "uploaded"
    ) -> dict[str, Any]:
        """Add an asset that somebody else attached."""
        number = self._next()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.assets[number] = {
            "id": number,
            "release": release["id"],
            "name": name,
            "state": state,
            "size": len(data),
            "digest": digest if self.tells_digests and state == "uploaded" else None,
        }
        self.contents[name] = data
        return self.assets[number]

    def names(self) -> list[str]:
        """Return the names of all whole assets."""
        return sorted(each["name"] for each in self.assets.values() if each["state"] == "uploaded")

    def asked(self, method: str) -> list[str]:
        """Return the paths that were asked with this method."""
        return [line.split()[1] for line in self.requests if line.startswith(f"{method} ")]

    def _next(self) -> int:
        self._last_id += 1
        return self._last_id

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            self.requests.append(f"{request.command} {request.path}")
            fault = self._fault(request)
            done = self._handle(request, body) if fault is None or fault.is_done else None
        status, data, headers = done or NOT_FOUND
        if request.command == "GET" and status == 200:
            tag = f'"{hashlib.sha256(json.dumps(data).encode()).hexdigest()}"'
            headers = {**headers, "ETag": tag}
            if request.headers.get("If-None-Match") == tag:
                status, data = 304, None
        if fault is not None:
            status, data, headers = fault.status, fault.data, dict(fault.headers)
        if fault is not None and fault.is_cut:
            request.close_connection = True
            request.connection.close()
            return
        text = b"" if data is None else json.dumps(data).encode()
        request.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(text)

    def _fault(self, request: BaseHTTPRequestHandler) -> Fault | None:
        for fault in self.faults:
            if fault.method == request.command and re.search(fault.path, request.path):
                self.faults.remove(fault)
                return fault
        return None

    def _handle(self, request: BaseHTTPRequestHandler, body: bytes) -> Outcome:
        if self.needs_token and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}, {}
        parts = urlsplit(request.path)
        path = unquote(parts.path).removeprefix(f"/repos/{REPOSITORY}/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        for pattern, handle in _ROUTES:
            if match := re.fullmatch(pattern, f"{request.command} {path}"):
                return handle(self, match.groups(), query, body)
        return NOT_FOUND

    def _find_tag(self, words: Words, _query: Query, _body: bytes) -> Outcome:
        tag = words[0]
        if tag not in self.tags:
            return NOT_FOUND
        through = self.annotated.get(tag)
        named = {"type": "tag" if through else "commit", "sha": through or self.commit_of(tag)}
        return 200, {"ref": f"refs/tags/{tag}", "object": named}, {}

    def _read_tag(self, words: Words, _query: Query, _body: bytes) -> Outcome:
        for tag, sha in self.annotated.items():
            if sha == words[0]:
                named = {"type": "commit", "sha": self.commit_of(tag)}
                return 200, {"tag": tag, "object": named}, {}
        return NOT_FOUND

    def _find_published(self, words: Words, _query: Query, _body: bytes) -> Outcome:
        for release in self.releases.values():
            if release["tag_name"] == words[0] and not release["draft"]:
                return 200, release, {}
        return NOT_FOUND

    def _list_releases(self, _words: Words, query: Query, _body: bytes) -> Outcome:
        return self._page(sorted(self.releases.values(), key=lambda each: -each["id"]), query)

    def _create(self, _words: Words, _query: Query, body: bytes) -> Outcome:
        data = json.loads(body)
        more = {key: data[key] for key in ("prerelease", "name", "body")}
        return 201, self.add_release(data["tag_name"], is_draft=data["draft"], **more), {}

    def _use_release(self, words: Words, _query: Query, body: bytes) -> Outcome:
        method, number = words[0], int(words[1])
        release = self.releases.get(number)
        if release is None:
            return NOT_FOUND
        if method == "DELETE":
            del self.releases[number]
            return 204, None, {}
        if method == "PATCH":
            release |= json.loads(body)
            release["immutable"] = self.is_immutable and not release["draft"]
        return 200, release, {}

    def _list_assets(self, words: Words, query: Query, _body: bytes) -> Outcome:
        return self._page(self._assets_of(int(words[0])), query)

    def _upload(self, words: Words, query: Query, body: bytes) -> Outcome:
        number, name = int(words[0]), query["name"]
        release = self.releases.get(number)
        if release is None:
            return NOT_FOUND
        if self.is_immutable and not release["draft"]:
            return 422, {"message": "Cannot upload assets to an immutable release."}, {}
        if name in {each["name"] for each in self._assets_of(number)}:
            error = {"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}
            return 422, {"message": "Validation Failed", "errors": [error]}, {}
        return 201, self.add_asset(release, name, body), {}

    def _delete_asset(self, words: Words, _query: Query, _body: bytes) -> Outcome:
        return (204, None, {}) if self.assets.pop(int(words[0]), None) else NOT_FOUND

    def _set_status(self, words: Words, _query: Query, body: bytes) -> Outcome:
        data = json.loads(body)
        if data["state"] not in {"error", "failure", "pending", "success"}:
            return 422, {"message": "Validation Failed"}, {}
        if len(data.get("description") or "") > 140:
            return 422, {"message": "Validation Failed: description is too long"}, {}
        status = {"id": self._next(), "target_url": None, "description": None, **data}
        self.statuses.setdefault(words[0], []).insert(0, status)
        return 201, status, {}

    def _list_statuses(self, words: Words, query: Query, _body: bytes) -> Outcome:
        return self._page(self.statuses.get(words[0], []), query)

    def _assets_of(self, number: int) -> list[dict[str, Any]]:
        return [each for each in self.assets.values() if each["release"] == number]

    def _page(self, items: list[dict[str, Any]], query: Query) -> Outcome:
        size = min(int(query.get("per_page", "30")), self.largest_page)
        page = int(query.get("page", "1"))
        shown = items[(page - 1) * size : page * size]
        has_next = page * size < len(items)
        link = {"Link": f'<{self.url}/x?page={page + 1}>; rel="next", <{self.url}/x>; rel="last"'}
        return 200, shown, link if has_next else {}


_ROUTES: Final = (
    (r"GET git/ref/tags/(.+)", FakeGitHub._find_tag),
    (r"GET git/tags/([0-9a-f]+)", FakeGitHub._read_tag),
    (r"GET releases/tags/(.+)", FakeGitHub._find_published),
    (r"GET releases", FakeGitHub._list_releases),
    (r"POST releases", FakeGitHub._create),
    (r"(GET|PATCH|DELETE) releases/([0-9]+)", FakeGitHub._use_release),
    (r"GET releases/([0-9]+)/assets", FakeGitHub._list_assets),
    (r"POST releases/([0-9]+)/assets", FakeGitHub._upload),
    (r"DELETE releases/assets/([0-9]+)", FakeGitHub._delete_asset),
    (r"POST statuses/([0-9a-f]{40})", FakeGitHub._set_status),
    (r"GET commits/([0-9a-f]{40})/statuses", FakeGitHub._list_statuses),
)


@contextmanager
def serving_github() -> Iterator[FakeGitHub]:
    """Yield a repository with the tag v1.0.0 and no release; its API is at `url`."""
    fake = FakeGitHub()
    with serving(fake.answer) as url:
        fake.url = url
        yield fake
