"""A node that lies: an SSH server that changes what the scripts it runs have answered."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncssh

from examples import loopback_node
from examples.loopback_node import LoopbackNode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHUNK: Final = b"0123456789abcdef" * 4096
_ANSWER_SECONDS: Final = 60

# Turns an answer into the lie; None goes on for ever.
Lie = "Callable[[bytes], bytes | None]"


class LyingNode(LoopbackNode):
    """Answers truly, except to requests with the verb that it lies about."""

    def __init__(self, folder: Path, home: Path, path: str) -> None:
        super().__init__(folder, home, path)
        self.verb = ""
        self.lie: Callable[[bytes], bytes | None] = bytes
        self.lies = 0

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if self.verb and self.verb == _verb(process.command or ""):
            self.lies += 1
            with suppress(asyncssh.Error, OSError):
                await self._lie(process)
        else:
            await super()._run(process)

    async def _lie(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        script = await process.stdin.read()
        popen = loopback_node._spawn(process.command or "", self.home, self._environment)
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer, _ = await asyncio.to_thread(popen.communicate, script)
        changed = self.lie(answer)
        while changed is None:
            process.stdout.write(_CHUNK)
            await process.stdout.drain()
        process.stdout.write(changed)
        process.exit(popen.returncode)
        await process.wait_closed()


def _verb(command: str) -> str:
    """Return the verb of a request to job.sh; `probe` for the one request that has none."""
    words = command.partition(" -- ")[2].split()
    return "probe" if len(words) == 1 else next(iter(words), "")
