from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes.job import Job
from orchestrator.nodes.project import BuiltProject, Lookup, read_project
from tests.nodes.bench import Bench, ShellTransport, bench
from tests.shells import shell_params

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "x86_64-unknown-linux-gnu"
STARTED = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
ENDED = STARTED + timedelta(minutes=3)


@pytest.fixture(params=shell_params())
def node(scratch_home: Path, request: pytest.FixtureRequest) -> Bench:
    shell = shutil.which(request.param)
    if request.param != "busybox":
        return bench(scratch_home, ShellTransport(str(shell)))
    (scratch_home / "sh").symlink_to(str(shell))
    return bench(scratch_home, ShellTransport(str(scratch_home / "sh")))


@pytest.fixture
def job(node: Bench) -> Job:
    job = Job(id="a" * 32, workdir=str(node.folder), attempt=1, was_attached=False)
    folder = node.folder_of(job)
    (folder / "work").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "started").write_text(f"{STARTED.timestamp():.0f}\n")
    (folder / "exit").write_text("0\n")
    os.utime(folder / "exit", (ENDED.timestamp(),) * 2)
    return job


def project(folder: Path, dependencies: str = "") -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.rs").write_text("fn main() {}\n")
    manifest = '[package]\nname = "tool"\nversion = "1.0.0"\nedition = "2021"\n[workspace]\n'
    (folder / "Cargo.toml").write_text(manifest + dependencies)
    (folder / "Cargo.lock").write_text(
        'version = 4\n\n[[package]]\nname = "tool"\nversion = "1.0.0"\n'
    )
    return folder


async def look(node: Bench, job: Job, *places: Path, **changes: object) -> BuiltProject:
    lookup = replace(
        Lookup(places=tuple(map(str, places)), target=TARGET),
        **changes,  # type: ignore[arg-type]  # a test's own keywords
    )
    found = await read_project(node.transport, node.facts, job=job, lookup=lookup)
    assert list((node.folder / "gates").iterdir()) == []
    return found


def is_whole(found: BuiltProject, folder: Path) -> bool:
    assert found.problem is None, found.problem
    assert found.metadata is not None
    assert found.lockfile == (folder / "Cargo.lock").read_bytes()
    root: str = json.loads(found.metadata)["workspace_root"]
    return root == str(folder)


async def test_the_project_is_found_from_its_binary(node: Bench, job: Job, tmp_path: Path) -> None:
    folder = project(tmp_path / "tool-1.0.0")
    found = await look(node, job, tmp_path / "none" / "x", folder / "target" / "release" / "tool")
    assert is_whole(found, folder)
    assert (found.started, found.ended) == (STARTED, ENDED)
    assert found.rustc is not None
    assert found.rustc.startswith("rustc ")


async def test_the_source_that_was_pushed_is_the_project(node: Bench, job: Job) -> None:
    folder = project(node.folder / "sources" / "digest" / "source")
    assert is_whole(await look(node, job, folder), folder)


async def test_what_the_command_unpacked_is_the_project(node: Bench, job: Job) -> None:
    folder = project(node.folder_of(job) / "work" / "tool-1.0.0")
    assert is_whole(await look(node, job, node.folder_of(job) / "out" / "tool"), folder)


async def test_of_two_projects_none_is_taken(node: Bench, job: Job) -> None:
    for name in ("one", "two"):
        project(node.folder_of(job) / "work" / name)
    assert (await look(node, job)).metadata is None


async def test_a_project_above_the_job_is_not_its_own(node: Bench, job: Job) -> None:
    project(node.folder / "stray" / "..")
    found = await look(node, job, node.folder_of(job) / "out" / "tool")
    assert found.problem == "there is no Cargo.lock at or above its binaries"
    assert (found.metadata, found.lockfile, found.rustc) == (None, None, None)
    assert (found.started, found.ended) == (STARTED, ENDED)


async def test_what_the_build_knows_of_the_compiler_is_not_asked_again(
    node: Bench, job: Job, tmp_path: Path
) -> None:
    folder, target = project(tmp_path / "tool"), node.folder / "target" / "here"
    calls, wrapper = tmp_path / "calls", node.folder_of(job) / "rustc-wrapper"
    compiler = tmp_path / "rustc"
    compiler.write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexec rustc "$@"\n')
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')
    for script in (compiler, wrapper):
        script.chmod(0o755)
    (node.folder_of(job) / "uses").write_text(f"- {target}\n")
    env = {"RUSTC": str(compiler), "ORCHESTRATOR_INNER_WRAPPER": ""}
    built = {**env, "RUSTC_WRAPPER": str(wrapper), "CARGO_TARGET_DIR": str(target)}
    await asyncio.to_thread(
        subprocess.run, ["cargo", "build", "-q"], check=True, cwd=folder, env=os.environ | built
    )
    calls.write_text("")
    assert is_whole(await look(node, job, folder, env=tuple(env.items())), folder)
    assert "-vV" not in calls.read_text()
    # Without what the build has kept, cargo asks the compiler.
    (target / ".rustc_info.json").unlink()
    assert is_whole(await look(node, job, folder, env=tuple(env.items())), folder)
    assert "-vV" in calls.read_text()


async def test_a_job_that_is_gone_has_no_times(node: Bench, job: Job, tmp_path: Path) -> None:
    folder = project(tmp_path / "tool")
    shutil.rmtree(node.folder_of(job))
    found = await look(node, job, folder)
    assert is_whole(found, folder)
    assert (found.started, found.ended) == (None, None)


async def test_a_lockfile_that_does_not_fit_is_left_alone_and_told(
    node: Bench, job: Job, tmp_path: Path
) -> None:
    folder = project(tmp_path / "tool", '[dependencies]\nother = { path = "../other" }\n')
    project(tmp_path / "other")
    before = (folder / "Cargo.lock").read_bytes()
    found = await look(node, job, folder)
    assert found.metadata is None
    assert found.problem
    assert (folder / "Cargo.lock").read_bytes() == before


def fake_cargo(node: Bench, tmp_path: Path, text: str) -> Bench:
    """A node whose cargo does this."""
    (tmp_path / "bin").mkdir()
    cargo = tmp_path / "bin" / "cargo"
    cargo.write_text(f"#!/bin/sh\n{text}")
    cargo.chmod(0o755)
    node.facts = replace(node.facts, path=f"{tmp_path}/bin:{node.facts.path}")
    return node


async def test_cargo_sees_the_job_s_environment_and_no_other(
    node: Bench, job: Job, tmp_path: Path
) -> None:
    node = fake_cargo(node, tmp_path, 'echo "$* $WORD $HOME"\n')
    found = await look(node, job, project(tmp_path / "tool"), env=(("WORD", "it's"),))
    assert found.metadata is not None
    assert found.metadata.decode() == (
        f"metadata --format-version 1 --locked --filter-platform {TARGET} --offline "
        f"it's {node.facts.home}\n"
    )


@pytest.mark.parametrize("may_fetch", [True, False])
async def test_cargo_fetches_only_where_the_build_did(
    node: Bench, job: Job, tmp_path: Path, *, may_fetch: bool
) -> None:
    offline = 'case $* in *--offline*) echo "error: not in the cache" >&2; exit 101;; esac\n'
    node = fake_cargo(node, tmp_path, f"{offline}echo fetched\n")
    found = await look(node, job, project(tmp_path / "tool"), may_fetch=may_fetch)
    assert found.metadata == (b"fetched\n" if may_fetch else None)
    assert found.problem == (None if may_fetch else "not in the cache")


async def test_a_node_without_cargo_says_so(node: Bench, job: Job, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    node.facts = replace(node.facts, path=f"{tmp_path}/empty")
    found = await look(node, job, project(tmp_path / "tool"))
    assert (found.metadata, found.rustc) == (None, None)
    assert found.problem == "cargo metadata ended with status 127"


async def test_a_cargo_that_hangs_is_ended(node: Bench, job: Job, tmp_path: Path) -> None:
    node = fake_cargo(node, tmp_path, "exec sleep 300\n")
    lookup = Lookup(places=(str(project(tmp_path / "tool")),), target=TARGET)
    timeout = timedelta(seconds=1)
    found = await read_project(node.transport, node.facts, job=job, lookup=lookup, timeout=timeout)
    assert found.metadata is None
    assert found.problem is not None
    assert found.problem.startswith("cargo metadata ended with status ")


async def test_a_flood_is_cut(
    node: Bench, job: Job, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.nodes.project._LIMIT_BYTES", 1000)
    node = fake_cargo(node, tmp_path, "dd if=/dev/zero bs=1001 count=1 2>/dev/null\n")
    found = await look(node, job, project(tmp_path / "tool"))
    assert found.metadata is None
    assert found.problem == "its metadata is larger than 1000 bytes"


async def test_a_place_that_is_no_path_is_refused(node: Bench, job: Job) -> None:
    lookup = Lookup(places=("../x",), target=TARGET)
    with pytest.raises(NodeError):
        await read_project(node.transport, node.facts, job=job, lookup=lookup)


async def test_a_node_that_cannot_be_used_is_told(node: Bench, job: Job) -> None:
    node.facts = replace(node.facts, workdir="/proc/none")
    with pytest.raises(NodeError, match="could not say what it built"):
        await read_project(
            node.transport, node.facts, job=job, lookup=Lookup(places=(), target=TARGET)
        )
