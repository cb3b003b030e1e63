"""The keys that sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse


def _new_passphrase() -> bytes:
    from getpass import getpass

    first = getpass("passphrase for the new key: ")
    if first != getpass("the same again: "):
        raise ConfigError("the two passphrases differ", hint="run keygen again")
    return first.encode()


def keygen(arguments: argparse.Namespace) -> int:
    """Make the signing key where the inventory says, and print its public half."""
    from orchestrator.signing import generate_key

    operator = Operator.at(arguments.inventory)
    passphrase = _new_passphrase() if arguments.passphrase else None
    path = operator.key_path()
    public = generate_key(path, passphrase=passphrase)
    print(f"made {path}: keep a copy of it in a safe place")
    print(f"fingerprint: {public.fingerprint}")
    print(f"ssh:         {public.ssh}")
    print(f"minisign:    {public.minisign}")
    return 0
