"""The key that an inventory names: in its file, or, where that is a public one, in ssh-agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.signing.agent import AgentSigner, find_in_agent
from orchestrator.signing.chosen import is_public_file, read_public_key
from orchestrator.signing.files import FileSigner, inspect_key, load_signer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.core.signature import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """What is known of a key that can sign, without its passphrase."""

    public: PublicKey
    has_passphrase: bool = False
    is_in_agent: bool = False


def open_signer(
    path: Path, passphrase: Callable[[], bytes] | None, *, agent: str | None
) -> FileSigner | AgentSigner:
    """Return who signs with the key in `path`; raise ConfigError if nobody can.

    `….pub` means the key in the agent whose socket is at `agent`. `passphrase` is called only if
    a private key file has one; None: there is nobody to ask.
    """
    if is_public_file(path):
        return find_in_agent(read_public_key(str(path)), agent, key_file=str(path))
    return load_signer(path, passphrase)


def know_key(path: Path, *, agent: str | None) -> KnownKey:
    """Return what is known of the key in `path`; raise ConfigError if it can sign nothing."""
    if is_public_file(path):
        signer = find_in_agent(read_public_key(str(path)), agent, key_file=str(path))
        return KnownKey(public=signer.public, is_in_agent=True)
    key = inspect_key(path)
    return KnownKey(public=key.public, has_passphrase=key.has_passphrase)
