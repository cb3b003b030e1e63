"""A change of keys in the store: what is written, by whom, and that a crash anywhere is mended."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.index import (
    Row,
    Status,
    join_signed,
    parse_index,
    render_index,
    split_signed,
)
from orchestrator.core.keys import (
    IndexMark,
    KeyStatement,
    join_keys,
    parse_keys,
    render_keys,
    split_keys,
)
from orchestrator.core.signature import Signatures, index_namespace, keys_namespace
from orchestrator.core.version import parse_version
from orchestrator.listing import show_rotation
from orchestrator.signing import FileSigner, verify
from orchestrator.stores.channel import Channel, publish_index, read_index, refuse_signer
from orchestrator.stores.rotation import (
    Signers,
    carry_out,
    plan_rotation,
    recent_changes,
    rotation_as_data,
)
from orchestrator.stores.store import ConflictError, Generation, ObjectKind, StoredObject
from tests.fakes import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from orchestrator.stores.rotation import Rotation

TODAY: Final = date(2026, 11, 25)
OLD, NEW, OTHER, ROTATION, THIEF = (FileSigner(Ed25519PrivateKey.generate()) for _ in range(5))
PROJECT: Final = "tool"


def channel_of(*signers: FileSigner, name: str = "stable") -> Channel:
    return Channel(
        project=PROJECT,
        name=name,
        keys=tuple(signer.public for signer in signers),
        verify=verify,
        lifetime=timedelta(days=90),
        rotation=ROTATION.public,
    )


def row(version: str) -> Row:
    return Row(
        target="x86_64-unknown-linux-gnu",
        version=parse_version(version),
        status=Status.OK,
        size_bytes=1,
        sha256="0" * 64,
        path=f"releases/{version}/tool.tar.gz",
    )


async def publish(
    store: MemoryStore, signer: FileSigner, *versions: str, name: str = "stable"
) -> None:
    rows = [row(version) for version in versions]
    await publish_index(
        store, channel_of(signer, name=name), rows, signer=signer, today=TODAY, pause=no_pause
    )


async def no_pause(_: int) -> None:
    pass


async def plan(store: MemoryStore, *signers: FileSigner) -> Rotation:
    channel = channel_of(*signers)
    assert channel.authority is not None
    return await plan_rotation(store, channel.authority, channel, today=TODAY)


async def rotate(store: MemoryStore, *signers: FileSigner) -> Rotation:
    rotation = await plan(store, *signers)
    return await carry_out(
        store,
        rotation,
        channel_of(*signers),
        signers=Signers(own=signers[0], rotation=ROTATION),
        today=TODAY,
    )


@pytest.fixture
async def store() -> MemoryStore:
    """A store where the old key has signed two channels, and is the active one."""
    store = MemoryStore()
    await publish(store, OLD, "1.0.0")
    await publish(store, OLD, "2.0.0-rc.1", name="prerelease")
    await rotate(store, OLD)
    return store


def statement_in(store: MemoryStore) -> KeyStatement:
    return parse_keys(split_keys(store.objects["keys.txt"].data.decode()).text)


def signed_by(store: MemoryStore, signer: FileSigner, name: str) -> bool:
    text, sshsig, minisig = split_signed(store.objects[name].data.decode())
    pair = Signatures(sshsig=sshsig, minisig=minisig)
    try:
        verify(text.encode(), pair, keys=[signer.public], namespace=index_namespace(PROJECT))
    except StoreError:
        return False
    return True


async def test_the_first_statement_names_the_keys_and_leaves_the_indexes_alone(
    store: MemoryStore,
) -> None:
    statement = statement_in(store)
    assert (statement.serial, statement.active, statement.revoked) == (1, (OLD.public,), ())
    assert statement.indexes == ()
    assert store.kinds["keys.txt"] is ObjectKind.KEYS
    assert store.objects["keys/1.txt"].data == store.objects["keys.txt"].data
    assert "index/stable/2.idx" not in store.objects


async def test_a_change_revokes_the_old_key_and_signs_every_channel_anew(
    store: MemoryStore,
) -> None:
    before = await read_index(store, channel_of(OLD))
    assert before is not None

    rotation = await rotate(store, NEW, OTHER)

    statement = statement_in(store)
    assert (statement.serial, statement.active) == (3, (NEW.public, OTHER.public))
    assert (statement.revoked, statement.indexes) == ((OLD.public,), ())
    between = parse_keys(split_keys(store.objects["keys/2.txt"].data.decode()).text)
    assert between.active == (NEW.public, OTHER.public, OLD.public)
    assert between.revoked == ()
    assert rotation.stale == ("prerelease", "stable")
    for name in ("stable", "prerelease"):
        assert signed_by(store, NEW, f"{name}.idx")
        assert signed_by(store, NEW, f"index/{name}/2.idx")
        assert signed_by(store, NEW, f"index/{name}/3.idx")
        assert signed_by(store, OLD, f"index/{name}/1.idx")
    after = await read_index(store, channel_of(NEW))
    assert after is not None
    assert (after.serial, after.rows) == (3, before.rows)


async def test_without_a_change_nothing_is_written(store: MemoryStore) -> None:
    await rotate(store, NEW)
    writes = store.writes
    again = await rotate(store, NEW)
    assert store.writes == writes
    data = rotation_as_data(again, is_done=True)
    assert (data["changes"], data["serial"], data["newly_active"]) == (False, 3, [])


async def test_a_plan_writes_nothing_and_says_what_changes(store: MemoryStore) -> None:
    writes = store.writes
    data = rotation_as_data(await plan(store, NEW), is_done=False)
    assert store.writes == writes
    assert data["newly_active"] == [NEW.public.fingerprint]
    assert data["newly_revoked"] == [OLD.public.fingerprint]
    assert data["signed_anew"] == ["prerelease", "stable"]
    assert (data["serial"], data["changes"], data["done"]) == (3, True, False)


async def test_a_key_that_stays_trusted_needs_no_new_signature(store: MemoryStore) -> None:
    rotation = await rotate(store, NEW, OLD)
    assert rotation.stale == ()
    assert signed_by(store, OLD, "stable.idx")
    later = await rotate(store, NEW)
    assert later.stale == ("prerelease", "stable")
    assert statement_in(store).revoked == (OLD.public,)


async def test_whoever_signs_an_index_anew_sees_what_came_to_it_lately(store: MemoryStore) -> None:
    for number in range(1, 8):
        await publish(store, OLD, f"1.{number}.0")
    planned = await plan(store, NEW)
    recent = await recent_changes(store, planned, channel_of(NEW))
    assert [entry.serial for entry in recent["stable"]] == [8, 7, 6, 5, 4]
    assert [str(change) for change in recent["stable"][0].changes] == [
        "+ 1.7.0 x86_64-unknown-linux-gnu ok"
    ]
    data = rotation_as_data(planned, is_done=False, recent=recent)
    show_rotation(data, shown := StringIO())
    lines = shown.getvalue().splitlines()
    assert "came lately  prerelease.idx 1: + 2.0.0-rc.1 x86_64-unknown-linux-gnu ok" in lines
    assert "             stable.idx 8: + 1.7.0 x86_64-unknown-linux-gnu ok" in lines
    assert await recent_changes(store, await plan(store, OLD), channel_of(OLD)) == {}


# What a revoked key is worth


async def test_an_index_by_a_revoked_key_is_refused_even_if_the_inventory_trusts_it(
    store: MemoryStore,
) -> None:
    stolen = store.objects["stable.idx"]
    await rotate(store, NEW)
    store.objects["stable.idx"] = stolen
    for keys in ((NEW,), (NEW, OLD), (OLD,)):
        with pytest.raises(StoreError, match=r"stable\.idx in memory cannot be trusted"):
            await read_index(store, channel_of(*keys))


async def test_a_thief_of_the_old_key_gets_nothing_signed_anew(store: MemoryStore) -> None:
    await rotate(store, NEW)
    index = await read_index(store, channel_of(NEW))
    assert index is not None
    forged = render_index(replace(index, serial=9, rows=(row("6.6.6"),)))
    put_index(store, forged, OLD)
    for signers in ((NEW,), (NEW, OTHER)):
        with pytest.raises(StoreError, match="cannot be trusted"):
            await rotate(store, *signers)
    assert statement_in(store).serial == 3


async def test_the_very_index_that_stood_may_come_back_and_is_signed_anew(
    store: MemoryStore,
) -> None:
    # As after a crash between keys.txt and the index: it is the one that keys.txt names.
    statement = statement_in(store)
    stood = store.objects["stable.idx"]
    text = split_signed(stood.data.decode()).text
    mark = IndexMark(channel="stable", serial=1, sha256=hashlib.sha256(text.encode()).hexdigest())
    await rotate(store, NEW)
    marked = replace(
        statement,
        serial=3,
        active=(NEW.public,),
        revoked=(OLD.public,),
        indexes=(mark,),
    )
    put(store, "keys.txt", signed_statement(marked, ROTATION))
    store.objects["keys/3.txt"] = store.objects["keys.txt"]
    for serial in (2, 3):
        del store.objects[f"index/stable/{serial}.idx"]
    store.objects["stable.idx"] = stood
    assert (await rotate(store, NEW)).stale == ("stable",)
    assert signed_by(store, NEW, "stable.idx")


@pytest.mark.parametrize(
    ("signer", "keys", "problem"),
    [
        (OLD, (OLD,), "the signing key SHA256:.* is revoked"),
        (NEW, (NEW, OLD), "the trusted key SHA256:.* is revoked"),
        (OTHER, (OTHER, NEW), "the signing key SHA256:.* is not active"),
    ],
)
async def test_who_may_not_sign_writes_nothing(
    store: MemoryStore, *, signer: FileSigner, keys: Sequence[FileSigner], problem: str
) -> None:
    await rotate(store, NEW)
    writes = store.writes
    channel = channel_of(*keys)
    with pytest.raises(ConfigError, match=problem) as caught:
        await refuse_signer(store, channel, signer.public)
    assert caught.value.hint
    with pytest.raises(ConfigError, match=problem):
        await publish_index(store, channel, [row("3.0.0")], signer=signer, today=TODAY)
    assert store.writes == writes


async def test_without_keys_txt_or_a_rotation_key_whoever_is_trusted_signs() -> None:
    store = MemoryStore()
    await refuse_signer(store, channel_of(OLD), OLD.public)
    await publish(store, OLD, "1.0.0")
    await refuse_signer(store, replace(channel_of(THIEF), rotation=None), THIEF.public)


async def test_an_index_by_a_key_that_nobody_named_stops_the_change_before_it_begins() -> None:
    store = MemoryStore()
    await publish(store, THIEF, "1.0.0")
    writes = store.writes
    with pytest.raises(StoreError, match="cannot be trusted") as caught:
        await rotate(store, NEW)
    assert "`publication.signing.trusted`" in str(caught.value.hint)
    assert store.writes == writes
    # As the hint says.
    await rotate(store, NEW, THIEF)
    await rotate(store, NEW)
    assert signed_by(store, NEW, "stable.idx")


async def test_a_revoked_key_is_not_taken_back(store: MemoryStore) -> None:
    await rotate(store, NEW)
    writes = store.writes
    with pytest.raises(ConfigError, match="never active again"):
        await rotate(store, OLD)
    assert store.writes == writes


# What is no statement of the rotation key's


def put(store: MemoryStore, name: str, data: bytes) -> None:
    held = store.objects.get(name)
    generation = Generation(f"{int(held.generation) + 1 if held else 1}")
    store.objects[name] = StoredObject(data=data, generation=generation)


def put_index(store: MemoryStore, text: str, signer: FileSigner) -> None:
    pair = signer.sign(text.encode(), namespace=index_namespace(PROJECT), comment="index")
    put(store, "stable.idx", join_signed(text, pair.sshsig, pair.minisig).encode())


def signed_statement(
    statement: KeyStatement, signer: FileSigner, *, namespace: str = keys_namespace(PROJECT)
) -> bytes:
    text = render_keys(statement)
    pair = signer.sign(text.encode(), namespace=namespace, comment="keys")
    return join_keys(text, pair.sshsig, pair.minisig).encode()


FORGED = KeyStatement(project=PROJECT, serial=9, issued=TODAY, active=(THIEF.public,))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (signed_statement(FORGED, THIEF), "bad signature"),
        (signed_statement(FORGED, OLD), "bad signature"),
        (signed_statement(FORGED, ROTATION, namespace=index_namespace(PROJECT)), "bad signature"),
        (signed_statement(replace(FORGED, project="other"), ROTATION), "the keys of other"),
        (render_keys(FORGED).encode(), "no `#end` line with two signatures"),
        ("é".encode(), "not ASCII"),
        (b"", "no `#end` line with two signatures"),
    ],
)
async def test_a_forged_statement_stops_every_reader_and_writer(
    store: MemoryStore, data: bytes, problem: str
) -> None:
    put(store, "keys.txt", data)
    writes = store.writes
    for act in (
        lambda: read_index(store, channel_of(OLD)),
        lambda: rotate(store, OLD),
        lambda: publish(store, OLD, "1.1.0"),
    ):
        with pytest.raises(
            StoreError, match=rf"keys\.txt in memory cannot be trusted: .*{problem}"
        ):
            await act()
    assert store.writes == writes


async def test_a_statement_that_is_larger_than_any_is_not_read(store: MemoryStore) -> None:
    put(store, "keys.txt", b"x" * (256 * 1024 + 1))
    with pytest.raises(StoreError, match="is larger than"):
        await read_index(store, channel_of(OLD))


async def test_an_old_statement_in_the_place_of_a_newer_one_is_noticed(store: MemoryStore) -> None:
    first = store.objects["keys.txt"]
    await rotate(store, NEW)
    put(store, "keys.txt", first.data)
    with pytest.raises(StoreError, match="went back to serial 1"):
        await read_index(store, channel_of(NEW))
    del store.objects["keys.txt"]
    with pytest.raises(StoreError, match="is gone"):
        await read_index(store, channel_of(NEW))


async def test_who_is_outrun_changes_nothing(store: MemoryStore) -> None:
    mine, theirs = await plan(store, NEW), await plan(store, OTHER)
    await carry_out(
        store,
        theirs,
        channel_of(OTHER),
        signers=Signers(own=OTHER, rotation=ROTATION),
        today=TODAY,
    )
    writes = store.writes
    with pytest.raises(ConflictError, match=r"replaced keys\.txt"):
        await carry_out(
            store,
            mine,
            channel_of(NEW),
            signers=Signers(own=NEW, rotation=ROTATION),
            today=TODAY,
        )
    assert store.writes == writes


# Releases that go on meanwhile


@dataclass(slots=True)
class RacedStore(MemoryStore):
    """A store where something happens right before or after keys.txt gets a serial."""

    serial: int = 0
    is_after: bool = False
    happens: Callable[[], Awaitable[None]] | None = None

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        is_it = name == "keys.txt" and f"#serial {self.serial}\n".encode() in data
        happens = self.happens if is_it else None
        if happens and not self.is_after:
            await happens()
        generation = await MemoryStore.replace(self, name, data, kind, expected=expected)
        if happens and self.is_after:
            await happens()
        return generation


def raced(store: MemoryStore, serial: int, *, is_after: bool = False) -> RacedStore:
    return RacedStore(
        objects=dict(store.objects), kinds=dict(store.kinds), serial=serial, is_after=is_after
    )


@pytest.mark.parametrize("serial", [2, 3])
async def test_a_release_by_the_old_key_right_before_a_statement_is_kept(
    store: MemoryStore, serial: int
) -> None:
    busy = raced(store, serial)

    async def release() -> None:
        # By a coordinator that trusts both already: that of the old key only is refused after 2.
        channel = channel_of(OLD, NEW)
        await publish_index(busy, channel, [row("1.1.0")], signer=OLD, today=TODAY)

    busy.happens = release
    await rotate(busy, NEW)
    index = await read_index(busy, channel_of(NEW))
    assert index is not None
    assert {str(each.version) for each in index.rows} == {"1.0.0", "1.1.0"}
    assert signed_by(busy, NEW, "stable.idx")
    assert OLD.public in statement_in(busy).revoked
    await publish(busy, NEW, "1.2.0")
    writes = busy.writes
    await rotate(busy, NEW)
    assert busy.writes == writes
    with pytest.raises(ConfigError, match="is revoked"):
        await publish(busy, OLD, "1.3.0")


def swap_in(store: MemoryStore, signer: FileSigner, *, ahead: int = 1) -> None:
    """As a release does that read everything before the keys changed, and is slow."""
    text = split_signed(store.objects["stable.idx"].data.decode()).text
    index = parse_index(text)
    late = replace(index, serial=index.serial + ahead, rows=(*index.rows, row("0.9.0")))
    put_index(store, render_index(late), signer)


async def test_a_release_that_swaps_after_its_key_is_revoked_is_found_by_the_same_run(
    store: MemoryStore,
) -> None:
    busy = raced(store, 3, is_after=True)

    async def release() -> None:
        swap_in(busy, OLD)

    busy.happens = release
    rotation = await rotate(busy, NEW)
    assert rotation.statement.serial == 4
    assert [mark.channel for mark in statement_in(busy).indexes] == ["stable"]
    assert signed_by(busy, NEW, "stable.idx")
    index = await read_index(busy, channel_of(NEW))
    assert index is not None
    assert [str(each.version) for each in index.rows] == ["1.0.0", "0.9.0"]
    await publish(busy, NEW, "1.2.0")


async def test_a_crash_after_such_a_release_was_marked_is_mended(store: MemoryStore) -> None:
    busy = raced(store, 3, is_after=True)

    async def release() -> None:
        swap_in(busy, OLD)
        busy.serial, busy.happens = 4, crash

    async def crash() -> None:
        raise CrashError

    busy.happens = release
    with pytest.raises(CrashError):
        await rotate(busy, NEW)
    busy.happens = None
    assert (await rotate(busy, NEW)).stale == ("stable",)
    assert signed_by(busy, NEW, "stable.idx")
    await publish(busy, NEW, "1.2.0")


@pytest.mark.parametrize(("signer", "ahead"), [(THIEF, 1), (OLD, 0), (OLD, -1)])
async def test_what_is_no_such_release_is_not_signed_anew(
    store: MemoryStore, signer: FileSigner, ahead: int
) -> None:
    busy = raced(store, 3, is_after=True)

    async def forge() -> None:
        swap_in(busy, signer, ahead=ahead)

    busy.happens = forge
    with pytest.raises(StoreError, match="cannot be trusted"):
        await rotate(busy, NEW)
    assert statement_in(busy).indexes == ()


async def test_a_later_run_does_not_guess_when_a_revoked_key_signed(store: MemoryStore) -> None:
    await rotate(store, NEW)
    swap_in(store, OLD)
    with pytest.raises(StoreError, match="cannot be trusted") as caught:
        await rotate(store, NEW)
    assert "docs/keys.md" in str(caught.value.hint)
    # As docs/keys.md says: the newest copy by an active key, and none after it.
    store.objects["index/stable/4.idx"] = store.objects["stable.idx"]
    store.objects["stable.idx"] = store.objects["index/stable/3.idx"]
    del store.objects["index/stable/4.idx"]
    await rotate(store, NEW)
    await publish(store, NEW, "0.9.0", "1.2.0")


async def test_a_key_that_is_revoked_between_the_keys_and_the_index_does_not_swap(
    store: MemoryStore,
) -> None:
    slow = SlowStore(objects=dict(store.objects), kinds=dict(store.kinds))

    async def revoke() -> None:
        await rotate(slow, NEW)

    slow.happens = revoke
    # A coordinator that takes the new index for good.
    channel = channel_of(OLD, NEW)
    with pytest.raises(ConfigError, match="is revoked"):
        await publish_index(slow, channel, [row("1.1.0")], signer=OLD, today=TODAY)
    assert signed_by(slow, NEW, "stable.idx")


@dataclass(slots=True)
class SlowStore(MemoryStore):
    """A store where something happens right before an index is read."""

    happens: Callable[[], Awaitable[None]] | None = None

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        if name == "stable.idx" and self.happens:
            happens, self.happens = self.happens, None
            await happens()
        return await MemoryStore.read(self, name, limit_bytes=limit_bytes)


# Crashes


class CrashError(BaseException):
    """The machine is gone: nothing may catch this."""


@dataclass(slots=True)
class DyingStore(MemoryStore):
    """A store whose user dies before or after one of its writes."""

    last_write: int = 0
    dies_before: bool = False
    begun: int = field(default=0)

    def _write(self, name: str, data: bytes, kind: ObjectKind) -> Generation:
        self.begun += 1
        if self.dies_before and self.begun == self.last_write:
            raise CrashError
        generation = MemoryStore._write(self, name, data, kind)
        if self.begun == self.last_write:
            raise CrashError
        return generation


async def test_a_crash_at_any_write_is_mended_by_the_same_command(store: MemoryStore) -> None:
    whole = DyingStore(objects=dict(store.objects), kinds=dict(store.kinds))
    await rotate(whole, NEW, OTHER)
    assert whole.begun == 12  # twice: keys.txt, two indexes, and a copy of each
    for number in range(1, whole.begun + 1):
        for before in (True, False):
            dying = DyingStore(
                objects=dict(store.objects),
                kinds=dict(store.kinds),
                last_write=number,
                dies_before=before,
            )
            with pytest.raises(CrashError):
                await rotate(dying, NEW, OTHER)
            await rotate(dying, NEW, OTHER)
            assert statement_in(dying).revoked == (OLD.public,)
            assert statement_in(dying).serial == 3
            for name in ("stable", "prerelease"):
                index = await read_index(dying, channel_of(NEW, name=name))
                assert index is not None
                assert index.serial in {2, 3}
                assert signed_by(dying, NEW, f"{name}.idx")
            kept = dying.objects["keys.txt"].data
            assert dying.objects["keys/3.txt"].data == kept
            writes = dying.writes
            await rotate(dying, NEW, OTHER)
            assert dying.writes == writes
