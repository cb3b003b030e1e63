"""Fetch what a job delivered, and trust nothing that the node says about it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeVar

from orchestrator.core.errors import BuildError, PassingError
from orchestrator.core.extras import MAX_EXTRA_BYTES
from orchestrator.core.result import CollectedFile
from orchestrator.nodes.job import JOB_SH, Job, address, refusal
from orchestrator.nodes.transport import run
from orchestrator.parts import create_part

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterator
    from pathlib import Path

    from orchestrator.nodes.transport import Transport

# Hashing a large binary on an emulated machine takes its time; a silent transfer is a dead one.
_HASH_TIMEOUT: Final = timedelta(minutes=5)
_STALL: Final = timedelta(seconds=60)
_T = TypeVar("_T")
_UNSTEADY: Final = "is its disk or memory failing, or does something still write to the file?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """What sort of files arrives: its name, how large one may be, and what helps if it is not."""

    noun: str
    max_bytes: int
    hint: str


BINARIES: Final = Sort(
    noun="binary",
    max_bytes=1024**3,
    hint="is it stripped? `strip = true` in the release profile",
)
EXTRAS: Final = Sort(
    noun="extra file",
    max_bytes=MAX_EXTRA_BYTES,
    hint="archives are for programs: leave it out of `project.extras`",
)


class Collection:
    """Files of a job on their way to `into`; what has arrived stays when a link is lost.

    Leaving its `with` block removes what did not arrive whole.
    """

    def __init__(
        self, job: Job, *, names: tuple[str, ...], into: Path, sort: Sort = BINARIES
    ) -> None:
        self._job = job
        self._arrivals = tuple(
            _Arrival(destination=into / name, noun=sort.noun, max_bytes=sort.max_bytes)
            for name in names
        )
        self._into = into
        self._sort = sort

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for arrival in self._arrivals:
            arrival.give_up()

    @property
    def received_bytes(self) -> int:
        """How much has arrived so far."""
        return sum(arrival.received_bytes for arrival in self._arrivals)

    async def fetch(self, transport: Transport) -> tuple[CollectedFile, ...]:
        """Return the files at `into`/NAME, in their order; go on where the last link broke.

        The bytes are hashed as they arrive and compared with what the node reads from its disk.
        Raise BuildError for what the build is to blame for, NodeError for what the node is; nothing
        is left under a final name then.
        """
        await asyncio.to_thread(self._into.mkdir, parents=True, exist_ok=True)
        return tuple([await self._fetch_one(transport, arrival) for arrival in self._arrivals])

    async def _fetch_one(self, transport: Transport, arrival: _Arrival) -> CollectedFile:
        if arrival.file is None:
            expecting = self._expect(transport, arrival, of_before=arrival.received_bytes)
            if arrival.received_bytes:
                # What is here may be of another file than the one that is there by now.
                await expecting
                await _receive(transport, self._job, arrival)
            else:
                # The node reads the file twice, at once: neither waits for the other.
                await _both(expecting, _receive(transport, self._job, arrival))
            arrival.require_all()
            arrival.file = await asyncio.to_thread(arrival.settle)
        return arrival.file

    async def _expect(self, transport: Transport, arrival: _Arrival, *, of_before: int) -> None:
        size_bytes, sha256 = await _announced(transport, self._job, arrival.name)
        if size_bytes > self._sort.max_bytes:
            raise BuildError(
                f"the {arrival.noun} {arrival.name} has {size_bytes} bytes, and the limit is "
                f"{self._sort.max_bytes}",
                hint=self._sort.hint,
            )
        arrival.expect(size_bytes, sha256, of_before=of_before)


async def _both(*steps: Coroutine[Any, Any, None]) -> None:
    """Do both; raise what one of them raises first, and do no more of the other then."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def collect(
    transport: Transport,
    job: Job,
    *,
    names: tuple[str, ...],
    into: Path,
    sort: Sort = BINARIES,
) -> tuple[CollectedFile, ...]:
    """Return what `Collection.fetch` does, over one link."""
    with Collection(job, names=names, into=into, sort=sort) as collection:
        return await collection.fetch(transport)


@dataclass(slots=True, kw_only=True)
class _Arrival:
    """One file: what the node says of it, and how much of it is here."""

    destination: Path
    noun: str
    part: tuple[Path, BinaryIO] | None = None
    max_bytes: int
    size_bytes: int = 0
    # Unknown until the node has said it.
    sha256: str = ""
    is_announced: asyncio.Event = field(default_factory=asyncio.Event)
    digest: Any = field(default_factory=hashlib.sha256)
    received_bytes: int = 0
    file: CollectedFile | None = None

    @property
    def name(self) -> str:
        return self.destination.name

    def expect(self, size_bytes: int, sha256: str, *, of_before: int) -> None:
        """Take note of what is to come; begin anew if it is not what came in part before."""
        is_another = self.sha256 and (size_bytes, sha256) != (self.size_bytes, self.sha256)
        if is_another or of_before > size_bytes:
            self.give_up()
            self.digest, self.received_bytes = hashlib.sha256(), 0
        self.size_bytes, self.sha256 = size_bytes, sha256
        self.is_announced.set()
        self._require_at_least(self.received_bytes)

    def may_take(self, data: bytes) -> bool:
        """Whether it may be so large, or the node has said by now how large it is."""
        return bool(self.sha256) or self.received_bytes + len(data) <= self.max_bytes

    def take(self, data: bytes) -> None:
        if self.sha256:
            self._require_at_least(self.received_bytes + len(data))
        if self.part is None:
            self.part = create_part(self.destination)
        # Faster than any hand-over to a thread, at 8 ms of the loop's time per chunk at worst.
        self.digest.update(data)
        self.part[1].write(data)
        self.received_bytes += len(data)

    def _require_at_least(self, count: int) -> None:
        if count > self.size_bytes:
            raise PassingError(
                f"the node sends more of {self.name} than the {self.size_bytes} bytes it has",
                hint=_UNSTEADY,
            )

    def require_all(self) -> None:
        """Raise PassingError if the node has sent less than it has."""
        if left := self.size_bytes - self.received_bytes:
            raise PassingError(
                f"the node sent {left} bytes less of {self.name} than the {self.size_bytes} it has",
                hint=_UNSTEADY,
            )

    def settle(self) -> CollectedFile:
        """Give the part its final name, or raise PassingError if it holds other bytes."""
        path, file = self.part or create_part(self.destination)
        self.part = (path, file)
        if self.digest.hexdigest() != self.sha256:
            raise PassingError(
                f"the {self.noun} {self.name} arrived with other bytes than the node has on its "
                "disk",
                hint=_UNSTEADY,
            )
        file.flush()
        os.fsync(file.fileno())
        path.rename(self.destination)
        return CollectedFile(
            name=self.name,
            path=self.destination,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
        )

    def give_up(self) -> None:
        """Remove what is not whole."""
        if self.part is not None:
            path, file = self.part
            path.unlink(missing_ok=True)
            # What could not be written, because the disk is full, is not to be written now.
            with suppress(OSError):
                file.close()
            self.part = None


_ANNOUNCEMENT: Final = re.compile(rb"([0-9]{1,15}) ([0-9a-f]{64})\n")


async def _announced(transport: Transport, job: Job, name: str) -> tuple[int, str]:
    completed = await run(
        transport, JOB_SH, "hash", *address(job), name, timeout=_HASH_TIMEOUT, max_bytes=4096
    )
    match = _ANNOUNCEMENT.fullmatch(completed.stdout)
    if completed.exit_status != 0 or match is None:
        raise refusal(f"deliver {name}", completed)
    return int(match[1]), match[2].decode()


async def _receive(transport: Transport, job: Job, arrival: _Arrival) -> None:
    name = arrival.name
    # Far away, the link is slower than gzip; nearby, gzip would be what all wait for.
    is_far = transport.round_trip_seconds >= _FAR_SECONDS
    unpacked = Unpacking() if is_far else None
    process = await transport.open(
        JOB_SH, "pack" if is_far else "cat", *address(job), name, str(arrival.received_bytes + 1)
    )
    try:
        while data := await _next(process.read(), name):
            for piece in unpacked.pieces(data) if unpacked else (data,):
                if not arrival.may_take(piece):
                    await arrival.is_announced.wait()
                arrival.take(piece)
        completed = await _next(process.finish(), name)
        if completed.exit_status != 0:
            raise refusal(f"deliver {name}", completed)
    finally:
        await process.close()


_FAR_SECONDS: Final = 0.005


class Unpacking:
    """A file as `job.sh pack` sends it: a line that says how, and then the bytes."""

    def __init__(self) -> None:
        self._head = b""
        self._gzip: Any = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Return what came of the file, in pieces of 1 MiB at most; PassingError if it is none."""
        rest = data if self._head.endswith(b"\n") else self._read_head(data)
        if self._gzip is None:
            return iter((rest,) if rest else ())
        return self._unpack(rest)

    def _read_head(self, data: bytes) -> bytes:
        line, end, rest = (self._head + data).partition(b"\n")
        self._head = line + end
        if self._head == b"gzip\n":
            self._gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        elif self._head != b"plain\n" and (end or len(line) > len("plain")):
            raise _unreadable()
        return rest

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        while data and not self._gzip.eof:
            try:
                # What is sent may become a thousand times as much here.
                piece = self._gzip.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise _unreadable() from error
            if piece:
                yield piece
            data = self._gzip.unconsumed_tail


_PIECE_BYTES: Final = 1 << 20


def _unreadable() -> PassingError:
    return PassingError("the node sends something else than what gzip makes", hint=_UNSTEADY)


async def _next(read: Awaitable[_T], name: str) -> _T:
    try:
        async with asyncio.timeout(_STALL.total_seconds()):
            return await read
    except TimeoutError:
        raise PassingError(
            f"the node sent nothing of {name} for {_STALL.total_seconds():g} s",
            hint="run the same command again: what is built is kept",
        ) from None
