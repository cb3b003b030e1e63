"""Builds that reuse what earlier builds of the node left: fast, and never stale."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import PassingError
from orchestrator.nodes.bundle import tree_folder
from orchestrator.nodes.follow import require_success
from orchestrator.nodes.job import cancel_job
from orchestrator.nodes.job_state import Stopped
from orchestrator.workspace import host_triple
from tests.nodes.bench import Bench, ShellTransport, bench
from tests.shells import shell_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Every file of a bundle has the same old time.
BUNDLE_TIME = 1_000_000_000
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
FORK = "git+https://example.org/fork#0123456789012345678901234567890123456789"

WORKSPACE = {
    "Cargo.toml": '[workspace]\nmembers = ["app", "core"]\nresolver = "2"\n',
    "Cargo.lock": "version = 4\n\n"
    '[[package]]\nname = "app"\nversion = "1.0.0"\n'
    'dependencies = [\n "core-part",\n "fork",\n "leaf",\n]\n\n'
    '[[package]]\nname = "core-part"\nversion = "0.1.0"\n\n'
    f'[[package]]\nname = "fork"\nversion = "0.1.0"\nsource = "{FORK}"\n\n'
    f'[[package]]\nname = "leaf"\nversion = "1.2.3"\nsource = "{CRATES_IO}"\n'
    f'checksum = "{"1" * 64}"\n',
    "app/Cargo.toml": '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n'
    '[dependencies]\ncore-part = { path = "../core" }\nleaf = "1.2"\n'
    'fork = { git = "https://example.org/fork" }\n',
    "app/src/main.rs": "fn main() {\n"
    '    println!("{} {} {}", core_part::answer(), leaf::answer(), fork::answer());\n}\n',
    "core/Cargo.toml": '[package]\nname = "core-part"\nversion = "0.1.0"\nedition = "2021"\n',
}
CONFIG = (
    '[source.crates-io]\nreplace-with = "vendored-sources"\n\n'
    '[source."git+https://example.org/fork"]\ngit = "https://example.org/fork"\n'
    'replace-with = "vendored-sources"\n\n[source.vendored-sources]\ndirectory = "vendor"\n'
)


CLEAN = 'rm -rf "$CARGO_TARGET_DIR"\n'


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


def vendored(name: str, version: str, answer: int, *, package: str | None) -> dict[str, str]:
    """The files of a crate, whose place is told where it panics, and with it by the program."""
    files = {
        "Cargo.toml": f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n',
        "src/lib.rs": "pub fn answer() -> u32 {\n"
        f'    if std::env::args().count() > 9 {{ panic!("no") }} else {{ {answer} }}\n}}\n',
    }
    sums = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
    files[".cargo-checksum.json"] = json.dumps({"files": sums, "package": package})
    return {f"vendor/{name}-{version}/{path}": text for path, text in files.items()}


def unpack_source(node: Bench, digest: str, answer: int, *, fork: int = 0) -> str:
    """A workspace whose inner package changes without a new version, as inner packages do.

    So does `fork`, a crate from a git repository; `leaf`, from the registry, is always the same.
    """
    root = node.folder / "sources" / digest
    crates = vendored("leaf", "1.2.3", 7, package="1" * 64)
    crates |= vendored("fork", "0.1.0", fork, package=None)
    lists = {path: text for path, text in crates.items() if path.endswith(".json")}
    files = {
        **{f"source/{path}": text for path, text in WORKSPACE.items()},
        "source/core/src/lib.rs": f"pub fn answer() -> u32 {{ {answer} }}\n",
        **crates,
        ".cargo/config.toml": CONFIG,
        ".cargo/vendored": "".join(
            f"{hashlib.sha256(text.encode()).hexdigest()} {path.split('/')[1]}\n"
            for path, text in sorted(lists.items())
        ),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (BUNDLE_TIME, BUNDLE_TIME))
    return str(root)


async def build(
    node: Bench,
    source: str,
    *,
    before: str = "",
    into: Path | None = None,
) -> tuple[str, str]:
    target_dir, tree = str(node.folder / "target" / "local"), tree_folder(node.facts, "local")
    command = (
        f"{before}cd {tree}/source\n"
        f"cargo build --locked --offline --target {host_triple()}\n"
        f'cp "$CARGO_TARGET_DIR/{host_triple()}/debug/app" "$ORCHESTRATOR_OUT/"\n'
        f": {len(node.jobs)}"
    )
    done = await node.run(
        command,
        source=source,
        tree=tree,
        target_dir=target_dir,
        binaries=(("app", None),),
        env=(("CARGO_TARGET_DIR", str(into)),) if into else (),
    )
    require_success(done.end)
    program = node.folder_of(node.jobs[-1]) / "out" / "app"
    assert b"local.tree" not in program.read_bytes()
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return answer.strip(), done.log.decode()


@pytest.mark.thorough
async def test_other_sources_of_one_version_never_give_a_stale_binary(node: Bench) -> None:
    first = unpack_source(node, "a" * 8, 1)
    second = unpack_source(node, "b" * 8, 2)
    assert (await build(node, first))[0] == "1 7 0"
    assert (await build(node, second))[0] == "2 7 0"
    assert (await build(node, first))[0] == "1 7 0"


@pytest.mark.thorough
async def test_the_same_source_again_compiles_nothing(node: Bench) -> None:
    source = unpack_source(node, "a" * 8, 1)
    assert "Compiling" in (await build(node, source))[1]
    assert "Compiling" not in (await build(node, source))[1]


@pytest.mark.thorough
async def test_another_source_compiles_no_crate_again_that_is_the_same(node: Bench) -> None:
    assert "Compiling leaf" in (await build(node, unpack_source(node, "a" * 8, 1)))[1]
    log = (await build(node, unpack_source(node, "b" * 8, 2)))[1]
    assert "Compiling core-part" in log
    assert "Compiling leaf" not in log
    assert "Compiling fork" not in log


@pytest.mark.parametrize("folder", [None, "of the node's choice"])
@pytest.mark.thorough
async def test_a_crate_with_other_code_of_the_same_version_is_compiled_again(
    node: Bench, tmp_path: Path, folder: str | None
) -> None:
    into = tmp_path / folder if folder else None
    # cargo itself believes a vendored crate of a git repository to be the one that it knows.
    first = unpack_source(node, "a" * 8, 1, fork=3)
    second = unpack_source(node, "b" * 8, 1, fork=4)
    assert (await build(node, first, into=into))[0] == "1 7 3"
    assert (await build(node, second, into=into))[0] == "1 7 4"
    assert (await build(node, first, before=CLEAN, into=into))[0] == "1 7 3"
    assert (await build(node, second, into=into))[0] == "1 7 4"


@pytest.mark.thorough
async def test_a_crate_that_was_gone_for_a_version_is_not_taken_for_what_it_was(
    node: Bench,
) -> None:
    first, second, third = (
        unpack_source(node, digest * 8, 1, fork=fork)
        for digest, fork in (("a", 3), ("b", 0), ("c", 4))
    )
    without_fork(second)
    assert (await build(node, first))[0] == "1 7 3"
    assert (await build(node, second))[0] == "1 7"
    assert (await build(node, third))[0] == "1 7 4"


def without_fork(source: str) -> None:
    root = Path(source)
    shutil.rmtree(root / "vendor/fork-0.1.0")
    for name, removed in (
        ("source/Cargo.lock", ' "fork",\n'),
        ("source/app/Cargo.toml", 'fork = { git = "https://example.org/fork" }\n'),
        ("source/app/src/main.rs", ", fork::answer()"),
        ("source/app/src/main.rs", "{} {} {}"),
        (".cargo/vendored", (root / ".cargo/vendored").read_text().splitlines(keepends=True)[0]),
    ):
        path = root / name
        text = path.read_text()
        assert removed in text
        path.write_text(text.replace(removed, "{} {}" if "{}" in removed else ""))
    lock = root / "source/Cargo.lock"
    lock.write_text(re.sub(r'\[\[package\]\]\nname = "fork"\n.*\n.*\n\n', "", lock.read_text()))


@pytest.mark.thorough
async def test_a_target_folder_of_which_nothing_is_known_is_not_believed(node: Bench) -> None:
    first, second = (
        unpack_source(node, each * 8, 1, fork=number) for number, each in enumerate("ab", 1)
    )
    assert (await build(node, first))[0] == "1 7 1"
    # As a loss of power may leave it.
    (node.folder / "target/local/.crates").write_text("")
    shutil.rmtree(node.folder / "sources/local.tree")
    assert (await build(node, second))[0] == "1 7 2"


@pytest.mark.thorough
async def test_crates_that_a_project_brings_along_are_compiled_as_they_are(node: Bench) -> None:
    # Patched in place, and so that cargo has nothing to compare it with.
    for digest, answer in (("a", 70), ("b", 71)):
        root = Path(unpack_source(node, digest * 8, 1))
        for part in ("vendor", ".cargo"):
            shutil.copytree(root / part, root / "source" / part)
        leaf = root / "source/vendor/leaf-1.2.3"
        (leaf / ".cargo-checksum.json").write_text(f'{{"files":{{}},"package":"{"1" * 64}"}}')
        (leaf / "src/lib.rs").write_text(f"pub fn answer() -> u32 {{ {answer} }}\n")
        os.utime(leaf / "src/lib.rs", (BUNDLE_TIME, BUNDLE_TIME))
        assert (await build(node, str(root)))[0] == f"1 {answer} 0"


@pytest.mark.thorough
async def test_a_clock_that_went_back_makes_nothing_stale(node: Bench) -> None:
    first, second = (unpack_source(node, each * 8, number) for number, each in enumerate("ab", 1))
    assert (await build(node, first))[0] == "1 7 0"
    later = time.time() + 3600
    for path in (node.folder / "target/local").rglob("*"):
        os.utime(path, (later, later))
    assert (await build(node, second))[0] == "2 7 0"


@pytest.mark.thorough
async def test_a_target_folder_that_was_another_s_meanwhile_is_not_believed(
    node: Bench, tmp_path: Path
) -> None:
    first, second = (
        unpack_source(node, each * 8, number, fork=number) for number, each in enumerate("ab", 1)
    )
    here, there = tmp_path / "here", tmp_path / "there"
    assert (await build(node, first, into=here))[0] == "1 7 1"
    assert (await build(node, second, into=there))[0] == "2 7 2"
    assert (await build(node, second, into=here))[0] == "2 7 2"


@pytest.mark.thorough
async def test_a_target_folder_may_be_a_link_and_the_project_name_a_build_folder(
    node: Bench, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    for fork, digest in enumerate("ab", 3):
        source = unpack_source(node, digest * 8, 1, fork=fork)
        config = Path(source, "source/.cargo/config.toml")
        config.parent.mkdir()
        config.write_text(f'[build]\nbuild-dir = "{tmp_path}/elsewhere"\n')
        assert (await build(node, source, into=tmp_path / "link"))[0] == f"1 7 {fork}"


# --- where warm builds find their source ----------------------------------------------------------


async def plant(node: Bench, source: str, command: str = "true") -> Path:
    tree, target_dir = tree_folder(node.facts, "local"), str(node.folder / "target" / "local")
    # Each is a job of its own.
    command = f": {len(node.jobs)}\n{command}"
    require_success((await node.run(command, source=source, tree=tree, target_dir=target_dir)).end)
    return node.folder / "sources/local.tree"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("source", "vendor", ".cargo")
        for path in (folder / part).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("shell", shell_params())
async def test_a_warm_build_finds_each_source_at_the_same_place(
    node: Bench, shell: str, tmp_path: Path
) -> None:
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    node.transport = ShellTransport(str(tmp_path / "sh"))
    for digest, answer in (("a" * 8, 1), ("b" * 8, 2), ("a" * 8, 1)):
        source = node.folder / "sources" / digest
        if not source.exists():
            unpack_source(node, digest, answer, fork=answer)
            (source / "source" / f"only-{digest}").touch()
            (source / "source" / "link").symlink_to("app/src/main.rs")
        begun = time.time()
        tree = await plant(node, str(source))
        assert contents(tree) == contents(source)
        assert (tree / "source/link").readlink() == Path("app/src/main.rs")
        # cargo takes for changed what is younger than what was built of it.
        assert (tree / "source/app/src/main.rs").stat().st_mtime >= begun - 1
        assert (source / "source/app/src/main.rs").stat().st_mtime == BUNDLE_TIME
        assert (tree / "vendor/leaf-1.2.3/src/lib.rs").stat().st_mtime == BUNDLE_TIME


async def test_vendored_crates_take_no_room_twice_where_that_can_be(node: Bench) -> None:
    source = unpack_source(node, "a" * 8, 1)
    crate = "vendor/leaf-1.2.3/src/lib.rs"
    tree = await plant(node, source)
    assert (tree / crate).samefile(f"{source}/{crate}")
    # What a build writes into the program's own source is not in the next one's.
    assert not (tree / "source/Cargo.toml").samefile(f"{source}/source/Cargo.toml")


async def test_a_cp_that_makes_no_hard_links_copies(node: Bench, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "cp"
    shim.parent.mkdir()
    shim.write_text(
        '#!/bin/sh\ncase $1 in\n-*l*) mkdir -p "$3/half"; exit 1 ;;\nesac\nexec /bin/cp "$@"\n'
    )
    shim.chmod(0o755)
    source = unpack_source(node, "a" * 8, 1)
    node.facts = replace(node.facts, path=f"{shim.parent}:{node.facts.path}")
    tree = await plant(node, source)
    assert contents(tree) == contents(Path(source))
    assert not (tree / "vendor/leaf-1.2.3/src/lib.rs").samefile(
        f"{source}/vendor/leaf-1.2.3/src/lib.rs"
    )


async def test_a_source_that_was_not_brought_whole_is_brought_again(node: Bench) -> None:
    source = unpack_source(node, "a" * 8, 1)
    tree = await plant(node, source)
    # As a build leaves it that was killed while it brought the source of another version.
    (tree / ".planted").unlink()
    (tree / "vendor/leaf-1.2.3/src/lib.rs").unlink()
    (tree / "source/stray").touch()
    assert contents(await plant(node, source)) == contents(Path(source))


async def test_a_source_that_was_being_taken_away_is_not_believed(
    node: Bench, tmp_path: Path
) -> None:
    first, second = (unpack_source(node, each * 8, number) for number, each in enumerate("ab", 1))
    tree = await plant(node, first)
    # Killed while it makes room for the second one.
    shim = tmp_path / "bin" / "rm"
    shim.parent.mkdir()
    shim.write_text(
        "#!/bin/sh\ncase $1 in\n"
        '-rf) /bin/rm -rf "$2/source/core"; kill -KILL $PPID; exit ;;\nesac\nexec /bin/rm "$@"\n'
    )
    shim.chmod(0o755)
    whole = node.facts
    node.facts = replace(whole, path=f"{shim.parent}:{whole.path}")
    with pytest.raises(PassingError):
        await plant(node, second)
    assert not (tree / "source/core").exists()
    node.facts = whole
    assert contents(await plant(node, first)) == contents(Path(first))


async def test_what_a_build_left_in_its_source_is_no_hindrance(node: Bench, tmp_path: Path) -> None:
    source = unpack_source(node, "a" * 8, 1)
    locked = f"{tree_folder(node.facts, 'local')}/source/locked"
    await plant(node, source, f"mkdir {locked}\ntouch {locked}/x\nchmod 0 {locked}")
    # As for those who are not root.
    shim = tmp_path / "bin" / "rm"
    shim.parent.mkdir()
    shim.write_text(
        "#!/bin/sh\ncase $1$(stat -c %a "
        f'{locked} 2>/dev/null) in\n-rf0) exit 1 ;;\nesac\nexec /bin/rm "$@"\n'
    )
    shim.chmod(0o755)
    node.facts = replace(node.facts, path=f"{shim.parent}:{node.facts.path}")
    other = unpack_source(node, "b" * 8, 2)
    assert contents(await plant(node, other)) == contents(Path(other))


async def test_a_source_without_dependencies_has_nothing_but_itself(node: Bench) -> None:
    source = unpack_source(node, "a" * 8, 1)
    for part in ("vendor", ".cargo"):
        shutil.rmtree(f"{source}/{part}")
    tree = await plant(node, source)
    assert sorted(path.name for path in tree.iterdir()) == [".begun", ".planted", "source"]


async def test_jobs_of_one_target_folder_wait_for_each_other(node: Bench) -> None:
    tree, target_dir = tree_folder(node.facts, "local"), str(node.folder / "target" / "local")
    busy = node.folder / "busy"
    command = f"mkdir {busy}\nsleep 0.3\nrmdir {busy}"
    jobs = [
        await node.start(
            node.spec(
                f": {digest}\n{command}",
                id=digest * 32,
                slots=4,
                source=unpack_source(node, digest * 8, 1),
                tree=tree,
                target_dir=target_dir,
            )
        )
        for digest in "abc"
    ]
    for job in jobs:
        require_success((await node.follow(job)).end)
    # That of another folder does not wait, and one that waits keeps no place of the host.
    held = await node.start(node.spec("sleep 60", target_dir=target_dir))
    waits = await node.start(node.spec(": waits", lock="small", target_dir=target_dir))
    other = str(node.folder / "target" / "other")
    require_success((await node.run("true", lock="small", target_dir=other)).end)
    for job in (held, waits):
        assert not (node.folder_of(job) / "exit").exists()
    assert not (node.folder_of(waits) / "started").exists()
    # Neither keeps it when it is ended.
    await cancel_job(node.transport, waits)
    assert isinstance((await node.follow(waits)).end, Stopped)
    await cancel_job(node.transport, held)
    require_success((await node.run(": free", lock="small", target_dir=target_dir)).end)
