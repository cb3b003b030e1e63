from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import GitSource
from orchestrator.source.git import Remote, fetch_tag, parse_remote, parse_tag, resolve_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.source import Bundle
    from tests.source.conftest import Git, Make, Program

THING = GitSource(git="thing")
HOSTILE_TAGS = (
    "--upload-pack=touch${IFS}canary;git-upload-pack",
    "v1.0;rm${IFS}-rf${IFS}x",
    "$(id)",
    "`id`",
    "v1|sh",
    "v1>x",
    "v1'x",
    'v1"x',
    "v1\N{RIGHT-TO-LEFT OVERRIDE}2",
    "-rf",
    "v1 x",
    "v1\n",
    "v1..v2",
    "v1^{}",
    "v1:x",
    "v*",
    "v1@{1}",
    "v1.lock",
    "v1/",
    "a//b",
    "",
    "v" * 300,
)


@pytest.mark.parametrize("tag", HOSTILE_TAGS)
def test_a_hostile_tag_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match="not a tag"):
        parse_tag(tag)


@pytest.mark.parametrize("tag", ["v1.2.3", "thing@1.2.3", "rel/1.2.3-rc.1+b_7", "1.2.3"])
def test_usual_tags_are_accepted(tag: str) -> None:
    assert parse_tag(tag) == tag


async def test_a_tag_that_looks_like_an_option_never_becomes_one(
    tmp_path: Path, repository: Path, git: Git
) -> None:
    tag = HOSTILE_TAGS[0]
    git(repository, "update-ref", f"refs/tags/{tag}", "HEAD")
    remote = Remote(address=str(repository), protocols="file")
    room = tmp_path / "room"
    room.mkdir()
    commit = await resolve_tag(remote, tag, room=room)
    assert commit == git(repository, "rev-parse", "HEAD")
    await fetch_tag(remote, tag, commit=commit, repository=room / "repository")
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize(
    "address",
    [
        "--upload-pack=touch canary",
        "ext::sh -c touch% canary",
        "fd::17",
        "ftp://example.org/x",
        "http://example.org/x",
        "git://example.org/x",
        "https://example.org/x\n",
        "nowhere/at/all",
    ],
)
def test_a_hostile_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError):
        parse_remote(address, tmp_path)


@pytest.mark.parametrize(
    ("address", "protocols"),
    [
        ("https://example.org/x.git", "https"),
        ("ssh://git@example.org/x.git", "ssh"),
        ("git@example.org:user/x.git", "ssh"),
        ("http://127.0.0.1:80/x", "http"),
        ("http://localhost/x", "http"),
        ("file:///srv/x.git", "file"),
    ],
)
def test_an_address_allows_its_own_protocol_only(
    tmp_path: Path, address: str, protocols: str
) -> None:
    assert parse_remote(address, tmp_path) == Remote(address=address, protocols=protocols)


async def test_git_itself_refuses_a_protocol_that_was_not_asked_for(
    tmp_path: Path, repository: Path
) -> None:
    remote = Remote(address=str(repository), protocols="https")
    with pytest.raises(ConfigError, match="not allowed"):
        await resolve_tag(remote, "v1.2.3", room=tmp_path)


async def test_an_annotated_tag_is_its_commit(make: Make, repository: Path, git: Git) -> None:
    git(repository, "tag", "--force", "-a", "-m", "Say so", "v1.2.3")
    assert (await make(THING)).revision == git(repository, "rev-parse", "HEAD")


@pytest.mark.usefixtures("repository")
async def test_a_missing_tag_is_named(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"thing has no tag v9\.9\.9"):
        await make(THING, version="9.9.9")


async def test_a_tag_of_something_else_than_a_commit_is_refused(
    make: Make, repository: Path, git: Git
) -> None:
    git(repository, "tag", "--force", "v1.2.3", "HEAD^{tree}")
    with pytest.raises(ConfigError, match="no commit"):
        await make(THING)


async def test_a_repository_that_is_none_shows_what_git_said(make: Make, tmp_path: Path) -> None:
    (tmp_path / "thing").mkdir()
    with pytest.raises(ConfigError, match="not appear to be a git repository"):
        await make(THING)


async def test_a_password_in_the_address_is_not_shown(make: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        await make(GitSource(git="http://me:canary@127.0.0.1:1/x"))
    assert "http://127.0.0.1:1/x" in caught.value.message
    assert "canary" not in caught.value.message


async def test_a_moved_tag_is_an_alarm_with_both_commits(
    make: Make, repository: Path, git: Git
) -> None:
    before = (await make(THING)).revision
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    after = git(repository, "rev-parse", "HEAD")
    with pytest.raises(
        ConfigError, match=rf"moved: it was git {before}, it is git {after}"
    ) as caught:
        await make(THING)
    record = (caught.value.hint or "").rpartition("remove ")[2]
    Path(record).unlink()
    assert (await make(THING)).revision == after


async def test_a_tag_that_moves_during_the_fetch_is_refused(
    tmp_path: Path, repository: Path, git: Git
) -> None:
    before = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    remote = parse_remote("thing", tmp_path)
    with pytest.raises(ConfigError, match=f"moved while it was fetched: {before} became"):
        await fetch_tag(remote, "v1.2.3", commit=before, repository=tmp_path / "bare")


async def test_variables_of_an_outer_git_do_not_leak_in(
    *, make: Make, repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{tmp_path}/nowhere.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(repository))
    assert (await make(THING)).revision == git(repository, "rev-parse", "HEAD")


async def test_links_inside_stay_links(
    *, make: Make, repository: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    (repository / "src" / "up").symlink_to("../Cargo.toml")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    link = unpacked(await make(THING)) / "source" / "src" / "up"
    assert str(link.readlink()) == "../Cargo.toml"


async def test_links_that_lead_outside_are_refused(make: Make, repository: Path, git: Git) -> None:
    (repository / "src" / "up").symlink_to("../../secret")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    with pytest.raises(ConfigError, match="may lead outside: 'src/up'"):
        await make(THING)


async def test_submodules_are_left_out_and_named(
    *, make: Make, repository: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},third-party")
    git(repository, "commit", "--quiet", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    bundle = await make(THING)
    assert bundle.notes == ("git submodules are not in the bundle: third-party",)
    assert not (unpacked(bundle) / "source" / "third-party").exists()


async def test_a_repository_with_sha256_works(make: Make, program: Program, git: Git) -> None:
    folder = program()
    git(folder, "init", "--quiet", "--object-format=sha256")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")
    git(folder, "tag", "v1.2.3")
    assert (await make(THING)).revision == git(folder, "rev-parse", "HEAD")


async def test_a_tree_with_gits_own_folder_in_it_is_refused(
    make: Make, repository: Path, git: Git
) -> None:
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=b"[core]\n")
    inner = git(repository, "mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
    tree = git(repository, "mktree", stdin=f"040000 tree {inner}\t.GIT\n".encode())
    commit = git(repository, "commit-tree", tree, "-m", "Trap")
    git(repository, "tag", "--force", "v1.2.3", commit)
    with pytest.raises(ConfigError, match=r"unsafe name: '\.GIT/config'"):
        await make(THING)
