"""The public keys that an inventory names: lines of a .pub file, or the files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.signature import parse_public_key

if TYPE_CHECKING:
    from orchestrator.core.inventory import Signing
    from orchestrator.core.signature import PublicKey


def is_public_file(path: Path) -> bool:
    """Return whether it is a public key, whose private half is in an agent (as git has it)."""
    return path.suffix == ".pub"


def public_half(path: Path) -> Path:
    """Return the file with the public half of a key; itself, if it is that."""
    return path if is_public_file(path) else path.with_name(f"{path.name}.pub")


def read_public_key(said: str) -> PublicKey:
    """Return the key of a line `ssh-ed25519 AAAA…`, or of the file that holds one.

    Raise ConfigError for a file that is not there or holds another kind.
    """
    if said.startswith("ssh-"):
        return parse_public_key(said)
    try:
        with Path(said).open(encoding="utf-8") as file:
            text = file.read(_KEY_FILE_CHARACTERS)
    except FileNotFoundError:
        raise ConfigError(
            f"{said}: there is no public key", hint="name the .pub file, or write its line"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{said}: cannot be read: {error}") from error
    try:
        return parse_public_key(text)
    except ConfigError as error:
        raise ConfigError(f"{said}: {error.message}", hint=error.hint) from None


def trusted_keys(signing: Signing, own: PublicKey) -> tuple[PublicKey, ...]:
    """Return the key that signs and then the other trusted ones; ConfigError for one named twice.

    The rotation key is none of them: who stole it could sign as well.
    """
    keys = [own]
    for said in signing.trusted:
        key = read_public_key(said)
        if key in keys:
            what = "the signing key itself" if key == own else "a key twice"
            raise ConfigError(
                f"`publication.signing.trusted` names {what}: {key.fingerprint}",
                hint="the signing key is always trusted: list the other ones, each once",
            )
        keys.append(key)
    if rotation_key(signing) in keys:
        raise ConfigError(
            "`publication.signing.rotation` names a key that signs releases too",
            hint="make another one, and keep it off this machine: orchestrator keygen --rotation",
        )
    return tuple(keys)


def rotation_key(signing: Signing) -> PublicKey | None:
    """Return the key that vouches for the signing keys, None if the inventory has none."""
    return read_public_key(signing.rotation) if signing.rotation else None


_KEY_FILE_CHARACTERS: Final = 4096
