"""Two publishers, every interleaving of their store operations, a crash at each of them, a re-run.

The model is the publish code itself on a store that waits for its turn. A crash before or after an
operation is a publisher that gets no further turn, so every state of the walk is also a crash of
either or both: from each of them the same commands run again and must complete the release.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar

import pytest

from orchestrator.core.index import parse_index, split_signed
from orchestrator.stores.channel import Channel, publish_index
from orchestrator.stores.pointers import Pointer, publish_pointers
from orchestrator.stores.publish import publish_artifact
from orchestrator.stores.store import (
    ConflictError,
    Created,
    Generation,
    ObjectKind,
    ObjectStat,
    StoredObject,
)
from tests.fakes import MemoryStore, ToySigner, make_artifact, toy_verify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable
    from pathlib import Path

    from orchestrator.core.index import Index
    from orchestrator.core.result import Artifact
    from orchestrator.stores.store import ReleaseStore

Answer = TypeVar(
    "Answer", bool, "StoredObject | None", Generation, "ObjectStat | None", tuple[str, ...]
)
TOY = ToySigner()
CHANNEL = Channel(
    project="demo",
    name="stable",
    keys=(TOY.public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)
POINTERS = ("install.sh", "index.html")
Publisher = Callable[["ReleaseStore"], Coroutine[None, None, None]]
Key = tuple[frozenset[tuple[str, StoredObject]], tuple["Hashable", ...], tuple["Hashable", ...]]


async def publish(store: ReleaseStore, artifact: Artifact) -> None:
    row = await publish_artifact(store, artifact, project="demo", signer=TOY, flat=False)
    await publish_index(
        store, CHANNEL, [row], signer=TOY, today=date(2026, 11, 21), pause=without_waiting
    )


async def publish_installer(store: ReleaseStore, serial: int) -> None:
    await publish_pointers(
        store,
        CHANNEL,
        (
            Pointer(name, str(serial).encode(), ObjectKind.PAGE)
            for name in ("install.sh", "index.html")
        ),
        serial=serial,
        pause=without_waiting,
    )


async def publish_all(store: ReleaseStore, artifact: Artifact) -> None:
    await publish(store, artifact)
    await publish_installer(store, 2)


async def without_waiting(attempt: int) -> None:
    del attempt


# What must be true of a store at every moment, and from one moment to the next


class ViolationError(AssertionError):
    pass


def index_of(objects: dict[str, StoredObject], name: str = "stable.idx") -> Index | None:
    return genuine(objects[name].data) if name in objects else None


@cache
def genuine(data: bytes) -> Index:
    text, sshsig, minisig = split_signed(data.decode())
    assert TOY.sign(text.encode(), namespace="index@demo", comment="any").sshsig == sshsig
    assert minisig
    return parse_index(text)


def require_whole(objects: dict[str, StoredObject]) -> None:
    index = index_of(objects)
    for row in index.rows if index else ():
        assert row.path
        held = objects.get(row.path)
        if held is None or hashlib.sha256(held.data).hexdigest() != row.sha256:
            raise ViolationError(f"torn row: {row.path}")
        for suffix in (".sha256", ".minisig", ".sshsig"):
            if row.path + suffix not in objects:
                raise ViolationError(f"no {suffix} beside {row.path}")
    for name in objects:
        if name.startswith("index/"):
            kept = index_of(objects, name)
            if kept is None or name != f"index/stable/{kept.serial}.idx":
                raise ViolationError(f"another serial is kept as {name}")


def require_progress(before: dict[str, StoredObject], after: dict[str, StoredObject]) -> None:
    for name, held in before.items():
        if name in POINTERS:
            if int(after[name].data) < int(held.data):
                raise ViolationError(f"{name} went back")
        elif name != "stable.idx" and after[name].data != held.data:
            raise ViolationError(f"immutable bytes changed: {name}")
    was, now = index_of(before), index_of(after)
    if was and (now is None or not set(was.rows) <= set(now.rows)):
        raise ViolationError("lost update: a row has gone from the index")
    if was and now and was != now and now.serial != was.serial + 1:
        raise ViolationError(f"serial {was.serial} was followed by {now.serial}")


def require_complete(objects: dict[str, StoredObject], artifacts: tuple[Artifact, ...]) -> None:
    require_whole(objects)
    index = index_of(objects)
    published = {(row.target, str(row.version)) for row in index.rows} if index else set()
    wanted = {(artifact.target.triple, artifact.version) for artifact in artifacts}
    if index is None or published != wanted:
        raise ViolationError(f"published: {published}")
    kept = {name for name in objects if name.startswith("index/")}
    if kept != {f"index/stable/{serial}.idx" for serial in range(1, index.serial + 1)}:
        raise ViolationError(f"kept: {kept}")


# The walk


class Turn(Enum):
    """One operation of one publisher; LOST: it is done, and the answer says that it was not."""

    DONE = "done"
    LOST = "lost"


@dataclass(slots=True)
class SteppedStore:
    """A ReleaseStore for one publisher: each operation waits for its turn."""

    shared: MemoryStore
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Future[Turn] | None = None
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    answers: list[Hashable] = field(default_factory=list)
    may_lose: bool = False

    def describe(self) -> str:
        return self.shared.describe()

    async def check_writable(self) -> None:
        await self.shared.check_writable()

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        await self._await_turn()
        await self.shared.create(name, data, kind)
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
        await self._await_turn()
        return await self._answer(self.shared.stat(name))

    async def holds(self, name: str, data: bytes) -> bool:
        await self._await_turn()
        return await self._answer(self.shared.holds(name, data))

    async def list(self, prefix: str) -> tuple[str, ...]:
        await self._await_turn()
        return await self._answer(self.shared.list(prefix))

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
    """Two publishers at work on one store, each stopped before its next operation."""

    def __init__(self, shared: MemoryStore, publishers: tuple[Publisher, ...]) -> None:
        self.shared = shared
        self.stores = [SteppedStore(shared) for _ in publishers]
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
        first, second = self.stores
        return frozenset(self.shared.objects.items()), tuple(first.answers), tuple(second.answers)

    def choices(self) -> list[Choice]:
        return [
            (number, turn)
            for number, (store, task) in enumerate(zip(self.stores, self.tasks, strict=True))
            if not task.done()
            for turn in Turn
            if turn is Turn.DONE or store.may_lose
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

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self.tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


def _announce_end(store: SteppedStore, task: asyncio.Task[None]) -> None:
    del task
    store.arrived.set()


@dataclass(slots=True)
class Walk:
    """Every state that two publishers can bring a store to, and what follows which."""

    initial: dict[str, StoredObject]
    publishers: tuple[Publisher, ...]
    artifacts: tuple[Artifact, ...]
    make_store: type[MemoryStore] = MemoryStore
    follows: dict[Key, list[Key]] = field(default_factory=dict)
    rerun: set[frozenset[tuple[str, StoredObject]]] = field(default_factory=set)

    async def explore(self) -> int:
        """Return the number of interleavings; raise ViolationError for the first bad state."""
        start: Key | None = None
        unexplored: list[tuple[Choice, ...]] = [()]
        while unexplored:
            schedule = unexplored.pop()
            run = Run(self.make_store(dict(self.initial)), self.publishers)
            try:
                await run.settle()
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
            finally:
                await run.end()
        assert start is not None
        return self.paths(start, {})

    async def run_again(self, shared: MemoryStore) -> None:
        store = self.make_store(dict(shared.objects))
        for publisher in self.publishers:
            before = dict(store.objects)
            await publisher(store)
            require_progress(before, store.objects)
        require_complete(store.objects, self.artifacts)

    def paths(self, key: Key, known: dict[Key, int]) -> int:
        if key not in known:
            following = self.follows[key]
            known[key] = sum(self.paths(each, known) for each in following) if following else 1
        return known[key]


async def walk_from(
    folder: Path, *, is_first: bool, triples: tuple[str, str], make_store: type[MemoryStore]
) -> Walk:
    shared = MemoryStore()
    old = () if is_first else (make_artifact(folder, version="1.0.0"),)
    for artifact in old:
        await publish(shared, artifact)
    artifacts = tuple(
        make_artifact(folder / str(number), triple, "2.0.0")
        for number, triple in enumerate(triples)
    )
    return Walk(
        initial=shared.objects,
        publishers=tuple(partial(publish, artifact=artifact) for artifact in artifacts),
        artifacts=(*old, *artifacts),
        make_store=make_store,
    )


TWO_TARGETS = ("x86_64-unknown-netbsd", "aarch64-unknown-netbsd")
ONE_TARGET = ("x86_64-unknown-netbsd", "x86_64-unknown-netbsd")


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("triples", [TWO_TARGETS, ONE_TARGET])
@pytest.mark.thorough
async def test_no_interleaving_and_no_crash_harms_a_release(
    tmp_path: Path, triples: tuple[str, str], *, is_first: bool
) -> None:
    walk = await walk_from(tmp_path, is_first=is_first, triples=triples, make_store=MemoryStore)
    interleavings = await walk.explore()
    assert interleavings > 10_000_000
    # Every write of a publisher leaves another store to recover from.
    assert len(walk.rerun) >= 7


@pytest.mark.thorough
async def test_no_interleaving_takes_the_installer_or_the_page_back(tmp_path: Path) -> None:
    shared = MemoryStore()
    old = make_artifact(tmp_path, version="1.0.0")
    new = make_artifact(tmp_path, version="2.0.0")
    await publish(shared, old)
    walk = Walk(
        initial=shared.objects,
        publishers=(partial(publish_installer, serial=1), partial(publish_all, artifact=new)),
        artifacts=(old, new),
    )
    assert await walk.explore() > 10_000
    for objects in walk.rerun:
        store = MemoryStore(dict(objects))
        await publish_all(store, new)
        assert {store.objects[name].data for name in POINTERS} == {b"2"}


class CarelessStore(MemoryStore):
    """A store that does not compare before it swaps."""

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        del expected
        held = self.objects.get(name)
        return await MemoryStore.replace(
            self, name, data, kind, expected=held.generation if held else None
        )


@pytest.mark.thorough
async def test_the_model_notices_a_store_that_does_not_compare(tmp_path: Path) -> None:
    walk = await walk_from(tmp_path, is_first=False, triples=TWO_TARGETS, make_store=CarelessStore)
    with pytest.raises(ViolationError, match="lost update"):
        await walk.explore()
