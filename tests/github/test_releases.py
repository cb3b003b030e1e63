"""What each answer of the API means to a publisher, against a real HTTP server."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.github.api import Api, RefusedError, UncertainError
from orchestrator.github.releases import Asset, ImmutableError, NewRelease, Release, Releases
from tests.github_server import REPOSITORY, TOKEN, FakeGitHub, Fault, serving_github
from tests.servers import bytes_of, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

NEW = NewRelease(tag="v1.0.0", name="tool 1.0.0", text="hello", is_prerelease=False)
NOW = 1_795_600_000.0


@dataclass(slots=True)
class Desk:
    """A repository, and a client whose pauses take no time."""

    github: FakeGitHub
    pauses: list[float] = field(default_factory=list)
    token: str = field(default=TOKEN, repr=False)

    @property
    def releases(self) -> Releases:
        return Releases(
            api=Api(
                repository=REPOSITORY,
                token=self.token,
                url=self.github.url,
                pause=self._pause,
                clock=lambda: NOW,
            )
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def fail(self, method: str, path: str, **more: Any) -> None:
        self.github.faults.append(Fault(method=method, path=path, **more))


@contextmanager
def desk_of() -> Iterator[Desk]:
    with serving_github() as github:
        yield Desk(github)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with desk_of() as made:
        yield made


async def test_a_draft_is_made_filled_and_published(desk: Desk) -> None:
    draft = await desk.releases.create_draft(NEW)
    assert (draft.tag, draft.is_draft, draft.is_immutable) == ("v1.0.0", True, False)
    made = await desk.releases.upload(draft, "a.txt", b"hello", content_type="text/plain")
    assert made == (await desk.releases.list_assets(draft))["a.txt"]
    assert made == Asset(
        id=2,
        name="a.txt",
        is_whole=True,
        size_bytes=5,
        sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    )
    published = await desk.releases.publish(draft)
    assert not published.is_draft
    assert desk.github.releases[draft.id]["make_latest"] == "legacy"
    assert desk.github.releases[draft.id]["body"] == "hello"
    assert await desk.releases.find("v1.0.0") == published


async def test_a_prerelease_is_drafted_as_one(desk: Desk) -> None:
    draft = await desk.releases.create_draft(replace(NEW, is_prerelease=True))
    assert desk.github.releases[draft.id]["prerelease"] is True


async def test_tags_are_looked_for(desk: Desk) -> None:
    desk.github.tags.add("cli/v1.0.0+b")
    assert await desk.releases.has_tag("v1.0.0")
    assert await desk.releases.has_tag("cli/v1.0.0+b")
    assert not await desk.releases.has_tag("v2.0.0")


async def test_a_published_release_is_found_before_a_draft(desk: Desk) -> None:
    desk.github.add_release("v1.0.0", is_draft=True)
    published = desk.github.add_release("v1.0.0")
    found = await desk.releases.find("v1.0.0")
    assert found is not None
    assert found.id == published["id"]


async def test_the_oldest_draft_is_found_on_whichever_page_it_is(desk: Desk) -> None:
    desk.github.largest_page = 3
    oldest = desk.github.add_release("v1.0.0", is_draft=True)
    for number in range(7):
        desk.github.add_release(f"v0.{number}.0", is_draft=bool(number % 2))
    desk.github.add_release("v1.0.0", is_draft=True)
    found = await desk.releases.find("v1.0.0")
    assert found is not None
    assert found.id == oldest["id"]
    assert await desk.releases.find("v3.0.0") is None


async def test_assets_on_every_page_are_listed(desk: Desk) -> None:
    desk.github.largest_page = 2
    release = desk.github.add_release("v1.0.0")
    names = [f"{number}.txt" for number in range(5)]
    for name in names:
        desk.github.add_asset(release, name, b"x")
    found = await desk.releases.find("v1.0.0")
    assert found is not None
    assert list(await desk.releases.list_assets(found)) == names


async def test_a_list_without_an_end_is_given_up(desk: Desk) -> None:
    desk.github.largest_page = 1
    for _ in range(41):
        desk.github.add_release("v0.0.1", is_draft=True)
    with pytest.raises(StoreError, match="there are more than 1200"):
        await desk.releases.find("v1.0.0")


async def test_an_upload_that_broke_off_is_no_whole_asset_and_can_be_deleted(desk: Desk) -> None:
    draft = await desk.releases.create_draft(NEW)
    desk.github.add_asset(desk.github.releases[draft.id], "a.txt", b"hel", state="starter")
    (broken,) = (await desk.releases.list_assets(draft)).values()
    assert not broken.is_whole
    assert broken.sha256 is None
    await desk.releases.delete_asset(broken)
    await desk.releases.delete_asset(broken)
    assert not await desk.releases.list_assets(draft)


async def test_a_name_that_is_taken_is_told(desk: Desk) -> None:
    draft = await desk.releases.create_draft(NEW)
    assert await desk.releases.upload(draft, "a.txt", b"1", content_type="text/plain")
    assert await desk.releases.upload(draft, "a.txt", b"2", content_type="text/plain") is None


async def test_nothing_can_be_attached_to_an_immutable_release(desk: Desk) -> None:
    desk.github.is_immutable = True
    release = await desk.releases.publish(await desk.releases.create_draft(NEW))
    assert release.is_immutable
    with pytest.raises(ImmutableError, match="422 Cannot upload assets to an immutable release"):
        await desk.releases.upload(release, "a.txt", b"1", content_type="text/plain")


async def test_another_refusal_is_shown_in_the_words_of_the_api(desk: Desk) -> None:
    data = {
        "message": "Validation Failed",
        "errors": [
            {"code": "custom", "message": "tag_name was used by an immutable release"},
            "what is this",
        ],
    }
    desk.fail("POST", "releases", status=422, data=data)
    with pytest.raises(RefusedError, match="Validation Failed; tag_name was used by an immutable"):
        await desk.releases.create_draft(NEW)
    draft = await desk.releases.create_draft(NEW)
    desk.fail("POST", "assets", status=422, data={"message": "too large"})
    with pytest.raises(RefusedError, match=r"GitHub cannot take a\.txt: 422 too large"):
        await desk.releases.upload(draft, "a.txt", b"1", content_type="text/plain")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "is wrong or has expired"),
        (403, "needs `contents: write` on owner/tool"),
        (404, "is owner/tool right"),
        (301, "has the repository owner/tool moved"),
        (307, "has the repository owner/tool moved"),
        (418, None),
    ],
)
async def test_each_status_says_who_must_do_what(desk: Desk, status: int, hint: str | None) -> None:
    desk.fail("POST", "releases", status=status, data={"message": f"no {TOKEN} \x1b[31mhere"})
    with pytest.raises(
        StoreError, match=f"GitHub cannot draft the release of v1.0.0: {status}"
    ) as caught:
        await desk.releases.create_draft(NEW)
    assert (hint in (caught.value.hint or "")) if hint else caught.value.hint is None
    assert TOKEN not in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.isprintable()
    assert caught.value.exit_code == 5
    assert desk.pauses == []


async def test_a_wrong_token_is_refused_and_not_repeated(desk: Desk) -> None:
    desk.token = "ghp_wrong"
    with pytest.raises(StoreError, match="401 Bad credentials") as caught:
        await desk.releases.find("v1.0.0")
    assert "ghp_wrong" not in f"{caught.value.message} {caught.value.hint} {desk.releases!r}"
    assert len(desk.github.requests) == 1


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"is_cut": True}])
async def test_a_server_in_trouble_is_asked_again_for_what_may_be_done_twice(
    desk: Desk, fault: dict[str, Any]
) -> None:
    draft = await desk.releases.create_draft(NEW)
    for method, path in (("GET", "tags"), ("PATCH", "releases"), ("DELETE", "assets")):
        desk.fail(method, path, is_done=True, **fault)
    assert await desk.releases.has_tag("v1.0.0")
    desk.github.add_asset(desk.github.releases[draft.id], "a", b"x", state="starter")
    await desk.releases.delete_asset((await desk.releases.list_assets(draft))["a"])
    assert not (await desk.releases.publish(draft)).is_draft
    assert desk.pauses == [1.0, 1.0, 1.0]


async def test_a_server_that_stays_in_trouble_is_given_up(desk: Desk) -> None:
    for _ in range(4):
        desk.fail("GET", "tags", status=502)
    with pytest.raises(UncertainError, match=r"look for the tag v1\.0\.0: it answers 502"):
        await desk.releases.has_tag("v1.0.0")
    assert desk.pauses == [1.0, 2.0, 4.0]


async def test_an_upload_without_an_answer_is_not_repeated_blindly(desk: Desk) -> None:
    draft = await desk.releases.create_draft(NEW)
    desk.fail("POST", "assets", is_done=True, is_cut=True)
    with pytest.raises(UncertainError, match=r"GitHub cannot take a\.txt"):
        await desk.releases.upload(draft, "a.txt", b"1", content_type="text/plain")
    assert desk.github.names() == ["a.txt"]


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_draft_that_was_asked_for_without_an_answer_is_looked_for(
    desk: Desk, *, is_done: bool
) -> None:
    desk.fail("POST", "releases", status=502, is_done=is_done)
    if is_done:
        assert (await desk.releases.create_draft(NEW)).is_draft
    else:
        with pytest.raises(UncertainError, match="gave no answer"):
            await desk.releases.create_draft(NEW)
    assert len(desk.github.releases) == is_done


async def test_of_two_drafts_that_were_made_at_once_the_older_one_stays(desk: Desk) -> None:
    other = desk.github.add_release("v1.0.0", is_draft=True)
    assert (await desk.releases.create_draft(NEW)).id == other["id"]
    assert list(desk.github.releases) == [other["id"]]


async def test_a_list_that_lags_behind_does_not_lose_the_draft(desk: Desk) -> None:
    desk.fail("GET", r"releases\?", status=200, data=[])
    assert (await desk.releases.create_draft(NEW)).is_draft


async def test_the_draft_is_read_again(desk: Desk) -> None:
    draft = await desk.releases.create_draft(NEW)
    assert await desk.releases.read(draft) == draft
    await desk.releases.publish(draft)
    assert not (await desk.releases.read(draft)).is_draft


RESET = str(int(NOW) + 30)


@pytest.mark.parametrize(
    ("status", "headers", "message", "pause"),
    [
        (429, {"Retry-After": "7"}, "", 7.0),
        (403, {"Retry-After": "120"}, "secondary rate limit", 120.0),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": RESET}, "", 31.0),
        (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, "", 1.0),
        (429, {"Retry-After": "soon"}, "", 60.0),
        (403, {}, "You have exceeded a secondary rate limit", 60.0),
    ],
)
async def test_a_rate_limit_that_ends_soon_is_waited_for(
    desk: Desk, status: int, *, headers: dict[str, str], message: str, pause: float
) -> None:
    desk.fail("POST", "releases", status=status, headers=headers, data={"message": message})
    assert (await desk.releases.create_draft(NEW)).is_draft
    assert desk.pauses == [pause]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Retry-After": "121"}, "for another 2m01s"),
        ({"Retry-After": "999999999999"}, "for another 24h00m"),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "999999999999"}, "another 24h00m"),
    ],
)
async def test_a_rate_limit_that_lasts_is_told_and_not_waited_for(
    desk: Desk, headers: dict[str, str], words: str
) -> None:
    desk.fail("GET", "tags", status=429, headers=headers)
    with pytest.raises(StoreError, match=words):
        await desk.releases.has_tag("v1.0.0")
    assert desk.pauses == []


async def test_a_rate_limit_that_does_not_end_is_given_up(desk: Desk) -> None:
    for _ in range(4):
        desk.fail("GET", "tags", status=429, headers={"Retry-After": "60"})
    with pytest.raises(StoreError, match="rate limit is used up"):
        await desk.releases.has_tag("v1.0.0")
    assert desk.pauses == [60.0] * 3


WHOLE = {"id": 1, "tag_name": "v1", "draft": True, "upload_url": "u", "html_url": "h"}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {**WHOLE, "id": "1"},
        {**WHOLE, "tag_name": 1},
        {**WHOLE, "html_url": None},
    ],
)
async def test_an_answer_that_is_not_one_of_the_api_is_refused(desk: Desk, data: Any) -> None:
    desk.fail("GET", "releases/tags", status=200, data=data)
    with pytest.raises(StoreError, match="the answer is not one of its API"):
        await desk.releases.find("v1.0.0")


@pytest.mark.parametrize("data", [{}, [1], [{"id": 1, "name": "a", "state": "uploaded"}]])
async def test_a_list_that_is_not_one_of_the_api_is_refused(desk: Desk, data: Any) -> None:
    draft = await desk.releases.create_draft(NEW)
    desk.fail("GET", "assets", status=200, data=data)
    with pytest.raises(StoreError, match="the answer is not one of its API"):
        await desk.releases.list_assets(draft)


async def test_what_is_no_json_is_refused() -> None:
    for status in (200, 404, 418):
        with serving(bytes_of(b"<html>", status)) as url:
            api = Api(repository=REPOSITORY, token=TOKEN, url=url)
            with pytest.raises(StoreError, match="GitHub cannot"):
                await Releases(api=api).list_assets(_release(url))


def _release(upload_url: str) -> Release:
    return Release(
        id=1, tag="v1.0.0", is_draft=True, is_immutable=False, upload_url=upload_url, page_url=""
    )


@pytest.mark.parametrize(
    ("api_url", "upload_url", "is_kin"),
    [
        ("https://api.github.com", "https://uploads.github.com/repos/x/assets{?name}", True),
        ("https://api.x.ghe.com", "https://uploads.x.ghe.com/repos", True),
        ("https://github.example.org/api/v3", "https://github.example.org/api/uploads", True),
        ("https://api.github.com", "https://uploads.github.com.example.org/repos", False),
        ("https://api.github.com", "https://example.org/repos", False),
        ("https://api.github.com", "http://uploads.github.com/repos", False),
        ("https://api.github.com", "https://x@uploads.github.com/repos", False),
    ],
)
async def test_the_token_goes_to_no_other_host(
    api_url: str, upload_url: str, *, is_kin: bool
) -> None:
    api = Api(repository=REPOSITORY, token=TOKEN, url=api_url)
    releases = Releases(api=api)
    if is_kin:
        assert releases.upload_url(_release(upload_url)) == upload_url.partition("{")[0]
    else:
        with pytest.raises(StoreError, match="another host for uploads"):
            await releases.upload(_release(upload_url), "a.txt", b"", content_type="text/plain")
