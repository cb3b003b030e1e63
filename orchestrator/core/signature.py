"""What a signature is: public keys, a pair of signatures, and the names that they are made for."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.errors import ConfigError

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

    def sign_ssh(self, data: bytes, *, namespace: str) -> str:
        """Return the SSHSIG alone, as the text of its file, already verified."""
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


class SshVerifier(Protocol):
    """Who checks an SSHSIG that has no minisig beside it."""

    def __call__(
        self, data: bytes, sshsig: str, *, keys: Sequence[PublicKey], namespace: str
    ) -> None:
        """Return if it is over the data, for the namespace, by one of `keys`; else StoreError."""
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


def installer_namespace(project: str) -> str:
    """Return the SSHSIG namespace of install.sh, which people run."""
    return f"installer@{project}"


def keys_namespace(project: str) -> str:
    """Return the SSHSIG namespace of the statement that says which keys may sign."""
    return f"keys@{project}"


KEY_BYTES: Final = 32
# What minisign and signify write before a key: the algorithm, then the number of the key.
ALGORITHM: Final = b"Ed"
PREFIX_BYTES: Final = len(ALGORITHM) + 8


def public_key(raw: bytes) -> PublicKey:
    """Return the key of these 32 bytes in every form that it is written in."""
    # RFC 8709, section 4: the name of the algorithm, then the key, each with its length before it.
    blob = _BLOB_PREFIX + raw
    # minisign and signify draw the number at random; from the key itself it never needs a file.
    number = hashlib.sha256(raw).digest()[: PREFIX_BYTES - len(ALGORITHM)]
    return PublicKey(
        ssh=f"ssh-ed25519 {_base64(blob)}",
        minisign=_base64(ALGORITHM + number + raw),
        key_id=number[::-1].hex().upper(),
        fingerprint="SHA256:" + _base64(hashlib.sha256(blob).digest()).rstrip("="),
    )


def parse_public_key(text: str) -> PublicKey:
    """Return the key of a line such as `ssh-ed25519 AAAA… comment`; raise ConfigError otherwise."""
    match = _SSH_LINE.fullmatch(text.strip())
    blob = base64.b64decode(match[1]) if match else b""
    if not blob.startswith(_BLOB_PREFIX):
        raise ConfigError(
            f"not an ed25519 public key: {text[:80]!r}",
            hint="give the one line of the .pub file that `orchestrator keygen` wrote",
        )
    return public_key(blob.removeprefix(_BLOB_PREFIX))


def raw_key(key: PublicKey) -> bytes:
    """Return the 32 bytes of the key."""
    return base64.b64decode(key.minisign)[PREFIX_BYTES:]


_BLOB_PREFIX: Final = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
# 51 bytes, which fill their 68 characters.
_SSH_LINE: Final = re.compile(r"ssh-ed25519[ \t]+(AAAA[A-Za-z0-9+/]{64})(?:[ \t].*)?")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def render_allowed_signers(project: str, keys: Sequence[PublicKey]) -> str:
    """Return the allowed_signers file for `ssh-keygen -Y verify -I PROJECT`, a line per key."""
    made_for = (index_namespace, artifact_namespace, installer_namespace)
    namespaces = ",".join(namespace(project) for namespace in made_for)
    return "".join(f'{project} namespaces="{namespaces}" {key.ssh}\n' for key in keys)
