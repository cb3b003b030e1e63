"""The last step of a release: what cannot be read is not done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.core.errors import StoreError
from orchestrator.core.events import Verifying
from orchestrator.core.installer import render_installer
from orchestrator.core.report import Verified
from orchestrator.core.verification import INDEX, IndexRules, Verification, rows_of, wrong
from orchestrator.site import installer_values, leads_to
from orchestrator.stores.channel import keys_ever
from orchestrator.stores.keyring import accepted_keys, keys_serial
from orchestrator.verification.installer import check_copy, check_installer
from orchestrator.verification.judge import Judge
from orchestrator.verification.public import PublicReader, Site
from orchestrator.verification.release import (
    Version,
    check_presence,
    check_store_index,
    store_reader,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import date

    from orchestrator.core.events import Observer
    from orchestrator.core.index import Index
    from orchestrator.core.inventory import Inventory
    from orchestrator.core.verification import Check
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore
    from orchestrator.verification.release import Reader
    from orchestrator.world import Outlet


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A version in a store, and who may have signed it.

    `template` is that of install.sh, None where it is not known how that would be rendered.
    """

    inventory: Inventory
    version: str
    store: ReleaseStore
    channel: Channel
    template: str | None
    today: date
    min_serial: int | None = None
    expected: tuple[str, ...] = ()

    async def in_store(self) -> Verification:
        """Return what the store itself has of the version, everything read and checked."""
        judge = await self._judge()
        index, checks = await self._store_index(judge)
        if index:
            read = store_reader(self.store)
            checks += await self._version(read, judge).checks(index)
            checks += await check_copy(read, judge, self.version)
            checks += await self._store_installer(judge)
        return self._verification(checks)

    async def at_a_glance(self) -> Verification:
        """Return what the store says of the version's archives, without reading them."""
        judge = await self._judge()
        index, checks = await self._store_index(judge)
        if index:
            checks += await check_presence(self.store, rows_of(index, self.version))
            checks += await self._store_installer(judge)
        return self._verification(checks)

    async def in_public(
        self, url: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> Verification:
        """Return what a stranger gets of the version through the public URL."""
        judge = await self._judge()
        index, checks = await self._store_index(judge)
        if index is None:
            return self._verification(checks)
        reader = PublicReader(url=url, store=self.store)
        is_led_to = leads_to(self.inventory, self.channel)
        installer = None
        if is_led_to and self.template is not None:
            installer = partial(self._installer, self.template, url, judge)
        site = Site(reader=reader, judge=judge, installer=installer, sleep=sleep)
        index, checks = await site.index(self.channel, self._rules(newest=index.serial))
        if index:
            checks += await self._version(reader, judge).checks(index)
            checks += await check_copy(reader, judge, self.version)
        if is_led_to:
            checks += await site.pointers()
        return self._verification(checks)

    async def _store_installer(self, judge: Judge) -> list[Check]:
        if not leads_to(self.inventory, self.channel):
            return []
        return await check_installer(store_reader(self.store), judge)

    async def _installer(self, template: str, url: str, judge: Judge) -> bytes:
        # Of the present index: others may have published meanwhile.
        index, _ = await self._store_index(judge)
        values = installer_values(
            self.inventory.project,
            url,
            self.channel,
            keys_serial=await keys_serial(self.store, self.channel.authority),
            rows=index.rows if index else (),
        )
        return render_installer(template, values).encode()

    async def _judge(self) -> Judge:
        keys = await accepted_keys(self.store, self.channel.keys, self.channel.authority)
        past = await keys_ever(self.store, self.channel)
        return Judge(project=self.inventory.project.name, keys=keys, past=past)

    def _rules(self, newest: int | None = None) -> IndexRules:
        return IndexRules(
            today=self.today,
            project=self.inventory.project.name,
            channel=self.channel.name,
            newest=newest,
            min_serial=self.min_serial,
        )

    async def _store_index(self, judge: Judge) -> tuple[Index | None, list[Check]]:
        return await check_store_index(self.store, self.channel, judge, rules=self._rules())

    def _version(self, reader: Reader, judge: Judge) -> Version:
        return Version(
            version=self.version,
            judge=judge,
            read=reader,
            is_flat=self.inventory.publication.flat,
            expected=self.expected,
        )

    def _verification(self, checks: list[Check]) -> Verification:
        return Verification(subject=self.version, checks=tuple(checks))


async def verify_release(
    inventory: Inventory,
    version: str,
    *,
    outlet: Outlet,
    expected: tuple[str, ...],
    observe: Observer,
) -> Verified:
    """Return what came of reading a release back, when these targets of it are published.

    Through the public URL if the inventory says so, else only by what the store says.
    """
    published = Published(
        inventory=inventory,
        version=version,
        store=outlet.store,
        channel=outlet.channel,
        template=outlet.template,
        today=outlet.today(),
        expected=expected,
    )
    url = outlet.url if inventory.publication.is_read_back else None
    observe(Verifying(where=url or outlet.store.describe(), is_public=url is not None))
    try:
        found = await (published.in_public(url) if url else published.at_a_glance())
    except StoreError as error:
        # The release is published: that it could not be looked at is said beside the rest.
        checks = (wrong(version, INDEX, error.message),)
        found = Verification(subject=version, checks=checks)
    return Verified(is_public=url is not None, problems=found.problems)
