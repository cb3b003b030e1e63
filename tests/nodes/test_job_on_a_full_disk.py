"""Jobs on a disk without room: a small file system of its own, really full."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes import job as job_module
from orchestrator.nodes.follow import require_success
from orchestrator.nodes.housekeeping import tidy
from orchestrator.nodes.job import JOB_SH, cancel_job, read_job
from orchestrator.nodes.job_state import (
    Finished,
    Running,
    Stopped,
    StopReason,
)
from tests.nodes.bench import Bench, ShellTransport, bench, until
from tests.shells import cancelling_shell_params, shell_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

IMPATIENT = JOB_SH.replace("GRACE_SECONDS=5", "GRACE_SECONDS=1").replace(
    "MAX_UNWRITABLE=20", "MAX_UNWRITABLE=2"
)
needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount a file system"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IMPATIENT.count("GRACE_SECONDS=1") == IMPATIENT.count("MAX_UNWRITABLE=2\n") == 1
    monkeypatch.setattr("orchestrator.nodes.job.JOB_SH", IMPATIENT)


@pytest.fixture
def small_disk(scratch_home: Path) -> Iterator[Path]:
    """The workdir's own file system, of 2 MB."""
    folder = scratch_home / "work"
    folder.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=500", "none", str(folder))
    subprocess.run(words, check=True)
    yield folder
    # Lazily, because a process that a failed test has left may stand in it.
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
async def node(small_disk: Path, scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    assert node.folder == small_disk
    yield node
    (small_disk / "fill").unlink(missing_ok=True)
    await node.cancel_all()


def fill(folder: Path, *, but_bytes: int = 0) -> None:
    with (folder / "fill").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - but_bytes))


def is_full(folder: Path) -> bool:
    return os.statvfs(folder).f_bavail == 0


def marked_processes(folder: Path) -> list[str]:
    """The processes of jobs in the folder, by their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"ORCHESTRATOR_OUT=" + os.fsencode(folder) in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found


FILL_UP = "cat /dev/zero >../../../fill || :\n"
# Takes whatever room there is again, and cannot be told to stop.
KEEP_FULL = (
    "trap '' TERM\n"
    "while :; do cat /dev/zero >>../../../fill; sleep 0.05; done 2>/dev/null &\n"
    "setsid sh -c 'while :; do cat /dev/zero; sleep 0.05; done' >>../../../fill 2>/dev/null &\n"
    "sleep 60\nsleep 60\n"
)


@needs_mount
async def test_the_end_of_a_build_that_filled_the_disk_is_known(node: Bench) -> None:
    done = await node.run(f"{FILL_UP}exit 3")
    assert isinstance(done.end, Finished)
    assert done.end.exit_status == 3
    assert is_full(node.folder) or os.statvfs(node.folder).f_bavail <= 16
    folder = node.folder_of(node.jobs[0])
    assert (folder / "exit").read_text() == "3 exited\n"
    assert not (folder / "reserve").exists()


@needs_mount
async def test_a_build_that_failed_for_want_of_room_is_no_fault_of_the_code(node: Bench) -> None:
    done = await node.run("cat /dev/zero >../../../fill")
    assert isinstance(done.end, Finished)
    assert done.end.strain.free_kib == 0
    assert 0 < (done.end.strain.free_inodes or 0) < 500
    with pytest.raises(NodeError, match=r"the node's disk is full: .*; 0 KiB and [0-9]+ inodes"):
        require_success(done.end, b"cat: write error: No space left on device\n")
    # Also if the log, which is on the same disk, has no word of it.
    with pytest.raises(NodeError, match="the node's disk is full: the build ended with status 1"):
        require_success(done.end, b"")


@needs_mount
async def test_a_binary_that_finds_no_room_is_no_success(node: Bench, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    command = f"dd if=/dev/urandom of={binary} bs=1024 count=300 2>/dev/null\n{FILL_UP}"
    done = await node.run(command, binaries=(("demo", str(binary)),))
    assert isinstance(done.end, Finished)
    assert done.end.exit_status == 1
    assert "No space left on device" in done.end.evidence
    with pytest.raises(NodeError, match=r"the node's disk is full: cp: .*No space left on device"):
        require_success(done.end)


@needs_mount
@pytest.mark.thorough
async def test_the_deadline_holds_on_a_full_disk(node: Bench) -> None:
    job = await node.start(node.spec(KEEP_FULL, timeout=timedelta(seconds=2)))
    folder = node.folder_of(job)
    await until((folder / "exit").exists, seconds=60)
    assert (folder / "exit").read_text() == "124 deadline\n"
    assert marked_processes(node.folder) == []
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.evidence == "it ran longer than its 2 s"


@needs_mount
@pytest.mark.thorough
@pytest.mark.parametrize("shell", cancelling_shell_params())
async def test_cancel_works_on_a_full_disk(node: Bench, shell: str, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    node.transport = ShellTransport(str(tmp_path / "sh"))
    job = await node.start(node.spec(KEEP_FULL))
    await until(lambda: is_full(node.folder))
    assert isinstance(await read_job(node.transport, workdir=job.workdir, job=job.id), Running)
    assert await cancel_job(node.transport, job) == ()
    assert marked_processes(node.folder) == []
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.CANCELLED
    assert (node.folder_of(job) / "exit").read_text().endswith(" cancelled\n")

    # The locks were given back, although that could not be written in the usual way.
    (node.folder / "fill").unlink()
    require_success((await node.run("echo next")).end)


@needs_mount
@pytest.mark.thorough
async def test_a_start_without_room_says_so_and_takes_none(node: Bench) -> None:
    fill(node.folder)
    with pytest.raises(NodeError, match=r"cannot write to .*: 0 KiB and [0-9]+ inodes are free"):
        await node.start(node.spec("echo hi"))
    (node.folder / "fill").unlink()
    require_success((await node.run("echo hi")).end)


@needs_mount
@pytest.mark.thorough
async def test_a_start_with_little_room_runs_whole_or_not_at_all(node: Bench) -> None:
    # Room for more and more of what a start writes down.
    command = "echo begins\n" + "# a long script\n" * 1500 + "echo ends"
    outcomes = set()
    for pages in range(16, 64):
        fill(node.folder, but_bytes=pages * 4096)
        spec = replace(node.spec(command), id=f"{pages:032x}")
        try:
            followed = await node.follow(
                await job_module.start_job(node.transport, node.facts, spec)
            )
        except NodeError as error:
            outcomes.add(error.message.partition(" to /")[0])
        else:
            match followed.end:
                case Finished(exit_status=0):
                    assert followed.log == b"begins\nends\n"
                    outcomes.add("ran")
                case Finished():
                    # `echo` found no room for what it had to say.
                    assert b"ends" not in followed.log
                case Stopped(reason=reason):
                    assert reason is StopReason.UNABLE
                    outcomes.add("unable")
        shutil.rmtree(node.folder / "jobs", ignore_errors=True)
    assert outcomes == {"the node could not start the job: cannot write", "unable", "ran"}


@needs_mount
async def test_a_full_disk_is_tidied(node: Bench) -> None:
    old = node.folder / "target/old"
    for folder in (old, node.folder / "trash/left"):
        folder.mkdir(parents=True)
        (folder / "warm").write_bytes(b"x" * 500_000)
    spec = node.spec("true", target_dir=str(old))
    require_success((await node.follow(await node.start(spec))).end)
    os.utime(old / ".last_use", (1, 1))
    fill(node.folder)
    gone = await tidy(
        node.transport, node.facts, max_age=timedelta(days=3650), min_free_bytes=600_000
    )
    assert gone.targets == ("old",)
    assert gone.freed_bytes > 900_000
    assert not (node.folder / "trash/left").exists()


@needs_mount
@pytest.mark.thorough
async def test_a_start_without_inodes_says_so(node: Bench) -> None:
    (node.folder / "many").mkdir()
    try:
        for number in range(1000):
            (node.folder / "many" / str(number)).touch()
    except OSError:
        pass
    with pytest.raises(NodeError, match=r"[0-9]+ KiB and 0 inodes are free"):
        await node.start(node.spec("echo hi"))


@pytest.mark.thorough
async def test_a_lock_that_cannot_be_written_ends_the_wait(scratch_home: Path) -> None:
    node = bench(scratch_home)
    locks = scratch_home / ".cache/orchestrator/locks/host"
    locks.mkdir(parents=True)
    (locks / "1").write_text("in the way")
    async with asyncio.timeout(30):
        end = (await node.run("echo hi")).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.UNABLE
    assert end.evidence.startswith(f"the lock of the host, {locks}, cannot be written: ")
    with pytest.raises(NodeError, match="the node could not build: the lock of the host"):
        require_success(end)
    (locks / "1").unlink()
    require_success((await node.run("echo hi")).end)


LOCKING = """
find_boot
keep= lock=$4/lock
acquire "$lock" - && release "$lock" && echo before
cat /dev/zero >"$4/fill" 2>/dev/null
acquire "$lock" - && echo taken
acquire "$lock" - || echo held "$unwritable"
release "$lock"
is_locked "$lock" || echo released
acquire "$lock" - || echo unwritable "$unwritable"
"""


@needs_mount
@pytest.mark.parametrize("shell", shell_params())
def test_a_lock_still_works_when_the_disk_is_full(
    small_disk: Path, shell: str, tmp_path: Path
) -> None:
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    script = tmp_path / "locking.sh"
    script.write_text(JOB_SH.replace('main "$@"\n', LOCKING))
    locking = subprocess.run(
        [str(tmp_path / "sh"), str(script), "-", "-", "-", str(small_disk)],
        capture_output=True,
        check=True,
    )
    # Once: what was kept for it is used up, and made again when there is room.
    assert locking.stdout.decode().split("\n") == [
        *("before", "taken", "held 0", "released", "unwritable 1", "")
    ]
