from __future__ import annotations

import asyncio
import os
import random
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

from orchestrator.core.record import Warmth
from orchestrator.nodes import bundle, gate, probe
from orchestrator.nodes.follow import require_success
from orchestrator.nodes.job import JOB_SH, cancel_job, read_job
from orchestrator.nodes.job_state import (
    Finished,
    Running,
    Stopped,
    StopReason,
)
from tests.nodes.bench import Bench, ShellTransport, bench, until
from tests.shells import SHELLS, shell_params

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NO_PROC = JOB_SH.replace("PROC=/proc\n", "PROC=/nonexistent\n")


@pytest.fixture(params=shell_params())
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each shell under the name `sh`, as a system would have it."""
    (tmp_path / "sh").symlink_to(str(shutil.which(request.param)))
    return str(tmp_path / "sh")


@pytest.fixture
async def node(shell: str, scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home, ShellTransport(shell))
    yield node
    await node.cancel_all()


async def test_jobs_behave_alike_under_every_shell(node: Bench, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    commands = {
        "fails": ("echo out; echo err >&2; exit 7", ()),
        "binary": (f"echo x >>{counter}; printf 'a\\000\\377\\r\\n\\t'; echo hi >made", ("made",)),
        "left behind": ("sleep 60 & echo over", ()),
        "killed": ("kill -KILL $$", ()),
    }
    specs = {
        name: node.spec(command, lock=f"lock-{number}", binaries=tuple((b, b) for b in binaries))
        for number, (name, (command, binaries)) in enumerate(commands.items())
    }
    jobs = dict(zip(specs, await asyncio.gather(*map(node.start, specs.values())), strict=True))
    done = dict(zip(jobs, await asyncio.gather(*map(node.follow, jobs.values())), strict=True))

    assert isinstance(done["fails"].end, Finished)
    assert done["fails"].end.exit_status == 7
    assert done["fails"].log == b"out\nerr\n"
    require_success(done["binary"].end)
    assert done["binary"].log == b"a\x00\xff\r\n\t"
    assert (node.folder_of(jobs["binary"]) / "out/made").read_text() == "hi\n"
    require_success(done["left behind"].end)
    assert isinstance(done["killed"].end, Finished)
    assert done["killed"].end.exit_status == 137
    assert (await node.start(specs["binary"])).was_attached
    assert counter.read_text() == "x\n"
    assert (await node.start(specs["fails"])).attempt == 2


async def test_a_job_says_how_long_it_ran_and_whether_its_folder_was_warm(node: Bench) -> None:
    ends = await measured_ends(node)
    assert all(timedelta(seconds=0.3) <= took < timedelta(seconds=60) for took, _ in ends[:2])
    assert [warmth for _, warmth in ends] == [Warmth.COLD, Warmth.WARM, None]


async def test_a_system_without_proc_counts_whole_seconds(
    scratch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.nodes.job.JOB_SH", NO_PROC)
    ends = await measured_ends(bench(scratch_home))
    assert all(took == timedelta(seconds=round(took.total_seconds())) for took, _ in ends)
    assert [warmth for _, warmth in ends] == [Warmth.COLD, Warmth.WARM, None]


async def measured_ends(node: Bench) -> list[tuple[timedelta, Warmth | None]]:
    """Two builds into one target folder, and a failure without any."""
    target_dir = str(node.folder / "target" / "local")
    ends = []
    for number in range(2):
        command = f'mkdir -p "$CARGO_TARGET_DIR"; sleep 0.3 || sleep 1; : {number}'
        ends.append((await node.run(command, target_dir=target_dir)).end)
    ends.append((await node.run("exit 7")).end)
    told = []
    for end in ends:
        assert isinstance(end, Finished)
        assert end.took is not None
        told.append((end.took, end.warmth))
    return told


@pytest.mark.thorough
async def test_cancel_works_under_every_shell(
    node: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = JOB_SH.replace("GRACE_SECONDS=5", "GRACE_SECONDS=0")
    monkeypatch.setattr("orchestrator.nodes.job.JOB_SH", impatient)
    child = tmp_path / "child"
    job = await node.start(
        node.spec(f"(trap '' TERM; echo $$ >{child}; exec sleep 67) &\necho ready\nwait")
    )
    waiting = await node.start(node.spec("echo never"))
    await until(child.exists)
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert isinstance(state, Running)
    assert await cancel_job(node.transport, waiting) == ()
    assert await cancel_job(node.transport, job) == ()
    followed = await node.follow(job)
    assert isinstance(followed.end, Stopped)
    assert followed.end.reason is StopReason.CANCELLED
    assert followed.log.startswith(b"ready\n")
    # Some shells write down that one of their children was terminated.
    assert b"never" not in (await node.follow(waiting)).log


SEARCH = """
dir=$4 keep=
find_boot
cd "$dir" || exit
echo "ORCHESTRATOR_OUT=$dir/out" >cookie
find_processes $$
printf '%s' "$found"
"""


@pytest.mark.parametrize("job_sh", [JOB_SH, NO_PROC], ids=["proc", "ps"])
def test_who_searches_for_processes_does_not_find_its_own_tools(
    shell: str, job_sh: str, tmp_path: Path
) -> None:
    # ksh93 waits for the last command of a pipeline only: the others may still be ending.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, seconds in (("cat", 0.9), ("grep", 0.1), ("ps", 0.1)):
        slow = tools / name
        slow.write_text(f'#!/bin/sh\n{shutil.which(name)} "$@"\nexec >&-\nsleep {seconds}\n')
        slow.chmod(0o755)
    script = tmp_path / "search.sh"
    script.write_text(job_sh.replace('main "$@"\n', SEARCH))
    searched = subprocess.run(
        [shell, str(script), "-", "-", "-", str(tmp_path)],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        start_new_session=True,
        capture_output=True,
        check=True,
    )
    assert searched.stdout == b""


# Between the look for the job's process and the look at the lock, the job begins.
BEGUN = """
dir=$4
find_boot
cd "$dir" || exit
put attempt 2
is_locked() {
    note_process
    return 1
}
evaluate
printf '%s' "$job_state"
"""


def test_a_job_that_begins_between_two_looks_is_seen(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(JOB_SH.replace('main "$@"\n', BEGUN))
    told = subprocess.run(
        [shell, str(script), "-", "-", "-", str(tmp_path)], capture_output=True, check=True
    )
    assert told.stdout == b"queued"


ROOM = """
df() { printf 'Filesystem 1K-blocks Used Avail Capacity\\n/dev/sd0a 100 180 -80 180%%\\n'; }
measure_room .
printf '%s %s\\n' "$free_kb" "$free_inodes"
"""


def test_what_only_root_may_still_use_is_no_room(tmp_path: Path) -> None:
    script = tmp_path / "room.sh"
    script.write_text(JOB_SH.replace('main "$@"\n', ROOM))
    told = subprocess.run(["/bin/sh", str(script), "-", "-", "-"], capture_output=True, check=True)
    assert told.stdout == b"0 0\n"


# --- without /proc, as on the BSDs and macOS ----------------------------------------------------


@pytest.mark.thorough
async def test_a_system_without_proc_is_asked_with_ps(
    scratch_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NO_PROC != JOB_SH
    for module in ("job", "follow"):
        impatient = NO_PROC.replace("GRACE_SECONDS=5", "GRACE_SECONDS=0")
        monkeypatch.setattr(f"orchestrator.nodes.{module}.JOB_SH", impatient)
    node = bench(scratch_home)
    child = tmp_path / "child"
    spec = node.spec(f"sleep 68 & echo $! >{child}\nwait")
    job = await node.start(spec)
    folder = node.folder_of(job)
    await until(lambda: child.exists() and child.read_text() != "")
    assert (await node.start(spec)).was_attached
    state = await read_job(node.transport, workdir=job.workdir, job=job.id)
    assert isinstance(state, Running)
    # The wall clock was set: its own start time looks different, but it is the same process.
    (folder / "start_time").write_text("Mon-Jan-1-00-00-00-2001\n")
    assert state == await read_job(node.transport, workdir=job.workdir, job=job.id)

    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    end = (await node.follow(job)).end
    assert isinstance(end, Stopped)
    assert end.reason is StopReason.KILLED
    assert int(child.read_text()) in end.survivors
    assert await cancel_job(node.transport, job) == ()
    assert (await node.follow(job)).end == replace(
        end, evidence=end.evidence.partition(";")[0], survivors=()
    )
    done = await node.run("echo fine")
    require_success(done.end)
    # The next attempt takes the host from the killed one, and not its own copies for that one.
    require_success((await node.follow(await node.start(replace(spec, command="true")))).end)


@pytest.mark.parametrize(
    ("elapsed", "seconds"),
    [("00:07", 7), ("   08:09", 489), ("01:00:10", 3610), ("3-00:00:01", 259201)],
)
def test_the_age_of_a_process_is_read_from_ps(elapsed: str, seconds: int, tmp_path: Path) -> None:
    ps = tmp_path / "ps"
    ps.write_text(f"#!/bin/sh\necho '{elapsed}'\n")
    ps.chmod(0o755)
    script = tmp_path / "age.sh"
    script.write_text(NO_PROC.replace('main "$@"\n', "clock_of 77\n"))
    told = subprocess.run(
        ["/bin/sh", str(script)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert told.stdout.decode() == f"{seconds}\n"


# --- the lock -----------------------------------------------------------------------------------

CONTENDER = """
rounds=$4
cd "$5" || exit
echo $$ >"me.$$"
while [ "$rounds" -gt 0 ]; do
    rounds=$((rounds - 1))
    until acquire "$5/lock" -; do sleep 0.02; done
    if ! ln "me.$$" inside 2>/dev/null; then
        # Left by a holder that was killed inside: only then may it be there.
        read -r other <inside
        look_up_start "$other"
        [ -z "$start_of" ] || echo "$$ $other" >>together
        rm -f inside
        ln "me.$$" inside || echo "$$ and another" >>together
    fi
    echo entered >>entered
    sleep 0.0"$(($$ % 3))"
    rm -f inside
    release "$5/lock"
done
"""


def contend(
    shell: str, folder: Path, *, contenders: int, rounds: int
) -> list[subprocess.Popen[bytes]]:
    script = JOB_SH.replace('main "$@"\n', "find_boot\nkeep=\nset +u\n" + CONTENDER)
    path = folder / f"contender-{Path(shell).parent.name}.sh"
    path.write_text(script)
    words = [shell, str(path), "-", "-", "-", str(rounds), str(folder)]
    return [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(contenders)]


@pytest.mark.thorough
def test_a_lock_has_one_holder_even_when_holders_are_killed(tmp_path: Path) -> None:
    contenders = contend("/bin/sh", tmp_path, contenders=12, rounds=4)
    chance = random.Random(20)
    try:
        for victim in contenders[:6]:
            # So that each is somewhere else in its round.
            time.sleep(chance.uniform(0.0, 0.1))
            victim.kill()
            victim.wait()
        for contender in contenders[6:]:
            assert contender.wait(timeout=60) == 0
    finally:
        for contender in contenders:
            contender.kill()
            contender.wait()
    assert not (tmp_path / "together").exists(), (tmp_path / "together").read_text()
    assert len((tmp_path / "entered").read_text().splitlines()) >= 24
    assert len(list((tmp_path / "lock").glob("[0-9]*"))) <= 9


def test_a_number_from_an_old_look_at_a_lock_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/9").write_text("released\n")
    look = 'if is_held "$1/$highest"; then return 1; fi'
    assert look in JOB_SH
    # It saw 3 released; by the time it acts, the lock has gone on to 9 and 4 is forgotten.
    script = JOB_SH.replace(look, "highest=3").replace(
        'main "$@"\n', f"find_boot\nacquire {tmp_path}/lock - && echo taken\n"
    )
    tried = subprocess.run(["/bin/sh"], input=script.encode(), capture_output=True, check=False)
    assert tried.stdout == b""
    assert [path.name for path in (tmp_path / "lock").iterdir()] == ["9"]


@pytest.mark.thorough
def test_locks_are_one_thing_to_different_shells(tmp_path: Path) -> None:
    found = []
    for name in SHELLS:
        if path := shutil.which(name):
            (tmp_path / name).mkdir()
            (tmp_path / name / "sh").symlink_to(path)
            found.append(str(tmp_path / name / "sh"))
    running = [
        contender
        for shell in found
        for contender in contend(shell, tmp_path, contenders=1, rounds=3)
    ]
    assert [contender.wait(timeout=60) for contender in running] == [0] * len(running)
    assert not (tmp_path / "together").exists()


# --- the scripts themselves ---------------------------------------------------------------------


SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck: make lint")
@pytest.mark.parametrize(
    "script",
    [
        probe._SCRIPT,
        bundle._LOOK,
        gate._MAKE_FOLDER,
        gate._COMMAND_HEAD + gate._COMMAND_TAIL,
    ],
)
def test_embedded_scripts_are_clean(script: str) -> None:
    checked = subprocess.run(
        [str(SHELLCHECK), "-s", "sh", "-S", "style", "-e", "SC1091,SC3045", "-"],
        input=script.encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout.decode()


def test_job_sh_acts_only_as_a_whole() -> None:
    assert JOB_SH.endswith('\nmain "$@"\n')
