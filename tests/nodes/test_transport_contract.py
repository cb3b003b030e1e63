"""One suite for every Transport: this machine, an SSH node in process, a real OpenSSH sshd."""

from __future__ import annotations

import asyncio
import getpass
import os
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from examples.loopback_node import LoopbackNode
from orchestrator.core.errors import ConfigError, LinkError, NodeError
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.nodes.local import connect_local
from orchestrator.nodes.ssh import SshConnections
from orchestrator.nodes.transport import Completed, Transport, run
from tests.nodes import sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from orchestrator.nodes.transport import Connect

SOON = timedelta(seconds=10)
TARGET = parse_target("x86_64-unknown-linux-gnu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A node, how to reach it, and how to lose the link to it."""

    node: Node
    connect: Connect
    disconnect: Callable[[], None]


@pytest.fixture(scope="module")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    # A home without start-up files: bash reads them for every command that sshd runs.
    with sshd.running(folder, environment={"HOME": str(folder)}) as server:
        yield server


LINKS = ("loopback", pytest.param("openssh", marks=(sshd.needs_sshd, pytest.mark.thorough)))


@pytest.fixture(params=("local", *LINKS))
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with _way(request, tmp_path) as way:
        yield way


@asynccontextmanager
async def _way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    match request.param:
        case "local":
            node = Node(name="local", host="local", target=TARGET)
            yield Way(node=node, connect=connect_local(os.environ), disconnect=lambda: None)
        case "loopback":
            async with LoopbackNode.start(tmp_path / "node") as server, SshConnections() as ssh:
                node = _ssh_node(f"{getpass.getuser()}@127.0.0.1", server)
                yield Way(node=node, connect=ssh.connect, disconnect=server.disconnect)
        case _:
            real: sshd.Sshd = request.getfixturevalue("openssh")
            async with SshConnections() as ssh:
                node = _ssh_node(real.host, real)
                yield Way(node=node, connect=ssh.connect, disconnect=real.disconnect)


def _ssh_node(host: str, server: LoopbackNode | sshd.Sshd) -> Node:
    return Node(
        name="node",
        host=host,
        target=TARGET,
        port=server.port,
        host_key=server.host_key,
        identity=str(server.identity),
        connect_timeout=timedelta(seconds=10),
    )


@pytest.fixture
async def transport(way: Way) -> AsyncIterator[Transport]:
    async with way.connect(way.node) as transport:
        yield transport


async def _answer(transport: Transport, script: str, *args: str) -> Completed:
    return await run(transport, script, *args, timeout=SOON)


async def _written(path: Path) -> str:
    async with asyncio.timeout(SOON.total_seconds()):
        # Looked at once: who writes it again empties it first.
        while not path.exists() or not (text := path.read_text()):  # noqa: ASYNC110 -- a file has no event
            await asyncio.sleep(0.02)
    return text


async def test_arguments_arrive_as_they_are(transport: Transport) -> None:
    args = ("a", "--", "-n", "a=b", "/x/y.z_1", "1:2@3,4+5%6", "@", ":", ",")
    answer = await _answer(transport, 'printf "<%s>" "$@"', *args)
    assert answer.stdout.decode() == "".join(f"<{arg}>" for arg in args)


async def test_an_argument_that_would_need_quotes_is_refused(transport: Transport) -> None:
    for arg in ("", " ", "a b", "$HOME", "a;b", "'", "~", "=ls", "%1", "é", "a\nb", "a\n"):
        with pytest.raises(ConfigError, match="cannot be sent"):
            await transport.open("echo", arg)


async def test_a_script_with_a_nul_is_refused(transport: Transport) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        await transport.open("echo \0")


async def test_a_script_arrives_byte_for_byte(transport: Transport) -> None:
    text = "".join(f"{n} ' \" \\ $x `y` !z é %s {{}} ~\t=\n" for n in range(20_000))
    answer = await _answer(transport, f"cat <<'END'\n{text}END")
    assert answer.stdout.decode() == text


async def test_output_may_hold_any_byte(transport: Transport) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in range(256))
    answer = await _answer(transport, f"printf '{octal}'")
    assert answer.stdout == bytes(range(256))


async def test_the_exit_status_is_a_result(transport: Transport) -> None:
    for status in (0, 1, 7, 126, 255):
        assert (await _answer(transport, f"exit {status}")).exit_status == status


async def test_the_status_is_that_of_the_last_command(transport: Transport) -> None:
    assert (await _answer(transport, "(exit 3)")).exit_status == 3
    assert (await _answer(transport, "")).exit_status == 0


async def test_a_signal_is_a_negative_status(transport: Transport) -> None:
    assert (await _answer(transport, "kill -KILL $$")).exit_status == -9
    assert (await _answer(transport, "kill -TERM $$")).exit_status == -15


async def test_only_the_end_of_stderr_is_kept(transport: Transport) -> None:
    script = "dd if=/dev/zero bs=1024 count=200 >&2 2>/dev/null; echo out; echo the end >&2"
    answer = await _answer(transport, script)
    assert answer.stdout == b"out\n"
    assert len(answer.stderr) == 64 * 1024
    assert answer.stderr.endswith(b"\0the end\n")


async def test_children_find_an_empty_input_and_the_script_goes_on(transport: Transport) -> None:
    answer = await _answer(transport, "cat\nread -r line\necho after; exec sh -c 'cat; exit 9'")
    assert (answer.stdout, answer.exit_status) == (b"after\n", 9)


async def test_the_script_leads_a_session_of_its_own_without_a_terminal(
    transport: Transport,
) -> None:
    answer = await _answer(transport, 'ps -o pid=,pgid=,tty= -p "$$"')
    pid, group, terminal = answer.stdout.split()
    assert pid == group != str(os.getpgrp()).encode()
    assert terminal in {b"?", b"??", b"-"}


async def test_a_slow_reader_slows_the_node_down(transport: Transport, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    script = """i=0
    while [ "$i" -lt 40 ]; do
        i=$((i + 1))
        echo "$i" >"$1"
        dd if=/dev/zero bs=262144 count=1 2>/dev/null
    done"""
    process = await transport.open(script, str(progress))
    size_bytes = len(await process.read())
    blocks = -1
    while blocks != (blocks := int(await _written(progress))):  # noqa: ASYNC110 -- until it stalls
        await asyncio.sleep(0.1)
    assert blocks < 20
    while chunk := await process.read():
        size_bytes += len(chunk)
    assert size_bytes == 40 * 262144
    assert (await process.finish()).exit_status == 0
    await process.close()


async def test_what_was_detached_survives_the_close(transport: Transport, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = "echo started; exec >/dev/null 2>&1; trap '' HUP; sleep 0.15; echo alive >\"$1\""
    process = await transport.open(script, str(mark))
    assert await process.read() == b"started\n"
    await process.close()
    await process.close()
    assert await process.read() == b""
    assert await _written(mark) == "alive\n"


async def test_a_detached_program_does_not_hold_the_answer_up(
    transport: Transport, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    script = """exec 3>&1 </dev/null >/dev/null 2>&1
    sh -c 'trap "" HUP; sleep 0.5; echo alive >"$1"' sh "$1" 3>&- &
    echo launched >&3"""
    clock = asyncio.get_running_loop().time
    start = clock()
    assert (await _answer(transport, script, str(mark))).stdout == b"launched\n"
    assert clock() - start < 0.45
    assert await _written(mark) == "alive\n"


async def test_many_scripts_run_at_once(transport: Transport) -> None:
    answers = await asyncio.gather(
        *(_answer(transport, "sleep 0.1; echo $1", str(n)) for n in range(15))
    )
    assert [answer.stdout for answer in answers] == [f"{n}\n".encode() for n in range(15)]


async def test_a_pushed_file_is_the_file_and_private(transport: Transport, tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(os.urandom(5_000_000))
    await transport.push(source, str(destination))
    expected = subprocess.run(["cksum"], input=source.read_bytes(), capture_output=True, check=True)
    answer = await _answer(transport, 'cksum <"$1"', str(destination))
    assert answer.stdout == expected.stdout
    assert destination.stat().st_mode & 0o777 == 0o600


async def test_a_push_replaces_what_is_there(transport: Transport, tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(b"new")
    destination.write_bytes(b"something longer")
    destination.chmod(0o644)
    await transport.push(source, str(destination))
    assert destination.read_bytes() == b"new"
    assert destination.stat().st_mode & 0o777 == 0o600


async def test_a_push_goes_on_where_another_has_come_to(
    transport: Transport, tmp_path: Path
) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(os.urandom(3_000_000))
    told: list[int] = []
    await transport.push(source, str(destination), on_written=told.append)
    assert told == sorted(told)
    assert told[-1] == 3_000_000
    # The first half is from that push, and is not sent again.
    written = source.read_bytes()
    source.write_bytes(b"0" * 1_500_000 + written[1_500_000:])
    destination.write_bytes(written[:2_000_000])
    await transport.push(source, str(destination), offset=1_500_000)
    assert destination.read_bytes() == written
    assert destination.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("way", LINKS, indirect=True)
async def test_a_push_that_a_lost_link_broke_off_says_how_far_it_came(
    way: Way, tmp_path: Path
) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(os.urandom(8_000_000))
    told: list[int] = []

    def cut(written: int) -> None:
        told.append(written)
        way.disconnect()

    async with way.connect(way.node) as transport:
        with pytest.raises(LinkError, match="lost the link"):
            await transport.push(source, str(destination), on_written=cut)
    assert destination.read_bytes()[: told[-1]] == source.read_bytes()[: told[-1]]
    async with way.connect(way.node) as transport:
        await transport.push(source, str(destination), offset=told[-1])
    assert destination.read_bytes() == source.read_bytes()


async def test_a_push_that_cannot_be_written_says_where(
    transport: Transport, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for destination in (tmp_path / "missing" / "file", tmp_path):
        with pytest.raises(NodeError, match=f"cannot write {destination}"):
            await transport.push(source, str(destination))


async def test_a_push_needs_an_absolute_path(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an absolute path"):
        await transport.push(tmp_path / "source", "relative")


async def test_an_answer_that_does_not_come_is_a_fault_of_the_node(transport: Transport) -> None:
    with pytest.raises(NodeError, match=r"no answer to a request within 0\.2 s"):
        await run(transport, "exec sleep 3", timeout=timedelta(seconds=0.2))
    assert (await _answer(transport, "echo next")).stdout == b"next\n"


async def test_an_answer_that_does_not_end_is_refused(transport: Transport) -> None:
    script = "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy || exit; done"
    with pytest.raises(NodeError, match="more than the 100000 bytes"):
        await run(transport, script, timeout=SOON, max_bytes=100_000)
    assert (await _answer(transport, "echo next")).stdout == b"next\n"


async def test_a_cancelled_request_leaves_the_way_usable(transport: Transport) -> None:
    for delay in (0.0, 0.001, 0.01, 0.05):
        request = asyncio.ensure_future(_answer(transport, "exec sleep 1"))
        await asyncio.sleep(delay)
        request.cancel()
        await asyncio.wait((request,))
        assert request.cancelled()
    assert (await _answer(transport, "echo next")).stdout == b"next\n"


async def test_leaving_the_way_stops_listening_but_not_the_script(way: Way, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = "echo on; exec >/dev/null 2>&1; trap '' HUP; sleep 0.1; echo alive >\"$1\""
    async with way.connect(way.node) as transport:
        process = await transport.open(script, str(mark))
        assert await process.read() == b"on\n"
    assert await _written(mark) == "alive\n"


@pytest.mark.parametrize("way", LINKS, indirect=True)
async def test_a_lost_link_is_never_an_end(way: Way, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    go = tmp_path / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.05; done >/dev/null 2>&1"
    script = f"trap '' HUP; echo on; {wait}; echo alive >\"$1\"; exit 0"
    async with way.connect(way.node) as transport:
        process = await transport.open(script, str(mark))
        assert await process.read() == b"on\n"
        way.disconnect()
        with pytest.raises(NodeError, match="lost the link"):
            await process.read()
        with pytest.raises(NodeError, match="lost the link"):
            await process.finish()
        with pytest.raises(NodeError, match="lost the link"):
            await transport.open("echo")
        with pytest.raises(NodeError, match="lost the link"):
            await transport.push(mark.parent / "source", str(mark))
        async with way.connect(way.node) as again:
            assert (await _answer(again, "echo back")).stdout == b"back\n"
    go.touch()
    assert await _written(mark) == "alive\n"
