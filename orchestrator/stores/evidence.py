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
from orchestrator.core.sbom import SBOM_NAME, UnreadableError, parse_sbom
from orchestrator.stores.store import ObjectKind, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    Nothing is written for an artifact without evidence. Raise StoreError if something is there
    already that does not belong to this archive.
    """
    if artifact.evidence is None:
        return
    folder, _, file_name = archive.rpartition("/")
    sbom_sha256 = None
    if artifact.evidence.sbom:
        sbom = await _keep_first(
            store, f"{folder}/{SBOM_NAME}", artifact.evidence.sbom, belongs=_same_component
        )
        sbom_sha256 = hashlib.sha256(sbom).hexdigest()
    statement = render_statement(
        artifact, file_name, artifact.evidence.record, sbom_sha256=sbom_sha256
    )

    def is_genuine(there: bytes, _: bytes) -> bool:
        claims = read_statement(there, keys=notary.keys, verify=notary.verify)
        return claims.subjects.get(file_name) == artifact.sha256

    sealed = seal(statement, notary.signer)
    await _keep_first(store, f"{folder}/{PROVENANCE_NAME}", sealed, belongs=is_genuine)


async def _keep_first(
    store: ReleaseStore, name: str, data: bytes, *, belongs: Callable[[bytes, bytes], bool]
) -> bytes:
    """Return what then stands under the name: what was there and belongs there, else the data."""
    there = await store.read(name, limit_bytes=EVIDENCE_LIMIT)
    if there is None:
        try:
            await store.create(name, data, ObjectKind.STATEMENT)
        except StoreError:
            # Somebody was faster, or the store is at fault; what is there now tells.
            there = await store.read(name, limit_bytes=EVIDENCE_LIMIT)
            if there is None:
                raise
        else:
            await _require_held(store, name, data)
            return data
    if there.data != data and not _holds_true(belongs, there.data, data):
        raise taken(store, name)
    return there.data


async def _require_held(store: ReleaseStore, name: str, data: bytes) -> None:
    if not await store.holds(name, data):
        raise StoreError(
            f"{name} reads back from {store.describe()} other than it was written",
            hint="the index was not changed: check the store, then run it again",
        )


def _holds_true(belongs: Callable[[bytes, bytes], bool], there: bytes, data: bytes) -> bool:
    try:
        return belongs(there, data)
    except (StoreError, UnreadableError):
        return False


def _same_component(there: bytes, data: bytes) -> bool:
    one, two = (parse_sbom(each)["metadata"]["component"] for each in (there, data))
    return bool(one.get("bom-ref") == two["bom-ref"])
