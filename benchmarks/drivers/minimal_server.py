"""Many SSH nodes in one process, on a loopback address each: for fleets that sshd cannot be.

    python -m benchmarks.drivers.minimal_server FOLDER COUNT PORT [--seconds N]

FOLDER has the keys of a fleet. Every login with its key is let in. A session runs nothing: N
seconds after its command came, it answers `ok` and ends. `ready` is printed when all listen.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

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
    words = parser.parse_args()
    allow_many_open_files()
    fleet = describe_fleet(words.folder, words.count, port=words.port)
    asyncio.run(_serve(fleet, words.seconds))


async def _serve(fleet: Fleet, seconds: float) -> None:
    # asyncio takes a list of addresses for one server, which asyncssh hands on.
    addresses = [node.address for node in fleet.nodes]
    async with asyncssh.listen(
        addresses,
        fleet.nodes[0].port,
        server_host_keys=[str(fleet.config.parent / "host_key")],
        authorized_client_keys=f"{fleet.identity}.pub",
        server_factory=lambda: _Server(seconds),
        encoding=None,
        gss_host=None,
        login_timeout=0,
        backlog=1000,
    ):
        print("ready", flush=True)
        await asyncio.Event().wait()


class _Server(asyncssh.SSHServer):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._seconds)


class _Session(asyncssh.SSHServerSession[bytes]):
    """Takes the script, answers when its time has come, and ends."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        del command
        return True

    def eof_received(self) -> bool:
        asyncio.get_running_loop().call_later(self._seconds, self._answer)
        return True

    def _answer(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(b"ok\n")
            self._channel.exit(0)


if __name__ == "__main__":
    main()
