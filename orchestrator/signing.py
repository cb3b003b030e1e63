"""Outside world: keys in files → signatures that ssh-keygen, minisign and signify verify.

The two forms: SSHSIG (OpenSSH's PROTOCOL.sshsig) and the minisign signature of the legacy kind
(jedisct1.github.io/minisign, "Signature format"), of which signify reads the first two lines.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.signature import PublicKey, Signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )


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
        signatures = Signatures(
            sshsig=self._sshsig(data, namespace), minisig=self._minisig(data, comment)
        )
        # A fault in memory can make a signature that gives the key away: none leaves unverified.
        verify(data, signatures, keys=(self.public,), namespace=namespace)
        return signatures

    def sign_raw(self, data: bytes) -> bytes:
        """Return the 64 bytes of a plain ed25519 signature over the data, already verified."""
        signature = self._private.sign(data)
        verify_raw(data, signature, keys=(self.public,))
        return signature

    def _sshsig(self, data: bytes, namespace: str) -> str:
        import asyncssh  # noqa: PLC0415 -- lazy: it takes 0.2 s to import
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        key = asyncssh.import_private_key(
            self._private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
        return asyncssh.create_sshsig(key, data, namespace=namespace).decode("ascii")

    def _minisig(self, data: bytes, comment: str) -> str:
        if not _COMMENT.fullmatch(comment):
            raise ValueError(f"not one line of ASCII: {comment!r}")
        signature = self._private.sign(data)
        trusted = self._private.sign(signature + comment.encode("ascii"))
        return _render_minisig(self.public, signature, comment=comment, trusted=trusted)


def parse_public_key(text: str) -> PublicKey:
    """Return the key of a line such as `ssh-ed25519 AAAA… comment`; raise ConfigError otherwise."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 -- lazy, see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_ssh_public_key,
    )

    try:
        key = load_ssh_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"not an ed25519 public key: {text[:80]!r}",
            hint="give the one line of the .pub file that `orchestrator keygen` wrote",
        )
    return _public_key(key)


def verify(
    data: bytes, signatures: Signatures, *, keys: Sequence[PublicKey], namespace: str
) -> None:
    """Return if both signatures are good and by one of `keys`; raise StoreError otherwise."""
    verify_sshsig(data, signatures.sshsig, keys=keys, namespace=namespace)
    verify_minisig(data, signatures.minisig, keys=keys)


def verify_sshsig(data: bytes, sshsig: str, *, keys: Sequence[PublicKey], namespace: str) -> None:
    """Return if the SSHSIG is over `data`, for `namespace`, by one of `keys`; else StoreError."""
    import asyncssh  # noqa: PLC0415 -- lazy: it takes 0.2 s to import

    if not _NAMESPACE.fullmatch(namespace):
        # It becomes a pattern below, where `*` or `,` would let other namespaces pass.
        raise ValueError(f"not a namespace: {namespace!r}")
    signers = "".join(f'signer namespaces="{namespace}" {key.ssh}\n' for key in keys)
    try:
        is_good = _is_canonical(sshsig) and asyncssh.validate_sshsig(
            data, sshsig.encode("ascii"), "signer", signers.encode("ascii")
        )
    except ValueError:  # an unknown hash, or an empty namespace, named inside the signature
        is_good = False
    if not is_good:
        raise _bad_signature(f"SSHSIG for {namespace}")


def verify_minisig(data: bytes, minisig: str, *, keys: Sequence[PublicKey]) -> str:
    """Return the trusted comment of a good minisig by one of `keys`; else raise StoreError."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- lazy, see above

    match = _MINISIG.fullmatch(minisig)
    if match is None:
        raise _bad_signature("minisign")
    signature = base64.b64decode(match["signature"])[_PREFIX_BYTES:]
    trusted = base64.b64decode(match["trusted"])
    comment = match["comment"]
    for key in keys:
        # The whole text again: no byte of it may be other than this program writes it.
        if _render_minisig(key, signature, comment=comment, trusted=trusted) != minisig:
            continue
        with suppress(InvalidSignature):
            public = _ed25519(key)
            public.verify(signature, data)
            public.verify(trusted, signature + comment.encode("ascii"))
            return comment
    raise _bad_signature("minisign")


def verify_raw(data: bytes, signature: bytes, *, keys: Sequence[PublicKey]) -> PublicKey:
    """Return the one of `keys` whose plain ed25519 signature it is; StoreError if none's."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- lazy, see above

    for key in keys:
        with suppress(InvalidSignature):
            _ed25519(key).verify(signature, data)
            return key
    raise _bad_signature("ed25519")


_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]*")
_ALGORITHM: Final = b"Ed"
_KEY_NUMBER_BYTES: Final = 8
_PREFIX_BYTES: Final = len(_ALGORITHM) + _KEY_NUMBER_BYTES
_COMMENT: Final = re.compile(r"[ -~]{1,900}")
_MINISIG: Final = re.compile(
    r"untrusted comment: [ -~]+\n"
    r"(?P<signature>[A-Za-z0-9+/]{99}=)\n"
    rf"trusted comment: (?P<comment>{_COMMENT.pattern})\n"
    r"(?P<trusted>[A-Za-z0-9+/]{86}==)\n"
)
_ARMOR_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----\n"
_ARMOR_END: Final = "-----END SSH SIGNATURE-----\n"
_ARMOR_COLUMNS: Final = 70
_KEY_FILE_BYTES: Final = 64 * 1024
_KEY_MAGIC: Final = b"openssh-key-v1\0"
_COUNT_BYTES: Final = 4


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
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_KEY_FILE_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no signing key", hint=f"make one: orchestrator keygen {path}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the signing key: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"{path}: others than its owner may open the signing key "
            f"(mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    return text


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
        _, rest = _split_string(rest)
    blob, _ = _split_string(rest[_COUNT_BYTES:])
    try:
        return parse_public_key(f"ssh-ed25519 {_base64(blob)}")
    except ConfigError:
        raise _wrong_kind(path) from None


def _split_string(data: bytes) -> tuple[bytes, bytes]:
    end = _COUNT_BYTES + int.from_bytes(data[:_COUNT_BYTES])
    return data[_COUNT_BYTES:end], data[end:]


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

    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    digest = hashlib.sha256(base64.b64decode(ssh.split()[1])).digest()
    # minisign and signify draw the number at random; from the key itself it never needs a file.
    number = hashlib.sha256(raw).digest()[:_KEY_NUMBER_BYTES]
    return PublicKey(
        ssh=ssh,
        minisign=_base64(_ALGORITHM + number + raw),
        key_id=number[::-1].hex().upper(),
        fingerprint="SHA256:" + _base64(digest).rstrip("="),
    )


def _ed25519(key: PublicKey) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 -- lazy
        Ed25519PublicKey,
    )

    return Ed25519PublicKey.from_public_bytes(base64.b64decode(key.minisign)[_PREFIX_BYTES:])


def _render_minisig(key: PublicKey, signature: bytes, *, comment: str, trusted: bytes) -> str:
    prefix = base64.b64decode(key.minisign)[:_PREFIX_BYTES]
    return (
        f"untrusted comment: signature by minisign key {key.key_id}\n"
        f"{_base64(prefix + signature)}\n"
        f"trusted comment: {comment}\n"
        f"{_base64(trusted)}\n"
    )


def _is_canonical(sshsig: str) -> bool:
    # asyncssh skips what it cannot decode; a text that differs from the one that was made is bad.
    encoded = sshsig.removeprefix(_ARMOR_BEGIN).removesuffix(_ARMOR_END).replace("\n", "")
    try:
        text = _base64(base64.b64decode(encoded, validate=True))
    except ValueError:
        return False
    lines = [text[i : i + _ARMOR_COLUMNS] for i in range(0, len(text), _ARMOR_COLUMNS)]
    return sshsig == _ARMOR_BEGIN + "".join(f"{line}\n" for line in lines) + _ARMOR_END


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bad_signature(form: str) -> StoreError:
    return StoreError(
        f"bad signature ({form}): the content, the key or the signature is not the one expected",
        hint="if the signing key was not changed on purpose, somebody else wrote to the store",
    )
