from __future__ import annotations

import asyncio
import getpass
import json
import re
import shutil
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh
import pytest

from examples.loopback_node import LoopbackNode
from orchestrator.core.errors import NodeError
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.nodes import ssh_dial
from orchestrator.nodes.ssh import SshConnections
from orchestrator.nodes.transport import run, wrap
from tests.agents import running_agent
from tests.nodes import sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.core.errors import OrchestratorError

SOON = timedelta(seconds=10)
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    async with LoopbackNode.start(tmp_path / "node") as server:
        yield server


@pytest.fixture
def node(server: LoopbackNode) -> Node:
    return _node(f"{getpass.getuser()}@127.0.0.1", server)


def _node(host: str, server: LoopbackNode | sshd.Sshd) -> Node:
    return Node(
        name="node",
        host=host,
        target=parse_target("x86_64-unknown-linux-gnu"),
        port=server.port,
        host_key=server.host_key,
        identity=str(server.identity),
        connect_timeout=timedelta(seconds=5),
    )


async def _echo(ssh: SshConnections, node: Node) -> str:
    async with ssh.connect(node) as transport:
        answer = await run(transport, 'echo "$1"', "hello", timeout=SOON)
    return answer.stdout.decode()


async def _refusal(node: Node) -> OrchestratorError:
    async with SshConnections() as ssh:
        with pytest.raises(NodeError) as caught:
            await _echo(ssh, node)
    assert caught.value.hint
    return caught.value


def _fingerprint(line: str) -> str:
    return asyncssh.import_public_key(line).get_fingerprint()


def _another_key() -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_public_key().decode().strip()


# Host keys


async def test_a_pinned_key_is_the_only_one_that_is_accepted(
    node: Node, scratch_home: Path
) -> None:
    # The user trusts the key that the node shows; the inventory does not.
    _know(scratch_home, f"[127.0.0.1]:{node.port} {node.host_key}")
    pinned = _another_key()
    error = await _refusal(replace(node, host_key=pinned))
    assert error.message.startswith(f"THE HOST KEY OF 127.0.0.1:{node.port} HAS CHANGED")
    assert node.host_key is not None
    assert _fingerprint(node.host_key) in error.message
    assert _fingerprint(pinned) in error.message
    assert "the inventory's `host_key`" in error.message


async def test_an_unknown_key_is_refused_and_shown(node: Node) -> None:
    error = await _refusal(replace(node, host_key=None))
    assert node.host_key is not None
    assert "is not known" in error.message
    assert _fingerprint(node.host_key) in error.message
    key = " ".join(node.host_key.split()[:2])
    assert error.hint is not None
    assert f"\n    host_key: {key}" in error.hint


async def test_a_known_key_is_accepted_for_its_port(node: Node, scratch_home: Path) -> None:
    _know(scratch_home, f"[127.0.0.1]:{node.port} {node.host_key}")
    async with SshConnections() as ssh:
        assert await _echo(ssh, replace(node, host_key=None)) == "hello\n"


async def test_a_key_that_is_known_for_another_port_is_not_accepted(
    node: Node, scratch_home: Path
) -> None:
    _know(scratch_home, f"[127.0.0.1]:{node.port + 1} {node.host_key}")
    assert "is not known" in (await _refusal(replace(node, host_key=None))).message


async def test_a_changed_known_key_is_refused_loudly(node: Node, scratch_home: Path) -> None:
    known = _another_key()
    _know(scratch_home, f"[127.0.0.1]:{node.port} {known}")
    error = await _refusal(replace(node, host_key=None))
    assert "HAS CHANGED" in error.message
    assert _fingerprint(known) in error.message
    assert "known_hosts" in error.message


async def test_a_revoked_key_is_refused(node: Node, scratch_home: Path) -> None:
    _know(scratch_home, f"@revoked [127.0.0.1]:{node.port} {node.host_key}")
    assert "revoked" in (await _refusal(replace(node, host_key=None))).message


async def test_the_users_configuration_cannot_switch_the_check_off(
    node: Node, scratch_home: Path
) -> None:
    config = "UserKnownHostsFile none\nStrictHostKeyChecking no\nRequestTTY force\n"
    _configure(scratch_home, config)
    assert "is not known" in (await _refusal(replace(node, host_key=None))).message
    assert "HAS CHANGED" in (await _refusal(replace(node, host_key=_another_key()))).message


async def test_an_alias_of_the_users_configuration_is_honoured(
    node: Node, scratch_home: Path
) -> None:
    alias = (
        f"Host build\n  HostName 127.0.0.1\n  Port {node.port}\n  IdentityFile {node.identity}\n"
    )
    _configure(scratch_home, alias)
    async with SshConnections() as ssh:
        assert await _echo(ssh, replace(node, host="build", port=22, identity=None)) == "hello\n"


async def test_unreadable_keys_are_named(node: Node, scratch_home: Path) -> None:
    assert (
        "is not a public key" in (await _refusal(replace(node, host_key="ssh-ed25519 x"))).message
    )
    _know(scratch_home, "nonsense")
    assert "cannot read the known" in (await _refusal(replace(node, host_key=None))).message


def test_no_code_of_ours_switches_the_check_off() -> None:
    switched_off = re.compile(r"""known_hosts["']?\s*[=:]\s*(None|\(\))""")
    sources = [
        path for top in ("orchestrator", "examples", "tests") for path in (ROOT / top).rglob("*.py")
    ]
    assert len(sources) > 10
    assert [str(path) for path in sources if switched_off.search(path.read_text())] == []


def _know(home: Path, line: str) -> None:
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    (home / ".ssh" / "known_hosts").write_text(f"{line}\n")


def _configure(home: Path, text: str) -> None:
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    (home / ".ssh" / "config").write_text(text)


# Logging in


async def test_a_refused_login_says_what_was_offered(node: Node, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    error = await _refusal(replace(node, identity=str(stranger)))
    assert f"refuses the login of {getpass.getuser()}" in error.message
    assert str(stranger) in str(error.hint)


async def test_a_refused_login_without_an_identity_names_the_agent(node: Node) -> None:
    error = await _refusal(replace(node, host="127.0.0.1", identity=None))
    assert "refuses the login of the local user" in error.message
    assert "from the agent none" in str(error.hint)


async def test_a_missing_identity_is_named(node: Node, tmp_path: Path) -> None:
    error = await _refusal(replace(node, identity=str(tmp_path / "missing")))
    assert "there is no key at" in error.message


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")
async def test_an_encrypted_identity_is_used_through_the_agent(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.identity is not None
    locked = tmp_path / "locked"
    key = asyncssh.read_private_key(node.identity)
    key.write_public_key(f"{locked}.pub")
    shutil.copy(node.identity, locked)
    lock = ["ssh-keygen", "-q", "-p", "-a", "1", "-N", "secret", "-f", str(locked)]
    subprocess.run(lock, check=True, stdout=subprocess.DEVNULL)
    assert "ssh-add" in str((await _refusal(replace(node, identity=str(locked)))).hint)
    with running_agent() as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.socket)
        async with asyncssh.connect_agent() as client:
            await client.add_keys([asyncssh.generate_private_key("ssh-ed25519"), key])
        async with SshConnections() as ssh:
            assert await _echo(ssh, replace(node, identity=str(locked))) == "hello\n"
            assert await _echo(ssh, replace(node, identity=None)) == "hello\n"
            # Without its .pub file, an identity keeps the agent's other keys out.
            Path(f"{locked}.pub").unlink()
            assert "login" in (await _refusal(replace(node, identity=str(locked)))).message
        stranger = replace(node, identity=None)
        Path(f"{node.identity}.pub").write_text(_another_key())
        assert _fingerprint(key.export_public_key().decode()) in str(
            (await _refusal(stranger)).hint
        )


@sshd.needs_sshd
async def test_a_jump_host_of_the_users_configuration_is_only_a_pipe(
    node: Node, tmp_path: Path, scratch_home: Path
) -> None:
    with sshd.running(tmp_path / "jump") as jump:
        _configure(
            scratch_home,
            f"Host inner\n  HostName 127.0.0.1\n  ProxyJump {jump.host}:{jump.port}\n"
            f"Host 127.0.0.1\n  IdentityFile {jump.identity}\n",
        )
        _know(scratch_home, f"[127.0.0.1]:{jump.port} {jump.host_key}")
        behind = replace(node, host=f"{getpass.getuser()}@inner")
        async with SshConnections() as ssh:
            assert await _echo(ssh, behind) == "hello\n"
        assert "HAS CHANGED" in (await _refusal(replace(behind, host_key=_another_key()))).message
        _know(scratch_home, f"[127.0.0.1]:{jump.port} {_another_key()}")
        assert "jump host" in str((await _refusal(behind)).hint)


# No way


async def test_a_refused_connection_says_so(node: Node, server: LoopbackNode) -> None:
    await server.stop()
    error = await _refusal(node)
    assert error.message == f"cannot connect to 127.0.0.1:{node.port}: Connection refused"


async def test_a_node_that_never_answers_costs_its_connect_timeout(node: Node) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    clock = asyncio.get_running_loop().time
    start = clock()
    with silent:
        error = await _refusal(replace(node, port=port, connect_timeout=timedelta(seconds=0.3)))
    assert error.message == f"no answer from 127.0.0.1:{port} within 0.3 s"
    assert clock() - start < 1.5


async def test_a_server_that_hangs_up_is_named(node: Node) -> None:
    async with _answering(b"") as port:
        error = await _refusal(replace(node, port=port))
    assert f"127.0.0.1:{port} broke off the SSH handshake" in error.message


async def test_a_server_of_another_kind_is_named(node: Node) -> None:
    async with _answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = await _refusal(replace(node, port=port))
    assert f"127.0.0.1:{port} broke off the SSH handshake" in error.message


async def test_an_ipv6_address_is_shown_in_brackets(node: Node) -> None:
    error = await _refusal(replace(node, host="u@::1", port=1))
    assert "cannot connect to [::1]:1" in error.message


@asynccontextmanager
async def _answering(greeting: bytes) -> AsyncIterator[int]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as impostor:
        yield impostor.sockets[0].getsockname()[1]


# One connection for a host


async def test_the_nodes_of_a_host_share_one_connection(node: Node, server: LoopbackNode) -> None:
    async with SshConnections() as ssh:
        async with ssh.connect(node), ssh.connect(replace(node, name="other")) as other:
            assert len(server.connections) == 1
            assert (await run(other, "echo", timeout=SOON)).stdout == b"\n"
        await _until_idle(server)
        async with ssh.connect(node) as again:
            assert (await run(again, "echo", timeout=SOON)).stdout == b"\n"


async def test_many_nodes_of_a_host_get_connections_with_room_for_their_sessions(
    node: Node, server: LoopbackNode
) -> None:
    async with SshConnections() as ssh, AsyncExitStack() as users:
        for _ in range(7):
            await users.enter_async_context(ssh.connect(node))
        assert len(server.connections) == 2


async def test_nodes_that_connect_at_once_share_one_handshake(
    node: Node, server: LoopbackNode
) -> None:
    most = 0

    async def enter(ssh: SshConnections) -> None:
        nonlocal most
        async with ssh.connect(node):
            most = max(most, len(server.connections))

    async with SshConnections() as ssh:
        await asyncio.gather(*(enter(ssh) for _ in range(3)))
    assert most == 1


async def test_a_pin_is_not_bypassed_by_sharing(node: Node, scratch_home: Path) -> None:
    _know(scratch_home, f"[127.0.0.1]:{node.port} {node.host_key}")
    async with SshConnections() as ssh, ssh.connect(replace(node, host_key=None)):
        with pytest.raises(NodeError, match="HAS CHANGED"):
            await _echo(ssh, replace(node, host_key=_another_key()))


async def test_at_most_eight_handshakes_run_at_once(node: Node) -> None:
    waiting = 0
    most = 0

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.05)
        waiting -= 1
        writer.close()

    async with (
        await asyncio.start_server(count, "127.0.0.1", 0) as impostor,
        SshConnections() as ssh,
    ):
        port = impostor.sockets[0].getsockname()[1]
        nodes = [replace(node, host=f"user{n}@127.0.0.1", port=port) for n in range(12)]
        ends = await asyncio.gather(*(_echo(ssh, each) for each in nodes), return_exceptions=True)
    assert all(isinstance(end, NodeError) for end in ends)
    assert most == 8


# Names that all mean this machine, and are different hosts to us.
_LOOPBACK = ("127.0.0.1", "localhost", "127.1", "127.0.1", "0x7f.1", "2130706433")


async def test_only_so_many_hosts_shake_hands_at_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_dial, "_HANDSHAKES", 2)
    waiting = 0
    most = 0

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.05)
        waiting -= 1
        writer.close()

    async with (
        await asyncio.start_server(count, "127.0.0.1", 0) as impostor,
        SshConnections() as ssh,
    ):
        port = impostor.sockets[0].getsockname()[1]
        nodes = [replace(node, host=host, port=port) for host in _LOOPBACK]
        ends = await asyncio.gather(*(_echo(ssh, each) for each in nodes), return_exceptions=True)
    assert all(isinstance(end, NodeError) for end in ends)
    assert most == 2


async def test_a_silent_host_gives_up_its_turn_to_shake_hands(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_dial, "_HANDSHAKES", 1)
    monkeypatch.setattr(ssh_dial, "_HANDSHAKE_SECONDS", 0.01)
    called = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read(-1)
        writer.close()

    async with (
        await asyncio.start_server(keep_silent, "127.0.0.1", 0) as impostor,
        SshConnections() as ssh,
    ):
        silent = replace(
            node,
            host="localhost",
            port=impostor.sockets[0].getsockname()[1],
            connect_timeout=timedelta(minutes=5),
        )
        waiting = asyncio.create_task(_echo(ssh, silent))
        await called.wait()
        assert await _echo(ssh, node) == "hello\n"
        assert not waiting.done()
        waiting.cancel()


async def test_a_run_reads_its_keys_and_the_known_hosts_once(
    node: Node, tmp_path: Path, scratch_home: Path
) -> None:
    assert node.identity is not None
    identity = tmp_path / "identity"
    shutil.copy(node.identity, identity)
    _know(scratch_home, f"[127.0.0.1]:{node.port} {node.host_key}")
    unpinned = replace(node, host_key=None, identity=str(identity))
    async with SshConnections() as ssh:
        assert await _echo(ssh, unpinned) == "hello\n"
        identity.unlink()
        (scratch_home / ".ssh" / "known_hosts").unlink()
        assert await _echo(ssh, unpinned) == "hello\n"
    assert "there is no key" in (await _refusal(unpinned)).message


async def test_leaving_cuts_every_link_and_what_waits_for_one(
    node: Node, server: LoopbackNode
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    with silent:
        async with SshConnections() as ssh:
            waiting = asyncio.ensure_future(_echo(ssh, replace(node, port=port)))
            opened = ssh.connect(node)
            transport = await opened.__aenter__()
            assert len(server.connections) == 1
            await asyncio.sleep(0.02)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(NodeError, match="lost the link"):
            await transport.open("echo")
        await opened.__aexit__(None, None, None)
    await _until_idle(server)


async def test_a_link_is_made_anew_when_the_node_is_back(node: Node, server: LoopbackNode) -> None:
    async with SshConnections() as ssh, ssh.connect(node):
        await server.stop()
        await asyncio.sleep(0.05)  # until this end has noticed
        with pytest.raises(NodeError, match="cannot connect"):
            await _echo(ssh, node)
        await server.listen()
        assert await _echo(ssh, node) == "hello\n"


async def _until_idle(server: LoopbackNode) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        while server.connections:  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.01)


# Ends that are none


class _Ending(LoopbackNode):
    """A node whose every session ends as the test says."""

    signal = ""

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stdout.write(b"half of the ans")
        if self.signal:
            process.exit_with_signal(self.signal)
        else:
            process.close()


async def test_a_session_without_an_exit_status_is_no_success(tmp_path: Path) -> None:
    async with (
        _Ending.start(tmp_path) as server,
        SshConnections() as ssh,
        ssh.connect(_node("u@127.0.0.1", server)) as transport,
    ):
        with pytest.raises(NodeError, match="closed without an exit status"):
            await run(transport, "echo", timeout=SOON)
        server.signal = "XYZ@example.com"
        assert (await run(transport, "echo", timeout=SOON)).exit_status < 0


async def test_a_push_over_a_lost_link_is_no_success(
    node: Node, server: LoopbackNode, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(300_000_000)
    async with SshConnections() as ssh:
        for delay in (0.0, 0.002, 0.01, 0.05):
            async with ssh.connect(node) as transport:
                pushing = asyncio.ensure_future(transport.push(source, str(tmp_path / "there")))
                await asyncio.sleep(delay)
                server.disconnect()
                with pytest.raises(NodeError, match="lost the link"):
                    await pushing


# What real sshd does


@sshd.needs_sshd
async def test_a_full_connection_is_waited_for(tmp_path: Path) -> None:
    options = ("MaxSessions 1",)
    with sshd.running(tmp_path, environment={"HOME": str(tmp_path)}, options=options) as real:
        async with SshConnections() as ssh, ssh.connect(_node(real.host, real)) as transport:
            answers = await asyncio.gather(
                *(run(transport, "sleep 0.05; echo", timeout=SOON) for _ in range(3))
            )
    assert [answer.stdout for answer in answers] == [b"\n"] * 3


@sshd.needs_sshd
async def test_a_node_that_lets_nobody_run_anything_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.nodes.ssh._SESSION_RETRY_SECONDS", 0.001)
    with sshd.running(tmp_path, options=("MaxSessions 0",)) as real:
        async with SshConnections() as ssh, ssh.connect(_node(real.host, real)) as transport:
            with pytest.raises(NodeError, match="refuses another session"):
                await transport.open("echo")
            (tmp_path / "file").touch()
            with pytest.raises(NodeError, match="refuses another session"):
                await transport.push(tmp_path / "file", "/file")


async def test_a_script_that_is_cut_off_does_not_run(node: Node, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = wrap(f"echo ran >{mark}\necho done")
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{node.port} {node.host_key}")
    async with asyncssh.connect(
        "127.0.0.1", node.port, known_hosts=known, client_keys=[node.identity]
    ) as connection:
        for end in (script.index(b"\nexit"), len(script) - 2):
            answer = await connection.run(
                "exec /bin/sh -s --", input=script[:end], encoding=None, timeout=10
            )
            assert answer.stdout == b""
    assert not mark.exists()


# The shell at the other end


SHELLS = ["sh", "dash", "bash", "busybox sh", "mksh", "ksh93", "zsh", "yash"]


def _shell(words: str) -> list[str]:
    found = words.split()
    if shutil.which(found[0]) is None:
        pytest.skip(f"needs {found[0]}")
    return found


@pytest.mark.parametrize("words", SHELLS)
def test_no_part_of_a_script_runs_in_any_shell(words: str) -> None:
    shell = _shell(words)
    whole = wrap("echo ran\n(cat; exit 7)")
    for end in range(len(whole) - 1):
        cut = subprocess.run([*shell, "-s"], input=whole[:end], capture_output=True, check=False)
        assert cut.stdout == b"", whole[:end]
    answer = subprocess.run([*shell, "-s"], input=whole, capture_output=True, check=False)
    assert (answer.stdout, answer.returncode) == (b"ran\n", 7)


@pytest.mark.parametrize("words", SHELLS)
def test_every_shell_keeps_here_documents_and_a_last_exec(words: str) -> None:
    shell = _shell(words)
    script = """cat <<'END'
}; $x
END
(cat; echo sub)
read -r line
exec cat - /dev/null <<END
last
END"""
    # No child may read on where the shell stopped reading.
    told = wrap(script) + b"more\n"
    answer = subprocess.run([*shell, "-s"], input=told, capture_output=True, check=False)
    assert (answer.stdout, answer.returncode) == (b"}; $x\nsub\nlast\n", 0)


@pytest.mark.parametrize("login", ["sh", "bash", "mksh", "ksh93", "zsh", "yash", "csh", "fish"])
def test_every_login_shell_passes_the_words_on(login: str) -> None:
    shell = _shell(login)
    args = [
        "aZ09",
        ".",
        "_",
        "/",
        "+",
        ":",
        "@",
        ",",
        "-",
        "--",
        "a=b",
        "a%b",
        "-a.b_c/d+e:f=g@h,i%j",
    ]
    line = f"exec /bin/sh -s -- {' '.join(args)}"
    script = wrap('printf "<%s>" "$@"')
    answer = subprocess.run([*shell, "-c", line], input=script, capture_output=True, check=True)
    assert answer.stdout.decode() == "".join(f"<{arg}>" for arg in args)


# The node on loopback, as a program


def test_the_loopback_node_outlives_who_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.loopback_node", "--folder", str(tmp_path / "node")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            told = json.loads(program.stdout.readline())
            node = Node(
                name="node",
                host=f"{getpass.getuser()}@{told['host']}",
                target=parse_target("x86_64-unknown-linux-gnu"),
                port=told["port"],
                host_key=told["host_key"],
                identity=told["identity"],
            )

            async def home() -> str:
                async with SshConnections() as ssh, ssh.connect(node) as transport:
                    return (await run(transport, 'echo "$HOME"', timeout=SOON)).stdout.decode()

            assert asyncio.run(home()).strip() == told["home"] == str(tmp_path / "node" / "home")
        finally:
            program.terminate()


def test_asyncssh_is_loaded_only_for_a_connection() -> None:
    code = "import sys, orchestrator.nodes.ssh; sys.exit('asyncssh' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
async def test_the_round_trip_to_a_node_is_what_tcp_has_measured(node: Node) -> None:
    async with SshConnections() as ssh, ssh.connect(node) as transport:
        assert 0 < transport.round_trip_seconds < 1
