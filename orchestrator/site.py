"""What follows from an index: the installer, the page, and the summaries for scripts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.core.derived import VERSIONS, derive_conveniences
from orchestrator.core.downloads import newest_builds
from orchestrator.core.installer import InstallerValues, render_installer, version_words
from orchestrator.core.page import render_page
from orchestrator.stores.pointers import INSTALL_SCRIPT, PAGE, Pointer, publish_pointers
from orchestrator.stores.store import ObjectKind, kind_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator.core.index import Index
    from orchestrator.core.inventory import Inventory, Project, Publication
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore
    from orchestrator.world import Outlet


def installer_values(project: Project, url: str, channel: Channel) -> InstallerValues:
    """Return what install.sh is rendered with."""
    rotation = (channel.rotation,) if channel.rotation else ()
    return InstallerValues(
        project=project.name,
        binaries=project.binaries,
        base_urls=(url,),
        channel=channel.name,
        ssh_keys=tuple(key.ssh for key in channel.keys),
        minisign_keys=tuple(key.minisign for key in channel.keys),
        rotation_ssh_keys=tuple(key.ssh for key in rotation),
        rotation_minisign_keys=tuple(key.minisign for key in rotation),
        version_words=version_words(project.version_command),
    )


def pointers_of(
    project: Project,
    channel: Channel,
    index: Index,
    *,
    url: str | None,
    template: str,
    statements: Collection[str] = (),
) -> tuple[Pointer, ...]:
    """Return every object that follows from the index of the inventory's own channel.

    For `publish_pointers`. Without a URL there is nothing to install from, so neither install.sh
    nor a page. `statements` are the names of the provenance and SBOM files that the store has
    (`find_statements`): the page links to these and to no others.
    """
    texts = derive_conveniences(index)
    pointers = tuple(
        Pointer(name, text.encode(), ObjectKind.SUMMARY if name == VERSIONS else ObjectKind.LATEST)
        for name, text in texts.items()
    )
    if url is None:
        return pointers
    values = installer_values(project, url, channel)
    script = render_installer(template, values).encode()
    page = render_page(values, index, statements=statements).encode()
    return (
        Pointer(INSTALL_SCRIPT, script, ObjectKind.SCRIPT),
        Pointer(PAGE, page, ObjectKind.PAGE),
        *pointers,
    )


def has_pointers(publication: Publication, channel: Channel) -> bool:
    """Return whether this channel is the one whose index the installer and the page follow.

    A prerelease on another channel is not for everybody: nothing is derived from its index.
    """
    return channel.name == publication.channel


async def find_statements(store: ReleaseStore, index: Index) -> frozenset[str]:
    """Return the names of what lies beside the newest archives and tells how they were made."""
    folders = {str(row.version) for row in newest_builds(index.rows)}
    found = await asyncio.gather(*(store.list(f"releases/{folder}/") for folder in folders))
    return frozenset(
        name for names in found for name in names if kind_of(name) is ObjectKind.STATEMENT
    )


async def renew_pointers(
    store: ReleaseStore,
    project: Project,
    channel: Channel,
    *,
    index: Index,
    url: str | None,
    template: str,
) -> None:
    """Bring what follows from the index up to date, unless a higher serial is published."""
    statements = await find_statements(store, index)
    pointers = pointers_of(
        project, channel, index, url=url, template=template, statements=statements
    )
    await publish_pointers(store, channel, pointers, serial=index.serial)


async def renew_derived(inventory: Inventory, outlet: Outlet, index: Index) -> None:
    """Bring up to date what follows from an index that stands in the store now."""
    if has_pointers(inventory.publication, outlet.channel):
        await renew_pointers(
            outlet.store,
            inventory.project,
            outlet.channel,
            index=index,
            url=outlet.url,
            template=outlet.template,
        )
