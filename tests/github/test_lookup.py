"""What a repository has released and what its tags name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.github.api import Api
from orchestrator.github.lookup import Lookup
from tests.github_server import REPOSITORY, TOKEN, Fault, serving_github

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.github_server import FakeGitHub


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serving_github() as fake:
        yield fake


def lookup(github: FakeGitHub, token: str | None = TOKEN) -> Lookup:
    return Lookup(Api(repository=REPOSITORY, token=token, url=github.url))


async def test_a_tag_names_a_commit(github: FakeGitHub) -> None:
    tag = await lookup(github).tag("v1.0.0")
    assert tag.commit == tag.reference == github.commit_of("v1.0.0")


async def test_an_annotated_tag_names_a_commit_through_itself(github: FakeGitHub) -> None:
    github.annotated["v1.0.0"] = "a" * 40
    tag = await lookup(github).tag("v1.0.0")
    assert (tag.reference, tag.commit) == ("a" * 40, github.commit_of("v1.0.0"))


async def test_a_tag_that_is_not_there_is_named(github: FakeGitHub) -> None:
    with pytest.raises(ConfigError, match=r"owner/tool has no tag v2\.0\.0") as caught:
        await lookup(github).tag("v2.0.0")
    assert "push the tag" in str(caught.value.hint)


async def test_a_chain_of_tags_has_an_end(github: FakeGitHub) -> None:
    sha = "a" * 40
    github.annotated["v1.0.0"] = sha
    loop = {"object": {"type": "tag", "sha": sha}}
    github.faults += [Fault(method="GET", path=f"git/tags/{sha}", status=200, data=loop)] * 4
    with pytest.raises(ConfigError, match="names no commit"):
        await lookup(github).tag("v1.0.0")


async def test_releases_are_told_once_until_they_change(github: FakeGitHub) -> None:
    github.add_release("v1.0.0", prerelease=True)
    github.add_release("v1.1.0", is_draft=True)
    asking = lookup(github)
    [release] = await asking.releases() or ()
    assert (release.tag, release.is_prerelease) == ("v1.0.0", True)
    assert release.page == "https://github.com/owner/tool/releases/1"
    assert await asking.releases() is None
    github.add_release("v1.2.0")
    assert [each.tag for each in await asking.releases() or ()] == ["v1.2.0", "v1.0.0"]
    asking.forget()
    assert await asking.releases() is not None


async def test_what_is_public_is_read_by_nobody_in_particular(github: FakeGitHub) -> None:
    github.needs_token = False
    assert await lookup(github, token=None).releases() == []


@pytest.mark.parametrize(
    "data", [{}, [1], [{"draft": False}], [{"draft": False, "published_at": 1}]]
)
async def test_an_answer_of_another_kind_is_said(github: FakeGitHub, data: object) -> None:
    github.faults.append(Fault(method="GET", path="releases", status=200, data=data))
    with pytest.raises(StoreError, match="not one of its API"):
        await lookup(github).releases()


@pytest.mark.parametrize("data", [[], {}, {"object": 1}, {"object": {"type": "commit", "sha": 1}}])
async def test_a_reference_of_another_kind_is_said(github: FakeGitHub, data: object) -> None:
    github.faults.append(Fault(method="GET", path="git/ref", status=200, data=data))
    with pytest.raises(StoreError, match="not one of its API"):
        await lookup(github).tag("v1.0.0")
