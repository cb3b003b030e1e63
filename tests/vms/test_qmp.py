"""The monitor's protocol, against a server that keeps to it and against some that do not."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.nodes.vm import qmp
from orchestrator.nodes.vm.qmp import open_monitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
OK = b'{"return": {}}\n'


@asynccontextmanager
async def server(path: Path, *answers: bytes) -> AsyncIterator[list[Any]]:
    """Greet whoever comes with the first answer, and give the next one to each command."""
    heard: list[Any] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        writer.write(left.pop(0))
        while left and (line := await reader.readline()):
            heard.append(json.loads(line))
            writer.write(left.pop(0))
        await writer.drain()
        if answers[-1] != b"":
            await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(talk, path):
        yield heard


async def test_an_answer_is_found_among_the_events(tmp_path: Path) -> None:
    event = b'{"event": "RESUME", "timestamp": {}}\n'
    socket = tmp_path / "monitor.sock"

    async with (
        server(socket, GREETING, OK, event + b'{"return": {"status": "running"}}\n') as heard,
        open_monitor(socket) as monitor,
    ):
        assert await monitor.execute("query-status") == {"status": "running"}

    assert heard == [{"execute": "qmp_capabilities"}, {"execute": "query-status"}]


async def test_a_path_that_is_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name" * 10)
    folder.mkdir()
    short = tmp_path / "s"
    short.symlink_to(folder)

    async with server(short / "m", GREETING, OK, OK), open_monitor(folder / "m") as monitor:
        await monitor.execute("quit")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ((b'{"hello": 1}\n',), "is no monitor of QEMU"),
        ((b"hello\n",), "broke off"),
        ((b"[]\n",), "no message"),
        ((GREETING, b""), "has ended"),
        ((GREETING, b'{"error": {"class": "GenericError", "desc": "no"}}\n'), "refuses"),
        ((GREETING, b"x" * 2_000_000 + b"\n"), "broke off"),
    ],
)
async def test_what_is_no_answer_is_an_error(
    answers: tuple[bytes, ...], message: str, tmp_path: Path
) -> None:
    socket = tmp_path / "monitor.sock"

    async with server(socket, *answers):
        with pytest.raises(NodeError, match=message):
            async with open_monitor(socket):
                pass


@pytest.mark.parametrize("answers", [(), (GREETING, OK)])
async def test_a_monitor_that_hangs_is_not_waited_for(
    answers: tuple[bytes, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qmp, "_ANSWER_SECONDS", 0.1)
    socket = tmp_path / "monitor.sock"

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(never, socket):
        with pytest.raises(NodeError, match="it hangs"):
            async with open_monitor(socket) as monitor:
                await monitor.execute("query-status")


async def test_where_nobody_listens_there_is_no_monitor(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="cannot be reached: No such file"):
        async with open_monitor(tmp_path / "monitor.sock"):
            pass
