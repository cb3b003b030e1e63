"""The life of an index: take versions back, pass them on, renew it, tell its history, check it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from orchestrator.core.edits import Flip
    from orchestrator.core.index import Index
    from orchestrator.core.version import Version
    from orchestrator.world import Outlet


def yank(arguments: argparse.Namespace) -> int:
    """Take a version back: nobody gets it any more unless they ask for it by name."""
    from orchestrator.core.edits import Flip

    return asyncio.run(_flip(arguments, Flip.REVOKE if arguments.revoke else Flip.YANK))


def unyank(arguments: argparse.Namespace) -> int:
    """Put a version back that was yanked."""
    from orchestrator.core.edits import Flip

    return asyncio.run(_flip(arguments, Flip.UNYANK))


async def _flip(arguments: argparse.Namespace, flip: Flip) -> int:
    from orchestrator.channels import flip_version
    from orchestrator.core.edits import Selection
    from orchestrator.core.history import differences
    from orchestrator.core.version import parse_version

    selection = Selection(version=parse_version(arguments.version), targets=tuple(arguments.target))
    operator = Operator.at(arguments.inventory)
    for flipped in await flip_version(operator, selection, flip, channel=arguments.channel):
        now = selection.of(flipped.after.rows)
        changes = differences(selection.of(flipped.before.rows), now)
        _say(flipped.outlet, flipped.after, [str(change) for change in changes])
        changed = {change.row.key for change in changes}
        for row in now:
            if row.key not in changed:
                already = "already " if row.status is flip.result else ""
                print(f"  {row.version} {row.label} is {already}{row.status}")
    return 0


def promote(arguments: argparse.Namespace) -> int:
    """Put what is ok of a version on one channel on another one too."""
    from orchestrator.core.version import parse_version

    source, target = getattr(arguments, "from"), arguments.to
    if source == target:
        raise ConfigError(
            f"{source} is promoted to itself", hint="name two channels with --from and --to"
        )
    operator = Operator.at(arguments.inventory)
    version = parse_version(arguments.version)
    return asyncio.run(_promote(operator, version, source=source, target=target))


async def _promote(operator: Operator, version: Version, *, source: str, target: str) -> int:
    from orchestrator.channels import existing_indexes
    from orchestrator.core.edits import Selection, promoted_rows
    from orchestrator.core.history import differences
    from orchestrator.core.merge import why_not_offered
    from orchestrator.publication import pass_on
    from orchestrator.site import renew_copy, renew_derived
    from orchestrator.stores.channel import Origin, pass_rows, read_index

    outlet = operator.outlet_of(target)
    [(origin, index)] = await existing_indexes((outlet.on(source),))
    rows = promoted_rows(index.rows, version)
    before = await read_index(outlet.store, outlet.channel)
    after = await pass_rows(
        outlet.store,
        outlet.channel,
        Origin(channel=origin.channel, choose=lambda now: promoted_rows(now.rows, version)),
        signer=outlet.signer,
        today=outlet.today(),
    )
    await renew_derived(operator.inventory, outlet, after)
    await renew_copy(operator.inventory, outlet, after, version=version)
    await pass_on(outlet, after, version)
    selection = Selection(version=version)
    changes = differences(selection.of(before.rows) if before else (), selection.of(after.rows))
    _say(outlet, after, [str(change) for change in changes])
    for why in (why_not_offered(after.rows, row) for row in rows):
        if why:
            print(f"  {why}")
    return 0


def renew(arguments: argparse.Namespace) -> int:
    """Sign the index again for another lifetime, when it needs it."""
    return asyncio.run(_renew(arguments))


async def _renew(arguments: argparse.Namespace) -> int:
    from orchestrator.channels import existing_indexes, outlets_of
    from orchestrator.site import renew_derived
    from orchestrator.stores.channel import renew_index

    operator = Operator.at(arguments.inventory)
    for outlet, before in await existing_indexes(outlets_of(operator, arguments.channel)):
        after = await renew_index(
            outlet.store,
            outlet.channel,
            signer=outlet.signer,
            today=outlet.today(),
            is_forced=arguments.force,
        )
        await renew_derived(operator.inventory, outlet, after)
        what = "renewed" if after.serial != before.serial else "nothing was needed"
        print(f"{after.channel}: {what}, serial {after.serial} is valid until {after.expires}")
    return 0


def history(arguments: argparse.Namespace) -> int:
    """Tell what happened to a channel, newest first."""
    from orchestrator.core.history import tell_history
    from orchestrator.listing import show_history
    from orchestrator.stores.history import read_history

    operator = Operator.at(arguments.inventory)
    channel = operator.trusted_channel(arguments.channel)
    copies = asyncio.run(read_history(operator.store(), channel, count=arguments.number))
    data = {
        "project": channel.project,
        "channel": channel.name,
        "store": operator.store().describe(),
        "entries": [entry.as_data() for entry in tell_history(copies, arguments.number)],
    }
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_history(data, sys.stdout)
    return 0


def fsck(arguments: argparse.Namespace) -> int:
    """Hold every row of every index against what is in the store."""
    from orchestrator.fsck import Scope, check_store
    from orchestrator.listing import show_fsck

    operator = Operator.at(arguments.inventory)
    report = asyncio.run(
        check_store(
            operator.store(),
            operator.trusted_channel(),
            Scope(
                names=tuple(arguments.channel),
                is_deep=arguments.deep,
                is_repairing=arguments.repair,
            ),
            derive=operator.derive,
            today=operator.today(),
            signer=operator.signer,
        )
    )
    data = report.as_data()
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_fsck(data, sys.stdout)
    return report.exit_code


def _say(outlet: Outlet, index: Index, lines: Sequence[str]) -> None:
    name = outlet.channel.name
    if not lines:
        print(f"{name}: nothing to do, serial {index.serial} stays")
        return
    print(f"{name}: serial {index.serial}")
    for line in lines:
        print(f"  {line}")
