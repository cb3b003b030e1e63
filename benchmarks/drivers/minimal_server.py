"""Many SSH nodes in one process, on a loopback address each: for fleets that sshd cannot be.

    python -m benchmarks.drivers.minimal_server FOLDER COUNT PORT [--seconds N] [--recording FILE]

FOLDER has the keys of a fleet. Every login with its key is let in. A session runs nothing: N
seconds after its command came, it answers `ok` and ends. With a recording, it answers what a real
node did, and a job takes N seconds, half of that or half as much again by its node. `ready` is
printed when all listen.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from benchmarks.drivers.repeating_node import RepeatingNode, read_recording
from benchmarks.fleet import describe_fleet
from orchestrator.nodes.open_files import allow_many_open_files

if TYPE_CHECKING:
    from benchmarks.fleet import Fleet


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="serve many SSH nodes that run nothing")
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--recording", type=Path)
    words = parser.parse_args()
    allow_many_open_files()
    fleet = describe_fleet(words.folder, words.count, port=words.port)
    recording = read_recording(words.recording) if words.recording else {}
    nodes = {
        node.address: RepeatingNode(recording, words.seconds * (0.5 + number % 101 / 100))
        for number, node in enumerate(fleet.nodes)
    }
    asyncio.run(_serve(fleet, nodes, 0 if recording else words.seconds))


async def _serve(fleet: Fleet, nodes: dict[str, RepeatingNode], seconds: float) -> None:
    # asyncio takes a list of addresses for one server, which asyncssh hands on.
    addresses = [node.address for node in fleet.nodes]
    async with asyncssh.listen(
        addresses,
        fleet.nodes[0].port,
        server_host_keys=[str(fleet.config.parent / "host_key")],
        authorized_client_keys=f"{fleet.identity}.pub",
        server_factory=lambda: _Server(nodes, seconds),
        encoding=None,
        gss_host=None,
        login_timeout=0,
        backlog=1000,
    ):
        print("ready", flush=True)
        await asyncio.Event().wait()


class _Server(asyncssh.SSHServer):
    def __init__(self, nodes: dict[str, RepeatingNode], seconds: float) -> None:
        self._nodes = nodes
        self._seconds = seconds
        self._address = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._address = conn.get_extra_info("sockname")[0]

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._nodes[self._address], self._seconds)


class _Session(asyncssh.SSHServerSession[bytes]):
    """Takes the script, answers when its time has come, and ends."""

    def __init__(self, node: RepeatingNode, seconds: float) -> None:
        self._node = node
        self._seconds = seconds
        self._command = ""
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def eof_received(self) -> bool:
        loop = asyncio.get_running_loop()
        reply = self._node.reply(self._command.partition(" -- ")[2].split())
        loop.call_later(self._seconds + reply.answers_after, self._write, reply.answer)
        loop.call_later(self._seconds + reply.ends_after, self._end)
        return True

    def _write(self, answer: bytes) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(answer)

    def _end(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.exit(0)


if __name__ == "__main__":
    main()
