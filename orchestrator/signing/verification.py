"""Signatures, believed or not: forms that are what we write, and bytes that cryptography checks."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import StoreError
from orchestrator.core.signature import ALGORITHM, raw_key
from orchestrator.signing.forms import (
    PREHASHED,
    minisign_message,
    render_minisig,
    render_sshsig,
    split_minisig,
    split_sshsig,
    sshsig_message,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.signature import PublicKey, Signatures


def verify(
    data: bytes, signatures: Signatures, *, keys: Sequence[PublicKey], namespace: str
) -> None:
    """Return if both signatures are good and by one of `keys`; raise StoreError otherwise."""
    verify_sshsig(data, signatures.sshsig, keys=keys, namespace=namespace)
    verify_minisig(data, signatures.minisig, keys=keys)


def verify_sshsig(data: bytes, sshsig: str, *, keys: Sequence[PublicKey], namespace: str) -> None:
    """Return if the SSHSIG is over `data`, for `namespace`, by one of `keys`; else StoreError.

    Only the form that ssh-keygen writes unless told otherwise is accepted: over SHA-512.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"not a namespace: {namespace!r}")
    signature = split_sshsig(sshsig)
    message = sshsig_message(data, namespace)
    for key in keys:
        # The whole text again: key, namespace and hash are the expected ones, or it is another.
        if signature is not None and render_sshsig(key, signature, namespace) == sshsig:
            with suppress(StoreError):
                verify_raw(message, signature, keys=(key,))
                return
    raise _bad_signature(f"SSHSIG for {namespace}")


def verify_minisig(data: bytes, minisig: str, *, keys: Sequence[PublicKey]) -> str:
    """Return the trusted comment of a good minisig by one of `keys`; else raise StoreError.

    Both kinds are accepted: over the bytes themselves, and over their hash.
    """
    # Lazy: cryptography costs every command that does not sign some 50 ms.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    parts = split_minisig(minisig)
    if parts is None or parts.algorithm not in {ALGORITHM, PREHASHED}:
        raise _bad_signature("minisign")
    message = minisign_message(data, parts.algorithm)
    for key in keys:
        # The whole text again: no byte of it may be other than this program writes it.
        if render_minisig(key, parts) != minisig:
            continue
        with suppress(InvalidSignature):
            public = Ed25519PublicKey.from_public_bytes(raw_key(key))
            public.verify(parts.signature, message)
            public.verify(parts.trusted, parts.signature + parts.comment.encode("ascii"))
            return parts.comment
    raise _bad_signature("minisign")


def verify_raw(data: bytes, signature: bytes, *, keys: Sequence[PublicKey]) -> PublicKey:
    """Return the one of `keys` whose plain ed25519 signature it is; StoreError if none's."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- lazy, see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    for key in keys:
        with suppress(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(raw_key(key)).verify(signature, data)
            return key
    raise _bad_signature("ed25519")


_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]*")


def _bad_signature(form: str) -> StoreError:
    return StoreError(
        f"bad signature ({form}): the content, the key or the signature is not the one expected",
        hint="if the signing key was not changed on purpose, somebody else wrote to the store",
    )
