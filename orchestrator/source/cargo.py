"""What cargo knows about a source: its version, its dependencies, its lockfile."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import Lockfile
from orchestrator.source.command import Finished, run

if TYPE_CHECKING:
    from orchestrator.core.version import Version
    from orchestrator.source.pinned import Pinned

VENDOR: Final = "vendor"
# Beside cargo's settings: which crates there are, so that a node takes from the bundle of another
# version those that it has already.
VENDORED: Final = ".cargo/vendored"
_FOLDER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_QUICK: Final = timedelta(minutes=2)
_DOWNLOAD: Final = timedelta(minutes=30)
# Each round takes out one package that cannot be had; a lockfile with more of them is not repaired
# but replaced, and that is the maintainer's to do.
_MAX_REPAIRS: Final = 20

_CANNOT_BE_HAD: Final = re.compile(
    r"for the requirement `(?P<name>[A-Za-z0-9_-]+) = [^`]*` \(locked to (?P<version>[^\s)]+)\)"
)
_CANDIDATES: Final = re.compile(r"candidate versions found which didn't match: ([^\s,]+)")


async def run_cargo(*words: str, room: Path, deadline: timedelta = _QUICK) -> Finished:
    """Return how cargo ended, started in the room.

    Never in the source: its rust-toolchain.toml and .cargo/config.toml name programs that cargo
    would run here, where the signing key is. They count on the node, inside the build.
    """
    return await run(["cargo", *words], cwd=room, deadline=deadline)


@dataclass(frozen=True, slots=True)
class Workspace:
    """What cargo says of a source: its packages, and the folder of its Cargo.lock."""

    packages: list[dict[str, Any]]
    root: Path


def check_version(
    workspace: Workspace, pinned: Pinned, *, version: Version, binaries: tuple[str, ...]
) -> None:
    """Raise ConfigError unless packages of exactly this version provide all the binaries."""
    versions = {
        target["name"]: package["version"]
        for package in workspace.packages
        for target in package["targets"]
        if "bin" in target["kind"]
    }
    for binary in binaries:
        if binary not in versions:
            names = ", ".join(sorted(versions)) or "none"
            message = f"{pinned.description} has no binary called `{binary}`; it has: {names}"
            raise ConfigError(message, hint="see `project.binaries` in the inventory")
        if versions[binary] != str(version):
            raise ConfigError(
                f"{pinned.description} says it is {versions[binary]}, not {version}",
                hint="set `version` in its Cargo.toml and release that, or ask for its own version",
            )


async def vendor_dependencies(room: Path, workspace: Workspace, pinned: Pinned) -> tuple[str, ...]:
    """Put all dependencies into the room's `vendor/` and write `.cargo/config.toml` beside it.

    Returns what had to be changed in Cargo.lock. Both are left out when there are no dependencies.
    """
    manifest = _manifest(room, pinned.subdirectory)
    lockfile = pinned.lockfile
    lock = workspace.root / "Cargo.lock"
    before = _locked(lock)
    finished = await _vendor(room, manifest, "--locked" if lock.exists() else None)
    if not finished.is_ok and lock.exists():
        _explain(finished, lockfile)
        finished = await _vendor_repaired(finished, room=room, manifest=manifest, lock=lock)
    if not finished.is_ok:
        raise ConfigError(f"cargo cannot vendor the dependencies:\n{finished.tail}")
    _keep_vendored(room, finished.output.decode())
    return _changes(before, _locked(lock))


def newest_candidate(said: str) -> str | None:
    """Return the newest version that cargo found instead of the one asked for."""
    match = _CANDIDATES.search(said)
    return match[1] if match else None


async def read_workspace(room: Path, subdirectory: str) -> Workspace:
    """Return what cargo says of the source in the room; ConfigError if it cannot read it."""
    manifest = _manifest(room, subdirectory)
    words = ("metadata", "--no-deps", "--offline", "--format-version", "1")
    finished = await run_cargo(*words, "--manifest-path", str(manifest), room=room)
    if not finished.is_ok:
        raise ConfigError(f"cargo cannot read the source's Cargo.toml:\n{finished.tail}")
    metadata = json.loads(finished.output)
    root = Path(metadata["workspace_root"])
    if not root.is_relative_to(room / "source"):
        raise ConfigError(f"the source belongs to a workspace outside: {root}")
    return Workspace(metadata["packages"], root)


def _manifest(room: Path, subdirectory: str) -> Path:
    source = room / "source"
    manifest = (source / subdirectory / "Cargo.toml").resolve()
    if not manifest.is_relative_to(source) or not manifest.is_file():
        place = subdirectory or "its top folder"
        raise ConfigError(
            f"the source has no Cargo.toml in {place}",
            hint="name the folder that has it: `subdirectory:` under `source:`",
        )
    return manifest


async def _vendor(room: Path, manifest: Path, *options: str | None) -> Finished:
    # Without --respect-source-config, `cargo vendor` ignores the user's mirrors. With versions in
    # the folders' names, a crate's folder does not depend on which other crates there are.
    words = ("vendor", "--versioned-dirs", "--respect-source-config", "--manifest-path")
    chosen = tuple(option for option in options if option)
    return await run_cargo(*words, str(manifest), *chosen, VENDOR, room=room, deadline=_DOWNLOAD)


async def _vendor_repaired(failed: Finished, *, room: Path, manifest: Path, lock: Path) -> Finished:
    finished = failed
    for _ in range(_MAX_REPAIRS):
        if (match := _CANNOT_BE_HAD.search(finished.said)) is not None:
            _unlock(lock, match["name"], match["version"])
        elif finished is not failed:
            return finished
        finished = await _vendor(room, manifest)
        if finished.is_ok:
            return finished
    return finished


def _explain(finished: Finished, lockfile: Lockfile) -> None:
    """Raise ConfigError unless the failure is one that `lockfile: repair` mends, and it is on."""
    missing = _CANNOT_BE_HAD.search(finished.said)
    is_stale = "because --locked was passed" in finished.said or (
        "needs to be updated but --locked" in finished.said
    )
    if missing is None and not is_stale:
        raise ConfigError(f"cargo cannot vendor the dependencies:\n{finished.tail}")
    if lockfile is Lockfile.REPAIR:
        return
    if missing is None:
        raise ConfigError(
            "Cargo.lock does not match Cargo.toml",
            hint="commit the Cargo.lock that `cargo build` writes, or set `lockfile: repair`",
        )
    newest = newest_candidate(finished.said)
    raise ConfigError(
        f"Cargo.lock names {missing['name']} {missing['version']}, which cargo cannot get here"
        + (f"; the newest it finds is {newest}" if newest else ""),
        hint="set `lockfile: repair` under `source:` to lock that package anew, or try later",
    )


def _unlock(lock: Path, name: str, version: str) -> None:
    """Take one package out of Cargo.lock; cargo then picks a version for it and keeps the rest."""
    head = rf'\[\[package\]\]\nname = "{re.escape(name)}"\nversion = "{re.escape(version)}"\n'
    text = lock.read_text(encoding="utf-8").replace("\r\n", "\n")
    lock.write_text(re.sub(head + r"(?:[^\n]+\n)*\n?", "", text), encoding="utf-8")


def _keep_vendored(room: Path, printed: str) -> None:
    if not printed.strip():
        if (room / VENDOR).is_dir():
            (room / VENDOR).rmdir()
        return
    (room / ".cargo").mkdir()
    (room / ".cargo" / "config.toml").write_text(printed, encoding="utf-8")
    (room / VENDORED).write_text(_vendored(room / VENDOR), encoding="utf-8")


def _vendored(vendor: Path) -> str:
    """Return a line for each crate: what identifies its files, and its folder.

    Cargo's own list in a crate's folder has the SHA-256 of every file in it.
    """
    lists = sorted(vendor.glob("*/.cargo-checksum.json"))
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.parent.name}\n"
        for file in lists
        if _FOLDER.fullmatch(file.parent.name)
    )


def _locked(lock: Path) -> dict[str, tuple[str, ...]] | None:
    if not lock.exists():
        return None
    versions: dict[str, tuple[str, ...]] = {}
    for package in tomllib.loads(lock.read_text(encoding="utf-8")).get("package", []):
        if "source" in package:
            versions[package["name"]] = (*versions.get(package["name"], ()), package["version"])
    return versions


def _changes(
    before: dict[str, tuple[str, ...]] | None, after: dict[str, tuple[str, ...]] | None
) -> tuple[str, ...]:
    after = after or {}
    if before is None:
        return ("the source has no Cargo.lock: one was generated, with today's versions",)
    return tuple(
        f"Cargo.lock changed: {name} {_spoken(before.get(name))} → {_spoken(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _spoken(versions: tuple[str, ...] | None) -> str:
    return ", ".join(versions) if versions else "(none)"
