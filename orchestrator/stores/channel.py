"""One channel of a store: its signed index, which only a compare-and-swap moves.

Every writer reads, verifies, changes and swaps; whoever is outrun begins again, so nobody's change
is lost and no serial is used twice.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, TypeVar

from orchestrator.core.edits import withdrawn_rows
from orchestrator.core.errors import StoreError
from orchestrator.core.index import (
    Index,
    Row,
    advance,
    is_aging,
    join_signed,
    parse_index,
    render_index,
    split_signed,
)
from orchestrator.core.merge import merge_rows
from orchestrator.core.signature import Signatures, index_namespace
from orchestrator.stores.keyring import Authority, accepted_keys, read_keys, refuse_keys
from orchestrator.stores.store import ConflictError, ObjectKind, outrun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import date, timedelta

    from orchestrator.core.signature import PublicKey, Signer, Verifier
    from orchestrator.stores.store import Generation, ReleaseStore, StoredObject

    Pause = Callable[[int], Awaitable[None]]
    Edit = Callable[[Index], Iterable[Row]]

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One index of a project: who may sign it, and for how long each serial is valid.

    Where there is a `rotation` key, what it says of keys in the store counts too.
    """

    project: str
    name: str
    keys: tuple[PublicKey, ...]
    verify: Verifier
    lifetime: timedelta
    rotation: PublicKey | None = None

    @property
    def authority(self) -> Authority | None:
        """Who says which of the keys may sign; None: nobody does, and all may."""
        if self.rotation is None:
            return None
        return Authority(project=self.project, rotation=self.rotation, verify=self.verify)

    @property
    def index_name(self) -> str:
        """The index's name in the store."""
        return f"{self.name}.idx"

    def history_name(self, serial: int) -> str:
        """Return the name of the copy that is kept of one serial."""
        return f"index/{self.name}/{serial}.idx"


async def pause_briefly(attempt: int) -> None:
    """Wait before another try, longer each time."""
    # At random over the whole span, or those who collided once collide again ("full jitter",
    # AWS Architecture Blog 2015).
    await asyncio.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311 -- no secret


async def publish_index(
    store: ReleaseStore,
    channel: Channel,
    rows: Iterable[Row],
    *,
    signer: Signer,
    today: date,
    pause: Pause = pause_briefly,
) -> Index:
    """Merge the rows into the index and return the index that then stands in the store.

    Rows that are there already change nothing, so no serial is used up, unless the index nears its
    end. Whoever else publishes at the same time loses nothing: the slower one merges again.
    ConfigError if the store says that the signer's key may not sign.
    """
    known = tuple(rows)
    step = partial(
        _move_index,
        store,
        channel,
        lambda index: merge_rows(index.rows if index else (), known),
        signer=signer,
        today=today,
    )
    return await despite_others(step, pause)


async def edit_index(
    store: ReleaseStore,
    channel: Channel,
    edit: Edit,
    *,
    signer: Signer,
    today: date,
    pause: Pause = pause_briefly,
) -> Index:
    """Change the rows of the index and return the index that then stands in the store.

    `edit` gets the index as it stands and returns all of its rows; it may be asked again when
    somebody else was faster. Rows as they were use up no serial, unless the index nears its end.
    Raise StoreError if there is no index.
    """

    def decide(index: Index | None) -> Iterable[Row]:
        return edit(_existing(store, channel, index))

    step = partial(_move_index, store, channel, decide, signer=signer, today=today)
    return await despite_others(step, pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A channel that rows are passed on from, and which of its rows they are."""

    channel: Channel
    choose: Edit


async def pass_rows(
    store: ReleaseStore,
    channel: Channel,
    origin: Origin,
    *,
    signer: Signer,
    today: date,
    pause: Pause = pause_briefly,
) -> Index:
    """Merge rows of another channel's index into this one's and return the index that then stands.

    They are chosen from the other one as it stands at each try, and what is taken back there
    meanwhile is taken back here. Raise StoreError if it has no index.
    """
    chosen: tuple[Row, ...] = ()

    async def read_origin() -> Index:
        return _existing(store, origin.channel, await read_index(store, origin.channel))

    async def step() -> Index:
        nonlocal chosen
        chosen = tuple(origin.choose(await read_origin()))
        return await _move_index(
            store,
            channel,
            lambda index: merge_rows(index.rows if index else (), chosen),
            signer=signer,
            today=today,
        )

    index = await despite_others(step, pause)
    # Who takes them back may have looked for them here too early, and has done so there by now.
    gone = withdrawn_rows((await read_origin()).rows, chosen)
    if gone:
        return await publish_index(store, channel, gone, signer=signer, today=today, pause=pause)
    return index


async def renew_index(
    store: ReleaseStore,
    channel: Channel,
    *,
    signer: Signer,
    today: date,
    is_forced: bool = False,
    pause: Pause = pause_briefly,
) -> Index:
    """Sign the index again for another lifetime, if it nears its end or `is_forced`; return it.

    Whatever anybody else publishes meanwhile has renewed it. Raise StoreError if there is no index.
    """
    first = _existing(store, channel, await read_index(store, channel))
    step = partial(
        _move_index,
        store,
        channel,
        lambda index: _existing(store, channel, index).rows,
        signer=signer,
        today=today,
        # Once only, also when the answer to the first try was lost.
        renewed_serial=first.serial if is_forced else None,
    )
    return await despite_others(step, pause)


async def refuse_signer(store: ReleaseStore, channel: Channel, signer: PublicKey) -> None:
    """Raise ConfigError if the store says that the key may not sign, or revokes a trusted one."""
    authority = channel.authority
    stored = await read_keys(store, authority) if authority else None
    if stored:
        refuse_keys(stored.statement, signer, channel.keys)


async def keys_ever(store: ReleaseStore, channel: Channel) -> tuple[PublicKey, ...]:
    """Return the channel's keys, and those that the store says were active before.

    For what was signed long ago, lies where nobody writes twice, and is vouched for by more than
    its signature: a copy of an index, or what lies beside an archive that an index names.
    StoreError if keys.txt cannot be trusted.
    """
    authority = channel.authority
    stored = await read_keys(store, authority) if authority else None
    known = (*stored.statement.active, *stored.statement.revoked) if stored else ()
    return tuple(dict.fromkeys((*channel.keys, *known)))


async def read_index(store: ReleaseStore, channel: Channel) -> Index | None:
    """Return the channel's index, None before the first release; StoreError if it is forged."""
    _, index = await read_signed(store, channel)
    return index


async def read_signed(
    store: ReleaseStore, channel: Channel
) -> tuple[StoredObject, Index] | tuple[None, None]:
    """Return the channel's index and the object that it is; see `read_index`."""
    # In this order: while the keys change, keys.txt is written first, and then the index.
    keys = await accepted_keys(store, channel.keys, channel.authority)
    stored = await store.read(channel.index_name, limit_bytes=TEXT_LIMIT)
    if stored is None:
        return None, None
    try:
        return stored, genuine_index(stored.data, replace(channel, keys=keys))
    except StoreError as error:
        raise StoreError(
            f"{channel.index_name} in {store.describe()} cannot be trusted: {error.message}",
            hint=f"nothing was changed; restore it from index/{channel.name}/ in the store, and "
            "find out who wrote it",
        ) from error


def genuine_index(data: bytes, channel: Channel, *, serial: int | None = None) -> Index:
    """Return the index in these bytes; raise StoreError if it is not the channel's own.

    With `serial`, it must be that one.
    """
    index = _index_of(data, channel)
    if serial not in {None, index.serial}:
        raise StoreError(f"it is serial {index.serial}")
    return index


# Each object that follows from an index is written only while that one stands: the same bytes are
# read again and again, and are as genuine as they were.
@lru_cache(maxsize=4)
def _index_of(data: bytes, channel: Channel) -> Index:
    if not data.isascii():
        raise StoreError("it is not ASCII text")
    text, sshsig, minisig = split_signed(data.decode())
    channel.verify(
        text.encode(),
        Signatures(sshsig=sshsig, minisig=minisig),
        keys=channel.keys,
        namespace=index_namespace(channel.project),
    )
    index = parse_index(text)
    if (index.project, index.channel) != (channel.project, channel.name):
        raise StoreError(f"it is the index of {index.project} {index.channel}")
    return index


async def despite_others(step: Callable[[], Awaitable[Outcome]], pause: Pause) -> Outcome:
    """Return what the step returns, in the end; each try of it begins by reading."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return await step()
        except ConflictError:
            await pause(attempt)
    return await step()


# 500 versions for 14 targets are 1 MB.
TEXT_LIMIT: Final = 4 * 1024 * 1024
# Every lost race is somebody else's success, so this is how many may publish at the same moment.
_ATTEMPTS: Final = 40


async def _move_index(
    store: ReleaseStore,
    channel: Channel,
    decide: Callable[[Index | None], Iterable[Row]],
    *,
    signer: Signer,
    today: date,
    renewed_serial: int | None = None,
) -> Index:
    await refuse_signer(store, channel, signer.public)
    stored, index = await read_signed(store, channel)
    # Again, after the index: whoever revokes a key moves the index after that, so a key that was
    # good here and is not any more does not get past the swap below.
    await refuse_signer(store, channel, signer.public)
    rows = tuple(decide(index))
    following = advance(
        index,
        rows,
        project=channel.project,
        channel=channel.name,
        today=today,
        lifetime=channel.lifetime,
    )
    expected = stored.generation if stored else None
    kept = channel.history_name(following.serial)
    if await store.stat(kept):
        await _refuse_rollback(store, channel, serial=following.serial, expected=expected)
    if stored and index:
        # Before it can be replaced: its publisher may have died right after writing it.
        await _keep_history(store, channel.history_name(index.serial), stored.data)
        is_old = is_aging(index, today) or index.serial == renewed_serial
        if following.rows == index.rows and not is_old:
            return index
    data = _signed(following, channel, signer)
    await store.replace(channel.index_name, data, ObjectKind.INDEX, expected=expected)
    await _keep_history(store, kept, data)
    return following


def _existing(store: ReleaseStore, channel: Channel, index: Index | None) -> Index:
    if index is None:
        raise StoreError(
            f"there is no {channel.index_name} in {store.describe()}",
            hint="the first release on a channel makes it",
        )
    return index


def _signed(index: Index, channel: Channel, signer: Signer) -> bytes:
    text = render_index(index)
    signatures = signer.sign(
        text.encode(),
        namespace=index_namespace(channel.project),
        comment=f"file:{channel.index_name} serial:{index.serial}",
    )
    return join_signed(text, signatures.sshsig, signatures.minisig).encode()


async def _refuse_rollback(
    store: ReleaseStore, channel: Channel, *, serial: int, expected: Generation | None
) -> None:
    """Raise for a serial that was published before: ConflictError if it was just now."""
    now = await store.read(channel.index_name, limit_bytes=TEXT_LIMIT)
    if (now.generation if now else None) != expected:
        raise outrun(store, channel.index_name)
    # Installers remember the serial that they saw and refuse a lower or a different one.
    raise StoreError(
        f"{channel.index_name} in {store.describe()} went back to before serial {serial}",
        hint=f"restore it: copy the newest of index/{channel.name}/ over it",
    )


async def _keep_history(store: ReleaseStore, name: str, data: bytes) -> None:
    await store.create(name, data, ObjectKind.TEXT)
