from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import CrateSource, GitSource, Lockfile, PathSource
from orchestrator.source.crate import read_published_from
from orchestrator.source.pinned import Unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.source import Bundle
    from tests.source.conftest import Git, Make, Program, Publish

CRATE = CrateSource(crate="tool")
REPAIRED = CrateSource(crate="tool", lockfile=Lockfile.REPAIR)
COMMIT = "ad1889d1acef7afb80628c84629e01cfa27b351a"
VCS = f'{{"git": {{"sha1": "{COMMIT}"}}, "path_in_vcs": ""}}'
MAIN = 'fn main() { println!("thing {}", leaf::one()); }\n'
GONE = ("1.0.1", "0" * 64)


def tool(lock: str | None, **more: str) -> dict[str, str]:
    """The files of a crate whose program is called `thing`."""
    files = {"src/bin/thing.rs": MAIN, **more}
    return files if lock is None else {"Cargo.lock": lock, **files}


def lock_with(**leaves: tuple[str, str]) -> str:
    """A lockfile of `tool` with these dependencies: name = (version, checksum)."""
    packages = [
        f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = "REGISTRY"\n'
        f'checksum = "{checksum}"\n'
        for name, (version, checksum) in leaves.items()
    ]
    names = "".join(f' "{name}",\n' for name in leaves)
    packages.append(f'[[package]]\nname = "tool"\nversion = "1.2.3"\ndependencies = [\n{names}]\n')
    return "version = 4\n\n" + "\n".join(packages)


def locked(node: Path) -> str:
    return (node / "source" / "Cargo.lock").read_text()


async def test_a_crate_comes_from_the_registry_that_cargo_is_configured_for(
    make: Make, publish: Publish, unpacked: Callable[[Bundle], Path]
) -> None:
    checksum = publish("leaf", "1.0.0")
    publish("leaf", "1.0.1")
    files = tool(lock_with(leaf=("1.0.0", checksum)))
    publish("tool", "1.2.3", dependencies='leaf = "1"', files=files)
    bundle = await make(CRATE)
    assert bundle.notes == ()
    assert bundle.description == "crate tool 1.2.3"
    node = unpacked(bundle)
    assert sorted(path.name for path in node.iterdir()) == [".cargo", "source", "vendor"]
    assert [path.name for path in (node / "vendor").iterdir()] == ["leaf-1.0.0"]
    assert not (node / "source" / ".cargo-checksum.json").exists()
    assert (await make(CRATE)).path == bundle.path


async def test_a_locked_version_that_cannot_be_had_stops_a_strict_release(
    make: Make, publish: Publish
) -> None:
    publish("leaf", "1.0.0")
    publish("tool", "1.2.3", dependencies='leaf = "1"', files=tool(lock_with(leaf=GONE)))
    with pytest.raises(
        ConfigError, match=r"names leaf 1\.0\.1, .* newest it finds is 1\.0\.0"
    ) as caught:
        await make(CRATE)
    assert "lockfile: repair" in (caught.value.hint or "")


async def test_a_locked_version_that_cannot_be_had_is_locked_anew_if_asked(
    make: Make, publish: Publish, unpacked: Callable[[Bundle], Path]
) -> None:
    publish("leaf", "1.0.0")
    checksum = publish("other", "1.0.0")
    publish("other", "1.5.0")
    lock = lock_with(leaf=GONE, other=("1.0.0", checksum))
    dependencies = 'leaf = "1"\nother = "1"'
    publish("tool", "1.2.3", dependencies=dependencies, files=tool(lock))
    bundle = await make(REPAIRED)
    assert bundle.notes == ("Cargo.lock changed: leaf 1.0.1 → 1.0.0",)
    assert (await make(REPAIRED)).notes == bundle.notes
    text = locked(unpacked(bundle))
    assert 'name = "leaf"\nversion = "1.0.0"' in text
    assert 'name = "other"\nversion = "1.0.0"' in text


async def test_several_versions_that_cannot_be_had_are_all_locked_anew(
    make: Make, publish: Publish
) -> None:
    for name in ("leaf", "other"):
        publish(name, "1.0.0")
    lock = lock_with(leaf=GONE, other=("1.7.0", "0" * 64))
    dependencies = 'leaf = "1"\nother = "1"'
    publish("tool", "1.2.3", dependencies=dependencies, files=tool(lock.replace("\n", "\r\n")))
    assert (await make(REPAIRED)).notes == (
        "Cargo.lock changed: leaf 1.0.1 → 1.0.0",
        "Cargo.lock changed: other 1.7.0 → 1.0.0",
    )


async def test_a_lockfile_that_does_not_match_is_refused_or_completed(
    make: Make, publish: Publish
) -> None:
    publish("leaf", "1.0.0")
    lock = 'version = 4\n\n[[package]]\nname = "tool"\nversion = "1.2.3"\n'
    publish("tool", "1.2.3", dependencies='leaf = "1"', files=tool(lock))
    with pytest.raises(ConfigError, match=r"Cargo\.lock does not match Cargo\.toml"):
        await make(CRATE)
    assert (await make(REPAIRED)).notes == ("Cargo.lock changed: leaf (none) → 1.0.0",)


@pytest.mark.usefixtures("publish")
async def test_what_no_lockfile_can_mend_is_an_error_in_both_modes(
    make: Make, repository: Path, git: Git
) -> None:
    manifest = (repository / "Cargo.toml").read_text()
    (repository / "Cargo.toml").write_text(manifest + 'nowhere = "1"\n')
    git(repository, "commit", "--quiet", "--all", "-m", "Second")
    git(repository, "tag", "--force", "v1.2.3")
    for lockfile in Lockfile:
        with pytest.raises(ConfigError, match="no matching package named `nowhere` found"):
            await make(GitSource(git="thing", lockfile=lockfile))


async def test_a_repair_that_finds_nothing_shows_what_cargo_said(
    *,
    make: Make,
    publish: Publish,
    program: Program,
    registry_name: Callable[[], str],
) -> None:
    folder = program(dependencies='leaf = "1"\nother = "1"')
    publish("leaf", "1.0.0")
    lock = lock_with(leaf=GONE, other=("1.0.0", "0" * 64)).replace("REGISTRY", registry_name())
    (folder / "Cargo.lock").write_text(lock.replace("tool", "thing"))
    source = PathSource(path="thing", allow_dirty=True, lockfile=Lockfile.REPAIR)
    with pytest.raises(ConfigError, match="no matching package named `other` found"):
        await make(source)


async def test_a_crate_without_a_lockfile_gets_one(make: Make, publish: Publish) -> None:
    publish("leaf", "1.0.0")
    publish("tool", "1.2.3", dependencies='leaf = "1"', files=tool(None))
    assert (await make(CRATE)).notes == (
        "the source has no Cargo.lock: one was generated, with today's versions",
    )


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (VCS, Unpacked(revision=COMMIT)),
        (
            VCS.replace('"sha1"', '"dirty": true, "sha1"'),
            Unpacked(revision=COMMIT, notes=("the crate was published from a dirty working tree",)),
        ),
        ("{}", Unpacked(revision=None)),
    ],
)
def test_the_commit_that_a_crate_was_published_from_is_read(
    tmp_path: Path, recorded: str, expected: Unpacked
) -> None:
    (tmp_path / "info").write_text(recorded)
    assert read_published_from(tmp_path / "info") == expected


async def test_a_version_that_is_not_published_names_the_newest(
    make: Make, publish: Publish
) -> None:
    publish("tool", "1.2.3")
    publish("tool", "1.3.0")
    with pytest.raises(ConfigError, match=r"no version 9\.9\.9; .* finds is 1\.3\.0"):
        await make(CRATE, version="9.9.9")


@pytest.mark.usefixtures("publish")
async def test_a_crate_that_does_not_exist_is_named(make: Make) -> None:
    with pytest.raises(ConfigError, match="no crate called `tool`"):
        await make(CRATE)


async def test_a_crate_with_an_impossible_dependency_shows_what_cargo_said(
    make: Make, publish: Publish
) -> None:
    publish("tool", "1.2.3", dependencies='leaf = "7"')
    with pytest.raises(ConfigError, match=r"cannot resolve crate tool 1\.2\.3:\n[^$]*leaf"):
        await make(CRATE)


async def test_a_crate_whose_bytes_changed_is_an_alarm(make: Make, publish: Publish) -> None:
    publish("tool", "1.2.3", files={"src/bin/thing.rs": "fn main() {}\n"})
    await make(CRATE)
    publish("tool", "1.2.3", files={"src/bin/thing.rs": "fn main() { }\n"})
    with pytest.raises(ConfigError, match=r"crate tool 1\.2\.3 moved"):
        await make(CRATE)


@pytest.mark.parametrize("name", ["--config", "a b", 'x" = "1"', "", "a" * 65])
async def test_a_name_that_no_crate_can_have_is_refused(make: Make, name: str) -> None:
    with pytest.raises(ConfigError, match="not a crate's name"):
        await make(CrateSource(crate=name))


async def test_a_manifest_that_cargo_cannot_read_shows_what_it_said(
    make: Make, program: Program, git: Git
) -> None:
    folder = program()
    (folder / "Cargo.toml").write_text("[package\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")
    git(folder, "tag", "v1.2.3")
    with pytest.raises(ConfigError, match=r"cannot read the source's Cargo\.toml:\n[^$]*unclosed"):
        await make(GitSource(git="thing"))
