"""Put the files of an untrusted tree into a folder: bounded, and never outside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAX_NAME_BYTES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one source may hold."""

    files: int = 200_000
    total_bytes: int = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file; `content` is read once, before the next entry is asked for."""

    name: str
    content: Iterable[bytes]
    is_executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A symbolic link."""

    name: str
    target: str


Entry = File | Link


def plant(entries: Iterable[Entry], folder: Path, *, limits: Limits | None = None) -> None:
    """Create the folder and the entries in it; raise ConfigError at the first that is unsafe.

    Refused: names that are absolute, hold `..` or `.git`, or occur twice; links that lead outside;
    more than the limits.
    """
    limits = limits or Limits()
    folder.mkdir()
    links: list[Link] = []
    budget = limits.total_bytes
    for count, entry in enumerate(entries, start=1):
        if count > limits.files:
            raise ConfigError(f"the source holds more than {limits.files} files")
        check_name(entry.name)
        # No link exists while files are written, so nothing is written through one.
        if isinstance(entry, Link):
            check_link(entry.name, entry.target)
            links.append(entry)
        else:
            budget = _write(entry, folder, budget)
            if budget < 0:
                raise ConfigError(f"the source holds more than {limits.total_bytes} bytes")
    _create_links(links, folder)


def check_name(name: str) -> None:
    """Raise ConfigError unless the name is relative and stays below its folder."""
    parts = name.split("/")
    if (
        "\0" in name
        or len(os.fsencode(name)) > _MAX_NAME_BYTES
        or any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts)
    ):
        raise ConfigError(f"the source holds a file with an unsafe name: {name[:200]!r}")


def check_link(name: str, target: str) -> None:
    """Raise ConfigError unless the link is sure to stay inside the tree.

    `..` may stand only at the start: after a component that is itself a link, `..` would go up from
    somewhere else. The link's own folder is a real one, so counting its depth is enough.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    if (
        target.startswith("/")
        or "\0" in target
        or not target
        or ups > name.count("/")
        or any(part == ".." or part.lower() == ".git" for part in parts[ups:])
    ):
        raise ConfigError(
            f"the source holds a link that may lead outside: {name!r} -> {target[:200]!r}",
            hint="make it relative, with `..` only at its start, or leave it out of the source",
        )


def _write(entry: File, folder: Path, budget: int) -> int:
    _make_folder(entry.name, folder)
    mode = 0o755 if entry.is_executable else 0o644
    try:
        handle = os.open(folder / entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise _collision(entry.name, error) from error
    with os.fdopen(handle, "wb") as stream:
        for chunk in entry.content:
            budget -= len(chunk)
            if budget < 0:
                break
            stream.write(chunk)
    return budget


def _create_links(links: list[Link], folder: Path) -> None:
    # All folders first: a link's own folder is then never another link.
    for link in links:
        _make_folder(link.name, folder)
    for link in links:
        try:
            (folder / link.name).symlink_to(link.target)
        except OSError as error:
            raise _collision(link.name, error) from error


def _make_folder(name: str, folder: Path) -> None:
    try:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _collision(name, error) from error


def _collision(name: str, error: OSError) -> ConfigError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        # On a file system without case, `A` and `a` are one name too.
        return ConfigError(f"the source holds two files under one name: {name!r}")
    return ConfigError(f"cannot write {name!r} of the source: {error.strerror}")
