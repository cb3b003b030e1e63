"""What a program does that uses asyncssh in the usual ways, to be measured against the product.

    python -m benchmarks.asyncssh_ways WAY SSH_CONFIG INTO WORDS…

One connection to each Host of the file, all at once; each is left as it is by default, but for the
cipher, which is the fastest one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Way = Callable[[asyncssh.SSHClientConnection, str, Path], Awaitable[None]]


async def lines(connection: asyncssh.SSHClientConnection, command: str, into: Path) -> None:
    """Read the log line by line, as one does to show it."""
    with into.open("wb") as log:
        async with connection.create_process(command, encoding=None) as process:
            log.write(await process.stdout.readline())
            log.flush()
            async for line in process.stdout:
                log.write(line)


async def redirect(connection: asyncssh.SSHClientConnection, command: str, into: Path) -> None:
    """Have the log written to a file by asyncssh."""
    with into.open("wb", buffering=0) as log:
        await connection.run(command, encoding=None, stdout=log, check=True)


async def sftp(connection: asyncssh.SSHClientConnection, path: str, into: Path) -> None:
    """Fetch a file by SFTP."""
    async with connection.start_sftp_client() as client:
        await client.get(path, into)
    await asyncio.to_thread(_secure, into)


async def scp(connection: asyncssh.SSHClientConnection, path: str, into: Path) -> None:
    """Fetch a file by SCP."""
    await asyncssh.scp((connection, path), into)
    await asyncio.to_thread(_secure, into)


def _secure(file: Path) -> None:
    """Do with the file what the product does: hash it, and see it safe on the disk."""
    with file.open("rb") as reader:
        digest = hashlib.file_digest(reader, "sha256").hexdigest()
        os.fsync(reader.fileno())
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}\n")


_WAYS: dict[str, Way] = {"lines": lines, "redirect": redirect, "sftp": sftp, "scp": scp}


def main(words: Sequence[str]) -> None:
    """Go the way to all hosts at once; in the words, {node} is the name of each."""
    way, config, into, *command = words
    folder = Path(into)
    folder.mkdir(parents=True, exist_ok=True)
    text = shlex.join(command)
    asyncio.run(
        _go(
            _WAYS[way],
            config,
            {
                line.split()[1]: (text.replace("{node}", line.split()[1]), folder / line.split()[1])
                for line in Path(config).read_text().splitlines()
                if line.startswith("Host ") and "*" not in line
            },
        )
    )


async def _go(way: Way, config: str, works: Mapping[str, tuple[str, Path]]) -> None:
    async def go(name: str) -> None:
        cipher = "aes128-gcm@openssh.com"
        async with asyncssh.connect(name, config=config, encryption_algs=[cipher]) as connection:
            await way(connection, *works[name])

    async with asyncio.TaskGroup() as group:
        for name in works:
            group.create_task(go(name))


if __name__ == "__main__":
    main(sys.argv[1:])
