"""What is published about an artifact's making: the bill of materials, then the provenance.

Another run of the same build has other times and makes another statement about the same archive.
Whichever was published first stays, if it is genuine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.provenance import (
    PROVENANCE_NAME,
    open_envelope,
    read_claims,
    render_statement,
    seal,
)
from orchestrator.core.sbom import SBOM_NAME
from orchestrator.stores.store import ObjectKind, TakenError, taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.provenance import Claims
    from orchestrator.core.result import Artifact
    from orchestrator.core.signature import PublicKey, RawVerifier, Signer
    from orchestrator.stores.store import ReleaseStore

EVIDENCE_LIMIT: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Notary:
    """Who signs statements, and whose statements are believed."""

    signer: Signer
    keys: Sequence[PublicKey]
    verify: RawVerifier


def read_statement(data: bytes, *, keys: Sequence[PublicKey], verify: RawVerifier) -> Claims:
    """Return what a genuine statement says; StoreError for any other."""
    envelope = open_envelope(data)
    for _, signature in envelope.signatures:
        try:
            verify(envelope.signed, signature, keys=keys)
        except StoreError:
            continue
        return read_claims(envelope.payload)
    raise StoreError("no trusted key has signed the statement")


async def publish_evidence(
    store: ReleaseStore, artifact: Artifact, archive: str, *, notary: Notary
) -> None:
    """Publish what is known of an artifact's making, beside the archive of that name in the store.

    Nothing is written for an artifact without evidence. A bill of materials that somebody else put
    there stays, and no signature of ours vouches for it. Raise StoreError if the provenance that is
    there does not belong to this archive.
    """
    if artifact.evidence is None:
        return
    folder, _, file_name = archive.rpartition("/")
    name = f"{folder}/{PROVENANCE_NAME}"
    subject = (file_name, artifact.sha256)
    if await _is_told(store, name, subject, notary=notary):
        return
    statement = render_statement(
        artifact,
        file_name,
        artifact.evidence.record,
        sbom_sha256=await _publish_sbom(store, f"{folder}/{SBOM_NAME}", artifact.evidence.sbom),
    )
    try:
        await _create(store, name, seal(statement, notary.signer))
    except TakenError:
        # Another coordinator was faster, with the same archive.
        if not await _is_told(store, name, subject, notary=notary):
            raise


async def _is_told(
    store: ReleaseStore, name: str, subject: tuple[str, str], *, notary: Notary
) -> bool:
    """Return whether a genuine provenance of the subject is there; StoreError for any other.

    A subject is a file's name and its SHA-256.
    """
    there = await store.read(name, limit_bytes=EVIDENCE_LIMIT)
    if there is None:
        return False
    try:
        claims = read_statement(there.data, keys=notary.keys, verify=notary.verify)
    except StoreError:
        raise taken(store, name) from None
    if subject not in claims.subjects.items():
        raise taken(store, name)
    return True


async def _publish_sbom(store: ReleaseStore, name: str, data: bytes | None) -> str | None:
    """Return the SHA-256 of the bill if it is the one that is published."""
    if not data:
        return None
    try:
        await _create(store, name, data)
    except TakenError:
        return None
    return hashlib.sha256(data).hexdigest()


async def _create(store: ReleaseStore, name: str, data: bytes) -> None:
    await store.create(name, data, ObjectKind.STATEMENT)
    if not await store.holds(name, data):
        raise StoreError(
            f"{name} reads back from {store.describe()} other than it was written",
            hint="the index was not changed: check the store, then run it again",
        )
