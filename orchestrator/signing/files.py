"""Keys in files of OpenSSH's form: made, inspected, and used to sign."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.signature import parse_public_key, public_key
from orchestrator.private import read_private
from orchestrator.signing.forms import COUNT_BYTES, split_string, to_base64
from orchestrator.signing.pair import sign_pair, sign_ssh
from orchestrator.signing.verification import verify_raw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from orchestrator.core.signature import PublicKey, Signatures


def generate_key(path: Path, *, passphrase: bytes | None) -> PublicKey:
    """Make a new key: `path` (0600), `path.pub` for ssh, `path.minisign.pub`; overwrite nothing.

    Raise ConfigError if one of the files is there already or cannot be written.
    """
    # Lazy: cryptography costs every command that does not sign some 50 ms.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    private = Ed25519PrivateKey.generate()
    public = _public_key(private.public_key())
    minisign = f"untrusted comment: minisign public key {public.key_id}\n{public.minisign}\n"
    files = {
        path: _openssh_form(path, private, passphrase),
        path.with_name(f"{path.name}.pub"): f"{public.ssh}\n".encode(),
        path.with_name(f"{path.name}.minisign.pub"): minisign.encode(),
    }
    _make_private_folder(path.parent)
    written: list[Path] = []
    try:
        for file, content in files.items():
            _write_new(file, content, mode=0o600 if file == path else 0o644)
            written.append(file)
    except ConfigError:
        for file in written:
            file.unlink()
        raise
    return public


def load_signer(path: Path, passphrase: Callable[[], bytes] | None) -> FileSigner:
    """Return the signer whose key is in `path`; raise ConfigError if that cannot be.

    `passphrase` is called only if the key has one; None: there is nobody to ask.
    """
    text = _read_private(path)
    private = _private_key(path, text, None)
    if private is None and passphrase is None:
        raise ConfigError(
            f"{path}: the signing key has a passphrase, and there is nobody to ask for it",
            hint="run the command in a terminal, or use a key without a passphrase",
        )
    if private is None and passphrase:
        private = _private_key(path, text, passphrase())
    if private is None:
        raise _wrong_passphrase(path)
    return FileSigner(private)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What a private key file tells without its passphrase."""

    public: PublicKey
    has_passphrase: bool


def inspect_key(path: Path) -> KeyFile:
    """Return what is known of the key in `path`; raise ConfigError if it can sign nothing."""
    text = _read_private(path)
    private = _private_key(path, text, None)
    if private is None:
        return KeyFile(public=_public_half(path, text), has_passphrase=True)
    return KeyFile(public=_public_key(private.public_key()), has_passphrase=False)


class FileSigner:
    """Signs with an ed25519 key that was read from a file."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: Final = _public_key(private.public_key())

    def __repr__(self) -> str:
        return f"FileSigner({self.public.fingerprint})"

    def sign(self, data: bytes, *, namespace: str, comment: str) -> Signatures:
        """Return both signatures, already verified; `comment` is signed into the minisig."""
        return sign_pair(
            data,
            self.public,
            self.sign_bytes,
            namespace=namespace,
            comment=comment,
            is_prehashed=False,
        )

    def sign_ssh(self, data: bytes, *, namespace: str) -> str:
        """Return the SSHSIG alone, already verified."""
        return sign_ssh(data, self.public, self.sign_bytes, namespace=namespace)

    def sign_raw(self, data: bytes) -> bytes:
        """Return the 64 bytes of a plain ed25519 signature over the data, already verified."""
        signature = self.sign_bytes(data)
        verify_raw(data, signature, keys=(self.public,))
        return signature

    def sign_bytes(self, data: bytes) -> bytes:
        """Return the bare 64 bytes of an ed25519 signature."""
        return self._private.sign(data)


_KEY_FILE_BYTES: Final = 64 * 1024
_KEY_MAGIC: Final = b"openssh-key-v1\0"


def _make_private_folder(folder: Path) -> None:
    try:
        # One by one: mkdir(parents=True) would make the ones between with the default mode.
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(mode=0o700)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already, and a key is never overwritten",
            hint="choose another name, or move the old key away if nobody trusts it any more",
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor, not a path
            file.write(content)
            file.flush()
            # What is signed next is pinned by this key: it must not be lost to a power cut.
            os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write {path}: {error.strerror}", hint="name a folder that can be written to"
    )


def _read_private(path: Path) -> bytes:
    hint = f"make one: orchestrator keygen {path}"
    return read_private(path, "signing key", limit_bytes=_KEY_FILE_BYTES, hint=hint)


def _private_key(path: Path, text: bytes, passphrase: bytes | None) -> Ed25519PrivateKey | None:
    """Return the key; None if it has a passphrase and none was given."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 -- lazy, see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_ssh_private_key,
    )

    try:
        key = load_ssh_private_key(text, passphrase)
    except TypeError:
        return None
    except UnsupportedAlgorithm:
        raise _no_bcrypt(path) from None
    except ValueError:
        if passphrase is not None:
            raise _wrong_passphrase(path) from None
        raise ConfigError(
            f"{path}: not a private key in OpenSSH's form",
            hint="name the file without .pub, or make a key with `orchestrator keygen`",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _wrong_kind(path)
    return key


def _public_half(path: Path, text: bytes) -> PublicKey:
    """Return the public key of a well-formed file, which holds it in the clear (PROTOCOL.key)."""
    body = text.decode("ascii").split("-----")[2]
    rest = base64.b64decode(body).removeprefix(_KEY_MAGIC)
    for _ in ("cipher", "kdf", "kdf options"):
        _, rest = split_string(rest)
    blob, _ = split_string(rest[COUNT_BYTES:])
    try:
        return parse_public_key(f"ssh-ed25519 {to_base64(blob)}")
    except ConfigError:
        raise _wrong_kind(path) from None


def _wrong_kind(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: the signing key is not an ed25519 key",
        hint="minisign and signify verify no other kind: make one with `orchestrator keygen`",
    )


def _wrong_passphrase(path: Path) -> ConfigError:
    return ConfigError(f"{path}: wrong passphrase", hint="try again with the one of this key")


def _no_bcrypt(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: this Python cannot read or write a key with a passphrase",
        hint="install the Python package `bcrypt` beside orchestrator",
    )


def _openssh_form(path: Path, private: Ed25519PrivateKey, passphrase: bytes | None) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 -- lazy, see above
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    try:
        return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    except UnsupportedAlgorithm:
        raise _no_bcrypt(path) from None


def _public_key(key: Ed25519PublicKey) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 -- lazy, see above
        Encoding,
        PublicFormat,
    )

    return public_key(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
