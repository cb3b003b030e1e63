"""Changing an index that others change too; renewing it; issuing a build again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.edits import Flip, Selection, flip_rows
from orchestrator.core.errors import StoreError
from orchestrator.core.index import Index, Row, Status
from orchestrator.core.version import parse_version
from orchestrator.stores.channel import (
    Channel,
    edit_index,
    publish_index,
    read_index,
    renew_index,
)
from orchestrator.stores.publish import LAST_REVISION, publish_artifact, publish_reissue
from orchestrator.stores.store import ConflictError, Generation, ObjectKind, TakenError, kind_of
from tests.fakes import MemoryStore, ToySigner, make_artifact, toy_verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.core.result import Artifact

TOY = ToySigner()
TODAY = date(2026, 11, 21)
NETBSD = "x86_64-unknown-netbsd"
CHANNEL = Channel(
    project="demo",
    name="stable",
    keys=(TOY.public,),
    verify=toy_verify,
    lifetime=timedelta(days=90),
)


def row(version: str = "1.0.0", target: str = NETBSD) -> Row:
    return Row(
        target=target,
        version=parse_version(version),
        status=Status.OK,
        size_bytes=1,
        sha256="a" * 64,
        path=f"releases/{version}/{target}/x.tar.gz",
    )


def yanked(index: Index) -> tuple[Row, ...]:
    return flip_rows(index.rows, Selection(version=parse_version("1.0.0")), Flip.YANK)


async def without_waiting(attempt: int) -> None:
    del attempt


async def publish(store: MemoryStore, *rows: Row) -> Index:
    return await publish_index(store, CHANNEL, rows, signer=TOY, today=TODAY, pause=without_waiting)


async def edit(
    store: MemoryStore, change: Callable[[Index], tuple[Row, ...]], today: date = TODAY
) -> Index:
    return await edit_index(store, CHANNEL, change, signer=TOY, today=today, pause=without_waiting)


async def renew(store: MemoryStore, *, is_forced: bool, days: int = 0) -> Index:
    return await renew_index(
        store,
        CHANNEL,
        signer=TOY,
        today=TODAY + timedelta(days=days),
        is_forced=is_forced,
        pause=without_waiting,
    )


def told(index: Index) -> list[str]:
    return [f"{each.version} {each.status}" for each in index.rows]


async def test_an_edit_is_the_next_serial_and_kept_and_the_same_again_is_none() -> None:
    store = MemoryStore()
    await publish(store, row())
    edited = await edit(store, yanked)
    assert (edited.serial, told(edited)) == (2, ["1.0.0 yanked"])
    assert await read_index(store, CHANNEL) == edited
    assert await store.list("index/") == ("index/stable/1.idx", "index/stable/2.idx")
    writes = store.writes
    assert await edit(store, yanked) == edited
    assert store.writes == writes
    # What is done anyway renews what nears its end.
    assert (await edit(store, yanked, TODAY + timedelta(days=46))).serial == 3


async def test_an_edit_may_take_a_row_back_which_a_merge_never_does() -> None:
    store = MemoryStore()
    await publish(store, row())
    await edit(store, yanked)
    assert told(await publish(store, row())) == ["1.0.0 yanked"]
    back = await edit(store, lambda index: tuple(replace(r, status=Status.OK) for r in index.rows))
    assert (back.serial, told(back)) == (3, ["1.0.0 ok"])


@dataclass(slots=True)
class BusyStore(MemoryStore):
    """A store where somebody publishes just before the index is replaced, as often as is said."""

    others: list[Row] = field(default_factory=list)
    lost: int = 0

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        if self.others:
            await publish(self, self.others.pop())
        done = await MemoryStore.replace(self, name, data, kind, expected=expected)
        if self.lost:
            self.lost -= 1
            raise ConflictError("the answer was lost")
        return done


async def test_an_edit_that_was_outrun_is_made_to_what_is_there_now() -> None:
    store = BusyStore()
    await publish(store, row())
    store.others = [row("1.1.0"), row("1.2.0")]
    edited = await edit(store, yanked)
    assert told(edited) == ["1.2.0 ok", "1.1.0 ok", "1.0.0 yanked"]
    assert edited.serial == 4


async def test_a_renewal_changes_the_days_only_and_once() -> None:
    store = BusyStore()
    first = await publish(store, row())
    assert await renew(store, is_forced=False, days=45) == first
    store.lost = 1
    forced = await renew(store, is_forced=True, days=1)
    assert (forced.serial, forced.rows) == (2, first.rows)
    assert forced.expires == first.expires + timedelta(days=1)
    aged = await renew(store, is_forced=False, days=60)
    assert (aged.serial, aged.issued) == (3, TODAY + timedelta(days=60))


async def test_what_somebody_publishes_meanwhile_has_renewed_it() -> None:
    store = BusyStore()
    await publish(store, row())
    store.others = [row("1.1.0")]
    assert (await renew(store, is_forced=True)).serial == 2


async def test_without_an_index_there_is_nothing_to_edit_or_renew() -> None:
    store = MemoryStore()
    for attempt in (edit(store, yanked), renew(store, is_forced=True)):
        with pytest.raises(StoreError, match=r"there is no stable.idx in memory"):
            await attempt
    assert not store.objects


async def test_nobody_who_has_nothing_new_believes_an_index_that_went_back() -> None:
    store = MemoryStore()
    await publish(store, row())
    await publish(store, row("1.1.0"))
    store.objects["stable.idx"] = replace(
        store.objects["stable.idx"], data=store.objects["index/stable/1.idx"].data
    )
    for attempt in (
        publish(store, row()),
        edit(store, lambda index: index.rows),
        renew(store, is_forced=False),
    ):
        with pytest.raises(StoreError, match="went back to before serial 2") as caught:
            await attempt
        assert not isinstance(caught.value, ConflictError)


# Re-issues


def other_build(folder: Path, text: str) -> Artifact:
    """Stage an artifact of the same version and target, of other bytes."""
    artifact = make_artifact(folder)
    path = folder / text
    path.write_bytes(text.encode())
    size_bytes, sha256 = len(text), hashlib.sha256(text.encode()).hexdigest()
    binary = replace(artifact.binaries[0], path=path, size_bytes=size_bytes, sha256=sha256)
    return replace(artifact, path=path, size_bytes=size_bytes, sha256=sha256, binaries=(binary,))


async def test_a_reissue_takes_the_first_free_revision(tmp_path: Path) -> None:
    store = MemoryStore()
    first = make_artifact(tmp_path)
    await publish_artifact(store, first, channel=CHANNEL, signer=TOY, flat=True)
    before = dict(store.objects)
    rows = [
        await publish_reissue(
            store, other_build(tmp_path, text), channel=CHANNEL, signer=TOY, flat=True, above=1
        )
        for text in ("two", "three")
    ]
    folder = f"releases/1.0.0/{NETBSD}"
    assert [each.path for each in rows] == [
        f"{folder}/r{number}/demo-1.0.0-{NETBSD}.tar.gz" for number in (2, 3)
    ]
    assert [each.revision for each in rows] == [2, 3]
    assert "1.0.0/r3/demo-1.0.0-netbsd-x86_64.sha256" in store.objects
    assert store.objects.items() >= before.items()
    for name, kind in store.kinds.items():
        assert kind_of(name) is kind


async def test_the_same_reissue_again_finds_its_own_place(tmp_path: Path) -> None:
    store = MemoryStore()
    artifact = make_artifact(tmp_path)
    again = [
        await publish_reissue(store, artifact, channel=CHANNEL, signer=TOY, flat=True, above=1)
        for _ in range(2)
    ]
    assert again[0] == again[1]
    assert again[0].revision == 2


async def test_nothing_is_added_beside_an_archive_that_is_not_ours(tmp_path: Path) -> None:
    store = MemoryStore()
    name = f"releases/1.0.0/{NETBSD}/r2/demo-1.0.0-{NETBSD}.tar.gz"
    await store.create(name, b"other", ObjectKind.ARCHIVE)
    with pytest.raises(TakenError):
        await publish_artifact(
            store, make_artifact(tmp_path), channel=CHANNEL, signer=TOY, flat=True, revision=2
        )
    assert list(store.objects) == [name]


async def test_there_is_an_end_to_revisions(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(StoreError, match="no free revision") as caught:
        await publish_reissue(
            store,
            make_artifact(tmp_path),
            channel=CHANNEL,
            signer=TOY,
            flat=False,
            above=LAST_REVISION,
        )
    assert caught.value.hint
