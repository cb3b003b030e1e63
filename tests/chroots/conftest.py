"""The systems, and the sites that they install from: each made once for all tests."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from tests.chroots.publisher import (
    NEW,
    OLD,
    Publisher,
    index_of,
    without_floors,
)
from tests.chroots.roots import OLDER_SUITES, Recipe, debian
from tests.installer_site import certificate, serve
from tests.servers import orchestrator_serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.chroots.roots import Root

RECIPES: Final = {
    "bookworm": Recipe(("bookworm",)),
    "bookworm with curl": Recipe(("bookworm",), ("curl", "ca-certificates")),
    "bookworm with wget": Recipe(("bookworm",), ("wget",)),
    "older with curl": Recipe(OLDER_SUITES, ("curl", "ca-certificates")),
    "older with wget": Recipe(OLDER_SUITES, ("wget", "openssh-client")),
    "trixie with curl": Recipe(("trixie",), ("curl", "minisign")),
}


@pytest.fixture(scope="session")
def archives() -> Mapping[str, Path]:
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(Recipe.made, RECIPES.values())
        return dict(zip(RECIPES, made, strict=True))


class System(Protocol):
    """Opens one of the systems; its `own` copy may be changed for good."""

    def __call__(self, name: str, *, own: bool = False) -> AbstractContextManager[Root]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Systems:
    """The systems of this session: unpacked once, and again after somebody has left something."""

    archives: Mapping[str, Path]
    folder: Path
    unpacked: dict[str, tuple[ExitStack, Root]] = field(default_factory=dict)

    @contextmanager
    def opened(self, name: str, *, own: bool = False) -> Iterator[Root]:
        if own:
            with debian(self.archives[name], self.folder / "own") as root:
                yield root
            return
        if name not in self.unpacked:
            stack = ExitStack()
            root = stack.enter_context(debian(self.archives[name], self.folder / name))
            self.unpacked[name] = stack, root
        stack, root = self.unpacked[name]
        before = root.tree()
        try:
            yield root
        finally:
            if root.tree() != before:
                del self.unpacked[name]
                stack.close()

    def close(self) -> None:
        for stack, _ in self.unpacked.values():
            stack.close()


@pytest.fixture(scope="session")
def system(
    archives: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    systems = Systems(archives=archives, folder=tmp_path_factory.mktemp("systems"))
    yield systems.opened
    systems.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a store is served."""

    store: Path
    url: str
    certificate: Path | None = None

    @property
    def script(self) -> str:
        return (self.store / "install.sh").read_text()


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"))


@pytest.fixture(scope="session")
def site(publisher: Publisher) -> Iterator[Site]:
    """Two releases, each for glibc and without a libc, served by the product's own command."""
    store = publisher.folder / "store"
    store.mkdir()
    with orchestrator_serve(store) as url:
        publisher.release("store", url, OLD, NEW)
        yield Site(store=store, url=url)


@pytest.fixture(scope="session")
def untold(publisher: Publisher) -> Iterator[Site]:
    """The same, but the newest version is there for glibc alone, and does not say which glibc."""
    store = publisher.folder / "untold"
    store.mkdir()
    with orchestrator_serve(store) as url:
        publisher.release("untold", url, OLD, NEW)
        publisher.rewrite(store, without_floors(index_of(store).rows))
        yield Site(store=store, url=url)


@pytest.fixture(scope="session")
def altered(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy whose index somebody altered who has no key."""
    store = tmp_path_factory.mktemp("altered") / "store"
    shutil.copytree(site.store, store)
    index = store / "stable.idx"
    index.write_text(index.read_text().replace("glibc>=", "glibc>=1", 1))
    with orchestrator_serve(store) as url:
        yield Site(store=store, url=url)


@pytest.fixture(scope="session")
def secure(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same releases over TLS, with a certificate that nobody knows yet."""
    file, context = certificate(tmp_path_factory.mktemp("certificate"))
    store = publisher.folder / "secure"
    store.mkdir()
    for server in serve(store, context):
        publisher.release("secure", server.url, OLD, NEW)
        yield Site(store=store, url=server.url, certificate=file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("chroots"):
                item.add_marker(pytest.mark.skip(reason="needs root, to change the root folder"))
