"""What a signature is: public keys, a pair of signatures, and the names that they are made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """One ed25519 key in the two forms that verifiers read.

    `ssh` is `ssh-ed25519 AAAA…` without a comment; `minisign` is the `RW…` line that minisign and
    signify read; `key_id` is written as minisign prints it, `fingerprint` as ssh-keygen does.
    """

    ssh: str
    minisign: str
    key_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """Two signatures over the same bytes, each as the text of its file, newline at the end."""

    sshsig: str
    minisig: str


class Signer(Protocol):
    """Who signs: a key in a file, or whatever else can hold one."""

    @property
    def public(self) -> PublicKey:
        """The key that verifies what this signer signs."""
        ...

    def sign(self, data: bytes, *, namespace: str, comment: str) -> Signatures:
        """Return both signatures, already verified; `comment` is signed into the minisig."""
        ...

    def sign_raw(self, data: bytes) -> bytes:
        """Return the 64 bytes of a plain ed25519 signature over the data, already verified."""
        ...


class Verifier(Protocol):
    """Who checks signatures before anything signed is believed."""

    def __call__(
        self, data: bytes, signatures: Signatures, *, keys: Sequence[PublicKey], namespace: str
    ) -> None:
        """Return if both signatures are good and by one of `keys`; raise StoreError otherwise."""
        ...


class RawVerifier(Protocol):
    """Who checks plain ed25519 signatures, as DSSE envelopes have them."""

    def __call__(self, data: bytes, signature: bytes, *, keys: Sequence[PublicKey]) -> PublicKey:
        """Return the one of `keys` that signed the data; raise StoreError if none did."""
        ...


def index_namespace(project: str) -> str:
    """Return the SSHSIG namespace of a project's index: no other signature passes for one."""
    return f"index@{project}"


def artifact_namespace(project: str) -> str:
    """Return the SSHSIG namespace of a project's archives."""
    return f"artifact@{project}"


def render_allowed_signers(project: str, keys: Sequence[PublicKey]) -> str:
    """Return the allowed_signers file for `ssh-keygen -Y verify -I PROJECT`, a line per key."""
    namespaces = f"{index_namespace(project)},{artifact_namespace(project)}"
    return "".join(f'{project} namespaces="{namespaces}" {key.ssh}\n' for key in keys)
