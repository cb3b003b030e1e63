"""Verification while others publish: what they do meanwhile is no fault of what was published."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.version import parse_version
from orchestrator.verification.last_step import verify_release
from tests.verification.site import NETBSD

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.stores.store import ReleaseStore, StoredObject
    from tests.verification.mirror import Mirror
    from tests.verification.site import Site


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.verification.public._PAUSES", (0.0, 0.0))


@dataclass(kw_only=True)
class Rival:
    """Another coordinator, who announces one more target each time."""

    site: Site
    version: str = "1.0.0"
    busy: bool = True

    def announce(self) -> None:
        if self.busy:
            self.busy = False
            self.site.publish(self.version, pending=("x86_64-unknown-freebsd",))


@dataclass(kw_only=True)
class BusyStore:
    """The site's store, where a rival publishes right after one of our operations."""

    store: ReleaseStore
    rival: Rival
    after: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        found = await self.store.read(name, limit_bytes=limit_bytes)
        await self._pass(name)
        return found

    async def list(self, prefix: str) -> tuple[str, ...]:
        found = await self.store.list(prefix)
        await self._pass(prefix)
        return found

    async def _pass(self, what: str) -> None:
        if what == self.after:
            await asyncio.to_thread(self.rival.announce)


def last_step(site: Site, store: Any = None) -> tuple[str, ...]:
    """Return the problems that the last step of a release finds."""
    operator = site.operator
    outlet = operator.outlet(parse_version("1.0.0"))
    if store is not None:
        outlet = replace(outlet, store=store)
    found = verify_release(
        operator.inventory,
        "1.0.0",
        outlet=outlet,
        expected=(NETBSD,),
        observe=lambda _: None,
    )
    return asyncio.run(found).problems


@pytest.mark.parametrize("after", ["stable.idx", "index/stable/"])
def test_an_index_that_moves_while_the_store_is_looked_at_is_not_rolled_back(
    site: Site, after: str
) -> None:
    site.publish()
    rival = Rival(site=site)
    assert last_step(site, BusyStore(store=site.operator.store(), rival=rival, after=after)) == ()
    assert not rival.busy


@pytest.mark.parametrize("name", ["stable.idx", "index.html", "latest/stable.txt"])
@pytest.mark.parametrize("is_before", [True, False])
def test_what_another_release_replaces_while_a_stranger_reads_is_accepted(
    site: Site, mirror: Mirror, *, name: str, is_before: bool
) -> None:
    site.write(verify=True)
    site.point("latest/stable.txt", "1")
    rival = Rival(site=site)

    def announce() -> None:
        if rival.busy:
            rival.announce()
            site.point("latest/stable.txt", "2")

    def announce_late(data: bytes) -> bytes:
        announce()
        return data

    if is_before:
        mirror.before[name] = announce
    else:
        mirror.bodies[name] = announce_late
    assert last_step(site) == ()
    assert not rival.busy
    assert mirror.asked.count(name) == 1


def test_a_newer_release_meanwhile_changes_the_installer_and_is_no_fault(
    site: Site, mirror: Mirror
) -> None:
    site.write(verify=True)
    rival = Rival(site=site, version="2.0.0")
    mirror.before["index.html"] = rival.announce
    assert last_step(site) == ()
    assert not rival.busy


def test_an_index_that_the_store_never_had_is_named_however_new_it_is(
    site: Site, mirror: Mirror, tmp_path: Path
) -> None:
    shutil.copytree(site.store, tmp_path / "fork")
    site.publish("2.0.0")
    site.publish("3.0.0")
    forked = site.index().read_bytes()
    shutil.rmtree(site.store)
    shutil.copytree(tmp_path / "fork", site.store)
    site.publish("4.0.0")
    mirror.bodies["stable.idx"] = lambda _: forked
    said = site.verify("1.0.0", "--public")
    assert said.code == 5
    assert "another one than the store's is served: serial 3" in said.problems


@pytest.mark.parametrize("name", ["latest/stable.txt", "versions.json", "keys.txt"])
def test_everything_that_follows_from_the_index_is_read_back(
    site: Site, mirror: Mirror, name: str
) -> None:
    site.point(name, "1")
    assert site.verify("1.0.0", "--public").part("object", name) == {"good"}
    mirror.bodies[name] = lambda _: b"2"
    assert f"{name}: object: it is not what the store has" in (
        site.verify("1.0.0", "--public").problems
    )
