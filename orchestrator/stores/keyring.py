"""What a store says of the keys that may sign: keys.txt, believed if the rotation key signed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.keys import KeyStatement, parse_keys, split_keys
from orchestrator.core.signature import Signatures, keys_namespace

if TYPE_CHECKING:
    from orchestrator.core.signature import PublicKey, Verifier
    from orchestrator.stores.store import Generation, ReleaseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Who says which keys of a project may sign: the holder of the rotation key."""

    project: str
    rotation: PublicKey
    verify: Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKeys:
    """The statement in the store, its very bytes, and the generation that `replace` compares."""

    statement: KeyStatement
    data: bytes
    generation: Generation


KEYS_NAME: Final = "keys.txt"
# A key takes 160 bytes, and there are a handful.
_LIMIT_BYTES: Final = 256 * 1024


def keys_history_name(serial: int) -> str:
    """Return the name of the copy that is kept of one serial."""
    return f"keys/{serial}.txt"


async def read_keys(store: ReleaseStore, authority: Authority) -> StoredKeys | None:
    """Return what the store says of keys, None before the first `keys rotate`.

    StoreError if it is forged, or an old statement that stands there again.
    """
    stored = await store.read(KEYS_NAME, limit_bytes=_LIMIT_BYTES)
    if stored is None:
        if await store.stat(keys_history_name(1)):
            raise _went_back(store, "is gone")
        return None
    try:
        statement = _genuine(stored.data, authority)
    except StoreError as error:
        raise StoreError(
            f"{KEYS_NAME} in {store.describe()} cannot be trusted: {error.message}",
            hint="nothing was changed; restore it from keys/ in the store, and find out who wrote "
            "it",
        ) from error
    if await store.stat(keys_history_name(statement.serial + 1)):
        raise _went_back(store, f"went back to serial {statement.serial}")
    return StoredKeys(statement=statement, data=stored.data, generation=stored.generation)


async def keys_serial(store: ReleaseStore, authority: Authority | None) -> int:
    """Return the serial of the store's keys.txt, 0 where there is none or nobody vouches for it.

    Whoever knows it refuses an older one. StoreError if keys.txt cannot be trusted.
    """
    stored = await read_keys(store, authority) if authority else None
    return stored.statement.serial if stored else 0


async def accepted_keys(
    store: ReleaseStore, keys: tuple[PublicKey, ...], authority: Authority | None
) -> tuple[PublicKey, ...]:
    """Return those of the keys that the store does not say are revoked."""
    stored = await read_keys(store, authority) if authority else None
    return tuple(key for key in keys if stored is None or key not in stored.statement.revoked)


def refuse_keys(statement: KeyStatement, own: PublicKey, keys: tuple[PublicKey, ...]) -> None:
    """Raise ConfigError unless `own` may sign, and none of the keys is revoked."""
    where = f"keys.txt in the store says so (serial {statement.serial})"
    if own in statement.revoked:
        raise ConfigError(
            f"the signing key {own.fingerprint} is revoked: {where}",
            hint="name another key in `publication.signing.key`; nothing was published",
        )
    for key in keys:
        if key in statement.revoked:
            raise ConfigError(
                f"the trusted key {key.fingerprint} is revoked: {where}",
                hint="take it out of `publication.signing.trusted`; nothing was published",
            )
    if own not in statement.active:
        raise ConfigError(
            f"the signing key {own.fingerprint} is not active: {where}",
            hint="make the store say what the inventory says: orchestrator keys rotate",
        )


def _genuine(data: bytes, authority: Authority) -> KeyStatement:
    if not data.isascii():
        raise StoreError("it is not ASCII text")
    text, sshsig, minisig = split_keys(data.decode())
    authority.verify(
        text.encode(),
        Signatures(sshsig=sshsig, minisig=minisig),
        keys=(authority.rotation,),
        namespace=keys_namespace(authority.project),
    )
    statement = parse_keys(text)
    if statement.project != authority.project:
        raise StoreError(f"it is about the keys of {statement.project}")
    return statement


def _went_back(store: ReleaseStore, what: str) -> StoreError:
    return StoreError(
        f"{KEYS_NAME} in {store.describe()} {what}, and keys/ holds a newer one",
        hint="restore it: copy the newest of keys/ over it, and find out who wrote it",
    )
