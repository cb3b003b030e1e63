"""The two forms of a signature as text, around the bare 64 bytes of ed25519.

SSHSIG is OpenSSH's PROTOCOL.sshsig. minisign's own form (jedisct1.github.io/minisign, "Signature
format") has two kinds: the legacy one signs the bytes themselves, and signify reads its first two
lines; the prehashed one signs their BLAKE2b hash, and of the two only minisign reads it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.signature import ALGORITHM, PREFIX_BYTES

if TYPE_CHECKING:
    from orchestrator.core.signature import PublicKey

PREHASHED: Final = b"ED"
COMMENT: Final = re.compile(r"[ -~]{1,900}")


class Minisig(NamedTuple):
    """A minisig, taken apart: `trusted` is over the signature and the comment."""

    algorithm: bytes
    signature: bytes
    comment: str
    trusted: bytes


def render_minisig(key: PublicKey, minisig: Minisig) -> str:
    """Return the four lines of a minisig by this key."""
    number = base64.b64decode(key.minisign)[len(ALGORITHM) : PREFIX_BYTES]
    return (
        f"untrusted comment: signature by minisign key {key.key_id}\n"
        f"{to_base64(minisig.algorithm + number + minisig.signature)}\n"
        f"trusted comment: {minisig.comment}\n"
        f"{to_base64(minisig.trusted)}\n"
    )


def split_minisig(text: str) -> Minisig | None:
    """Return the parts of a minisig, None for a text that is none; nothing is verified."""
    match = _MINISIG.fullmatch(text)
    if match is None:
        return None
    signed = base64.b64decode(match["signature"])
    return Minisig(
        algorithm=signed[: len(ALGORITHM)],
        signature=signed[PREFIX_BYTES:],
        comment=match["comment"],
        trusted=base64.b64decode(match["trusted"]),
    )


def minisign_message(data: bytes, algorithm: bytes) -> bytes:
    """Return what the first signature of a minisig of that kind is over."""
    return hashlib.blake2b(data).digest() if algorithm == PREHASHED else data


def sshsig_message(data: bytes, namespace: str) -> bytes:
    """Return what an SSHSIG is over: short, whatever is signed."""
    hashed = hashlib.sha512(data).digest()
    return _SSHSIG_MAGIC + b"".join(
        map(to_string, (namespace.encode("ascii"), _RESERVED, _HASH, hashed))
    )


def render_sshsig(key: PublicKey, signature: bytes, namespace: str) -> str:
    """Return an SSHSIG by this key, as `ssh-keygen -Y sign` writes it."""
    blob = base64.b64decode(key.ssh.split()[1])
    fields = (
        blob,
        namespace.encode("ascii"),
        _RESERVED,
        _HASH,
        to_string(KEY_TYPE) + to_string(signature),
    )
    return _armored(_SSHSIG_MAGIC + _SSHSIG_VERSION + b"".join(map(to_string, fields)))


def split_sshsig(text: str) -> bytes | None:
    """Return the 64 bytes that an SSHSIG ends with, None for a text that is none.

    Nothing is verified: `render_sshsig` tells what the whole text has to be around them.
    """
    encoded = text.removeprefix(_ARMOR_BEGIN).removesuffix(_ARMOR_END).replace("\n", "")
    try:
        return base64.b64decode(encoded, validate=True)[-SIGNATURE_BYTES:]
    except ValueError:
        return None


SIGNATURE_BYTES: Final = 64
KEY_TYPE: Final = b"ssh-ed25519"
COUNT_BYTES: Final = 4


def to_string(data: bytes) -> bytes:
    """Return a `string` of RFC 4251: its length in four bytes, then itself."""
    return len(data).to_bytes(COUNT_BYTES) + data


def split_string(data: bytes) -> tuple[bytes, bytes]:
    """Return the `string` that the data starts with, and the rest; too short a one is cut off."""
    end = COUNT_BYTES + int.from_bytes(data[:COUNT_BYTES])
    return data[COUNT_BYTES:end], data[end:]


def to_base64(data: bytes) -> str:
    """Return the data in base64, in one line."""
    return base64.b64encode(data).decode("ascii")


_MINISIG: Final = re.compile(
    r"untrusted comment: [ -~]+\n"
    r"(?P<signature>[A-Za-z0-9+/]{99}=)\n"
    rf"trusted comment: (?P<comment>{COMMENT.pattern})\n"
    r"(?P<trusted>[A-Za-z0-9+/]{86}==)\n"
)
_SSHSIG_MAGIC: Final = b"SSHSIG"
_SSHSIG_VERSION: Final = (1).to_bytes(COUNT_BYTES)
_RESERVED: Final = b""
_HASH: Final = b"sha512"
_ARMOR_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----\n"
_ARMOR_END: Final = "-----END SSH SIGNATURE-----\n"
_ARMOR_COLUMNS: Final = 70


def _armored(data: bytes) -> str:
    text = to_base64(data)
    lines = [text[i : i + _ARMOR_COLUMNS] for i in range(0, len(text), _ARMOR_COLUMNS)]
    return _ARMOR_BEGIN + "".join(f"{line}\n" for line in lines) + _ARMOR_END
