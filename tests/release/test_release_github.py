"""A release through the command line that is attached to a GitHub release, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.github_server import REPOSITORY, TOKEN, FakeGitHub, Fault, serving_github
from tests.releases import VERSION, host_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.releases import Desk


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    with serving_github() as fake:
        monkeypatch.setenv("GITHUB_API_URL", fake.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        yield fake


@pytest.fixture(autouse=True)
def repository(desk: Desk) -> None:
    desk.publication["github"] = {"repository": REPOSITORY}


def test_the_archives_of_a_release_become_assets(desk: Desk, github: FakeGitHub) -> None:
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 0, outcome
    (release,) = github.releases.values()
    url = release["html_url"]
    assert outcome.data["github"] == {
        "state": "published",
        "url": url,
        "message": None,
        "hint": None,
    }
    archive = f"tool-{VERSION}-{host_target()}.tar.gz"
    assert github.names() == [f"{archive}{end}" for end in ("", ".minisig", ".sha256", ".sshsig")]
    stored = desk.store / f"releases/{VERSION}/{host_target()}"
    for name in github.names():
        assert github.contents[name] == (stored / name).read_bytes()
    again = desk.run("release", "--version", VERSION)
    assert f"GitHub release: published, {url}" in again.out
    assert TOKEN not in again.out + again.err + outcome.out + outcome.err


def test_what_goes_wrong_there_undoes_nothing_and_is_exit_code_5(
    desk: Desk, github: FakeGitHub
) -> None:
    github.faults.append(
        Fault(method="POST", path="releases", status=403, data={"message": "no access"})
    )
    desk.write(desk.node())
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 5
    assert "GitHub release: failed" in outcome.out
    assert f"GitHub cannot draft the release of v{VERSION}: 403 no access" in outcome.out
    assert f"hint: the token needs `contents: write` on {REPOSITORY}" in outcome.out
    assert f"published {VERSION}: {host_target()}" in outcome.out
    assert {"stable.idx", "install.sh"} <= desk.objects()
    assert TOKEN not in outcome.out + outcome.err
    assert desk.release().code == 0
    assert desk.builds("here") == [VERSION]


def test_without_publishing_nobody_is_asked(desk: Desk, github: FakeGitHub) -> None:
    desk.write(desk.node())
    outcome = desk.release("--no-publish")
    assert outcome.code == 0
    assert outcome.data["github"] is None
    assert github.requests == []


def test_without_a_token_nothing_begins(
    desk: Desk, github: FakeGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 2
    assert "no GitHub token in GITHUB_TOKEN" in outcome.err
    assert desk.builds("here") == []
    assert github.requests == []
    checked = desk.run("check")
    assert checked.code == 2
    assert "no GitHub token in GITHUB_TOKEN" in checked.out


@pytest.mark.usefixtures("github")
def test_a_check_says_where_the_archives_will_go(desk: Desk) -> None:
    desk.write(desk.node())
    outcome = desk.run("check")
    assert outcome.code == 0, outcome
    assert f"archives are attached to releases of {REPOSITORY}" in " ".join(outcome.out.split())


def test_a_build_does_not_see_the_token(desk: Desk, github: FakeGitHub) -> None:
    desk.write(desk.node(build=f'echo "token: ${{GITHUB_TOKEN:-none}}"\n{desk.copy()}'))
    assert desk.release().code == 0
    assert "token: none" in desk.run("logs", VERSION, "here").out
    assert github.releases
