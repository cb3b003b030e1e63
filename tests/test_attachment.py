"""A release becomes assets of a GitHub release: every way that can end, against an HTTP server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.attachment import attach_release
from orchestrator.core.attachment import Attachment, AttachmentState
from orchestrator.core.index import Status
from orchestrator.core.inventory import GitHubReleases, Inventory, Node, Policy, Project
from orchestrator.core.inventory import Publication as PublicationKeys
from orchestrator.core.plan import BuildPlan, ReleaseRequest, plan_release
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.github.api import Api
from orchestrator.github.releases import Releases
from orchestrator.stores.channel import Channel, publish_index
from orchestrator.stores.publish import publish_artifact
from orchestrator.stores.store import Generation, StoredObject
from orchestrator.world import Outlet
from tests.fakes import (
    MemoryStore,
    ToySigner,
    make_artifact,
    toy_verify,
    toy_verify_raw,
    toy_verify_ssh,
)
from tests.github_server import REPOSITORY, TOKEN, FakeGitHub, Fault, serving_github

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.core.index import Index

LINUX, NETBSD = "x86_64-unknown-linux-gnu", "x86_64-unknown-netbsd"
ARCHIVE = f"demo-1.0.0-{LINUX}.tar.gz"
ENDS = ("", ".minisig", ".sha256", ".sshsig")
CHANNEL = Channel(
    project="demo",
    name="stable",
    keys=(ToySigner().public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)
TODAY = date(2026, 11, 21)


@dataclass(slots=True)
class Desk:
    """A store with a release in it, and a repository."""

    github: FakeGitHub
    folder: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    index: Index | None = None
    policies: dict[str, Policy] = field(default_factory=lambda: {LINUX: Policy.EXPECTED})
    pauses: list[float] = field(default_factory=list)

    async def publish(self, *targets: str, version: str = "1.0.0") -> None:
        """Put builds for these targets into the store, signed and in the index."""
        rows = [
            await publish_artifact(
                self.store,
                make_artifact(self.folder, target, version),
                channel=CHANNEL,
                signer=ToySigner(),
                flat=False,
            )
            for target in targets
        ]
        self.index = await publish_index(self.store, CHANNEL, rows, signer=ToySigner(), today=TODAY)

    def plan(self, version: str = "1.0.0", *, tag: str = "v{version}") -> BuildPlan:
        nodes = tuple(
            Node(
                name=target,
                host="local",
                target=parse_target(target),
                build_command="true",
                binary_path="/tmp/demo",
                policy=policy,
            )
            for target, policy in self.policies.items()
        )
        inventory = Inventory(
            project=Project(name="demo", binaries=("demo",)),
            publication=PublicationKeys(github=GitHubReleases(repository=REPOSITORY, tag=tag)),
            nodes=nodes,
        )
        return plan_release(inventory, ReleaseRequest(version=parse_version(version)))

    def outlet(self) -> Outlet:
        api = Api(repository=REPOSITORY, token=TOKEN, url=self.github.url, pause=self._pause)
        return Outlet(
            store=self.store,
            channel=CHANNEL,
            signer=ToySigner(),
            verify_raw=toy_verify_raw,
            verify_ssh=toy_verify_ssh,
            template="",
            url="https://example.org",
            today=lambda: TODAY,
            releases=Releases(api=api),
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def attach(self, **more: Any) -> Attachment:
        found = await attach_release(self.plan(**more), self.outlet(), self.index)
        assert found is not None
        return found

    def fail(self, method: str, path: str, **more: Any) -> None:
        self.github.faults.append(Fault(method=method, path=path, **more))

    def release(self) -> dict[str, Any]:
        (release,) = self.github.releases.values()
        return release


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving_github() as github:
        yield Desk(github, tmp_path)


def names(*archives: str) -> list[str]:
    return sorted(f"{archive}{end}" for archive in archives for end in ENDS)


async def test_a_whole_release_is_attached_to_a_draft_and_published_last(desk: Desk) -> None:
    await desk.publish(LINUX)
    attachment = await desk.attach()
    assert attachment == Attachment(state=AttachmentState.PUBLISHED, url=desk.release()["html_url"])
    assert desk.github.names() == names(ARCHIVE)
    changes = [line for line in desk.github.requests if not line.startswith("GET")]
    assert changes[0].startswith("POST")
    assert changes[-1].startswith("PATCH")
    for end in (".minisig", ".sshsig", ".sha256", ""):
        stored = desk.store.objects[f"releases/1.0.0/{LINUX}/{ARCHIVE}{end}"]
        assert desk.github.contents[ARCHIVE + end] == stored.data
    assert "https://example.org/install.sh" in desk.release()["body"]
    assert desk.release()["name"] == "demo 1.0.0"


async def test_the_same_release_again_changes_nothing(desk: Desk) -> None:
    await desk.publish(LINUX)
    first = await desk.attach()
    desk.github.requests.clear()
    assert await desk.attach() == first
    assert all(line.startswith("GET") for line in desk.github.requests)


async def test_a_draft_waits_for_what_is_expected_and_not_for_best_effort(desk: Desk) -> None:
    desk.policies = {LINUX: Policy.REQUIRED, NETBSD: Policy.EXPECTED}
    await desk.publish(LINUX)
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.DRAFT
    assert attachment.message == f"it is a draft until there is a build for {NETBSD}"
    assert desk.release()["draft"] is True
    await desk.publish(NETBSD)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert desk.github.names() == names(ARCHIVE, f"demo-1.0.0-{NETBSD}.tar.gz")
    assert desk.release()["draft"] is False


async def test_a_late_build_joins_a_published_release(desk: Desk) -> None:
    desk.policies[NETBSD] = Policy.BEST_EFFORT
    await desk.publish(LINUX)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    await desk.publish(NETBSD)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert len(desk.github.names()) == 8


async def test_a_late_build_for_an_immutable_release_is_skipped(desk: Desk) -> None:
    desk.github.is_immutable = True
    desk.policies[NETBSD] = Policy.BEST_EFFORT
    await desk.publish(LINUX)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert (await desk.attach()).state is AttachmentState.PUBLISHED, "nothing is missing there"
    await desk.publish(NETBSD)
    desk.github.requests.clear()
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.SKIPPED
    assert "it is immutable and has no demo-1.0.0-x86_64-unknown-netbsd" in str(attachment.message)
    assert attachment.url == desk.release()["html_url"]
    assert all(line.startswith("GET") for line in desk.github.requests)


async def test_a_release_that_turns_out_to_be_immutable_is_skipped(desk: Desk) -> None:
    await desk.publish(LINUX)
    desk.github.add_release("v1.0.0")
    desk.github.is_immutable = True
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.SKIPPED
    assert "Cannot upload assets to an immutable release" in str(attachment.message)


async def test_an_upload_that_is_cut_by_an_immutable_release_is_skipped(desk: Desk) -> None:
    await desk.publish(LINUX)
    release = desk.github.add_release("v1.0.0")
    desk.fail("POST", "assets", is_cut=True)
    # It is frozen between the look at it and the upload, whose answer is lost.
    desk.fail("GET", "releases/tags", status=200, data=dict(release))
    release["immutable"] = True
    assert (await desk.attach()).state is AttachmentState.SKIPPED
    assert desk.pauses == [1.0]


async def test_what_somebody_attached_already_is_kept_if_it_is_the_same(desk: Desk) -> None:
    await desk.publish(LINUX)
    release = desk.github.add_release("v1.0.0", is_draft=True, body="written by a person")
    data = desk.store.objects[f"releases/1.0.0/{LINUX}/{ARCHIVE}"].data
    desk.github.add_asset(release, ARCHIVE, data)
    desk.github.add_asset(release, "notes.pdf", b"whatever")
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert f"/repos/{REPOSITORY}/releases/1/assets?name={ARCHIVE}" not in desk.github.asked("POST")
    assert len(desk.github.names()) == 5
    assert desk.release()["body"] == "written by a person"


@pytest.mark.parametrize("tells_digests", [True, False])
async def test_other_bytes_under_the_same_name_are_a_loud_conflict(
    desk: Desk, *, tells_digests: bool
) -> None:
    desk.github.tells_digests = tells_digests
    await desk.publish(LINUX)
    release = desk.github.add_release("v1.0.0", is_draft=True)
    size = len(desk.store.objects[f"releases/1.0.0/{LINUX}/{ARCHIVE}"].data)
    desk.github.add_asset(release, ARCHIVE, b"x" * (size if tells_digests else size + 1))
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert f"has other bytes as {ARCHIVE}" in str(attachment.message)
    assert desk.release()["draft"] is True
    assert desk.github.names() == [ARCHIVE]


async def test_without_digests_the_size_has_to_do(desk: Desk) -> None:
    desk.github.tells_digests = False
    await desk.publish(LINUX)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert (await desk.attach()).state is AttachmentState.PUBLISHED


async def test_what_a_broken_upload_left_is_deleted_and_uploaded_again(desk: Desk) -> None:
    await desk.publish(LINUX)
    release = desk.github.add_release("v1.0.0", is_draft=True)
    broken = desk.github.add_asset(release, ARCHIVE, b"arch", state="starter")
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert desk.github.asked("DELETE") == [f"/repos/{REPOSITORY}/releases/assets/{broken['id']}"]
    assert desk.github.names() == names(ARCHIVE)


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("fault", [{"status": 502}, {"is_cut": True}])
async def test_an_upload_without_an_answer_is_looked_for_and_done_again_if_need_be(
    desk: Desk, fault: dict[str, Any], *, is_done: bool
) -> None:
    await desk.publish(LINUX)
    desk.fail("POST", "sshsig", is_done=is_done, **fault)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert desk.github.names() == names(ARCHIVE)
    sent = [path for path in desk.github.asked("POST") if path.endswith("sshsig")]
    assert len(sent) == (1 if is_done else 2)


async def test_somebody_who_attaches_the_same_at_the_same_time_is_no_trouble(desk: Desk) -> None:
    await desk.publish(LINUX)
    release = desk.github.add_release("v1.0.0", is_draft=True)
    # The first list does not have it yet; the upload then finds the name taken.
    desk.fail("GET", "assets", status=200, data=[])
    data = desk.store.objects[f"releases/1.0.0/{LINUX}/{ARCHIVE}"].data
    desk.github.add_asset(release, ARCHIVE, data)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED


async def test_an_upload_that_never_works_fails_and_leaves_the_draft(desk: Desk) -> None:
    await desk.publish(LINUX)
    for _ in range(5):
        desk.fail("POST", "minisig", status=503)
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert "it answers 503" in str(attachment.message)
    assert desk.release()["draft"] is True
    assert (await desk.attach()).state is AttachmentState.PUBLISHED


async def test_an_asset_that_is_never_whole_fails(desk: Desk) -> None:
    await desk.publish(LINUX)
    broken = {"id": 99, "name": ARCHIVE, "state": "starter", "size": 1, "digest": None}
    for _ in range(5):
        desk.fail("POST", "gz$", status=201, data=broken)
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert f"has no whole {ARCHIVE} after all" in str(attachment.message)


async def test_an_answer_with_another_digest_is_a_conflict(desk: Desk) -> None:
    await desk.publish(LINUX)
    size = len(desk.store.objects[f"releases/1.0.0/{LINUX}/{ARCHIVE}"].data)
    other = {"id": 9, "name": ARCHIVE, "state": "uploaded", "size": size, "digest": "sha256:0"}
    desk.fail("POST", "gz$", status=201, data=other)
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert "has other bytes" in str(attachment.message)


async def test_a_draft_that_lost_an_asset_is_not_published(desk: Desk) -> None:
    await desk.publish(LINUX)
    desk.github.add_release("v1.0.0", is_draft=True)
    desk.fail("GET", "assets", status=200, data=[])
    desk.fail("GET", "assets", status=200, data=[])
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert f"has lost {ARCHIVE}" in str(attachment.message)
    assert desk.release()["draft"] is True


async def test_without_the_tag_nothing_is_drafted(desk: Desk) -> None:
    await desk.publish(LINUX)
    attachment = await desk.attach(tag="cli-{version}")
    assert attachment.state is AttachmentState.FAILED
    assert attachment.message == "owner/tool has no tag cli-1.0.0 on GitHub"
    assert desk.github.releases == {}


async def test_a_prerelease_is_marked_as_one(desk: Desk) -> None:
    desk.github.tags.add("v1.0.0-rc.1")
    await desk.publish(LINUX, version="1.0.0-rc.1")
    assert (await desk.attach(version="1.0.0-rc.1")).state is AttachmentState.PUBLISHED
    assert desk.release()["prerelease"] is True


async def test_a_name_that_github_would_change_is_found_again(desk: Desk) -> None:
    desk.github.tags.add("v1.0.0+b")
    await desk.publish(LINUX, version="1.0.0+b")
    assert (await desk.attach(version="1.0.0+b")).state is AttachmentState.PUBLISHED
    assert f"demo-1.0.0.b-{LINUX}.tar.gz.sshsig" in desk.github.names()


def _swap(desk: Desk, name: str, data: bytes) -> None:
    desk.store.objects[name] = StoredObject(data=data, generation=Generation("9"))


@pytest.mark.parametrize(
    ("end", "words"),
    [("", "is not what the index says"), (".minisig", "bad toy signature")],
)
async def test_what_the_store_holds_is_verified_before_it_is_attached(
    desk: Desk, end: str, words: str
) -> None:
    await desk.publish(LINUX)
    name = f"releases/1.0.0/{LINUX}/{ARCHIVE}{end}"
    _swap(desk, name, b"X" * len(desk.store.objects[name].data) if not end else b"a\nb\nc\nd\n")
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert words in str(attachment.message)
    assert desk.github.names() == []


@pytest.mark.parametrize("end", [".sshsig", ""])
async def test_what_the_store_lost_is_told(desk: Desk, end: str) -> None:
    await desk.publish(LINUX)
    name = f"releases/1.0.0/{LINUX}/{ARCHIVE}{end}"
    del desk.store.objects[name]
    attachment = await desk.attach()
    assert attachment.state is AttachmentState.FAILED
    assert f"{name} is not in memory" in str(attachment.message)


async def test_a_refused_token_is_a_failure_that_does_not_tell_it(desk: Desk) -> None:
    await desk.publish(LINUX)
    outlet = desk.outlet()
    api = Api(repository=REPOSITORY, token="ghp_other", url=desk.github.url)
    outlet = replace(outlet, releases=Releases(api=api))
    attachment = await attach_release(desk.plan(), outlet, desk.index)
    assert attachment is not None
    assert attachment.state is AttachmentState.FAILED
    assert "401" in str(attachment.message)
    assert "ghp_other" not in str(attachment)


async def test_nothing_is_attached_where_nothing_is_published_or_nobody_asked(desk: Desk) -> None:
    await desk.publish(LINUX)
    assert desk.index is not None
    rows = tuple(replace(row, status=Status.YANKED) for row in desk.index.rows)
    withdrawn = replace(desk.index, rows=rows)
    plan, outlet = desk.plan(), desk.outlet()
    assert await attach_release(plan, None, desk.index) is None
    assert await attach_release(plan, outlet, None) is None
    assert await attach_release(plan, outlet, withdrawn) is None
    assert await attach_release(plan, replace(outlet, releases=None), desk.index) is None
    assert desk.github.requests == []


async def test_two_coordinators_at_once_make_one_release(desk: Desk) -> None:
    await desk.publish(LINUX)
    other = Desk(desk.github, desk.folder, store=desk.store, index=desk.index)
    ends = await asyncio.gather(desk.attach(), other.attach())
    assert [end.state for end in ends] == [AttachmentState.PUBLISHED] * 2
    assert not desk.release()["draft"]
    assert desk.github.names() == names(ARCHIVE)


async def test_a_draft_that_somebody_published_meanwhile_is_not_touched(desk: Desk) -> None:
    await desk.publish(LINUX)
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    release = desk.release()
    desk.fail("GET", "releases/tags", status=200, data={**release, "draft": True})
    desk.github.requests.clear()
    assert (await desk.attach()).state is AttachmentState.PUBLISHED
    assert desk.github.asked("PATCH") == []
