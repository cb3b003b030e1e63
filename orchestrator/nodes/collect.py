"""Fetch what a job delivered, and trust nothing that the node says about it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, Final

from orchestrator.core.errors import BuildError, NodeError
from orchestrator.core.result import CollectedBinary
from orchestrator.nodes.job import JOB_SH, Job, address, refusal
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from orchestrator.nodes.transport import Transport

# Hashing a large binary on an emulated machine takes its time; a silent transfer is a dead one.
_HASH_TIMEOUT: Final = timedelta(minutes=5)
_STALL: Final = timedelta(seconds=60)
DEFAULT_MAX_BYTES: Final = 1024**3


async def collect(
    transport: Transport,
    job: Job,
    *,
    names: tuple[str, ...],
    into: Path,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> tuple[CollectedBinary, ...]:
    """Return the job's binaries, fetched to `into`/NAME, in the order of `names`.

    The bytes are hashed as they arrive and compared with what the node reads from its disk.
    Raise BuildError for what the build is to blame for, NodeError for what the node is; nothing
    is left under a final name then.
    """
    await asyncio.to_thread(into.mkdir, parents=True, exist_ok=True)
    return tuple(
        [await _collect_one(transport, job, into / name, max_bytes=max_bytes) for name in names],
    )


async def _collect_one(
    transport: Transport, job: Job, destination: Path, *, max_bytes: int
) -> CollectedBinary:
    name = destination.name
    size_bytes, sha256 = await _announced(transport, job, name)
    if size_bytes > max_bytes:
        raise BuildError(
            f"the binary {name} has {size_bytes} bytes, and the limit is {max_bytes}",
            hint="is it stripped? `strip = true` in the release profile",
        )
    # A name of its own: another coordinator may be fetching the same job into the same folder.
    part = destination.with_name(f"{name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            received = await _receive(transport, job, file, name=name, size_bytes=size_bytes)
            await asyncio.to_thread(os.fsync, file.fileno())
        if received != sha256:
            raise NodeError(
                f"the binary {name} arrived with other bytes than the node has on its disk",
                hint="is its disk or memory failing, or does something still write to the file?",
            )
        part.rename(destination)
    finally:
        part.unlink(missing_ok=True)
    return CollectedBinary(name=name, path=destination, size_bytes=size_bytes, sha256=sha256)


_ANNOUNCEMENT: Final = re.compile(rb"([0-9]{1,15}) ([0-9a-f]{64})\n")


async def _announced(transport: Transport, job: Job, name: str) -> tuple[int, str]:
    completed = await run(
        transport, JOB_SH, "hash", *address(job), name, timeout=_HASH_TIMEOUT, max_bytes=4096
    )
    match = _ANNOUNCEMENT.fullmatch(completed.stdout)
    if completed.exit_status != 0 or match is None:
        raise refusal(f"deliver {name}", completed)
    return int(match[1]), match[2].decode()


async def _receive(
    transport: Transport, job: Job, file: BinaryIO, *, name: str, size_bytes: int
) -> str:
    digest = hashlib.sha256()
    left = size_bytes
    process = await transport.open(JOB_SH, "cat", *address(job), name)
    try:
        while data := await _next(process.read(), name):
            left -= len(data)
            if left < 0:
                raise NodeError(f"the node sends more of {name} than the {size_bytes} bytes it has")
            # Faster than any hand-over to a thread, at 8 ms of the loop's time per chunk at worst.
            digest.update(data)
            file.write(data)
    finally:
        await process.close()
    if left:
        raise NodeError(f"the node sent {left} bytes less of {name} than the {size_bytes} it has")
    file.flush()
    return digest.hexdigest()


async def _next(read: Awaitable[bytes], name: str) -> bytes:
    try:
        async with asyncio.timeout(_STALL.total_seconds()):
            return await read
    except TimeoutError:
        raise NodeError(
            f"the node sent nothing of {name} for {_STALL.total_seconds():g} s",
            hint="run the same command again: what is built is kept",
        ) from None
