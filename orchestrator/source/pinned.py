"""What every kind of source comes down to: an identity, and a way to unpack it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from orchestrator.core.inventory import Lockfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What is known only after unpacking."""

    revision: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A source at one state.

    `identity` names the bytes (a commit, a checksum); None means that nothing does, so that it is
    never cached. `name` is what it was asked for by; a name whose identity changes is an alarm.
    `unpack` fills the folder that it is given, which does not exist yet.
    """

    description: str
    identity: tuple[str, ...] | None
    unpack: Callable[[Path], Awaitable[Unpacked]]
    name: str | None = None
    subdirectory: str = ""
    lockfile: Lockfile
    is_dirty: bool = False
