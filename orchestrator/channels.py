"""The channels of an operator: their indexes, and versions that are taken back on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.core.edits import check_flip, flip_rows
from orchestrator.core.errors import ConfigError
from orchestrator.site import renew_derived
from orchestrator.stores.channel import edit_index, read_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.core.edits import Flip, Selection
    from orchestrator.core.index import Index
    from orchestrator.wiring import Operator
    from orchestrator.world import Outlet


@dataclass(frozen=True, slots=True, kw_only=True)
class Flipped:
    """A channel's index before and after rows of it were flipped, or found flipped already."""

    outlet: Outlet
    before: Index
    after: Index


async def flip_version(
    operator: Operator, selection: Selection, flip: Flip, *, channel: str | None = None
) -> Sequence[Flipped]:
    """Return what became of the channels that have the selection: of one by its name, or of all.

    Raises ConfigError if nothing could be flipped, StoreError if the store refuses.
    """
    outlets = outlets_of(operator, channel)
    found = await existing_indexes(outlets)
    check_flip([row for _, index in found for row in index.rows], selection, flip)
    done = [
        await _flip_channel(operator, outlet, index, selection=selection, flip=flip)
        for outlet, index in found
        if selection.of(index.rows)
    ]
    # A release may have passed the version on, from where it was not flipped yet to where it was
    # not looked for any more. After this, it finds it flipped where it has it from.
    for outlet, index in await existing_indexes(outlets):
        if flip_rows(index.rows, selection, flip) != index.rows:
            again = await _flip_channel(operator, outlet, index, selection=selection, flip=flip)
            done.append(again)
    return done


async def _flip_channel(
    operator: Operator, outlet: Outlet, before: Index, *, selection: Selection, flip: Flip
) -> Flipped:
    after = await edit_index(
        outlet.store,
        outlet.channel,
        lambda index: flip_rows(index.rows, selection, flip),
        signer=outlet.signer,
        today=outlet.today(),
    )
    # Also when nothing changed: whoever was here before may have died on the way.
    await renew_derived(operator.inventory, outlet, after)
    return Flipped(outlet=outlet, before=before, after=after)


def outlets_of(operator: Operator, channel: str | None) -> Sequence[Outlet]:
    """Return the way to one channel by its name, or to all that releases go to."""
    first, *others = (channel,) if channel else operator.channel_names()
    outlet = operator.outlet_of(first)
    return (outlet, *map(outlet.on, others))


async def existing_indexes(outlets: Iterable[Outlet]) -> Sequence[tuple[Outlet, Index]]:
    """Return the indexes of the channels that have one; ConfigError if none has."""
    outlets = tuple(outlets)
    indexes = [await read_index(outlet.store, outlet.channel) for outlet in outlets]
    found = [
        (outlet, index) for outlet, index in zip(outlets, indexes, strict=True) if index is not None
    ]
    if not found:
        names = " or ".join(outlet.channel.index_name for outlet in outlets)
        raise ConfigError(
            f"there is no {names} in {outlets[0].store.describe()}",
            hint="the first release on a channel makes its index",
        )
    return found
