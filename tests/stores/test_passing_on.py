"""What is taken back while it is passed on to another channel is not offered there."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.edits import Flip, Selection, flip_rows, promoted_rows
from orchestrator.core.errors import ConfigError
from orchestrator.core.version import parse_version
from orchestrator.publication import pass_on
from orchestrator.stores.channel import Origin, edit_index, pass_rows, read_index
from orchestrator.world import Outlet
from tests.fakes import MemoryStore, make_artifact, toy_verify_raw, toy_verify_ssh
from tests.stores.model import TOY
from tests.stores.test_publish_model import (
    ARM,
    CHANNEL,
    PRERELEASE,
    TODAY,
    X86,
    publish,
    without_waiting,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from orchestrator.core.index import Index
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import Generation, ObjectKind, StoredObject

VERSION = parse_version("2.0.0")


@dataclass(slots=True)
class Store(MemoryStore):
    """A store where something else happens right before some operations, once each."""

    before: dict[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        await self._let_happen(f"read {name}")
        return await MemoryStore.read(self, name, limit_bytes=limit_bytes)

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        await self._let_happen(f"replace {name}")
        return await MemoryStore.replace(self, name, data, kind, expected=expected)

    async def _let_happen(self, what: str) -> None:
        happen = self.before.pop(what, None)
        if happen:
            await happen()


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """A store where 2.0.0 is on one of two channels."""
    store = Store()
    await publish(store, make_artifact(tmp_path, X86, "1.0.0"), PRERELEASE)
    await publish(store, make_artifact(tmp_path, X86, "2.0.0"))
    return store


async def flip(store: MemoryStore, change: Flip) -> None:
    """Take 2.0.0 back on every channel that has it."""
    for channel in (CHANNEL, PRERELEASE):
        await edit_index(
            store,
            channel,
            lambda index: flip_rows(index.rows, Selection(version=VERSION), change),
            signer=TOY,
            today=TODAY,
            pause=without_waiting,
        )


async def follow(store: Store) -> None:
    """Pass 2.0.0 on, as a release does."""
    index = await read_index(store, CHANNEL)
    assert index
    await follow_from(store, index)


async def follow_from(store: Store, index: Index) -> None:
    outlet = Outlet(
        store=store,
        channel=CHANNEL,
        signer=TOY,
        verify_raw=toy_verify_raw,
        verify_ssh=toy_verify_ssh,
        template="",
        url=None,
        today=lambda: TODAY,
        followers=(PRERELEASE,),
    )
    await pass_on(outlet, index, VERSION, pause=without_waiting)


async def rows(store: MemoryStore, channel: Channel = PRERELEASE) -> list[str]:
    index = await read_index(store, channel)
    assert index
    return [f"{row.version} {row.target} {row.status}" for row in index.rows]


async def test_what_is_ok_is_passed_on(store: Store) -> None:
    await follow(store)
    assert await rows(store) == [f"2.0.0 {X86} ok", f"1.0.0 {X86} ok"]


async def test_what_was_yanked_before_it_is_passed_on_is_not(store: Store) -> None:
    index = await read_index(store, CHANNEL)
    assert index
    await flip(store, Flip.YANK)
    await follow_from(store, index)
    assert await rows(store) == [f"1.0.0 {X86} ok"]


@pytest.mark.parametrize("change", [Flip.YANK, Flip.REVOKE])
async def test_what_is_taken_back_while_it_is_passed_on_is_taken_back_there_too(
    store: Store, change: Flip
) -> None:
    store.before["replace prerelease.idx"] = partial(flip, store, change)
    await follow(store)
    assert await rows(store) == [f"2.0.0 {X86} {change.result}", f"1.0.0 {X86} ok"]


async def test_who_is_outrun_reads_again_what_he_passes_on(store: Store, tmp_path: Path) -> None:
    async def outrun() -> None:
        await flip(store, Flip.YANK)
        await publish(store, make_artifact(tmp_path, ARM, "1.0.0"), PRERELEASE)

    store.before["replace prerelease.idx"] = outrun
    await follow(store)
    assert await rows(store) == [f"1.0.0 {ARM} ok", f"1.0.0 {X86} ok"]


async def test_what_is_yanked_before_it_is_promoted_is_refused(
    store: Store, tmp_path: Path
) -> None:
    async def outrun() -> None:
        await flip(store, Flip.YANK)
        await publish(store, make_artifact(tmp_path, ARM, "1.0.0"), PRERELEASE)

    store.before["replace prerelease.idx"] = outrun
    with pytest.raises(ConfigError, match=r"nothing of 2\.0\.0 is ok"):
        await pass_rows(
            store,
            PRERELEASE,
            Origin(channel=CHANNEL, choose=lambda index: promoted_rows(index.rows, VERSION)),
            signer=TOY,
            today=TODAY,
            pause=without_waiting,
        )
    assert await rows(store) == [f"1.0.0 {ARM} ok", f"1.0.0 {X86} ok"]
