from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import GitSource, PathSource
from orchestrator.source.bundle import pack
from orchestrator.source.command import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.source import Bundle
    from tests.source.conftest import Git, Make, Program, Publish

EXAMPLE = Path(__file__).parents[2] / "examples" / "trajectory"
THING = GitSource(git="thing")


def built(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """What a node does: a build without a network, with a cargo that has nothing cached."""
    home.mkdir()
    return subprocess.run(
        ["cargo", "build", "--quiet", "--locked", "--offline"],
        cwd=folder,
        env={**os.environ, "CARGO_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )


def said(program: Path, *words: str) -> str:
    return subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout


@pytest.mark.thorough
async def test_the_example_builds_from_its_bundle_wherever_it_is_unpacked(
    tmp_path: Path, make: Make, unpacked: Callable[[Bundle], Path]
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("target"))
    source = PathSource(path="example", allow_dirty=True)
    bundle = await make(source, version="0.1.0", binaries=("trajectory",))
    node = unpacked(bundle)
    assert sorted(path.name for path in node.iterdir()) == ["source"]
    built(node / "source", tmp_path / "home")
    program = node / "source" / "target" / "debug" / "trajectory"
    assert said(program, "--version") == "trajectory 0.1.0\n"
    table = said(program, "--velocity", "800", "--bc", "0.45", "--range", "500").splitlines()
    assert table[-1].split() == ["500", "2.635", "503.6", "0.789"]


@pytest.mark.thorough
async def test_dependencies_from_git_and_a_registry_travel_in_the_bundle(  # noqa: PLR0913 -- fixtures
    *,
    tmp_path: Path,
    make: Make,
    program: Program,
    git: Git,
    publish: Publish,
    unpacked: Callable[[Bundle], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish("leaf", "1.0.0")
    branch = program("branch", dependencies='leaf = "1"')
    (branch / "Cargo.toml").write_text(
        (branch / "Cargo.toml").read_text().replace('"thing"', '"branch"')
    )
    (branch / "src" / "main.rs").rename(branch / "src" / "lib.rs")
    (branch / "src" / "lib.rs").write_text("pub fn two() -> u8 { leaf::one() + 1 }\n")
    git(branch, "init", "--quiet")
    git(branch, "add", ".")
    git(branch, "commit", "--quiet", "-m", "First")

    thing = program(dependencies=f'branch = {{ git = "file://{branch}" }}')
    (thing / "src" / "main.rs").write_text('fn main() { println!("{}", branch::two()); }\n')
    (thing / ".cargo").mkdir()
    own = "[build]\nincremental = false\n"
    (thing / ".cargo" / "config.toml").write_text(own)
    (thing / "Cargo.lock").unlink()
    monkeypatch.setenv("CARGO_NET_OFFLINE", "false")
    bundle = await make(PathSource(path="thing", allow_dirty=True))
    shutil.rmtree(branch)
    shutil.rmtree(tmp_path / "registry")

    node = unpacked(bundle)
    assert sorted(path.name for path in (node / "vendor").iterdir()) == [
        "branch-1.2.3",
        "leaf-1.0.0",
    ]
    assert (node / "source" / ".cargo" / "config.toml").read_text() == own
    assert str(tmp_path / "cache") not in (node / ".cargo" / "config.toml").read_text()
    built(node / "source", tmp_path / "home")
    assert said(node / "source" / "target" / "debug" / "thing") == "2\n"


async def test_two_clones_of_a_commit_give_the_same_bundle(
    *, tmp_path: Path, make: Make, repository: Path, git: Git
) -> None:
    (repository / ".gitattributes").write_text("*.rs export-subst eol=crlf\nREADME export-ignore\n")
    (repository / "README").write_text("$Format:%d$\n")
    (repository / "run.sh").write_text("true\n")
    (repository / "run.sh").chmod(0o700)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    git(tmp_path, "clone", "--quiet", "--branch", "v1.2.3", str(repository), "clone")
    git(repository, "branch", "elsewhere")

    first = await make(THING)
    shutil.rmtree(tmp_path / "cache")
    mask = os.umask(0o077)
    try:
        second = await make(GitSource(git="clone"))
    finally:
        os.umask(mask)
    assert (first.digest, first.archive_sha256) == (second.digest, second.archive_sha256)
    with tarfile.open(second.path) as archive:
        members = archive.getmembers()
    assert {member.mtime for member in members} == {1_000_000_000}
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (0, 0, "", "")
    }
    modes = {member.name: oct(member.mode) for member in members}
    assert modes["source/run.sh"] == modes["source/src"] == "0o755"
    assert modes["source/README"] == "0o644"
    assert list(modes) == sorted(modes)


async def test_a_bundle_is_made_once(make: Make, repository: Path) -> None:
    told: list[str] = []
    first = await make(THING, report=told.append)
    assert told == [
        f"fetching {repository} at v1.2.3",
        "vendoring its dependencies",
        "packing the bundle",
    ]
    told.clear()
    assert await make(THING, report=told.append) == first
    assert told == [f"{repository} at v1.2.3: the bundle is in the cache"]


@pytest.mark.parametrize("damage", ["changed", "gone", "record"])
@pytest.mark.usefixtures("repository")
async def test_a_damaged_bundle_is_made_again(make: Make, tmp_path: Path, damage: str) -> None:
    first = await make(THING)
    match damage:
        case "changed":
            first.path.write_bytes(first.path.read_bytes()[:-1] + b"x")
        case "gone":
            first.path.unlink()
        case _:
            (record,) = (tmp_path / "cache" / "records").iterdir()
            record.write_text("[half a rec")
    told: list[str] = []
    again = await make(THING, report=told.append)
    assert again == first
    assert "packing the bundle" in told
    assert (await make(THING)).path.read_bytes() == again.path.read_bytes()


@pytest.mark.usefixtures("repository")
async def test_two_makers_at_once_both_get_the_bundle(make: Make, tmp_path: Path) -> None:
    first, second = await asyncio.gather(make(THING), make(THING))
    assert first == second
    names = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(names) == 3
    assert not [name for name in names if name.startswith("new-")]


@pytest.mark.usefixtures("repository")
async def test_nothing_is_left_behind_when_making_fails(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await make(THING, binaries=("other",))
    assert not list((tmp_path / "cache").iterdir())


async def test_a_source_of_another_version_is_refused(
    make: Make, repository: Path, git: Git
) -> None:
    git(repository, "tag", "v1.2.4")
    with pytest.raises(ConfigError, match=r"thing at v1\.2\.4 says it is 1\.2\.3, not 1\.2\.4"):
        await make(THING, version="1.2.4")


@pytest.mark.usefixtures("repository")
async def test_a_source_without_the_binary_says_which_it_has(make: Make) -> None:
    with pytest.raises(ConfigError, match="no binary called `thong`; it has: thing"):
        await make(THING, binaries=("thong",))


async def test_a_source_without_a_lockfile_gets_one_and_says_so(
    make: Make, program: Program, unpacked: Callable[[Bundle], Path]
) -> None:
    (program() / "Cargo.lock").unlink()
    bundle = await make(PathSource(path="thing", allow_dirty=True))
    assert "the source has no Cargo.lock: one was generated, with today's versions" in bundle.notes
    assert (unpacked(bundle) / "source" / "Cargo.lock").is_file()


async def test_a_program_in_a_subdirectory_keeps_its_surroundings(
    *, make: Make, program: Program, tmp_path: Path, unpacked: Callable[[Bundle], Path]
) -> None:
    program("all/tools/thing")
    (tmp_path / "all" / "README").write_text("about all\n")
    with pytest.raises(ConfigError, match=r"no Cargo\.toml in its top folder"):
        await make(PathSource(path="all", allow_dirty=True))
    with pytest.raises(ConfigError, match=r"no Cargo\.toml in \.\./thing"):
        await make(PathSource(path="all", allow_dirty=True, subdirectory="../thing"))
    bundle = await make(PathSource(path="all", allow_dirty=True, subdirectory="tools/thing"))
    assert bundle.subdirectory == "tools/thing"
    node = unpacked(bundle)
    assert (node / "source" / "README").is_file()
    assert (node / "source" / "tools" / "thing" / "Cargo.toml").is_file()


async def test_a_cache_inside_another_workspace_does_not_confuse_cargo(
    make: Make, program: Program, tmp_path: Path
) -> None:
    program()
    (tmp_path / "Cargo.toml").write_text("[workspace]\nmembers = []\n")
    bundle = await make(PathSource(path="thing", allow_dirty=True))
    assert bundle.path.is_relative_to(tmp_path / "cache")


async def test_the_source_cannot_name_programs_that_run_here(
    make: Make, program: Program, tmp_path: Path
) -> None:
    folder = program()
    canary = tmp_path / "canary"
    trap = folder / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {canary}\nexit 1\n")
    trap.chmod(0o755)
    (folder / ".cargo").mkdir()
    (folder / ".cargo" / "config.toml").write_text('[build]\nrustc = "./trap.sh"\n')
    (folder / "rust-toolchain.toml").write_text('[toolchain]\nchannel = "1.0.0-no-such"\n')
    await make(PathSource(path="thing", allow_dirty=True))
    assert not canary.exists()


def test_names_too_long_for_ustar_still_arrive(tmp_path: Path) -> None:
    name = "/".join(["d" * 90] * 4) + "/" + "f" * 120
    file = tmp_path / "room" / "source" / name
    file.parent.mkdir(parents=True)
    file.write_text("x")
    pack(tmp_path / "room", tmp_path / "out.tar.gz", stop=threading.Event())
    (tmp_path / "node").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "out.tar.gz"], cwd=tmp_path / "node", check=True)
    assert (tmp_path / "node" / "source" / name).read_text() == "x"


def test_packing_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "room" / "source").mkdir(parents=True)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        pack(tmp_path / "room", tmp_path / "out.tar.gz", stop=stop)


async def test_a_bundle_record_holds_what_the_bundle_says(
    *, make: Make, repository: Path, tmp_path: Path, git: Git
) -> None:
    bundle = await make(THING)
    assert bundle.size_bytes == bundle.path.stat().st_size
    assert bundle.revision == git(repository, "rev-parse", "HEAD")
    assert not bundle.is_dirty
    (record,) = (tmp_path / "cache" / "records").iterdir()
    assert json.loads(record.read_text())["archive_sha256"] == bundle.archive_sha256
