"""What follows from an index: the installer and the download page, which a release renews last."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.stores.channel import TEXT_LIMIT, despite_others, pause_briefly, read_index
from orchestrator.stores.store import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.stores.channel import Channel, Pause
    from orchestrator.stores.store import ObjectKind, ReleaseStore


class Pointer(NamedTuple):
    """An object that follows from the index: its name, its content, and what it is."""

    name: str
    data: bytes
    kind: ObjectKind


async def publish_pointers(
    store: ReleaseStore,
    channel: Channel,
    pointers: Iterable[Pointer],
    *,
    serial: int,
    pause: Pause = pause_briefly,
) -> None:
    """Write objects as they follow from the index with this serial; equal ones are left alone.

    Once a higher serial is published, all are: they are its publisher's to write.
    """
    await asyncio.gather(
        *(
            despite_others(partial(_publish_pointer, store, channel, pointer, serial=serial), pause)
            for pointer in pointers
        )
    )


INSTALL_SCRIPT: Final = "install.sh"
PAGE: Final = "index.html"


async def _publish_pointer(
    store: ReleaseStore, channel: Channel, item: Pointer, *, serial: int
) -> None:
    stored = await store.read(item.name, limit_bytes=TEXT_LIMIT)
    if stored and stored.data == item.data:
        return
    # In this order: a publisher with a higher serial moves the index first. If that is not seen
    # here, its pointer was not there above either, and the swap below fails.
    if await _is_outrun(store, channel, serial):
        return
    expected = stored.generation if stored else None
    written = await store.replace(item.name, item.data, item.kind, expected=expected)
    if stored and await _is_outrun(store, channel, serial):
        # Its publisher may have found here what it would have written, before this write.
        with suppress(ConflictError):
            await store.replace(item.name, stored.data, item.kind, expected=written)


async def _is_outrun(store: ReleaseStore, channel: Channel, serial: int) -> bool:
    index = await read_index(store, channel)
    return index is not None and index.serial > serial
