"""Serve one real node, and keep what its scripts answered, for nodes that only repeat it.

    python -m benchmarks.drivers.recording_node FOLDER

It prints one line of JSON that says how to reach it, and serves until its input ends. Then
FOLDER/recording.json has every request, as its words, with its answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from examples.loopback_node import LoopbackNode

if TYPE_CHECKING:
    import asyncssh


def main() -> None:
    """Serve until the input ends."""
    asyncio.run(_serve(Path(sys.argv[1])))


async def _serve(folder: Path) -> None:
    async with RecordingNode.start(folder / "node") as node:
        print(json.dumps(node.description()), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    entries = [
        {"words": words, "answer": base64.b64encode(answer).decode()}
        for words, answer in node.answers
    ]
    (folder / "recording.json").write_text(json.dumps(entries))


class RecordingNode(LoopbackNode):
    """Runs every script, and remembers what it answered."""

    def __init__(self, folder: Path, home: Path, path: str) -> None:
        super().__init__(folder, home, path)
        self.answers: list[tuple[list[str], bytes]] = []

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        running = self._started(command)
        assert running.stdin is not None  # noqa: S101 -- because of PIPE
        assert running.stdout is not None  # noqa: S101
        script = await process.stdin.read()
        await asyncio.to_thread(running.stdin.write, script)
        running.stdin.close()
        answer = b""
        # Piece by piece: a launch answers at once, and ends with its job.
        while piece := await asyncio.to_thread(running.stdout.read, 65536):
            answer += piece
            process.stdout.write(piece)
        self.answers.append((command.partition(" -- ")[2].split(), answer))
        process.exit(await asyncio.to_thread(running.wait))

    def _started(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.home,
            env={**os.environ, "HOME": str(self.home)},
            start_new_session=True,
        )


if __name__ == "__main__":
    main()
