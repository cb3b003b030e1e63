"""Both signatures of some bytes, or one of them, from bare ones, whoever makes those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.signature import ALGORITHM, Signatures
from orchestrator.signing.forms import (
    COMMENT,
    PREHASHED,
    Minisig,
    minisign_message,
    render_minisig,
    render_sshsig,
    sshsig_message,
)
from orchestrator.signing.verification import verify, verify_sshsig

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.signature import PublicKey

    SignBytes = Callable[[bytes], bytes]


def sign_pair(
    data: bytes,
    public: PublicKey,
    sign_bytes: SignBytes,
    *,
    namespace: str,
    comment: str,
    is_prehashed: bool,
) -> Signatures:
    """Return both signatures, verified; `sign_bytes` makes the 64 bytes of one of the key."""
    if not COMMENT.fullmatch(comment):
        raise ValueError(f"not one line of ASCII: {comment!r}")
    algorithm = PREHASHED if is_prehashed else ALGORITHM
    signature = sign_bytes(minisign_message(data, algorithm))
    minisig = Minisig(
        algorithm=algorithm,
        signature=signature,
        comment=comment,
        trusted=sign_bytes(signature + comment.encode("ascii")),
    )
    signatures = Signatures(
        sshsig=sign_ssh(data, public, sign_bytes, namespace=namespace),
        minisig=render_minisig(public, minisig),
    )
    # A fault in memory can make a signature that gives the key away: none leaves unverified.
    verify(data, signatures, keys=(public,), namespace=namespace)
    return signatures


def sign_ssh(data: bytes, public: PublicKey, sign_bytes: SignBytes, *, namespace: str) -> str:
    """Return the SSHSIG, verified; see `sign_pair`."""
    sshsig = render_sshsig(public, sign_bytes(sshsig_message(data, namespace)), namespace)
    verify_sshsig(data, sshsig, keys=(public,), namespace=namespace)
    return sshsig
