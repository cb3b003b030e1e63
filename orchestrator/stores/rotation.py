"""The change of keys: keys.txt first, then every index that a key which is gone has signed.

Nothing is written before everything was read and verified. A crash between two steps is mended by
the same call again: keys.txt says which index a revoked key still speaks for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.core.errors import StoreError
from orchestrator.core.index import render_index
from orchestrator.core.keys import IndexMark, KeyStatement, follow, join_keys, render_keys
from orchestrator.core.signature import keys_namespace
from orchestrator.stores.channel import read_index, renew_index
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

    from orchestrator.core.index import Index
    from orchestrator.core.signature import PublicKey, Signatures, Signer, Verifier
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What is to be done: `statement` is what is there already if the keys are the same.

    `stale` are the channels whose index no active key has signed.
    """

    authority: Authority
    stored: StoredKeys | None
    statement: KeyStatement
    stale: tuple[str, ...]

    @property
    def is_new(self) -> bool:
        """Whether keys.txt is to be written."""
        return self.stored is None or self.stored.statement != self.statement


async def plan_rotation(
    store: ReleaseStore, authority: Authority, channel: Channel, *, today: date
) -> Rotation:
    """Return what makes the store say that the channel's keys are the active ones.

    `channel` is any of the project's: all of its channels change at once. StoreError for an index
    or a keys.txt that is forged, ConfigError for a key that was revoked before.
    """
    stored = await read_keys(store, authority)
    before = stored.statement if stored else None
    marks = [
        IndexMark(channel=name, serial=index.serial, sha256=_digest(render_index(index).encode()))
        for name in await _channels(store)
        if (index := await _stale_index(store, replace(channel, name=name), before))
    ]
    statement = follow(
        before, project=authority.project, active=channel.keys, indexes=marks, today=today
    )
    return Rotation(
        authority=authority,
        stored=stored,
        statement=statement,
        stale=tuple(mark.channel for mark in marks),
    )


async def carry_out(
    store: ReleaseStore,
    rotation: Rotation,
    channel: Channel,
    *,
    signers: Signers,
    today: date,
) -> None:
    """Write keys.txt and sign the stale indexes anew; what is done already is left alone.

    ConflictError if somebody else changed keys.txt since the plan was made.
    """
    if rotation.stored:
        # Its writer may have died right after writing it.
        stored = rotation.stored
        await _keep_history(store, stored.statement.serial, stored.data)
    if rotation.is_new:
        await _write_keys(store, rotation, signers.rotation)
    for name in rotation.stale:
        lenient = _lenient(replace(channel, name=name), rotation.statement)
        await renew_index(store, lenient, signer=signers.own, today=today, is_forced=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who signs the indexes, and who keys.txt."""

    own: Signer
    rotation: Signer


def rotation_as_data(rotation: Rotation, *, is_done: bool) -> Mapping[str, object]:
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
        "signed_anew": list(rotation.stale),
    }


async def _channels(store: ReleaseStore) -> list[str]:
    names = await store.list("")
    return [name.removesuffix(".idx") for name in names if kind_of(name) is ObjectKind.INDEX]


async def _stale_index(
    store: ReleaseStore, channel: Channel, statement: KeyStatement | None
) -> Index | None:
    """Return the channel's index if no active key has signed it; StoreError if none ever did."""
    try:
        await read_index(store, replace(channel, rotation=None))
    except StoreError:
        known = (*channel.keys, *(statement.active if statement else ()))
        try:
            return await read_index(store, _lenient(replace(channel, keys=known), statement))
        except StoreError as error:
            raise StoreError(
                error.message,
                hint=f"{error.hint}; if another key of yours signed it, list that one in "
                "`publication.signing.trusted`, rotate, take it out again, and rotate once more",
            ) from error
    return None


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


async def _write_keys(store: ReleaseStore, rotation: Rotation, signer: Signer) -> None:
    statement, stored = rotation.statement, rotation.stored
    text = render_keys(statement)
    signatures = signer.sign(
        text.encode(),
        namespace=keys_namespace(statement.project),
        comment=f"file:{KEYS_NAME} serial:{statement.serial}",
    )
    data = join_keys(text, signatures.sshsig, signatures.minisig).encode()
    if await store.stat(keys_history_name(statement.serial)):
        raise outrun(store, KEYS_NAME)
    expected = stored.generation if stored else None
    await store.replace(KEYS_NAME, data, ObjectKind.KEYS, expected=expected)
    await _keep_history(store, statement.serial, data)


async def _keep_history(store: ReleaseStore, serial: int, data: bytes) -> None:
    await store.create(keys_history_name(serial), data, ObjectKind.TEXT)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
