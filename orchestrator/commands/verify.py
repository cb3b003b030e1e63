"""Check what is published, or what was downloaded, against the trusted keys."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse
    from datetime import date

    from orchestrator.core.signature import PublicKey
    from orchestrator.core.verification import Verification
    from orchestrator.verification.local import IndexFile


def verify(arguments: argparse.Namespace) -> int:
    """Check a file or a version, and show what was found."""
    from orchestrator.core.verification import verification_as_data
    from orchestrator.listing import show_verification

    path = Path(arguments.what)
    # A folder may have a version's name: a store has one for its bare binaries.
    is_file = path.is_file() or "/" in arguments.what or path.suffix in {".gz", ".idx"}
    found = _verify_file(path, arguments) if is_file else _verify_version(arguments)
    data = verification_as_data(found)
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_verification(data, sys.stdout)
    return 0 if found.is_good else StoreError.exit_code


def _verify_file(path: Path, arguments: argparse.Namespace) -> Verification:
    from orchestrator.core.verification import IndexRules
    from orchestrator.verification.local import Trust, verify_archive, verify_index

    if arguments.public:
        raise ConfigError("`--public` reads a version, not a file", hint="name the version")
    # A stranger has the key and no inventory.
    is_known = Path(arguments.inventory).exists() or not arguments.key
    operator = Operator.at(arguments.inventory) if is_known else None
    keys = _trusted_keys(arguments, operator)
    trust = Trust(
        keys=keys,
        project=operator.inventory.project.name if operator else None,
        past=_past_keys(operator, keys) if operator and not arguments.key else (),
    )
    rules = IndexRules(today=_today(), project=trust.project, min_serial=arguments.min_serial)
    if path.suffix == ".idx":
        return verify_index(path, trust, rules)
    index = _index_for(path, arguments, operator)
    return verify_archive(path, trust, index=index, rules=rules)


def _index_for(path: Path, arguments: argparse.Namespace, operator: Operator | None) -> IndexFile:
    from orchestrator.core.verification import split_archive_name
    from orchestrator.core.version import parse_version
    from orchestrator.stores.channel import TEXT_LIMIT
    from orchestrator.verification.local import IndexFile, read_file

    if arguments.index:
        place = Path(arguments.index)
        return IndexFile(name=place.name, data=read_file(place, TEXT_LIMIT))
    said = split_archive_name(path.name)
    if operator is None or said is None:
        return IndexFile(name="index", data=None, why="not there: name one with --index")
    channel = operator.channel(parse_version(said.version), ())
    try:
        stored = asyncio.run(operator.store().read(channel.index_name, limit_bytes=TEXT_LIMIT))
    except (ConfigError, StoreError) as error:
        return IndexFile(name=channel.index_name, data=None, why=error.message)
    return IndexFile(name=channel.index_name, data=stored.data if stored else None)


def _verify_version(arguments: argparse.Namespace) -> Verification:
    from orchestrator.core.version import parse_version
    from orchestrator.verification.last_step import Published

    if arguments.index:
        raise ConfigError(
            "`--index` is for a FILE: a version is looked up in the store's own index",
            hint=f"leave it out, or check the index alone: orchestrator verify {arguments.index}",
        )
    version = parse_version(arguments.what)
    operator = Operator.at(arguments.inventory)
    url = operator.inventory.publication.url
    if arguments.public and url is None:
        raise ConfigError(
            "there is no `publication.url` to read it from",
            hint="set it in the inventory, or leave out --public to read the store itself",
        )
    published = Published(
        inventory=operator.inventory,
        version=str(version),
        store=operator.store(),
        channel=operator.channel(version, _trusted_keys(arguments, operator)),
        # The installer trusts the inventory's keys, whatever is trusted here.
        template=None if arguments.key else operator.template(),
        today=_today(),
        min_serial=arguments.min_serial,
    )
    step = published.in_public(url) if arguments.public and url else published.in_store()
    return asyncio.run(step)


def _trusted_keys(
    arguments: argparse.Namespace, operator: Operator | None
) -> tuple[PublicKey, ...]:
    from orchestrator.signing import parse_public_key

    if arguments.key:
        return tuple(parse_public_key(text) for text in arguments.key)
    keys = operator.public_keys() if operator else ()
    if not keys:
        raise ConfigError(
            "no key is known that could vouch for it",
            hint="name one with --key 'ssh-ed25519 ...', or run `orchestrator keygen`",
        )
    return keys


def _past_keys(operator: Operator, keys: tuple[PublicKey, ...]) -> tuple[PublicKey, ...]:
    from orchestrator.stores.channel import keys_ever

    channel = operator.channel(None, keys)
    if channel.rotation is None:
        return ()
    try:
        return asyncio.run(keys_ever(operator.store(), channel))
    except (ConfigError, StoreError):
        # A store that cannot be asked knows of no other keys; the file is judged all the same.
        return ()


def _today() -> date:
    return datetime.now(tz=UTC).date()
