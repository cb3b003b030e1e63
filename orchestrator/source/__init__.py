"""Where the source comes from: a crate, a git tag, an archive or a folder → one bundle."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, assert_never

from orchestrator.core.inventory import ArchiveSource, CrateSource, GitSource, PathSource, Source
from orchestrator.source.archive import pin_archive
from orchestrator.source.bundle import Bundle, BundleCache
from orchestrator.source.cargo import check_version, read_workspace, vendor_dependencies
from orchestrator.source.crate import pin_crate
from orchestrator.source.git import pin_tag
from orchestrator.source.path import Surroundings, pin_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.core.version import Version
    from orchestrator.source.pinned import Pinned

__all__ = ["Bundle", "make_bundle"]


async def make_bundle(  # noqa: PLR0913 -- all by name, and each a thing of its own
    source: Source,
    *,
    version: Version,
    binaries: tuple[str, ...],
    folder: Path,
    cache: Path,
    private: tuple[Path, ...] = (),
    report: Callable[[str], None] | None = None,
) -> Bundle:
    """Return the bundle of this version, made now or found, intact, in the cache.

    It holds `source/`, `vendor/` and `.cargo/config.toml`: unpacked anywhere, `cargo build --locked
    --offline` works in `source/<subdirectory>`. Relative paths of the source start at `folder`;
    `private` files, such as a signing key, are no part of it unless they are committed.
    Raises ConfigError if the source is not what was asked for, NodeError if a step does not end.
    """
    tell = report or (lambda _: None)
    bundles = BundleCache(cache)
    with _workroom(cache) as room:
        surroundings = Surroundings(folder=folder, cache=cache, room=room, private=private)
        pinned = await _pin(source, version=version, around=surroundings)
        bundles.check_unmoved(pinned)
        key = bundles.key_of(pinned, version=version, binaries=binaries)
        if found := await bundles.find(key, pinned):
            tell(f"{found.description}: the bundle is in the cache")
            return found
        tell(f"fetching {pinned.description}")
        unpacked = await pinned.unpack(room / "source")
        workspace = await read_workspace(room, pinned.subdirectory)
        check_version(workspace, pinned, version=version, binaries=binaries)
        tell("vendoring its dependencies")
        notes = await vendor_dependencies(room, workspace, pinned)
        tell("packing the bundle")
        return await bundles.add(
            key, pinned, room=room, revision=unpacked.revision, notes=unpacked.notes + notes
        )


async def _pin(source: Source, *, version: Version, around: Surroundings) -> Pinned:
    match source:
        case CrateSource():
            return await pin_crate(source, version=version, room=around.room)
        case GitSource():
            return await pin_tag(source, version=version, folder=around.folder, room=around.room)
        case ArchiveSource():
            return pin_archive(source, version=version, room=around.room)
        case PathSource():
            return await pin_folder(source, around)
        case _:
            assert_never(source)


@contextmanager
def _workroom(cache: Path) -> Iterator[Path]:
    """Yield an empty folder in which cargo sees the source and nothing around it.

    Cargo looks for a workspace in every folder above, so a cache inside a Rust project would make
    the source a stray member of that project; the system's temporary folder is used then.
    """
    cache.mkdir(parents=True, exist_ok=True)
    place = cache.resolve()
    has_project = any((above / "Cargo.toml").exists() for above in (place, *place.parents))
    with TemporaryDirectory(prefix="bundle-", dir=None if has_project else place) as room:
        yield Path(room).resolve()
