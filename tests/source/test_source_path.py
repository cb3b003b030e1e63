from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import PathSource
from orchestrator.core.version import parse_version
from orchestrator.source import make_bundle
from orchestrator.source.git import parse_remote, resolve_tag

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.source import Bundle
    from tests.source.conftest import Git, Make, Program

CLEAN = PathSource(path="thing")
DIRTY = PathSource(path="thing", allow_dirty=True)


def files(node: Path) -> list[str]:
    source = node / "source"
    return sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())


async def test_a_clean_folder_is_its_commit(
    *, make: Make, repository: Path, git: Git, tmp_path: Path
) -> None:
    bundle = await make(CLEAN)
    head = git(repository, "rev-parse", "HEAD")
    assert (bundle.revision, bundle.is_dirty, bundle.notes) == (head, False, ())
    assert bundle.description == f"{repository} at {head}"
    assert await resolve_tag(parse_remote("thing", tmp_path), "v1.2.3", room=tmp_path) == head
    assert (await make(CLEAN)).path == bundle.path


@pytest.mark.usefixtures("repository")
async def test_a_clean_folder_is_its_commit_even_when_dirty_is_allowed(make: Make) -> None:
    assert await make(DIRTY) == await make(CLEAN)


async def test_a_dirty_folder_is_refused_and_its_changes_are_listed(
    make: Make, repository: Path
) -> None:
    (repository / "src" / "main.rs").write_text("fn main() {}\n")
    for number in range(6):
        (repository / f"new {number}").touch()
    with pytest.raises(ConfigError) as caught:
        await make(CLEAN)
    listed = "src/main.rs, new 0, new 1, new 2, new 3 and 2 more"
    assert caught.value.message == f"{repository}: has changes that are in no commit: {listed}"
    assert "allow_dirty: true" in (caught.value.hint or "")


async def test_a_dirty_folder_can_be_taken_as_it_is_and_is_marked(
    *, make: Make, repository: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    (repository / ".gitignore").write_text("/secret\n/target\n")
    git(repository, "add", ".gitignore")
    git(repository, "rm", "--quiet", "--cached", "Cargo.lock")
    for name in ("secret", "new", "gone"):
        (repository / name).write_text(name)
    git(repository, "add", "gone")
    (repository / "gone").unlink()
    (repository / "link").symlink_to("new")
    bundle = await make(DIRTY)
    assert bundle.is_dirty
    assert bundle.revision == git(repository, "rev-parse", "HEAD")
    assert bundle.notes == (f"{repository} was taken as it is, with changes that are in no commit",)
    node = unpacked(bundle)
    names = [".gitignore", "Cargo.lock", "Cargo.toml", "link", "new", "src/main.rs"]
    assert files(node) == names
    assert str((node / "source" / "link").readlink()) == "new"


async def test_dirty_files_are_never_cached_by_their_commit(make: Make, repository: Path) -> None:
    clean = await make(CLEAN)
    (repository / "new").write_text("1")
    first = await make(DIRTY)
    (repository / "new").write_text("2")
    second = await make(DIRTY)
    (repository / "new").unlink()
    assert len({clean.digest, first.digest, second.digest}) == 3
    assert (await make(CLEAN)).digest == clean.digest


async def test_a_folder_outside_git_needs_a_word(
    make: Make, program: Program, unpacked: Callable[[Bundle], Path]
) -> None:
    folder = program()
    for name in ("target/debug/x", ".git/config", "src/target/kept"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "also").symlink_to("src")
    with pytest.raises(ConfigError, match="it is in no commit"):
        await make(CLEAN)
    bundle = await make(DIRTY)
    assert (bundle.revision, bundle.is_dirty) == (None, True)
    node = unpacked(bundle)
    assert files(node) == ["Cargo.lock", "Cargo.toml", "src/main.rs", "src/target/kept"]
    assert str((node / "source" / "also").readlink()) == "src"


async def test_a_cache_inside_the_folder_is_not_part_of_the_source(
    *, make: Make, program: Program, tmp_path: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    program(".")
    source = PathSource(path=".", allow_dirty=True)
    bundle = await make(source)
    assert "cache" not in [path.name for path in (unpacked(bundle) / "source").iterdir()]
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/node-*\n")
    again = await make(source)
    assert "cache" not in [path.name for path in (unpacked(again) / "source").iterdir()]


HERE = PathSource(path=".")
HERE_DIRTY = PathSource(path=".", allow_dirty=True)


def commit_all(git: Git, folder: Path) -> None:
    """Make the folder a repository that ignores what these tests put beside the program."""
    git(folder, "init", "--quiet")
    (folder / ".git" / "info" / "exclude").write_text("/cache\n/cargo-home\n/node-*\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")


def write_record(folder: Path) -> None:
    """Leave behind what a release does."""
    (folder / "dist" / "1.2.3" / "here").mkdir(parents=True)
    for name in ("timings.jsonl", "1.2.3/here/build.log"):
        (folder / "dist" / name).write_text("a line\n")


async def test_the_operator_s_own_record_is_no_change_of_the_source(
    *, make: Make, program: Program, tmp_path: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    program(".")
    commit_all(git, tmp_path)
    write_record(tmp_path)
    assert not (await make(HERE)).is_dirty
    (tmp_path / "new").touch()
    with pytest.raises(ConfigError, match=r"in no commit: new$"):
        await make(HERE)
    bundle = await make(HERE_DIRTY)
    assert files(unpacked(bundle)) == ["Cargo.lock", "Cargo.toml", "new", "src/main.rs"]


async def test_the_record_is_not_part_of_a_folder_outside_git(
    *, make: Make, program: Program, tmp_path: Path, unpacked: Callable[[Bundle], Path]
) -> None:
    program(".")
    write_record(tmp_path)
    (tmp_path / "src" / "dist").mkdir()
    (tmp_path / "src" / "dist" / "page.html").touch()
    names = files(unpacked(await make(HERE_DIRTY)))
    assert [name for name in names if "dist" in name] == ["src/dist/page.html"]


async def test_what_is_committed_in_dist_belongs_to_the_source(
    *, make: Make, program: Program, tmp_path: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    program(".")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "page.html").write_text("1")
    commit_all(git, tmp_path)
    write_record(tmp_path)
    (tmp_path / "dist" / "page.html").write_text("2")
    with pytest.raises(ConfigError, match=r"in no commit: dist/page\.html$"):
        await make(HERE)
    names = ["Cargo.lock", "Cargo.toml", "dist/page.html", "src/main.rs"]
    assert files(unpacked(await make(HERE_DIRTY))) == names


@pytest.mark.parametrize("name", ["thing", "dist"])
async def test_another_dist_than_the_operator_s_is_a_change_like_any_other(
    *, make: Make, program: Program, git: Git, name: str
) -> None:
    folder = program(name)
    commit_all(git, folder)
    (folder / "dist").mkdir()
    (folder / "dist" / "page.html").touch()
    with pytest.raises(ConfigError, match=r"in no commit: dist/page\.html$"):
        await make(PathSource(path=name))


async def test_the_record_is_found_below_a_repository_too(
    program: Program, tmp_path: Path, git: Git
) -> None:
    program(".")
    (tmp_path / "outer").mkdir()
    for name in ("src", "Cargo.toml", "Cargo.lock"):
        (tmp_path / name).rename(tmp_path / "outer" / name)
    commit_all(git, tmp_path)
    write_record(tmp_path / "outer")
    bundle = await make_bundle(
        HERE,
        version=parse_version("1.2.3"),
        binaries=("thing",),
        folder=tmp_path / "outer",
        cache=tmp_path / "cache",
    )
    assert not bundle.is_dirty


async def test_a_repository_without_a_commit_is_dirty(
    make: Make, program: Program, git: Git
) -> None:
    git(program(), "init", "--quiet")
    with pytest.raises(ConfigError, match="it is in no commit"):
        await make(CLEAN)
    assert (await make(DIRTY)).revision is None


async def test_a_folder_below_a_repository_is_taken_alone(
    *, make: Make, program: Program, tmp_path: Path, git: Git, unpacked: Callable[[Bundle], Path]
) -> None:
    program("all/thing")
    (tmp_path / "all" / "README").touch()
    git(tmp_path / "all", "init", "--quiet")
    git(tmp_path / "all", "add", ".")
    git(tmp_path / "all", "commit", "--quiet", "-m", "First")
    (tmp_path / "all" / "elsewhere").touch()
    bundle = await make(PathSource(path="all/thing"))
    assert not bundle.is_dirty
    assert files(unpacked(bundle)) == ["Cargo.lock", "Cargo.toml", "src/main.rs"]


async def test_a_folder_that_git_ignores_is_not_released_empty(
    make: Make, repository: Path, git: Git
) -> None:
    (repository / ".gitignore").write_text("/inner\n")
    (repository / "inner").mkdir()
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Second")
    with pytest.raises(ConfigError):
        await make(PathSource(path="thing/inner"))


async def test_a_folder_that_does_not_exist_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path / "thing")):
        await make(CLEAN)


async def test_a_repository_that_git_refuses_to_read_is_not_taken_for_a_plain_folder(
    make: Make, repository: Path
) -> None:
    (repository / ".git" / "config").write_text("[core\n")
    with pytest.raises(ConfigError, match="git cannot read the repository"):
        await make(DIRTY)
