"""What follows from an index: the installer, the page, and the summaries for scripts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.core.derived import VERSIONS, derive_conveniences
from orchestrator.core.downloads import newest_builds
from orchestrator.core.index import Status, render_row, sort_rows
from orchestrator.core.installer import (
    InstallerValues,
    render_installer,
    source_command,
    version_words,
)
from orchestrator.core.page import render_page
from orchestrator.stores.installer import (
    ScriptSigner,
    copy_name,
    publish_copy,
    signature_pointer,
)
from orchestrator.stores.keyring import keys_serial
from orchestrator.stores.pointers import INSTALL_SCRIPT, PAGE, Pointer, publish_pointers
from orchestrator.stores.store import ObjectKind, kind_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from orchestrator.core.index import Index, Row
    from orchestrator.core.inventory import Inventory, Project
    from orchestrator.core.version import Version
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore
    from orchestrator.world import Outlet


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What the store has beside an index, and what follows from both.

    `statements` are the names of the provenance and SBOM files (`find_statements`): the page links
    to these and to no others. `keys_serial` is that of keys.txt, 0 without one.
    """

    statements: Collection[str] = ()
    keys_serial: int = 0


def installer_values(
    project: Project, url: str, channel: Channel, *, keys_serial: int, rows: Sequence[Row] = ()
) -> InstallerValues:
    """Return what install.sh is rendered with, when the store has these keys.txt and rows."""
    rotation = (channel.rotation,) if channel.rotation else ()
    # In one order for all coordinators, each of whom names its own first.
    keys = sorted(channel.keys, key=lambda key: key.ssh)
    return InstallerValues(
        project=project.name,
        binaries=project.binaries,
        base_urls=(url,),
        channel=channel.name,
        ssh_keys=tuple(key.ssh for key in keys),
        minisign_keys=tuple(key.minisign for key in keys),
        rotation_ssh_keys=tuple(key.ssh for key in rotation),
        rotation_minisign_keys=tuple(key.minisign for key in rotation),
        keys_serial=keys_serial,
        version_words=version_words(project.version_command),
        source_command=source_command(project.source),
        # As in an index, which has the build for newer CPUs before the one for all.
        newest=tuple(map(render_row, sort_rows(newest_builds(rows)))),
    )


def derived_objects(
    inventory: Inventory,
    channel: Channel,
    index: Index,
    *,
    template: str,
    url: str | None,
    beside: Beside,
) -> tuple[Pointer, ...]:
    """Return what follows from an index of this channel; nothing unless it is the inventory's own.

    Without an address there is nothing to install from: neither install.sh nor a page.
    """
    if not leads_to(inventory, channel):
        return ()
    conveniences = tuple(
        Pointer(name, text.encode(), ObjectKind.SUMMARY if name == VERSIONS else ObjectKind.LATEST)
        for name, text in derive_conveniences(index).items()
    )
    if url is None:
        return conveniences
    values = installer_values(
        inventory.project, url, channel, keys_serial=beside.keys_serial, rows=index.rows
    )
    page = render_page(values, index, statements=beside.statements)
    return (
        Pointer(INSTALL_SCRIPT, render_installer(template, values).encode(), ObjectKind.SCRIPT),
        Pointer(PAGE, page.encode(), ObjectKind.PAGE),
        *conveniences,
    )


async def renew_derived(inventory: Inventory, outlet: Outlet, index: Index) -> None:
    """Write what follows from an index that stands in the store now, and sign the installer."""
    # After the index, so that whoever follows a change of keys has seen that change too.
    beside = Beside(
        statements=await find_statements(outlet.store, index),
        keys_serial=await keys_serial(outlet.store, outlet.channel.authority),
    )
    objects = derived_objects(
        inventory,
        outlet.channel,
        index,
        template=outlet.template,
        url=outlet.url,
        beside=beside,
    )
    script = next((each.data for each in objects if each.name == INSTALL_SCRIPT), None)
    if script is not None:
        signature = await signature_pointer(outlet.store, script, script_signer(outlet))
        objects = (*objects, signature)
    await publish_pointers(outlet.store, outlet.channel, objects, serial=index.serial)


async def renew_copy(
    inventory: Inventory, outlet: Outlet, index: Index, *, version: Version
) -> None:
    """Write the install.sh that belongs to a version, once it can be installed from this index.

    It is written once, and whoever renders other bytes later leaves it. There is none for what can
    be installed from another channel only.
    """
    is_there = any(
        row.status is Status.OK and str(row.version) == str(version) for row in index.rows
    )
    if outlet.url is None or not is_there or not leads_to(inventory, outlet.channel):
        return
    serial = await keys_serial(outlet.store, outlet.channel.authority)
    values = installer_values(inventory.project, outlet.url, outlet.channel, keys_serial=serial)
    script = render_installer(outlet.template, replace(values, version=str(version))).encode()
    name = copy_name(str(version))
    await publish_copy(outlet.store, name, script, by=script_signer(outlet))


def script_signer(outlet: Outlet) -> ScriptSigner:
    """Return who signs the installer of an outlet."""
    return ScriptSigner(
        project=outlet.channel.project,
        signer=outlet.signer,
        keys=outlet.channel.keys,
        verify=outlet.verify_ssh,
    )


async def find_statements(store: ReleaseStore, index: Index) -> frozenset[str]:
    """Return the names of what lies beside the newest archives and tells how they were made."""
    folders = {str(row.version) for row in newest_builds(index.rows)}
    found = await asyncio.gather(*(store.list(f"releases/{folder}/") for folder in folders))
    return frozenset(
        name for names in found for name in names if kind_of(name) is ObjectKind.STATEMENT
    )


def leads_to(inventory: Inventory, channel: Channel) -> bool:
    """Return whether installers follow this channel: nothing is derived from the index of another.

    A prerelease on a channel of its own is not for everybody.
    """
    return channel.name == inventory.publication.channel
