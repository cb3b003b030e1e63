"""Process trees that misbehave, under every shell: ended whole, or reported."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes.follow import require_success
from orchestrator.nodes.job import JOB_SH, cancel_job, read_job
from orchestrator.nodes.job_state import (
    Finished,
    Queued,
    Stopped,
    StopReason,
)
from tests.nodes.bench import Bench, ShellTransport, bench, until
from tests.shells import cancelling_shell_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.nodes.job import Job

pytestmark = pytest.mark.thorough


@pytest.fixture(params=cancelling_shell_params())
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, scratch_home: Path
) -> AsyncIterator[Bench]:
    (tmp_path / "sh").symlink_to(str(shutil.which(request.param)))
    node = bench(scratch_home, ShellTransport(str(tmp_path / "sh")))
    yield node
    await node.cancel_all()


def processes_of(node: Bench, job: Job) -> list[int]:
    """Every living process of the job's command, by its environment."""
    mark = b"ORCHESTRATOR_OUT=" + os.fsencode(node.folder_of(job) / "out")
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state = stat.read_text().rpartition(") ")[2][0]
            if state not in "ZX" and mark in stat.with_name("environ").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def number_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


# Each ignores TERM; together they do everything that a tree should not do.
TREE = """
trap '' TERM HUP INT
# Closes its descriptors.
sh -c 'trap "" TERM; exec 0<&- 1>&- 2>&-; while :; do sleep 1; done' &
# Makes a session of its own, forks twice, and is nobody's child.
setsid sh -c 'trap "" TERM; (while :; do sleep 1; done) >/dev/null 2>&1 & echo $! >{folder}/stray' &
python3 -c 'import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(0, 3)
        while True: time.sleep(1)
    os._exit(0)' &
# Floods its log, and makes children as fast as they are ended.
sh -c 'trap "" TERM; while :; do sh -c "yes flood | head -n 5000"; sleep 0.1; done' &
# Writes binary.
sh -c 'trap "" TERM; while :; do head -c 5000 /dev/urandom; sleep 0.1; done' &
sleep 1
echo up >{folder}/up
"""
HOLDS = f"{TREE}while :; do sleep 1; done\n"


async def test_a_cancelled_tree_is_gone_before_the_host_is_free(node: Bench) -> None:
    job = await node.start(node.spec(HOLDS.format(folder=node.folder)))
    waiting = await node.start(node.spec("echo mine"))
    await until(lambda: (node.folder / "up").exists() and number_in(node.folder / "stray") > 0, 30)
    assert len(processes_of(node, job)) >= 7
    assert number_in(node.folder / "stray") in processes_of(node, job)

    asked_at = time.monotonic()
    cancelling = asyncio.create_task(cancel_job(node.transport, job))
    while not cancelling.done():
        if (node.folder_of(waiting) / "started").exists():
            assert processes_of(node, job) == []
        await asyncio.sleep(0.05)
    assert await cancelling == ()
    assert processes_of(node, job) == []
    # What is promised, and no matter of a busy machine: two waits, of 5 and of 2 seconds at most.
    assert time.monotonic() - asked_at < 15
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert state == Stopped(attempt=1, reason=StopReason.CANCELLED, evidence="it was cancelled")
    require_success((await node.follow(waiting)).end)


async def test_a_tree_without_its_wrapper_holds_the_host_and_goes_first(node: Bench) -> None:
    marker = node.folder / "second"
    command = f"test ! -e {marker} || exit 0\n{HOLDS.format(folder=node.folder)}"
    job = await node.start(node.spec(command))
    await until(lambda: (node.folder / "up").exists() and number_in(node.folder / "stray") > 0, 30)
    waiting = await node.start(node.spec("echo mine"))
    os.kill(number_in(node.folder_of(job) / "pid"), signal.SIGKILL)

    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.KILLED
    assert number_in(node.folder / "stray") in end.survivors
    assert "gone without an exit status, on the same boot; still there: " in end.evidence
    await asyncio.sleep(1)
    state = await read_job(node.transport, workdir=waiting.workdir, job=waiting.id)
    assert isinstance(state, Queued)

    marker.touch()
    old = processes_of(node, job)
    again = await node.start(node.spec(command))
    assert again.attempt == 2
    assert not set(old) & set(processes_of(node, job))
    require_success((await node.follow(again)).end)
    require_success((await node.follow(waiting)).end)


async def test_a_process_that_cannot_be_ended_is_reported_and_holds_the_host(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = node.folder / "stray"
    # As one that hangs in the kernel would be: signals do nothing to it.
    deaf = JOB_SH.replace(
        'kill "-$1" "$signal_pid" 2>/dev/null',
        f'[ "$signal_pid" = "$(cat {stray})" ] || kill "-$1" "$signal_pid" 2>/dev/null',
    ).replace("GRACE_SECONDS=5", "GRACE_SECONDS=1")
    # On a busy machine, the wrapper would be ended before it has said what it could not end.
    deaf = deaf.replace('wait_until_gone "$leader" 15\n', 'wait_until_gone "$leader" 60\n')
    assert deaf.count(str(stray)) == deaf.count('"$leader" 60\n') == 1
    monkeypatch.setattr("orchestrator.nodes.job.JOB_SH", deaf)
    command = f"setsid sleep 600 & echo $! >{stray}\nsleep 0.2\n"
    job = await node.start(node.spec(f"{command}sleep 60"))
    waiting = await node.start(node.spec("echo mine"))
    await until(lambda: number_in(stray) > 0)
    pid = number_in(stray)
    try:
        (survivor,) = await cancel_job(node.transport, job)
        assert str(pid) in survivor
        followed = await node.follow(job)
        assert isinstance(followed.end, Stopped)
        assert followed.end.survivors == (pid,)
        assert f"processes that cannot be killed: {pid}\n".encode() in followed.log
        with pytest.raises(NodeError, match=f"last attempt cannot be ended: {pid}"):
            await node.start(node.spec(f"{command}sleep 60"))
        state = await read_job(node.transport, workdir=waiting.workdir, job=waiting.id)
        assert isinstance(state, Queued)
    finally:
        os.kill(pid, signal.SIGKILL)
    require_success((await node.follow(waiting)).end)


async def test_a_tree_that_ends_badly_by_itself_is_ended_too(node: Bench) -> None:
    job = await node.start(node.spec(TREE.format(folder=node.folder) + "exit 3"))
    end = (await node.follow(job)).end
    assert isinstance(end, Finished)
    assert end.exit_status == 3
    assert processes_of(node, job) == []
