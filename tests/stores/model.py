"""The model: publishers on one store, stopped before each operation, in every order that there is.

The model is the publish code itself on a store that waits for its turn. A crash before or after an
operation is a publisher that gets no further turn, so every state of a walk is also a crash of any
of them: from each of them the same commands run again and must complete the release.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar

from orchestrator.core.index import Status, parse_index, split_signed
from orchestrator.core.merge import row_of
from orchestrator.stores.store import (
    ConflictError,
    Created,
    Generation,
    ObjectKind,
    ObjectStat,
    StoredObject,
    TakenError,
)
from tests.fakes import MemoryStore, ToySigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Hashable
    from random import Random

    from orchestrator.core.index import Index, Row
    from orchestrator.stores.store import ReleaseStore

Answer = TypeVar(
    "Answer", bool, "StoredObject | None", Generation, "ObjectStat | None", tuple[str, ...]
)
TOY = ToySigner()
POINTERS = ("install.sh", "index.html")
RERUN_RATE = 0.1
Objects = dict[str, StoredObject]
Publisher = Callable[["ReleaseStore"], Coroutine[None, None, None]]
Key = tuple[frozenset[tuple[str, StoredObject]], tuple[tuple["Hashable", ...], ...]]
# What each channel has in the end: `TARGET VERSION STATUS`, and `again` for what was re-issued.
Wanted = Mapping[str, set[str]]


# What must be true of a store at every moment, and from one moment to the next


class ViolationError(AssertionError):
    pass


def index_of(objects: Objects, name: str = "stable.idx") -> Index | None:
    return genuine(objects[name].data) if name in objects else None


@cache
def genuine(data: bytes) -> Index:
    text, sshsig, minisig = split_signed(data.decode())
    assert TOY.sign(text.encode(), namespace="index@demo", comment="any").sshsig == sshsig
    assert minisig
    return parse_index(text)


def channels_of(objects: Objects) -> list[str]:
    return [name for name in objects if name.endswith(".idx") and "/" not in name]


def require_whole(objects: Objects) -> None:
    rows = {row for name in channels_of(objects) for row in genuine(objects[name].data).rows}
    for row in rows:
        assert row.path
        held = objects.get(row.path)
        if held is None or hashlib.sha256(held.data).hexdigest() != row.sha256:
            raise ViolationError(f"torn row: {row.path}")
        for suffix in (".sha256", ".minisig", ".sshsig"):
            if row.path + suffix not in objects:
                raise ViolationError(f"no {suffix} beside {row.path}")
    for name in objects:
        if name.startswith("index/"):
            kept = genuine(objects[name].data)
            if name != f"index/{kept.channel}/{kept.serial}.idx":
                raise ViolationError(f"another serial is kept as {name}")


def require_progress(before: Objects, after: Objects) -> None:
    for name, held in before.items():
        if name in POINTERS:
            if int(after[name].data) < int(held.data):
                raise ViolationError(f"{name} went back")
        elif name not in channels_of(before) and after[name].data != held.data:
            raise ViolationError(f"immutable bytes changed: {name}")
    for name in channels_of(before):
        require_index_progress(genuine(before[name].data), index_of(after, name))


def require_index_progress(was: Index, now: Index | None) -> None:
    for row in was.rows:
        stands = row_of(now.rows, row.key) if now else None
        if stands is None or rank(stands) < rank(row):
            raise ViolationError(f"lost update: {row} has gone from the index")
        if rank(stands) == rank(row) and stands != row:
            raise ViolationError(f"changed row: {row} became {stands}")
    if now and was != now and now.serial != was.serial + 1:
        raise ViolationError(f"serial {was.serial} was followed by {now.serial}")


def rank(row: Row) -> tuple[int, int]:
    return row.revision, tuple(Status).index(row.status)


def require_complete(objects: Objects, wanted: Wanted) -> None:
    """Raise unless each channel offers exactly what is wanted of it, and has all of its copies."""
    require_whole(objects)
    for channel, texts in wanted.items():
        index = index_of(objects, f"{channel}.idx")
        rows = index.rows if index else ()
        found = {
            f"{row.target} {row.version} {row.status}{' again' * (row.revision > 1)}"
            for row in rows
        }
        if index is None or found != texts:
            raise ViolationError(f"{channel}: {found}")
        kept = {name for name in objects if name.startswith(f"index/{channel}/")}
        if kept != {f"index/{channel}/{serial}.idx" for serial in range(1, index.serial + 1)}:
            raise ViolationError(f"kept: {kept}")


# The walk


class Turn(Enum):
    """One operation of one publisher; LOST: it is done, and the answer says that it was not."""

    DONE = "done"
    LOST = "lost"


@dataclass(slots=True)
class SteppedStore:
    """A ReleaseStore for one publisher: each operation waits for its turn.

    A coarse one does what is below some folders in one go with the step before, and loses no
    answer. Walks of single steps and of lost answers are made with fewer publishers.
    """

    shared: MemoryStore
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Future[Turn] | None = None
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    answers: list[Hashable] = field(default_factory=list)
    may_lose: bool = False
    in_one_go: tuple[str, ...] = ()

    def describe(self) -> str:
        return self.shared.describe()

    async def check_writable(self) -> None:
        await self.shared.check_writable()

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        if not self._is_in_one_go(name):
            await self._await_turn()
        try:
            await self.shared.create(name, data, kind)
        except TakenError:
            self.answers.append(f"{name} is taken")
            raise
        # Which of the two came first is nothing that publishing asks; hiding it makes states equal.
        self.answers.append(name)
        return Created.SAME

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        await self._await_turn()
        return await self._answer(self.shared.read(name, limit_bytes=limit_bytes))

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        turn = await self._await_turn(may_lose=True)
        call = self.shared.replace(name, data, kind, expected=expected)
        if turn is Turn.LOST:
            await self._answer(call)
            self.answers[-1] = Turn.LOST
            raise ConflictError("the answer was lost")
        return await self._answer(call)

    async def stat(self, name: str) -> ObjectStat | None:
        if not self._is_in_one_go(name):
            await self._await_turn()
        return await self._answer(self.shared.stat(name))

    async def holds(self, name: str, data: bytes) -> bool:
        if not self._is_in_one_go(name):
            await self._await_turn()
        return await self._answer(self.shared.holds(name, data))

    async def list(self, prefix: str) -> tuple[str, ...]:
        await self._await_turn()
        return await self._answer(self.shared.list(prefix))

    def _is_in_one_go(self, name: str) -> bool:
        return name.startswith(self.in_one_go)

    async def _await_turn(self, *, may_lose: bool = False) -> Turn:
        # What a publisher does at once comes one by one here, in the order in which it began.
        async with self.line:
            self.may_lose = may_lose
            self.turn = asyncio.get_running_loop().create_future()
            self.arrived.set()
            return await self.turn

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            answer = await call
        except ConflictError:
            self.answers.append("conflict")
            raise
        self.answers.append(answer)
        return answer


Choice = tuple[int, Turn]


class Run:
    """Publishers at work on one store, each stopped before its next operation."""

    def __init__(
        self, shared: MemoryStore, publishers: tuple[Publisher, ...], *, in_one_go: tuple[str, ...]
    ) -> None:
        self.shared = shared
        self.stores = [SteppedStore(shared, in_one_go=in_one_go) for _ in publishers]
        self.tasks = [
            asyncio.create_task(publisher(store))
            for store, publisher in zip(self.stores, publishers, strict=True)
        ]
        for store, task in zip(self.stores, self.tasks, strict=True):
            task.add_done_callback(partial(_announce_end, store))

    async def settle(self) -> None:
        for store in self.stores:
            await store.arrived.wait()

    def key(self) -> Key:
        answers = tuple(tuple(store.answers) for store in self.stores)
        return frozenset(self.shared.objects.items()), answers

    def choices(self) -> list[Choice]:
        return [
            (number, turn)
            for number, (store, task) in enumerate(zip(self.stores, self.tasks, strict=True))
            if not task.done()
            for turn in Turn
            if turn is Turn.DONE or (store.may_lose and not store.in_one_go)
        ]

    async def take(self, choice: Choice) -> None:
        number, turn = choice
        store = self.stores[number]
        assert store.turn
        before = dict(self.shared.objects)
        store.arrived.clear()
        store.turn.set_result(turn)
        await store.arrived.wait()
        require_progress(before, self.shared.objects)

    async def stop(self) -> list[BaseException | None]:
        for task in self.tasks:
            task.cancel()
        return await asyncio.gather(*self.tasks, return_exceptions=True)

    async def end(self) -> None:
        """Stop all publishers; raise what one of them failed with."""
        for outcome in await self.stop():
            if isinstance(outcome, Exception):
                raise outcome


def _announce_end(store: SteppedStore, task: asyncio.Task[None]) -> None:
    del task
    store.arrived.set()


@dataclass(slots=True)
class Walk:
    """Every state that publishers can bring a store to, and what follows which."""

    initial: Objects
    publishers: tuple[Publisher, ...]
    wanted: Wanted
    in_one_go: tuple[str, ...] = ()
    make_store: type[MemoryStore] = MemoryStore
    follows: dict[Key, list[Key]] = field(default_factory=dict)
    rerun: set[frozenset[tuple[str, StoredObject]]] = field(default_factory=set)

    async def explore(self) -> int:
        """Return the number of interleavings; raise ViolationError for the first bad state."""
        start: Key | None = None
        unexplored: list[tuple[Choice, ...]] = [()]
        while unexplored:
            schedule = unexplored.pop()
            async with self._running() as run:
                previous: Key | None = None
                for choice in schedule:
                    previous = run.key()
                    await run.take(choice)
                while True:
                    key = run.key()
                    start = start or key
                    if previous is not None:
                        self.follows[previous].append(key)
                    if key in self.follows:
                        break
                    self.follows[key] = []
                    require_whole(run.shared.objects)
                    if key[0] not in self.rerun:
                        self.rerun.add(key[0])
                        await self.run_again(run.shared)
                    choices = run.choices()
                    if not choices:
                        break
                    unexplored.extend((*schedule, other) for other in choices[1:])
                    schedule = (*schedule, choices[0])
                    previous = key
                    await run.take(choices[0])
        assert start is not None
        return self.paths(start, {})

    async def sample(self, random: Random, schedules: int) -> int:
        """Take so many schedules at random, with re-runs on the way; return the steps taken."""
        steps = 0
        for _ in range(schedules):
            async with self._running() as run:
                while choices := run.choices():
                    await run.take(random.choice(choices))
                    require_whole(run.shared.objects)
                    steps += 1
                    if random.random() < RERUN_RATE:
                        await self.run_again(run.shared)
                await self.run_again(run.shared)
        return steps

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[Run]:
        shared = self.make_store(dict(self.initial))
        run = Run(shared, self.publishers, in_one_go=self.in_one_go)
        try:
            await run.settle()
            yield run
        except BaseException:
            # A violation says more than what a publisher then met with because of it.
            await run.stop()
            raise
        await run.end()

    async def run_again(self, shared: MemoryStore) -> None:
        store = self.make_store(dict(shared.objects))
        for publisher in self.publishers:
            before = dict(store.objects)
            await publisher(store)
            require_progress(before, store.objects)
        require_complete(store.objects, self.wanted)

    def paths(self, key: Key, known: dict[Key, int]) -> int:
        if key not in known:
            following = self.follows[key]
            known[key] = sum(self.paths(each, known) for each in following) if following else 1
        return known[key]
