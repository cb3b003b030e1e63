from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes.local import LocalTransport, login_environment
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SOON = timedelta(seconds=10)


async def _output(environment: Mapping[str, str], script: str) -> str:
    return (await run(LocalTransport(environment), script, timeout=SOON)).stdout.decode()


async def test_a_script_sees_what_a_login_gives_and_nothing_of_the_coordinator(
    tmp_path: Path,
) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "RUSTUP_HOME": "/rustup",
        "RUSTFLAGS": "-C target-cpu=native",
        "CARGO_BUILD_TARGET": "x",
        "GIT_DIR": "x",
        "LD_PRELOAD": "x",
        "SSH_AUTH_SOCK": "x",
        "TERM": "xterm",
    }
    lines = (await _output(environment, "env; pwd -P")).splitlines()
    *variables, folder = lines
    # What a shell sets by itself.
    names = {line.partition("=")[0] for line in variables} - {"PWD", "OLDPWD", "SHLVL", "_"}
    assert names == {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "RUSTUP_HOME"}
    assert folder == str(tmp_path.resolve())


async def test_a_missing_home_does_not_stop_a_script(tmp_path: Path) -> None:
    assert await _output({"HOME": str(tmp_path / "missing")}, "pwd") == "/\n"


def test_what_the_environment_lacks_comes_from_the_user_database() -> None:
    user = pwd.getpwuid(os.getuid())
    login = login_environment({"LOGNAME": ""})
    assert (login["HOME"], login["USER"], login["LOGNAME"]) == (
        user.pw_dir,
        user.pw_name,
        user.pw_name,
    )
    assert "LANG" not in login


async def test_a_child_that_holds_the_outputs_does_not_hold_the_answer_up() -> None:
    transport = LocalTransport(os.environ)
    script = "sleep 0.6 & echo started; echo warned >&2; exit 4"
    clock = asyncio.get_running_loop().time
    start = clock()
    answer = await run(transport, script, timeout=SOON)
    assert clock() - start < 0.5
    assert (answer.stdout, answer.stderr, answer.exit_status) == (b"started\n", b"warned\n", 4)


async def test_closed_outputs_are_an_end_before_the_exit() -> None:
    process = await LocalTransport(os.environ).open("exec sleep 0.2 >/dev/null 2>&1")
    assert await process.read() == b""
    assert (await process.finish()).exit_status == 0
    await process.close()


async def test_closing_wakes_a_reader_and_leaves_the_exit_status() -> None:
    process = await LocalTransport(os.environ).open("sleep 0.6; exit 3")
    reading = asyncio.ensure_future(process.read())
    await asyncio.sleep(0.02)
    await process.close()
    async with asyncio.timeout(0.4):
        assert await reading == b""
    assert (await process.finish()).exit_status == 3


async def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"cannot write .*: No such file"):
        await LocalTransport(os.environ).push(tmp_path / "missing", str(tmp_path / "file"))


async def test_a_machine_that_cannot_start_anything_is_a_fault_of_the_node() -> None:
    # 3 MB in one variable: the kernel refuses to start a program with it.
    transport = LocalTransport({"LANG": "x" * 3_000_000})
    before = _open_files()
    with pytest.raises(NodeError, match="cannot start /bin/sh"):
        await transport.open("echo")
    assert not _open_files() - before


async def test_no_descriptor_is_left_open() -> None:
    transport = LocalTransport(os.environ)
    await run(transport, "echo", timeout=SOON)
    before = _open_files()
    for _ in range(3):
        await run(transport, "echo x; echo y >&2", timeout=SOON)
    await transport.close()
    assert not _open_files() - before


def test_the_coordinator_can_end_while_a_script_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def start_and_leave() -> None:
        process = await LocalTransport(os.environ).open(
            "trap '' HUP; exec >/dev/null 2>&1; sleep 0.2; echo alive >\"$1\"", str(mark)
        )
        await process.close()

    asyncio.run(start_and_leave())
    assert not mark.exists()

    async def written() -> str:
        async with asyncio.timeout(SOON.total_seconds()):
            while not mark.exists() or not mark.read_text():  # noqa: ASYNC110 -- a file has no event
                await asyncio.sleep(0.02)
        return mark.read_text()

    assert asyncio.run(written()) == "alive\n"


def _open_files() -> set[tuple[str, str]]:
    """Number and name of each. What earlier tests left to the collector may go meanwhile."""
    opened = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 -- its own descriptor is closed on return
        with contextlib.suppress(FileNotFoundError):
            opened.add((name, os.readlink(f"/dev/fd/{name}")))  # noqa: PTH115 -- not a path: pipe:[1]
    return opened
