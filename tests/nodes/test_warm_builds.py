"""Builds that reuse what earlier builds of the node left: fast, and never stale."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.nodes.bundle import tree_folder
from orchestrator.nodes.follow import require_success
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
    files = {
        "Cargo.toml": f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n',
        "src/lib.rs": f"pub fn answer() -> u32 {{ {answer} }}\n",
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
    node: Bench, source: str, *, clean: bool = False, into: Path | None = None
) -> tuple[str, str]:
    target_dir, tree = str(node.folder / "target" / "local"), tree_folder(node.facts, "local")
    command = (
        f"{CLEAN if clean else ''}cd {tree}/source\n"
        "cargo build --locked --offline\n"
        'cp "$CARGO_TARGET_DIR/debug/app" "$ORCHESTRATOR_OUT/"\n'
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
    assert (await build(node, first, clean=True, into=into))[0] == "1 7 3"
    assert (await build(node, second, into=into))[0] == "1 7 4"


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


async def test_a_source_without_dependencies_has_nothing_but_itself(node: Bench) -> None:
    source = unpack_source(node, "a" * 8, 1)
    for part in ("vendor", ".cargo"):
        shutil.rmtree(f"{source}/{part}")
    tree = await plant(node, source)
    assert sorted(path.name for path in tree.iterdir()) == [".planted", "source"]


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
    # That of another folder does not wait.
    held = await node.start(node.spec("sleep 60", slots=4, source=None, target_dir=target_dir))
    other = str(node.folder / "target" / "other")
    require_success((await node.run("true", slots=4, target_dir=other)).end)
    assert not (node.folder_of(held) / "exit").exists()
