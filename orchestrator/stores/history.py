"""The copies that are kept of every index that a channel ever had."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.stores.channel import TEXT_LIMIT, genuine_index, keys_ever, read_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.core.index import Index
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore


def serials_among(names: Iterable[str], channel: Channel) -> tuple[int, ...]:
    """Return the serials of a channel that these objects are copies of, newest first."""
    prefix = channel.history_name(0).removesuffix("0.idx")
    numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return tuple(sorted((int(n[:-4]) for n in numbers if _COPY.fullmatch(n)), reverse=True))


async def read_copy(store: ReleaseStore, channel: Channel, serial: int) -> Index | None:
    """Return the kept index of a serial, None if there is none; StoreError if it is forged.

    The channel's keys are those of then (`keys_ever`): whoever signed it may be revoked by now.
    """
    name = channel.history_name(serial)
    stored = await store.read(name, limit_bytes=TEXT_LIMIT)
    if stored is None:
        return None
    try:
        return genuine_index(stored.data, channel, serial=serial)
    except StoreError as error:
        raise StoreError(
            f"{name} in {store.describe()} cannot be trusted: {error.message}",
            hint="nobody installs from it; find out who wrote it",
        ) from error


async def read_history(
    store: ReleaseStore, channel: Channel, *, count: int
) -> Mapping[int, Index | str]:
    """Return the newest `count` serials and the one before: an index, or what is wrong with it.

    A serial that is not there is left out. The index that stands is one of them, also before its
    copy is made. Raise StoreError if that one cannot be trusted.
    """
    serials = serials_among(
        await store.list(channel.history_name(0).removesuffix("0.idx")), channel
    )
    standing = await read_index(store, channel)
    past = replace(channel, keys=await keys_ever(store, channel))
    limit = asyncio.Semaphore(_AT_ONCE)

    async def read(serial: int) -> Index | str | None:
        async with limit:
            try:
                return await read_copy(store, past, serial)
            except StoreError as error:
                return error.message

    newest = max((*serials[:1], standing.serial if standing else 0))
    wanted = [serial for serial in serials if serial > newest - count]
    wanted += serials[len(wanted) : len(wanted) + 1]
    found = dict(zip(wanted, await asyncio.gather(*map(read, wanted)), strict=True))
    if standing:
        found.setdefault(standing.serial, standing)
    return {serial: copy for serial, copy in found.items() if copy is not None}


_COPY: Final = re.compile(r"[1-9][0-9]{0,8}\.idx")
_AT_ONCE: Final = 16
