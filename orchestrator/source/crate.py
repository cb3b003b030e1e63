"""A crate from the registry that cargo is configured for."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError, NotYetError
from orchestrator.source.cargo import VENDOR, newest_candidate, run_cargo
from orchestrator.source.pinned import Pinned, Unpacked

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.inventory import CrateSource
    from orchestrator.core.version import Version
    from orchestrator.source.command import Finished

_CRATE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_STUB: Final = """\
[package]
name = "orchestrator-stub"
version = "0.0.0"
edition = "2021"

[dependencies]
{crate} = "={version}"

[workspace]
"""
_RESOLVE: Final = timedelta(minutes=5)
_DOWNLOAD: Final = timedelta(minutes=30)


async def pin_crate(source: CrateSource, *, version: Version, room: Path) -> Pinned:
    """Return the crate's version with the registry's checksum; ConfigError if there is none.

    Cargo itself asks, through a package that depends on this one version, so that the user's
    registries, mirrors and proxies count.
    """
    if not _CRATE_NAME.fullmatch(source.crate):
        raise ConfigError(f"not a crate's name: {source.crate[:80]!r}")
    manifest = _write_stub(room / "stub", source.crate, str(version))
    checksum = await _resolve(source.crate, str(version), manifest)

    async def unpack(folder: Path) -> Unpacked:
        return await _unpack(source.crate, str(version), manifest=manifest, folder=folder)

    return Pinned(
        description=f"crate {source.crate} {version}",
        name=f"crate {source.crate} {version}",
        identity=("crate", source.crate, str(version), checksum),
        lockfile=source.lockfile,
        unpack=unpack,
    )


def _write_stub(stub: Path, crate: str, version: str) -> Path:
    (stub / "src").mkdir(parents=True)
    (stub / "src" / "lib.rs").touch()
    manifest = stub / "Cargo.toml"
    manifest.write_text(_STUB.format(crate=crate, version=version), encoding="utf-8")
    return manifest


async def _resolve(crate: str, version: str, manifest: Path) -> str:
    words = ("generate-lockfile", "--manifest-path", str(manifest))
    room = manifest.parent.parent
    # A published version never changes, so what cargo has on disk is as good as what it can fetch.
    finished = await run_cargo(*words, "--offline", room=room)
    if not finished.is_ok:
        finished = await run_cargo(*words, room=room, deadline=_RESOLVE)
    if not finished.is_ok:
        raise _not_had(crate, version, finished)
    lock = tomllib.loads((manifest.parent / "Cargo.lock").read_text(encoding="utf-8"))
    return next(
        str(package.get("checksum", "")) for package in lock["package"] if package["name"] == crate
    )


def _not_had(crate: str, version: str, finished: Finished) -> ConfigError:
    if f"no matching package named `{crate}` found" in finished.said:
        return ConfigError(
            f"cargo finds no crate called `{crate}`",
            hint="see `project.source.crate` in the inventory, and cargo's registry configuration",
        )
    newest = newest_candidate(finished.said)
    if newest and f"for the requirement `{crate} = " in finished.said:
        return NotYetError(
            f"crate {crate} has no version {version}; the newest that cargo finds is {newest}",
            hint="publish it first, or wait until your registry has it",
        )
    return ConfigError(f"cargo cannot resolve crate {crate} {version}:\n{finished.tail}")


async def _unpack(crate: str, version: str, *, manifest: Path, folder: Path) -> Unpacked:
    words = ("vendor", "--versioned-dirs", "--respect-source-config")
    finished = await run_cargo(
        *words, "--manifest-path", str(manifest), VENDOR, room=folder.parent, deadline=_DOWNLOAD
    )
    if not finished.is_ok:
        raise ConfigError(f"cargo cannot fetch crate {crate} {version}:\n{finished.tail}")
    # The dependencies stay: the next `cargo vendor` keeps the folders that it needs.
    (folder.parent / VENDOR / f"{crate}-{version}").rename(folder)
    (folder / ".cargo-checksum.json").unlink()
    return read_published_from(folder / ".cargo_vcs_info.json")


def read_published_from(vcs_info: Path) -> Unpacked:
    """Return the commit that `cargo publish` recorded, if it did."""
    if not vcs_info.is_file():
        return Unpacked(revision=None)
    git: dict[str, Any] = json.loads(vcs_info.read_text(encoding="utf-8")).get("git", {})
    is_dirty = git.get("dirty", False)
    notes = ("the crate was published from a dirty working tree",) if is_dirty else ()
    return Unpacked(revision=git.get("sha1"), notes=notes)
