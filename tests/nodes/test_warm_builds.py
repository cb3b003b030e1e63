"""Builds that reuse what earlier builds of the node left: fast, and never stale."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.nodes.follow import require_success
from tests.nodes.bench import Bench, bench

if TYPE_CHECKING:
    from pathlib import Path

# Every file of a bundle has the same old time.
BUNDLE_TIME = 1_000_000_000


@pytest.fixture
def node(scratch_home: Path) -> Bench:
    return bench(scratch_home)


def unpack_source(node: Bench, digest: str, answer: int) -> str:
    """A workspace whose inner package changes without a new version, as inner packages do."""
    root = node.folder / "sources" / digest
    files = {
        "Cargo.toml": '[workspace]\nmembers = ["app", "core"]\nresolver = "2"\n',
        "Cargo.lock": "version = 4\n\n"
        '[[package]]\nname = "app"\nversion = "1.0.0"\ndependencies = [\n "core-part",\n]\n\n'
        '[[package]]\nname = "core-part"\nversion = "0.1.0"\n',
        "app/Cargo.toml": '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n'
        '[dependencies]\ncore-part = { path = "../core" }\n',
        "app/src/main.rs": 'fn main() { println!("{}", core_part::answer()); }\n',
        "core/Cargo.toml": '[package]\nname = "core-part"\nversion = "0.1.0"\nedition = "2021"\n',
        "core/src/lib.rs": f"pub fn answer() -> u32 {{ {answer} }}\n",
    }
    for name, text in files.items():
        path = root / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (BUNDLE_TIME, BUNDLE_TIME))
    return str(root)


async def build(node: Bench, source: str) -> tuple[str, str]:
    command = (
        f"cd {source}/source\n"
        "cargo build --locked --offline\n"
        'cp "$CARGO_TARGET_DIR/debug/app" "$ORCHESTRATOR_OUT/"\n'
        f": {len(node.jobs)}"
    )
    target_dir = str(node.folder / "target" / "local")
    done = await node.run(command, source=source, target_dir=target_dir, binaries=(("app", None),))
    require_success(done.end)
    program = node.folder_of(node.jobs[-1]) / "out" / "app"
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return answer.strip(), done.log.decode()


@pytest.mark.thorough
async def test_other_sources_of_one_version_never_give_a_stale_binary(node: Bench) -> None:
    first = unpack_source(node, "a" * 8, 1)
    second = unpack_source(node, "b" * 8, 2)
    assert (await build(node, first))[0] == "1"
    assert (await build(node, second))[0] == "2"
    assert (await build(node, first))[0] == "1"


@pytest.mark.thorough
async def test_the_same_source_again_compiles_nothing(node: Bench) -> None:
    source = unpack_source(node, "a" * 8, 1)
    assert "Compiling" in (await build(node, source))[1]
    assert "Compiling" not in (await build(node, source))[1]
