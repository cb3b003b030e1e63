"""The change of keys: keys.txt in two steps, and every index signed anew after each.

First the new keys become active beside those that are to go, and the indexes are signed anew: until
then a release by either is legal. Only then are the old ones revoked. Nothing is written before
everything was read and verified. A crash between two steps is mended by the same call again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.history import tell_history
from orchestrator.core.index import render_index
from orchestrator.core.keys import (
    IndexMark,
    KeyStatement,
    follow,
    join_keys,
    remark,
    render_keys,
    widen,
)
from orchestrator.core.signature import keys_namespace
from orchestrator.stores.channel import TEXT_LIMIT, genuine_index, read_index, renew_index
from orchestrator.stores.history import read_history
from orchestrator.stores.keyring import (
    KEYS_NAME,
    Authority,
    StoredKeys,
    keys_history_name,
    read_keys,
)
from orchestrator.stores.store import ObjectKind, kind_of, outrun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from orchestrator.core.history import Entry
    from orchestrator.core.index import Index
    from orchestrator.core.signature import PublicKey, Signatures, Signer, Verifier
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What is to be done: `statement` is what is there already if the keys are the same.

    `opening` is what keys.txt says before it: the keys that are to go are active in it still.
    `channels` are all there are, `stale` those whose index no key that stays has signed.
    """

    authority: Authority
    stored: StoredKeys | None
    opening: KeyStatement
    statement: KeyStatement
    channels: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def is_new(self) -> bool:
        """Whether keys.txt is to be written."""
        return self.stored is None or self.stored.statement != self.statement

    @property
    def gone(self) -> tuple[PublicKey, ...]:
        """The keys that are revoked by this."""
        return tuple(key for key in self.opening.active if key not in self.statement.active)

    @property
    def signed_anew(self) -> tuple[str, ...]:
        """The channels whose index is signed anew: all of them when a key is revoked."""
        return self.channels if self.gone else self.stale


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who signs the indexes, and who keys.txt."""

    own: Signer
    rotation: Signer


async def plan_rotation(
    store: ReleaseStore, authority: Authority, channel: Channel, *, today: date
) -> Rotation:
    """Return what makes the store say that the channel's keys are the active ones.

    `channel` is any of the project's: all of its channels change at once. StoreError for an index
    or a keys.txt that is forged, ConfigError for a key that was revoked before.
    """
    stored = await read_keys(store, authority)
    before = stored.statement if stored else None
    channels = await _channels(store)
    stale = []
    for name in channels:
        _, is_stale = await _look(store, replace(channel, name=name), before)
        if is_stale:
            stale.append(name)
    opening = widen(before, project=authority.project, active=channel.keys, today=today)
    return Rotation(
        authority=authority,
        stored=stored,
        opening=opening,
        statement=follow(
            opening, project=authority.project, active=channel.keys, indexes=(), today=today
        ),
        channels=tuple(channels),
        stale=tuple(stale),
    )


async def carry_out(
    store: ReleaseStore,
    rotation: Rotation,
    channel: Channel,
    *,
    signers: Signers,
    today: date,
) -> Rotation:
    """Write keys.txt and sign the indexes anew; what is done already is left alone.

    Return the rotation with the statement that stands in the end. ConflictError if somebody else
    changed keys.txt since the plan was made.
    """
    change = _Change(store=store, channel=channel, signers=signers, today=today)
    stands = rotation.stored
    if stands:
        # Its writer may have died right after writing it.
        await _keep_history(store, stands.statement.serial, stands.data)
    if stands is None or stands.statement != rotation.opening:
        stands = await change.write(rotation.opening, stands)
    seen = await change.sign_stale(rotation.opening)
    if rotation.gone:
        stands = await change.write(rotation.statement, stands)
        stands = await change.close(stands, rotation.gone, seen)
    return replace(rotation, statement=stands.statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One run of a change of keys."""

    store: ReleaseStore
    channel: Channel
    signers: Signers
    today: date

    async def write(self, statement: KeyStatement, before: StoredKeys | None) -> StoredKeys:
        """Write keys.txt in the place of the one before, and keep a copy."""
        text = render_keys(statement)
        signatures = self.signers.rotation.sign(
            text.encode(),
            namespace=keys_namespace(statement.project),
            comment=f"file:{KEYS_NAME} serial:{statement.serial}",
        )
        data = join_keys(text, signatures.sshsig, signatures.minisig).encode()
        if await self.store.stat(keys_history_name(statement.serial)):
            raise outrun(self.store, KEYS_NAME)
        expected = before.generation if before else None
        generation = await self.store.replace(KEYS_NAME, data, ObjectKind.KEYS, expected=expected)
        await _keep_history(self.store, statement.serial, data)
        return StoredKeys(statement=statement, data=data, generation=generation)

    async def sign_stale(self, statement: KeyStatement) -> Mapping[str, int]:
        """Sign anew what no key that stays has signed; return the serial of every channel then."""
        seen = {}
        for name in await _channels(self.store):
            channel = replace(self.channel, name=name)
            index, is_stale = await _look(self.store, channel, statement)
            if is_stale:
                keys = tuple(dict.fromkeys((*channel.keys, *statement.active)))
                index = await self._sign(_lenient(replace(channel, keys=keys), statement))
            seen[name] = index.serial if index else 0
        return seen

    async def close(
        self, stands: StoredKeys, gone: tuple[PublicKey, ...], seen: Mapping[str, int]
    ) -> StoredKeys:
        """Sign every index anew now that keys are gone; return the keys.txt that then stands.

        A release that began before they went still swaps an index that it read before; it fails
        once that index has moved. One that swapped before that is found here, and was legal.
        """
        for name in await _channels(self.store):
            channel = replace(self.channel, name=name)
            try:
                await self._sign(channel)
            except StoreError:
                late = await self._late(replace(channel, keys=gone), above=seen.get(name, 0))
                if late is None:
                    raise
                marked = remark(stands.statement, late, today=self.today)
                stands = await self.write(marked, stands)
                await self._sign(_lenient(channel, marked))
        return stands

    async def _late(self, channel: Channel, *, above: int) -> IndexMark | None:
        """Return the index that a key has signed which went a moment ago; None if it is forged.

        Only the run that revoked the key may ask: later, nobody knows when it was signed.
        """
        stored = await self.store.read(channel.index_name, limit_bytes=TEXT_LIMIT)
        try:
            index = genuine_index(stored.data, channel) if stored else None
        except StoreError:
            return None
        return _mark(index) if index and index.serial > above else None

    async def _sign(self, channel: Channel) -> Index:
        return await renew_index(
            self.store, channel, signer=self.signers.own, today=self.today, is_forced=True
        )


async def recent_changes(
    store: ReleaseStore, rotation: Rotation, channel: Channel
) -> Mapping[str, Sequence[Entry]]:
    """Return the newest serials of each index that is signed anew, as they were at the plan.

    Who signs them vouches for what is in them: also for what a thief of the old key put there.
    """
    known = (*channel.keys, *rotation.opening.active, *rotation.opening.revoked)
    # Whether the index that stands may be believed was decided by the plan.
    past = replace(channel, keys=tuple(dict.fromkeys(known)), rotation=None)
    return {
        name: tell_history(
            await read_history(store, replace(past, name=name), count=_RECENT), _RECENT
        )
        for name in rotation.signed_anew
    }


def rotation_as_data(
    rotation: Rotation, *, is_done: bool, recent: Mapping[str, Sequence[Entry]] | None = None
) -> Mapping[str, object]:
    """Return what changes, or has changed, as data."""
    before = rotation.stored.statement if rotation.stored else None
    statement = rotation.statement
    return {
        "project": statement.project,
        "serial": statement.serial,
        "changes": rotation.is_new or bool(rotation.stale),
        "done": is_done,
        "active": [key.fingerprint for key in statement.active],
        "revoked": [key.fingerprint for key in statement.revoked],
        "newly_active": [
            key.fingerprint for key in statement.active if not before or key not in before.active
        ],
        "newly_revoked": [
            key.fingerprint for key in statement.revoked if not before or key not in before.revoked
        ],
        "signed_anew": list(rotation.signed_anew),
        "recent": [
            {"channel": name, "entries": [entry.as_data() for entry in entries]}
            for name, entries in (recent or {}).items()
        ],
    }


_RECENT: Final = 5


async def _channels(store: ReleaseStore) -> list[str]:
    names = await store.list("")
    return [name.removesuffix(".idx") for name in names if kind_of(name) is ObjectKind.INDEX]


async def _look(
    store: ReleaseStore, channel: Channel, statement: KeyStatement | None
) -> tuple[Index | None, bool]:
    """Return the channel's index, and whether none of the channel's keys has signed it.

    StoreError if no active key has either, nor a revoked one while that was active.
    """
    try:
        return await read_index(store, replace(channel, rotation=None)), False
    except StoreError:
        known = (*channel.keys, *(statement.active if statement else ()))
        try:
            lenient = _lenient(replace(channel, keys=known), statement)
            return await read_index(store, lenient), True
        except StoreError as error:
            raise StoreError(
                error.message,
                hint=f"{error.hint}; if another key of yours signed it that is not revoked, list "
                "that one in `publication.signing.trusted`, rotate, take it out again, and rotate "
                "once more; of a revoked key, docs/keys.md tells",
            ) from error


def _lenient(channel: Channel, statement: KeyStatement | None) -> Channel:
    """Return the channel as it was: where a revoked key may have signed the index that stood."""
    plain: Verifier = channel.verify
    marked = {mark.sha256 for mark in statement.indexes} if statement else set()
    revoked = statement.revoked if statement else ()

    def check(
        data: bytes, signatures: Signatures, *, keys: Sequence[PublicKey], namespace: str
    ) -> None:
        old = revoked if _digest(data) in marked else ()
        plain(data, signatures, keys=(*keys, *old), namespace=namespace)

    return replace(channel, verify=check, rotation=None)


async def _keep_history(store: ReleaseStore, serial: int, data: bytes) -> None:
    await store.create(keys_history_name(serial), data, ObjectKind.TEXT)


def _mark(index: Index) -> IndexMark:
    digest = _digest(render_index(index).encode())
    return IndexMark(channel=index.channel, serial=index.serial, sha256=digest)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
