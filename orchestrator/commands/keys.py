"""The keys that sign: made, shown, and changed in the store."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator, ask, open_key

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from orchestrator.core.signature import PublicKey, Signer
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.keyring import Authority


def keygen(arguments: argparse.Namespace) -> int:
    """Make a key, where the inventory says or elsewhere, and print its public half."""
    from orchestrator.signing import generate_key, public_half

    operator = Operator.at(arguments.inventory)
    elsewhere = arguments.rotation or arguments.output
    # Of a key that the agent is to hold, the inventory names the public half.
    path = Path(elsewhere or str(operator.key_path()).removesuffix(".pub"))
    if elsewhere and public_half(path) == path:
        raise ConfigError(
            f"{path} is the name of a public key", hint="name the private one, without .pub"
        )
    passphrase = _new_passphrase() if arguments.passphrase or arguments.rotation else None
    if arguments.rotation and not passphrase:
        raise ConfigError(
            "a rotation key without a passphrase is one that a thief of the file can use",
            hint="run it again, and think of one; nothing was written",
        )
    public = generate_key(path, passphrase=passphrase)
    print(f"made {path}: keep a copy of it in a safe place")
    print(f"fingerprint: {public.fingerprint}")
    print(f"ssh:         {public.ssh}")
    print(f"minisign:    {public.minisign}")
    if arguments.rotation:
        print("take it off this machine, and put its public half into the inventory:")
        print(f"  publication: {{ signing: {{ rotation: {public.ssh} }} }}")
    return 0


def _new_passphrase() -> bytes:
    from getpass import getpass

    try:
        first, again = getpass("passphrase for the new key: "), getpass("the same again: ")
    except EOFError:
        raise ConfigError(
            "there is nobody to ask for a passphrase", hint="run it in a terminal"
        ) from None
    if first != again:
        raise ConfigError("the two passphrases differ", hint="run keygen again")
    return first.encode()


def keys(arguments: argparse.Namespace) -> int:
    """Show which keys sign and are trusted, or make the store say what the inventory says."""
    operator = Operator.at(arguments.inventory)
    if arguments.action == "rotate":
        return asyncio.run(_rotate(operator, arguments))
    return asyncio.run(_list(operator, as_json=arguments.json))


async def _list(operator: Operator, *, as_json: bool) -> int:
    from orchestrator.core.keys import keys_as_data
    from orchestrator.listing import show_keys
    from orchestrator.stores.keyring import read_keys

    own = operator.public_keys()
    if not own:
        raise operator.no_key()
    authority = operator.channel(None, own).authority
    store = operator.store()
    stored = await read_keys(store, authority) if authority else None
    data = {
        "project": operator.inventory.project.name,
        "store": store.describe(),
        "key": str(operator.key_path()),
        **keys_as_data(own, operator.rotation_key(), stored.statement if stored else None),
    }
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        show_keys(data, sys.stdout)
    return 0


async def _rotate(operator: Operator, arguments: argparse.Namespace) -> int:
    from orchestrator.listing import show_rotation
    from orchestrator.stores.rotation import (
        Signers,
        carry_out,
        plan_rotation,
        recent_changes,
        rotation_as_data,
    )

    own = operator.public_keys()
    if not own:
        raise operator.no_key()
    channel = operator.channel(None, own)
    authority = _authority(channel)
    store, today = operator.store(), operator.today()
    rotation = await plan_rotation(store, authority, channel, today=today)
    recent = await recent_changes(store, rotation, channel)
    if not arguments.dry_run:
        signers = Signers(
            own=_own_signer(operator, own[0]), rotation=_rotation_signer(authority, arguments)
        )
        rotation = await carry_out(store, rotation, channel, signers=signers, today=today)
        await _renew_installer(operator, signers.own)
    data = rotation_as_data(rotation, is_done=not arguments.dry_run, recent=recent)
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_rotation(data, sys.stdout)
    return 0


def _authority(channel: Channel) -> Authority:
    if channel.authority is None:
        raise ConfigError(
            "the inventory has no `publication.signing.rotation`, the key that vouches for others",
            hint="make one: orchestrator keygen --rotation FILE",
        )
    return channel.authority


def _own_signer(operator: Operator, public: PublicKey) -> Signer:
    signer = operator.signer()
    if signer.public != public:
        path = operator.key_path()
        raise ConfigError(
            f"{path}.pub is not the public half of the key beside it; nothing was changed",
            hint=f"make it anew: ssh-keygen -y -f {path} >{path}.pub",
        )
    return signer


def _rotation_signer(authority: Authority, arguments: argparse.Namespace) -> Signer:
    if arguments.rotation_key is None:
        raise ConfigError(
            "keys change only with the private rotation key; nothing was changed",
            hint="name its file: orchestrator keys rotate --rotation-key FILE",
        )
    path = Path(arguments.rotation_key)
    signer = open_key(path, _rotation_passphrase(arguments.passphrase_file))
    if signer.public != authority.rotation:
        raise ConfigError(
            f"{path} is {signer.public.fingerprint}, not the rotation key of the inventory, "
            f"{authority.rotation.fingerprint}; nothing was changed",
            hint="is it another project's? installers know the one of the inventory only",
        )
    return signer


_PASSPHRASE_BYTES: Final = 4096


def _rotation_passphrase(file: str | None) -> Callable[[], bytes] | None:
    if file is None:
        return ask("passphrase of the rotation key: ")
    try:
        with Path(file).open("rb") as opened:
            first, *_ = opened.read(_PASSPHRASE_BYTES).splitlines() or [b""]
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the passphrase: {error.strerror}") from error
    return lambda: first


async def _renew_installer(operator: Operator, signer: Signer) -> None:
    from orchestrator.site import renew_derived

    outlet = operator.outlet_of(operator.inventory.publication.channel, signer)
    index = await operator.index(outlet.channel)
    if index:
        await renew_derived(operator.inventory, outlet, index)
