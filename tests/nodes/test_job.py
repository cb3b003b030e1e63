from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.diagnosis import Strain
from orchestrator.core.errors import BuildError, ConfigError, NodeError, PassingError
from orchestrator.nodes.follow import (
    LogCursor,
    require_success,
)
from orchestrator.nodes.job import (
    JOB_SH,
    Job,
    address,
    cancel_job,
    job_id,
    read_job,
    start_job,
)
from orchestrator.nodes.job_state import (
    Finished,
    NeverStarted,
    Queued,
    Running,
    Stopped,
    StopReason,
    parse_state,
)
from orchestrator.nodes.local import LocalProcess, LocalTransport
from orchestrator.nodes.transport import run
from tests.nodes.bench import Bench, bench, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = JOB_SH.replace("GRACE_SECONDS=5", "GRACE_SECONDS=1")
    assert impatient != JOB_SH
    monkeypatch.setattr("orchestrator.nodes.job.JOB_SH", impatient)


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def number_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


# --- a job and its life -----------------------------------------------------------------------


async def test_a_job_runs_detached_in_a_clean_environment(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTFLAGS", "-Ctarget-cpu=native")
    command = "env\npwd\numask\nls -A\ncat\n"
    done = await node.run(command, env=(("GREETING", "it's $HOME\n!"),), target_dir="/t")
    assert done.end == Finished(
        attempt=1, exit_status=0, evidence="the command exited with status 0"
    )
    lines = done.log.decode().splitlines()
    assert "GREETING=it's $HOME" in lines
    assert "CARGO_TERM_COLOR=never" in lines
    assert "CARGO_INCREMENTAL=0" in lines
    assert "CARGO_TARGET_DIR=/t" in lines
    assert f"HOME={node.facts.home}" in lines
    folder = node.folder_of(node.jobs[0])
    assert f"ORCHESTRATOR_OUT={folder}/out" in lines
    assert lines[-2:] == [f"{folder}/work", "0022"]
    assert not any(line.startswith("RUSTFLAGS") for line in lines)


async def test_without_a_target_folder_cargo_keeps_its_own(node: Bench) -> None:
    assert b"CARGO_TARGET_DIR" not in (await node.run("env")).log


async def test_the_first_failing_line_ends_the_build(node: Bench) -> None:
    done = await node.run("echo one\nfalse\necho two\n")
    assert done.end == Finished(
        attempt=1, exit_status=1, evidence="the command exited with status 1"
    )
    assert done.log == b"one\n"
    with pytest.raises(BuildError, match="exited with status 1"):
        require_success(done.end)


async def test_the_same_job_attaches_while_it_runs_and_after_its_success(node: Bench) -> None:
    counter = node.folder / "counter"
    spec = node.spec(f"echo built >>{counter}\nsleep 0.3\necho done")
    first = await node.start(spec)
    second = await node.start(spec)
    assert (first.was_attached, second.was_attached) == (False, True)
    assert (await node.follow(second)).log == b"done\n"
    third = await node.start(spec)
    assert third.was_attached
    assert (await node.follow(third)).log == b"done\n"
    assert counter.read_text() == "built\n"


async def test_a_failed_job_is_tried_again_and_its_log_is_kept(node: Bench) -> None:
    marker = node.folder / "works-now"
    spec = node.spec(f"echo trying\ntest -e {marker}")
    failed = await node.follow(await node.start(spec))
    marker.touch()
    job = await node.start(spec)
    again = await node.follow(job)
    assert (failed.end.attempt, again.end.attempt) == (1, 2)
    assert not job.was_attached
    require_success(again.end)
    assert (node.folder_of(job) / "old/1/log").read_text() == "trying\n"
    assert (node.folder_of(job) / "old/1/exit").read_text() == "1 exited\n"


async def test_a_failed_build_leaves_word_of_the_room_that_there_was(node: Bench) -> None:
    failed = (await node.run("false")).end
    assert isinstance(failed, Finished)
    free = os.statvfs(node.folder)
    assert failed.strain.free_kib == pytest.approx(free.f_bavail * free.f_frsize / 1024, rel=0.2)
    assert failed.strain.free_inodes == pytest.approx(free.f_favail, rel=0.2)
    assert failed.strain.oom_kills == 0
    done = (await node.run("true")).end
    assert isinstance(done, Finished)
    assert done.strain == Strain()


async def test_a_build_that_the_kernel_killed_is_no_fault_of_the_code(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = node.folder / "vmstat"
    counters.write_text("pgfault 7\noom_kill 40\noom_kill_other 9\n")
    counting = JOB_SH.replace("VMSTAT=/proc/vmstat", f"VMSTAT={counters}")
    assert counting != JOB_SH
    monkeypatch.setattr("orchestrator.nodes.job.JOB_SH", counting)
    done = await node.run(f"echo oom_kill 42 >{counters}\nkill -KILL $$")
    assert isinstance(done.end, Finished)
    assert (done.end.exit_status, done.end.strain.oom_kills) == (137, 2)
    with pytest.raises(NodeError, match=r"ran out of memory: the build was killed; .*: 2$"):
        require_success(done.end)
    with pytest.raises(PassingError, match=r"killed it .SIGKILL.: status 137"):
        require_success((await node.run("kill -KILL $$")).end)


async def test_a_running_job_says_for_how_long(node: Bench) -> None:
    job = await node.start(node.spec("sleep 60"))
    folder = node.folder_of(job)
    await end_guard(node, job)
    clock = number_in(folder / "clock")
    states = []
    for earlier in (0, 7200):
        (folder / "clock").write_text(f"{clock - earlier}\n")
        # A wall clock that is set in between changes nothing.
        (folder / "started").write_text("1\n")
        states.append(await read_job(node.transport, workdir=job.workdir, job=job.id))
    young, old = states
    assert isinstance(young, Running)
    assert isinstance(old, Running)
    assert young.ran is not None
    assert old.ran is not None
    assert timedelta(0) <= young.ran < timedelta(seconds=60)
    assert timedelta(hours=2) <= old.ran < timedelta(hours=2, seconds=60)
    # Else a follower would believe that something has happened.
    assert young == old


async def test_rebuild_makes_a_second_attempt_unless_it_runs(node: Bench) -> None:
    go = node.folder / "go"
    spec = node.spec(f"while [ ! -e {go} ]; do sleep 0.05; done")
    await node.start(spec)
    attached = await node.start(spec, rebuild=True)
    assert (attached.was_attached, attached.attempt) == (True, 1)
    go.touch()
    await node.follow(attached)
    again = await node.start(spec, rebuild=True)
    assert (again.was_attached, again.attempt) == (False, 2)


async def test_an_old_attempt_is_not_followed_into_a_newer_one(node: Bench) -> None:
    spec = node.spec("false")
    old = await node.start(spec)
    await node.follow(old)
    await node.follow(await node.start(spec))
    with pytest.raises(NodeError, match=r"attempt 2 of job .* has taken the place of 1"):
        await node.follow(old)
    with pytest.raises(NodeError, match=r"attempt 1 .* is not the current one, which is 2"):
        await cancel_job(node.transport, old)


async def test_of_two_coordinators_at_once_one_starts_and_the_other_attaches(node: Bench) -> None:
    counter = node.folder / "counter"
    spec = node.spec(f"echo built >>{counter}")
    others = [LocalTransport(os.environ) for _ in range(4)]
    jobs = await asyncio.gather(*(start_job(other, node.facts, spec) for other in others))
    assert sorted(job.was_attached for job in jobs) == [False, True, True, True]
    await asyncio.gather(*(node.follow(job) for job in jobs))
    assert counter.read_text() == "built\n"


async def test_a_killed_coordinator_loses_nothing(node: Bench, tmp_path: Path) -> None:
    counter = node.folder / "counter"
    spec = node.spec(f"echo built >>{counter}\necho first\nsleep 0.7\necho last")
    (tmp_path / "coordinator.py").write_text(
        "import asyncio, pathlib, sys\n"
        "from tests.nodes.bench import bench\n"
        "async def main():\n"
        "    node = bench(pathlib.Path(sys.argv[1]))\n"
        "    spec = node.spec(sys.argv[2])\n"
        "    job = await node.start(spec)\n"
        "    await node.follow(job, on_log=lambda data: print(data, flush=True))\n"
        "asyncio.run(main())\n"
    )
    coordinator = await asyncio.create_subprocess_exec(
        *(sys.executable, str(tmp_path / "coordinator.py"), node.facts.home, spec.command),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
    )
    assert coordinator.stdout is not None
    assert b"first" in await coordinator.stdout.readline()
    coordinator.kill()
    await coordinator.wait()

    job = await node.start(spec)
    assert job.was_attached
    done = await node.follow(job)
    require_success(done.end)
    assert done.log == b"first\nlast\n"
    assert counter.read_text() == "built\n"


# --- its log ------------------------------------------------------------------------------------


async def test_the_log_comes_while_it_is_written_byte_for_byte(node: Bench) -> None:
    arrived: list[tuple[float, bytes]] = []
    job = await node.start(
        node.spec(
            "printf 'a\\000\\377\\r\\n'\nsleep 1\nprintf '%s' \"$ORCHESTRATOR_OUT\" | tail -c 3"
        )
    )
    done = await node.follow(job, on_log=lambda data: arrived.append((time.monotonic(), data)))
    assert b"".join(data for _, data in arrived) == b"a\x00\xff\r\nout"
    assert arrived[-1][0] - arrived[0][0] > 0.5
    assert done.cursor.offset == 8


async def test_following_goes_on_at_the_byte(node: Bench) -> None:
    job = await node.start(node.spec("printf 0123456789"))
    await node.follow(job)
    assert (await node.follow(job, cursor=LogCursor(offset=4))).log == b"456789"


class ToolTransport(LocalTransport):
    """A node where shell text goes before one of its tools."""

    def __init__(self, folder: Path, name: str, before: str) -> None:
        super().__init__(os.environ)
        self._folder = folder
        tool = folder / name
        tool.write_text(f'#!/bin/sh\n{before}\nexec {shutil.which(name)} "$@"\n')
        tool.chmod(0o755)

    async def open(self, script: str, *args: str) -> LocalProcess:
        return await super().open(
            script.replace("PATH=/usr/bin:", f"PATH={self._folder}:/usr/bin:"), *args
        )


@pytest.mark.parametrize("can_poll", [True, False])
async def test_a_log_is_followed_by_looking_where_tail_can(
    node: Bench, tmp_path: Path, *, can_poll: bool
) -> None:
    refusal = "" if can_poll else "case $* in ---*) exit 1 ;; esac\n"
    calls = tmp_path / "calls"
    transport = ToolTransport(tmp_path, "tail", f'{refusal}echo "$*" >>{calls}')
    go, log = tmp_path / "go", bytearray()

    def on_log(data: bytes) -> None:
        log.extend(data)
        go.touch()

    wait = f"until [ -e {go} ]; do sleep 0.05; done"
    job = await node.start(node.spec(f"echo one; {wait}; echo two"))
    await replace(node, transport=transport).follow(job, on_log=on_log)
    assert log == b"one\ntwo\n"
    called = calls.read_text().splitlines()
    polling = [call for call in called if call.startswith("---disable-inotify -s 0.1 -c +1 -f")]
    assert bool(polling) == can_poll
    assert can_poll or "-c +1 -f log" in called


async def test_a_search_that_was_ended_finds_nothing_out(node: Bench, tmp_path: Path) -> None:
    stray, ended = node.folder / "stray", tmp_path / "ended"
    # Whoever cancels a job ends every process of it, also what its wrapper looks with: here when it
    # looks for those that left the job's group.
    is_hit = f'[ -e {stray} ] && [ ! -e {ended} ] && [ "$1" = -lszF ]'
    transport = ToolTransport(tmp_path, "grep", f"if {is_hit}; then : >{ended}; kill -9 $$; fi")
    command = f"setsid sleep 600 >/dev/null 2>&1 & echo $! >{stray}"
    job = await replace(node, transport=transport).start(node.spec(command))
    require_success((await node.follow(job)).end)
    assert ended.exists()
    assert not is_alive(int(stray.read_text()))


async def test_a_large_log_arrives_whole(node: Bench) -> None:
    done = await node.run("i=0; while [ $i -lt 20 ]; do seq 1 20000; i=$((i + 1)); done")
    assert done.log == b"".join(b"%d\n" % number for number in range(1, 20001)) * 20


@pytest.mark.parametrize("command", ["true", "exit 1", "sleep 0.5"])
async def test_who_was_not_answered_and_asks_again_starts_nothing_twice(
    node: Bench, command: str
) -> None:
    counter = node.folder / "counter"
    spec = node.spec(f"echo built >>{counter}\n{command}")
    first = await start_job(node.transport, node.facts, spec, request="ours")
    node.jobs.append(first)
    await node.follow(first)
    again = await start_job(node.transport, node.facts, spec, rebuild=True, request="ours")
    assert again == first
    assert counter.read_text() == "built\n"
    anew = await start_job(node.transport, node.facts, spec, rebuild=True, request="another")
    node.jobs.append(anew)
    assert (anew.attempt, anew.was_attached) == (2, False)
    await node.follow(anew)


async def test_a_killed_job_does_not_keep_the_host_from_its_own_next_attempt(node: Bench) -> None:
    mark = node.folder / "mark"
    spec = node.spec(f'if [ ! -e {mark} ]; then : >{mark}; kill -KILL "-$(cat ../pid)"; fi')
    killed = (await node.follow(await node.start(spec))).end
    assert isinstance(killed, Stopped)
    assert killed.reason is StopReason.KILLED
    async with asyncio.timeout(20):
        require_success((await node.follow(await node.start(spec))).end)


@pytest.mark.thorough
async def test_a_silent_build_is_cancelled(node: Bench) -> None:
    job = await node.start(node.spec("echo hello\nsleep 60"))
    with pytest.raises(BuildError, match="wrote nothing for"):
        await node.follow(job, silence_timeout=timedelta(seconds=0.5))
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert state == Stopped(attempt=1, reason=StopReason.CANCELLED, evidence="it was cancelled")


async def end_guard(node: Bench, job: Job) -> None:
    guard = node.folder_of(job) / "guard"
    await until(guard.exists)
    pid = int(guard.read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    # It dies when the kernel gets to it.
    await until(lambda: not is_alive(pid))


async def test_how_long_a_build_ran_is_its_guard_s_business(node: Bench) -> None:
    # Its own clock counts sleep, and the guard does not: a laptop may have slept.
    job = await node.start(node.spec("echo hello\nsleep 60"))
    await until((node.folder_of(job) / "guard").exists)
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert isinstance(state, Running)
    assert state.ran is None


@pytest.mark.thorough
async def test_a_job_that_ends_by_itself_while_it_is_given_up_has_ended(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await node.start(node.spec("echo hello\nsleep 1"))

    async def too_late(_: object, job: Job) -> None:
        await until((node.folder_of(job) / "exit").exists)

    monkeypatch.setattr("orchestrator.nodes.follow.cancel_job", too_late)
    require_success((await node.follow(job, silence_timeout=timedelta(seconds=0.1))).end)


@pytest.mark.thorough
async def test_a_build_whose_guard_was_killed_is_ended_from_here(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.nodes.follow._GUARD_GRACE", timedelta(seconds=0))
    job = await node.start(node.spec("echo hello\nsleep 60"))
    await end_guard(node, job)
    with pytest.raises(BuildError, match=r"ran longer than its 0:00:02 and was cancelled"):
        await node.follow(job, timeout=timedelta(seconds=2))
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert isinstance(state, Stopped)


# --- what became of it --------------------------------------------------------------------------


async def test_a_job_that_nobody_started_is_known_as_such(node: Bench) -> None:
    state = await read_job(node.transport, workdir=str(node.folder), job="0" * 32)
    assert state == NeverStarted(evidence="the node has no such job")
    job = Job(id="0" * 32, workdir=str(node.folder), attempt=1, was_attached=False)
    with pytest.raises(NodeError, match="gone from the node"):
        await node.follow(job)


async def test_a_start_that_was_cut_short_is_not_taken_for_a_job(node: Bench) -> None:
    spec = node.spec("echo hi")
    job = await node.start(spec)
    await node.follow(job)
    for name in ("pid", "exit"):
        (node.folder_of(job) / name).unlink()
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert state == NeverStarted(evidence="attempt 1 was prepared only")
    assert (await node.start(spec)).attempt == 2


async def test_a_killed_wrapper_is_told_from_an_end_and_its_children_do_not_stay(
    node: Bench,
) -> None:
    child = node.folder / "child"
    spec = node.spec(f"sleep 60 & echo $! >{child}\nwait")
    job = await node.start(spec)
    await until(lambda: number_in(child) > 0)
    following = asyncio.create_task(node.follow(job))
    await asyncio.sleep(0.2)
    pid = number_in(node.folder_of(job) / "pid")
    os.kill(pid, signal.SIGKILL)
    end = (await following).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.KILLED
    assert number_in(child) in end.survivors
    assert f"process {pid} is gone without an exit status, on the same boot" in end.evidence
    with pytest.raises(NodeError, match="the job was lost"):
        require_success(end)

    old_child = number_in(child)
    assert is_alive(old_child)
    assert (await node.start(spec)).attempt == 2
    assert not is_alive(old_child)


async def test_another_boot_id_means_a_reboot(node: Bench) -> None:
    job = await node.start(node.spec("sleep 60"))
    folder = node.folder_of(job)
    await until((folder / "started").exists)
    os.killpg(number_in(folder / "pid"), signal.SIGKILL)
    (folder / "boot").write_text("anotherboot\n")
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.REBOOT
    assert "the node has rebooted since (boot anotherboot then," in end.evidence


async def test_a_number_that_went_to_another_process_is_no_sign_of_life(node: Bench) -> None:
    job = await node.start(node.spec("sleep 60"))
    folder = node.folder_of(job)
    await until((folder / "started").exists)
    os.killpg(number_in(folder / "pid"), signal.SIGKILL)
    (folder / "pid").write_text(f"{os.getpid()}\n")
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert (end.reason, end.survivors) == (StopReason.KILLED, ())
    assert await cancel_job(node.transport, job) == ()


async def test_a_build_that_a_shutdown_ended_is_no_failed_build(node: Bench) -> None:
    job = await node.start(node.spec("sleep 60"))
    folder = node.folder_of(job)
    await until((folder / "started").exists)
    await asyncio.sleep(0.1)
    os.killpg(number_in(folder / "pid"), signal.SIGTERM)
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.KILLED
    assert "told to end (SIGTERM), exit status 143" in end.evidence


@pytest.mark.thorough
async def test_the_deadline_holds_when_nobody_watches(node: Bench) -> None:
    child = node.folder / "child"
    command = f"trap '' TERM\nsleep 61 & echo $! >{child}\nwait"
    job = await node.start(node.spec(command, timeout=timedelta(seconds=1)))
    folder = node.folder_of(job)
    await until((folder / "exit").exists, seconds=15)
    assert (folder / "exit").read_text() == "124 deadline\n"
    assert not is_alive(number_in(child))
    end = (await node.follow(job)).end
    assert end == Stopped(
        attempt=1, reason=StopReason.DEADLINE, evidence="it ran longer than its 1 s"
    )
    with pytest.raises(BuildError, match="ran longer than its 1 s"):
        require_success(end)


@pytest.mark.thorough
async def test_a_flood_in_the_log_ends_when_nobody_watches(node: Bench) -> None:
    child = node.folder / "child"
    command = (
        f"trap '' TERM\nsleep 61 & echo $! >{child}\n"
        "echo hello\nsleep 3\nyes | head -c 60000\nsleep 60\nsleep 60\n"
    )
    job = await node.start(node.spec(command, log_limit_bytes=50_000))
    folder = node.folder_of(job)
    await until((folder / "exit").exists, seconds=60)
    assert (folder / "exit").read_text().endswith(" flooded\n")
    assert not is_alive(number_in(child))
    done = await node.follow(job)
    assert done.end == Stopped(
        attempt=1, reason=StopReason.FLOODED, evidence="its log grew beyond 50000 bytes"
    )
    assert 60_006 <= len(done.log) < 61_000
    with pytest.raises(BuildError, match="its log grew beyond 50000 bytes") as refused:
        require_success(done.end)
    assert "`log_limit`" in str(refused.value.hint)


@pytest.mark.thorough
async def test_a_log_within_its_limit_is_no_flood(node: Bench) -> None:
    done = await node.run("printf 12345\nsleep 3", log_limit_bytes=5)
    require_success(done.end)


@pytest.mark.thorough
async def test_a_deadline_outlives_the_naps_of_its_guard(node: Bench) -> None:
    job = await node.start(node.spec("exec tail -f /dev/null", timeout=timedelta(seconds=3)))
    folder = node.folder_of(job)
    await until((folder / "started").exists)
    for _ in range(5):
        await asyncio.sleep(0.2)
        subprocess.run(["pkill", "-g", str(number_in(folder / "pid")), "-x", "sleep"], check=False)
    await until((folder / "exit").exists, seconds=60)
    assert (folder / "exit").read_text() == "124 deadline\n"


@pytest.mark.thorough
async def test_nothing_outlives_a_job_that_ended(node: Bench) -> None:
    child = node.folder / "child"
    done = await node.run(
        f"sleep 62 & echo $! >{child}\n"
        "python3 -c 'import os, time; os.setsid(); os.fork(); time.sleep(63)' &\n"
        "sleep 0.4\necho over"
    )
    require_success(done.end)
    assert not is_alive(number_in(child))
    marks = [path for path in Path("/proc").glob("[0-9]*/environ") if is_marked(path, node.folder)]
    assert marks == []


def is_marked(environ: Path, folder: Path) -> bool:
    try:
        return b"ORCHESTRATOR_OUT=" + os.fsencode(folder) in environ.read_bytes()
    except OSError:
        return False


# --- cancelling ---------------------------------------------------------------------------------


@pytest.mark.thorough
async def test_cancel_ends_what_ignores_it_and_what_left_the_group(node: Bench) -> None:
    child = node.folder / "child"
    stray = node.folder / "stray"
    job = await node.start(
        node.spec(
            f"(trap '' TERM; echo started >{child}.ok; exec sleep 64) & echo $! >{child}\n"
            f"setsid sleep 65 & sleep 0.1; pgrep -f '^sleep 65' | tail -n 1 >{stray}\n"
            "wait"
        )
    )
    await until(lambda: number_in(stray) > 0)
    assert await cancel_job(node.transport, job) == ()
    assert not is_alive(number_in(child))
    assert not is_alive(number_in(stray))
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.CANCELLED
    with pytest.raises(NodeError, match="cancelled"):
        require_success(end)


async def test_cancelling_a_finished_job_changes_nothing(node: Bench) -> None:
    job = await node.start(node.spec("echo hi"))
    await node.follow(job)
    assert await cancel_job(node.transport, job) == ()
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert isinstance(state, Finished)


@pytest.mark.thorough
async def test_a_waiting_job_is_cancelled_without_having_run(node: Bench) -> None:
    ran = node.folder / "ran"
    first = await node.start(node.spec("sleep 60"))
    await until((node.folder_of(first) / "started").exists)
    second = await node.start(node.spec(f"touch {ran}"))
    state = await read_job(node.transport, workdir=second.workdir, job=second.id)
    assert isinstance(state, Queued)
    assert await cancel_job(node.transport, second) == ()
    end = (await node.follow(second)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.CANCELLED
    assert not ran.exists()


# --- one build at a time ------------------------------------------------------------------------


@pytest.mark.thorough
async def test_jobs_of_one_host_run_one_after_another(node: Bench) -> None:
    busy = node.folder / "busy"
    command = f"mkdir {busy}\nsleep 0.3\nrmdir {busy}\n: "
    jobs = [await node.start(node.spec(command + str(number))) for number in range(2)]
    done = await asyncio.gather(*(node.follow(job) for job in jobs))
    for followed in done:
        require_success(followed.end)
    kinds = [type(state) for state in done[1].states]
    assert kinds[0] is Queued
    assert kinds[-2:] == [Running, Finished]


async def test_who_waits_for_the_host_is_told_that_the_job_runs_already(node: Bench) -> None:
    job = await node.start(node.spec("sleep 60"))
    await until((node.folder_of(job) / "started").exists)
    # What somebody sends who saw it queued a moment ago; only `follow` stays to the end.
    told = await run(
        node.transport, JOB_SH, "queue", *address(job), "1", timeout=timedelta(seconds=9)
    )
    assert told.exit_status == 0


@pytest.mark.thorough
async def test_slots_let_as_many_run_at_once(node: Bench) -> None:
    specs = [node.spec(f"sleep 60; : {number}", slots=2) for number in range(3)]
    jobs = [await node.start(spec) for spec in specs]
    started = [node.folder_of(job) / "started" for job in jobs]
    await until(lambda: sum(path.exists() for path in started) == 2)
    await asyncio.sleep(0.6)
    assert sum(path.exists() for path in started) == 2


@pytest.mark.thorough
async def test_a_killed_holder_frees_the_host_only_with_its_children(node: Bench) -> None:
    child = node.folder / "child"
    first = await node.start(node.spec(f"sleep 66 & echo $! >{child}\nwait"))
    await until(lambda: number_in(child) > 0)
    os.kill(number_in(node.folder_of(first) / "pid"), signal.SIGKILL)
    second = await node.start(node.spec("echo mine"))
    await asyncio.sleep(0.8)
    assert not (node.folder_of(second) / "started").exists()
    await cancel_job(node.transport, first)
    assert not is_alive(number_in(child))
    require_success((await node.follow(second)).end)


# --- what defines it ----------------------------------------------------------------------------


def test_an_id_is_made_of_what_defines_the_job() -> None:
    def of(**changes: object) -> str:
        values: dict[str, object] = {
            "project": "demo",
            "version": "1.0.0",
            "target": "t",
            "command": "c",
            "source_digest": None,
            "env": (("A", "1"), ("B", "2")),
        }
        return job_id(**(values | changes))  # type: ignore[arg-type]  # a test's own keywords

    assert len(of()) == 32
    assert of() == of(env=(("B", "2"), ("A", "1")))
    others = [
        of(project="e"),
        of(version="1.0.1"),
        of(target="u"),
        of(command="d"),
        of(source_digest="x"),
        of(env=()),
        of(project="demo1", version=".0.0"),
    ]
    assert len({of(), *others}) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lock": "a/b"}, "the lock 'a/b'"),
        ({"lock": ".."}, "the lock '..'"),
        ({"binaries": (("a b", "x"),)}, "the binary name 'a b'"),
        ({"binaries": (("a", "../x"),)}, "the path '../x'"),
        ({"binaries": (("a", "x\ny"),)}, "of a file to deliver cannot be used"),
        ({"env": (("A-B", "1"),)}, "'A-B' is not the name"),
        ({"env": (("A", "\0"),)}, "a NUL character"),
        ({"command": "a\0b"}, "a NUL character"),
    ],
)
async def test_what_would_mean_something_else_on_the_node_is_refused(
    node: Bench, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await node.start(node.spec("true", **changes))


async def test_a_node_that_cannot_write_says_so(node: Bench) -> None:
    (node.folder / "jobs").write_text("in the way")
    with pytest.raises(NodeError, match="could not start the job"):
        await node.start(node.spec("true"))


def test_what_a_node_says_is_enough_for_the_state() -> None:
    said = {"state": "stopped", "attempt": "2", "reason": "killed", "survivors": " 12 13"}
    state = parse_state(said)
    assert isinstance(state, Stopped)
    assert state.survivors == (12, 13)
    assert state.evidence.endswith("; still there: 12, 13")


@pytest.mark.parametrize("said", ["", "1 2", "2 1 cold", "1 2 tepid", "1e9 2 cold", "- - -"])
def test_a_node_that_does_not_say_how_long_a_job_took(said: str) -> None:
    state = parse_state({"state": "finished", "attempt": "1", "status": "0", "took": said})
    assert isinstance(state, Finished)
    assert state.took is None
