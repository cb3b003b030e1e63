"""What lies on a node: its jobs are listed, and what is not needed any more is removed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.nodes.bundle import Parcel, push_bundle
from orchestrator.nodes.follow import require_success
from orchestrator.nodes.housekeeping import ListedJob, Tidied, list_jobs, tidy
from orchestrator.nodes.job import JOB_SH, Job
from orchestrator.nodes.job_state import (
    Finished,
    NeverStarted,
    Queued,
    Running,
)
from tests.nodes.bench import Bench, ShellTransport, bench, until
from tests.shells import shell_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WEEK = timedelta(days=7)


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


# --- listing ------------------------------------------------------------------------------------


async def test_every_job_is_listed_with_its_label_and_state(node: Bench) -> None:
    label = ("demo", "1.0.0+b.7", "x86_64-unknown-linux-gnu", "linux-a")
    done = await node.start(node.spec("true", label=label))
    await node.follow(done)
    running = await node.start(node.spec("sleep 60"))
    await until((node.folder_of(running) / "started").exists)
    queued = await node.start(node.spec("echo waits"))
    (node.folder / "jobs" / ("f" * 33)).mkdir()

    listed = await list_jobs(node.transport, str(node.folder))
    by_id = {job.id: job for job in listed}
    assert [job.id for job in listed] == sorted(by_id)
    project, version, target, name = label
    assert by_id[done.id] == ListedJob(
        id=done.id,
        project=project,
        version=version,
        target=target,
        node=name,
        state=Finished(attempt=1, exit_status=0, evidence="the command exited with status 0"),
    )
    assert isinstance(by_id[running.id].state, Running)
    assert isinstance(by_id[queued.id].state, Queued)
    assert isinstance(by_id["f" * 33].state, NeverStarted)
    assert by_id["f" * 33].project == by_id["f" * 33].node == ""


async def test_a_node_without_jobs_lists_none(node: Bench) -> None:
    assert await list_jobs(node.transport, str(node.folder)) == ()
    assert await list_jobs(node.transport, "/nowhere/at/all") == ()


async def test_an_answer_that_is_none_is_the_nodes_fault(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, message in (
        ("echo job=1; echo hi", "exit status 0"),
        ("echo no >&2; exit 3", "no"),
    ):
        monkeypatch.setattr("orchestrator.nodes.housekeeping.JOB_SH", script)
        with pytest.raises(NodeError, match=f"the node could not list its jobs: {message}"):
            await list_jobs(node.transport, str(node.folder))


async def test_a_label_is_made_of_safe_words(node: Bench) -> None:
    with pytest.raises(ConfigError, match="the label 'a b'"):
        await node.start(replace(node.spec("true"), label=("a b",)))


# --- removing -----------------------------------------------------------------------------------


def age(*paths: Path, hours: float) -> None:
    for path in paths:
        when = time.time() - hours * 3600
        os.utime(path, (when, when))


def source_of(node: Bench, digest: str, *, hours: float) -> Path:
    folder = node.folder / "sources" / digest
    (folder / "source").mkdir(parents=True)
    (folder / "source/main.rs").write_text("fn main() {}\n")
    mark = folder.with_name(f"{digest}.complete")
    mark.touch()
    age(folder, mark, hours=hours)
    return folder


def target_of(node: Bench, name: str, *, hours: float) -> Path:
    folder = node.folder / "target" / name
    (folder / "release").mkdir(parents=True)
    (folder / "release/warm").write_text("warm")
    (folder / ".last_use").touch()
    age(folder / ".last_use", hours=hours)
    return folder


def number_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


async def using(node: Bench, command: str, name: str, *, hours: float, **more: object) -> Job:
    """Start a job with a source and a target folder, and make them all look old."""
    source = source_of(node, name, hours=hours)
    target = target_of(node, name, hours=hours)
    spec = node.spec(command, source=str(source), target_dir=str(target), **more)
    job = await node.start(replace(spec, id=hashlib.sha256(name.encode()).hexdigest()[:32]))
    folder = node.folder_of(job)
    if command == "true":
        await node.follow(job)
    else:
        await until((folder / "pid").exists)
    stamps = (folder / "last_use", target / ".last_use", source.with_name(f"{name}.complete"))
    # A start is a use of all three.
    assert all(time.time() - stamp.stat().st_mtime < 3000 for stamp in stamps)
    age(*stamps, hours=hours)
    return job


async def tidied(node: Bench, *, max_age: timedelta = WEEK, min_free_bytes: int = 0) -> Tidied:
    return await tidy(node.transport, node.facts, max_age=max_age, min_free_bytes=min_free_bytes)


def things(node: Bench) -> set[str]:
    names = ("jobs", "target", "sources")
    found = {f"{name}/{each}" for name in names for each in os.listdir(node.folder / name)}  # noqa: PTH208 -- names
    return {each for each in found if not each.endswith((".complete", ".lock"))}


@pytest.mark.parametrize("shell", shell_params())
@pytest.mark.thorough
async def test_what_is_old_goes_and_what_is_in_use_stays(
    node: Bench, shell: str, tmp_path: Path
) -> None:
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    node.transport = ShellTransport(str(tmp_path / "sh"))
    child = node.folder / "child"
    old = await using(node, "true", "old", hours=200)
    young = await using(node, "true", "young", hours=100)
    running = await using(node, "sleep 60", "running", hours=200)
    queued = await using(node, "echo waits", "queued", hours=200)
    killed = await using(
        node, f"sleep 60 & echo $! >{child}\nwait", "killed", hours=200, lock="other"
    )
    await until(lambda: number_in(child) > 0)
    os.kill(number_in(node.folder_of(killed) / "pid"), signal.SIGKILL)
    source_of(node, "nobodys", hours=300)
    target_of(node, "nobodys", hours=300)

    gone = await tidied(node)
    assert replace(gone, freed_bytes=0) == Tidied(
        jobs=(old.id,),
        targets=("nobodys", "old"),
        sources=("nobodys", "old"),
        leftovers=(),
        freed_bytes=0,
    )
    used = ((young, "young"), (running, "running"), (queued, "queued"), (killed, "killed"))
    assert things(node) == {
        f"{kind}/{name}"
        for job, word in used
        for kind, name in (("jobs", job.id), ("target", word), ("sources", word))
    }
    assert list((node.folder / "trash").iterdir()) == []
    assert not (node.folder / "sources/old.complete").exists()


async def test_what_was_used_within_the_hour_stays(node: Bench) -> None:
    await using(node, "true", "fresh", hours=0.9)
    before = things(node)
    gone = await tidied(node, max_age=timedelta(minutes=1), min_free_bytes=10**18)
    # How much is free, others of this disk decide.
    assert replace(gone, freed_bytes=0) == Tidied(
        jobs=(), targets=(), sources=(), leftovers=(), freed_bytes=0
    )
    assert things(node) == before


async def test_a_job_that_is_being_started_or_cancelled_stays(node: Bench) -> None:
    job = await using(node, "true", "held", hours=200)
    holder = subprocess.Popen(
        [
            *("/bin/sh", "-c"),
            JOB_SH.replace('main "$@"\n', 'find_boot\nkeep=\nacquire "$1" - && exec sleep 60\n'),
            *("sh", str(node.folder_of(job) / "start.lock")),
        ]
    )
    try:
        lock = node.folder_of(job) / "start.lock"
        await until(
            lambda: any(f"{holder.pid} " in each.read_text() for each in lock.glob("[0-9]*"))
        )
        assert (await tidied(node)).jobs == ()
        assert (node.folder / "target/held").exists()
    finally:
        holder.kill()
        holder.wait()
    assert (await tidied(node)).jobs == (job.id,)


async def test_a_source_that_is_being_unpacked_stays(node: Bench) -> None:
    source = source_of(node, "half", hours=200)
    source.with_name("half.complete").unlink()
    lock = source.with_name("half.lock")
    lock.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    born = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(") ")[2].split()[19]
    (lock / "1").write_text(f"{os.getpid()} {born} {boot} -\n")
    assert (await tidied(node)).sources == ()
    (lock / "1").write_text("released\n")
    assert (await tidied(node)).sources == ("half",)


async def test_where_a_target_folder_s_source_lies_goes_with_it(node: Bench) -> None:
    await using(node, "true", "old", hours=200)
    await using(node, "sleep 60", "running", hours=200)
    shutil.rmtree(node.folder / "target/running")
    for name in ("old", "running", "nobodys", "fresh"):
        tree = node.folder / f"sources/{name}.tree"
        tree.mkdir()
        age(tree, hours=1 if name == "fresh" else 300)
    gone = await tidied(node)
    assert (gone.targets, gone.leftovers) == (("old",), ("nobodys.tree",))
    assert [each for each in things_of(node, "sources") if each.endswith(".tree")] == [
        "fresh.tree",
        "running.tree",
    ]


async def test_leftovers_of_a_day_ago_go(node: Bench) -> None:
    made = []
    for name in ("gates/aa11", "sources/x.new", "sources/.x.00ff.part"):
        for hours in (23, 25):
            path = node.folder / name.replace("x", f"x{hours}").replace("aa", f"aa{hours}")
            path.mkdir(parents=True)
            age(path, hours=hours)
            made.append(path)
    gone = await tidied(node)
    assert sorted(gone.leftovers) == [".x25.00ff.part", "aa2511", "x25.new"]
    assert [path.exists() for path in made] == [True, False] * 3


async def test_room_is_made_by_what_was_used_longest_ago(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, hours in enumerate((5, 9, 7, 3)):
        target_of(node, f"t{number}", hours=hours)
    # As much as is free now, and 1 KiB for each target that is gone.
    counted = JOB_SH.replace(
        'free_kb=$(df -Pk "$1" 2>/dev/null | awk "$ROOM_OF_LINE")',
        'set -- "$workdir"/target/*; free_kb=$((100 - $#))',
    )
    assert counted != JOB_SH
    monkeypatch.setattr("orchestrator.nodes.housekeeping.JOB_SH", counted)
    assert await tidied(node, min_free_bytes=96 * 1024) == Tidied(
        jobs=(), targets=(), sources=(), leftovers=(), freed_bytes=0
    )
    gone = await tidied(node, min_free_bytes=97 * 1024 + 1)
    assert (gone.targets, gone.freed_bytes) == (("t1", "t2"), 2048)
    assert things_of(node, "target") == ["t0", "t3"]


async def test_what_was_built_is_kept_for_whoever_comes_to_fetch_it(node: Bench) -> None:
    job = await using(node, "true", "done", hours=2)
    failed = await node.start(node.spec("exit 1"))
    await node.follow(failed)
    age(node.folder_of(failed) / "last_use", hours=2)
    done = await tidied(node, min_free_bytes=1 << 60)
    assert (done.jobs, done.targets) == ((failed.id,), ("done",))
    assert (node.folder_of(job) / "exit").exists()
    age(node.folder_of(job) / "last_use", hours=24 * 8)
    assert (await tidied(node)).jobs == (job.id,)


def things_of(node: Bench, name: str) -> list[str]:
    return sorted(path.name for path in (node.folder / name).iterdir())


async def test_a_start_whose_source_is_gone_says_so(node: Bench, tmp_path: Path) -> None:
    source = node.folder / "sources/gone"
    with pytest.raises(NodeError, match=f"the source {source} is gone: it has to be brought"):
        await node.start(node.spec("true", source=str(source)))
    assert not source.with_name("gone.complete").exists()
    # What lies elsewhere is none of housekeeping's business.
    (tmp_path / "source").mkdir()
    elsewhere = {"source": str(tmp_path), "target_dir": str(tmp_path / "target")}
    require_success((await node.run("true", **elsewhere)).end)
    assert not (tmp_path / "target/.last_use").exists()


async def test_names_that_are_none_of_ours_and_links_stay(node: Bench, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (node.folder / "target").mkdir()
    for name in ("with space", "b$c", "x;y"):
        (node.folder / "target" / name).mkdir()
        age(node.folder / "target" / name, hours=200)
    (node.folder / "target/link").symlink_to(tmp_path / "precious")
    age(tmp_path / "precious", hours=200)
    await tidied(node)
    assert (tmp_path / "precious/file").exists()
    assert set(things_of(node, "target")) >= {"with space", "b$c", "x;y"}

    shutil.rmtree(node.folder / "trash")
    (node.folder / "trash").symlink_to(tmp_path / "precious")
    with pytest.raises(NodeError, match=r"could not tidy up: .*/trash is a link"):
        await tidied(node)
    assert (tmp_path / "precious/file").exists()


async def test_a_node_without_a_workdir_is_tidy(node: Bench) -> None:
    node.folder.rmdir()
    assert await tidied(node) == Tidied(
        jobs=(), targets=(), sources=(), leftovers=(), freed_bytes=0
    )


@pytest.mark.thorough
async def test_a_start_waits_for_the_one_look_of_a_tidy(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await using(node, "true", "old", hours=200)
    slow = JOB_SH.replace('"+$retire_minutes")', '"+$retire_minutes"); : >looked; sleep 2')
    assert slow != JOB_SH
    monkeypatch.setattr("orchestrator.nodes.housekeeping.JOB_SH", slow)
    tidying = asyncio.create_task(tidied(node))
    await until((node.folder / "looked").exists)
    # It was seen as old, and goes; what comes after that is a job of its own.
    again = await node.start(replace(node.spec("sleep 60"), id=job.id), rebuild=True)
    assert (await tidying).jobs == (job.id,)
    assert again.attempt == 1
    await until((node.folder_of(again) / "started").exists)


@pytest.mark.thorough
async def test_starts_and_tidies_at_the_same_time_are_safe(
    node: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a start has found stays until its job is over, however short the time that spares it."""
    # Both take their time where the other may come in between.
    for module, short, long in (
        ("housekeeping", '-mmin "+$retire_minutes")', "-mmin +0.15); sleep 0.2"),
        ("job", "    note_use\n    cd", "    note_use\n    sleep 0.3\n    cd"),
    ):
        slow = JOB_SH.replace(short, long)
        assert slow != JOB_SH
        monkeypatch.setattr(f"orchestrator.nodes.{module}.JOB_SH", slow)
    (tmp_path / "tree/source").mkdir(parents=True)
    (tmp_path / "tree/source/main.rs").write_text("fn main() {}\n")
    archive = tmp_path / "bundle.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path / "tree", "source"], check=True)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    chance = random.Random(7)
    ends_at = time.monotonic() + 30
    built: list[str] = []
    refused: list[str] = []
    removed: list[str] = []

    async def build(number: int) -> None:
        while time.monotonic() < ends_at:
            digest = f"{number % 3}" * 64
            parcel = Parcel(archive=archive, archive_sha256=sha256, digest=digest)
            source = await push_bundle(node.transport, node.facts, parcel)
            target = f"{node.folder}/target/node-{number % 2}"
            # It takes longer than what was used is spared.
            command = (
                f"mkdir -p {target}\necho warm >{target}/warm-{number}\n"
                f"for i in 1 2 3 4 5; do sleep {chance.choice(('0.1', '3'))}; "
                f"cat {source}/source/main.rs {target}/warm-{number} || exit 9; done"
            )
            spec = node.spec(command, source=source, target_dir=target, lock=f"lock-{number}")
            try:
                job = await node.start(replace(spec, id=f"{number:032x}"), rebuild=True)
                require_success((await node.follow(job)).end)
            except NodeError as error:
                refused.append(error.message)
            else:
                built.append(job.id)
            await asyncio.sleep(chance.choice((0, 1, 12)))

    async def keep_tidy() -> None:
        while time.monotonic() < ends_at:
            gone = await tidied(node, min_free_bytes=chance.choice((0, 10**18)))
            removed.extend((*gone.jobs, *gone.targets, *gone.sources))

    await asyncio.gather(*(build(number) for number in range(6)), keep_tidy(), keep_tidy())
    assert not [each for each in refused if "is gone: it has to be brought there again" not in each]
    assert len(built) >= 6
    assert removed
    assert list((node.folder / "trash").iterdir()) == []
