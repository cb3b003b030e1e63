from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.source import command
from orchestrator.source.command import clean_environment, keep_going, off_loop, printable, run

if TYPE_CHECKING:
    from pathlib import Path

SOON = timedelta(seconds=10)


def test_only_what_is_needed_is_inherited() -> None:
    environ = {
        "PATH": "/bin",
        "HTTPS_PROXY": "p",
        "CARGO_REGISTRIES_OWN_INDEX": "i",
        "GIT_DIR": "x",
        "GIT_SSH_COMMAND": "x",
        "LD_PRELOAD": "x",
        "RUSTFLAGS": "x",
        "CARGO_BUILD_RUSTC_WRAPPER": "x",
        "LANG": "de_DE",
        "API_TOKEN": "x",
    }
    assert clean_environment(environ) == {
        "PATH": "/bin",
        "HTTPS_PROXY": "p",
        "CARGO_REGISTRIES_OWN_INDEX": "i",
        "LANG": "C",
        "LC_ALL": "C",
    }


def test_what_a_program_says_is_safe_on_a_terminal() -> None:
    said = b"\x1b]52;c;eA==\x07 a\r\nb\rc \xff https://me:secret@example.org/x"
    assert printable(said) == "�]52;c;eA==� a\nb\nc � https://example.org/x"


async def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > child; wait"
    with pytest.raises(NodeError, match=r"`sh` did not finish"):
        await run(["sh", "-c", script], cwd=tmp_path, deadline=timedelta(seconds=0.3))
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not is_running(child):
            return
        await asyncio.sleep(0.02)  # the orphan's new parent has to reap it
    pytest.fail("the child still runs")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = f"/proc/{pid}/stat"
    if not os.path.exists(stat):  # noqa: PTH110 -- one look at a system file
        return sys.platform != "linux"
    with open(stat) as file:  # noqa: PTH123 -- one look at a system file
        return file.read().rpartition(")")[2].split()[0] != "Z"


async def test_a_program_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    task = asyncio.create_task(
        run(["sh", "-c", "echo $$ > pid; exec sleep 60"], cwd=tmp_path, deadline=SOON)
    )
    for _ in range(500):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break
        await asyncio.sleep(0.01)  # until the shell has started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(int((tmp_path / "pid").read_text()))


async def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`no-such-program` is not on PATH"):
        await run(["no-such-program"], cwd=tmp_path, deadline=SOON)


async def test_endless_output_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match=r"`yes` printed more than 1\.0 MB"):
        await run(["yes"], cwd=tmp_path, deadline=SOON)


async def test_the_end_of_what_it_said_is_kept(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3"
    finished = await run(["sh", "-c", script], cwd=tmp_path, deadline=SOON)
    assert finished.status == 3
    assert len(finished.said) <= 64 << 10
    assert finished.tail.splitlines()[-1] == "line 19999"
    assert len(finished.tail.splitlines()) == 14


async def test_it_has_no_terminal_and_no_input(tmp_path: Path) -> None:
    script = "cat; (: </dev/tty) 2>/dev/null && echo terminal; exit 0"
    finished = await run(["sh", "-c", script], cwd=tmp_path, deadline=SOON)
    assert finished.output == b""


async def test_work_in_a_thread_is_told_when_nobody_waits_for_it() -> None:
    started, ended = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        started.set()
        try:
            while True:
                keep_going(stop)
                time.sleep(0.005)  # what a chunk of work would take
        finally:
            ended.set()

    task = asyncio.create_task(off_loop(work))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
