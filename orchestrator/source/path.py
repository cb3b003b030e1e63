"""A folder on this machine: its HEAD commit, or, if asked for, its files as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import RECORD_FOLDER
from orchestrator.source.command import keep_going, off_loop
from orchestrator.source.git import export_commit, run_git
from orchestrator.source.pinned import Pinned, Unpacked
from orchestrator.source.tree import Entry, File, Link, plant

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    from orchestrator.core.inventory import PathSource

_SHOWN: Final = 5
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What may lie inside of a folder and is no part of its source, unless it is committed.

    `folder` is the inventory's, with the records of releases in it; `cache` holds the bundles,
    `room` what one is made of; `private` files are never sent to a node.
    """

    folder: Path
    cache: Path
    room: Path
    private: tuple[Path, ...] = ()


async def pin_folder(source: PathSource, around: Surroundings) -> Pinned:
    """Return the folder's HEAD commit; with `allow_dirty`, its files, if they are not committed.

    What a release leaves beside the inventory, and what is private, is neither a change nor part of
    the files, unless it is committed. Raises ConfigError for changes that are in no commit, unless
    `allow_dirty` is on.
    """
    place = _existing(around.folder, source.path)
    hidden = (_existing(around.cache, "."), around.room)
    record = (
        *_record_inside(place, around.folder),
        *(path.resolve() for path in around.private),
    )
    prefix = await _prefix_in_repository(place)
    commit = None if prefix is None else await _head(place)
    if commit is None:
        changed: tuple[str, ...] = ("it is in no commit",)
    else:
        changed = await _changed_files(place, prefix or "", record)
    if changed and not source.allow_dirty:
        raise _dirty(place, changed, is_committed=commit is not None)

    async def unpack_commit(target: Path) -> Unpacked:
        assert commit is not None  # noqa: S101 -- only a committed folder is clean
        notes = await export_commit(commit, cwd=place, prefix=prefix or "", target=target)
        return Unpacked(revision=commit, notes=notes)

    async def unpack_files(target: Path) -> Unpacked:
        if prefix is None:
            names: Iterable[str] = _walk(place, (*hidden, *record))
        else:
            names = await _listed_files(place, record)
        wanted = (name for name in names if not _is_below(place / name, hidden))
        await off_loop(lambda stop: plant(_entries(place, wanted, stop), target))
        notes = (f"{place} was taken as it is, with changes that are in no commit",)
        return Unpacked(revision=commit, notes=notes)

    return Pinned(
        description=f"{place} as it is" if changed else f"{place} at {commit}",
        identity=None if changed else ("path", str(commit), prefix or ""),
        subdirectory=source.subdirectory,
        lockfile=source.lockfile,
        is_dirty=bool(changed),
        unpack=unpack_files if changed else unpack_commit,
    )


def _existing(folder: Path, path: str) -> Path:
    place = (folder / Path(path).expanduser()).resolve()
    if not place.is_dir():
        raise ConfigError(f"the source's folder does not exist: {place}")
    return place


def _record_inside(place: Path, folder: Path) -> tuple[Path, ...]:
    record = folder.resolve() / RECORD_FOLDER
    return (record,) if place in record.parents else ()


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


async def _prefix_in_repository(place: Path) -> str | None:
    """Return the folder's path in its git repository ("" at the top), or None if it is in none."""
    finished = await run_git("rev-parse", "--show-prefix", cwd=place)
    if finished.is_ok:
        return os.fsdecode(finished.output).rstrip("\n").rstrip("/")
    if "not a git repository" in finished.said:
        return None
    # For instance a repository of another user: git says what to do.
    raise ConfigError(f"git cannot read the repository at {place}:\n{finished.tail}")


async def _head(place: Path) -> str | None:
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", "HEAD^{commit}")
    finished = await run_git(*words, cwd=place)
    return finished.output.decode().strip() if finished.is_ok else None


async def _changed_files(place: Path, prefix: str, record: tuple[Path, ...]) -> tuple[str, ...]:
    words = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", ".")
    finished = await run_git(*words, cwd=place)
    if not finished.is_ok:
        raise ConfigError(f"git cannot tell whether {place} is clean:\n{finished.tail}")
    changed = []
    for line in finished.output.split(b"\0"):
        state, name = line[:2], os.fsdecode(line[3:])
        # git names these files, unlike those that it lists, from the top of the repository.
        is_ours = state == b"??" and _is_below(place / name.removeprefix(f"{prefix}/"), record)
        if name and not is_ours:
            changed.append(name)
    return tuple(changed)


def _dirty(place: Path, changed: tuple[str, ...], *, is_committed: bool) -> ConfigError:
    shown = ", ".join(repr(name).strip("'") for name in changed[:_SHOWN])
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    what = f"has changes that are in no commit: {shown}{more}" if is_committed else shown
    return ConfigError(
        f"{place}: {what}",
        hint="commit, or set `allow_dirty: true` under `source:` to release the files as they are",
    )


async def _listed_files(place: Path, record: tuple[Path, ...]) -> list[str]:
    committed = await _list_files(place, "--cached")
    others = await _list_files(place, "--others", "--exclude-standard")
    return sorted(committed | {name for name in others if not _is_below(place / name, record)})


async def _list_files(place: Path, *which: str) -> set[str]:
    finished = await run_git("ls-files", "-z", *which, cwd=place)
    if not finished.is_ok:
        raise ConfigError(f"git cannot list the files of {place}:\n{finished.tail}")
    return {os.fsdecode(name) for name in finished.output.split(b"\0") if name}


def _walk(place: Path, hidden: tuple[Path, ...]) -> Iterator[str]:
    """Yield all files except git's and what cargo built."""
    for root, folders, files in os.walk(place):
        here = Path(root)
        built = {"target"} if (here / "Cargo.toml").exists() else set[str]()
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [
            name
            for name in folders
            if name not in links
            and name != ".git"
            and name not in built
            and here / name not in hidden
        ]
        for name in (*files, *links):
            if name != ".git" and here / name not in hidden:
                yield (here / name).relative_to(place).as_posix()


def _entries(place: Path, names: Iterable[str], stop: threading.Event) -> Iterator[Entry]:
    for name in names:
        keep_going(stop)
        path = place / name
        if path.is_symlink():
            yield Link(name=name, target=os.fspath(path.readlink()))
        elif path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            yield File(name=name, content=_chunks(path), is_executable=executable)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
