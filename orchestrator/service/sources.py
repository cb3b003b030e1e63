"""Where served objects come from: a folder, or any other store through a few kept copies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.conditions import Version
from orchestrator.core.errors import StoreError
from orchestrator.stores.channel import TEXT_LIMIT
from orchestrator.stores.directory import open_object
from orchestrator.stores.installer import INSTALL_SIGNATURE
from orchestrator.stores.pointers import INSTALL_SCRIPT, PAGE
from orchestrator.stores.store import ObjectKind, kind_of, parse_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from io import BufferedReader
    from pathlib import Path

    from orchestrator.stores.store import ReleaseStore


class Source(Protocol):
    """Published objects by name, for whoever serves them over HTTP."""

    def open(self, name: str) -> AbstractAsyncContextManager[Content | None]:
        """Yield the object, None if there is none; StoreError if that cannot be said now."""
        ...

    def elsewhere(self, name: str) -> str | None:
        """Return the URL of an object that is served by somebody else."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One object as it was when it was opened: whole in memory, or a file to read from."""

    version: Version
    body: bytes | BufferedReader

    async def read(self, first: int, length_bytes: int) -> bytes:
        """Return this part, without holding up the event loop; shorter at the end."""
        if isinstance(self.body, bytes):
            return self.body[first : first + length_bytes]
        return await asyncio.to_thread(os.pread, self.body.fileno(), length_bytes, first)


def is_compressible(name: str) -> bool:
    """Whether the object is text by its place in the layout."""
    kind = kind_of(name)
    return kind is not None and kind not in {ObjectKind.ARCHIVE, ObjectKind.BINARY}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """A directory store; it may be made, or moved away, while it is served."""

    folder: Path

    @contextlib.asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Content | None]:
        """Yield a published file; see Source."""
        stack = contextlib.ExitStack()
        try:
            yield await asyncio.to_thread(self._open, name, stack)
        finally:
            # Closing what was only read never waits.
            stack.close()

    def elsewhere(self, name: str) -> None:
        """Return None: a folder is served from here."""
        del name

    def _open(self, name: str, stack: contextlib.ExitStack) -> Content | None:
        try:
            file = stack.enter_context(open_object(self.folder, name))
        except StoreError:
            # Nothing can be published under such a name.
            return None
        except OSError as error:
            if error.errno in _PASSING:
                raise StoreError(
                    f"{name} in {self.folder} cannot be read: {error.strerror}",
                    hint="see what else has gone wrong on this machine",
                ) from error
            # A hidden file, a link, a folder: whatever it is, nothing was published there.
            return None
        return _content(name, file) if file else None


# These say nothing about whether there is such an object.
_PASSING: Final = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
_SMALL_BYTES: Final = 64 * 1024


def _content(name: str, file: BufferedReader) -> Content:
    found = os.fstat(file.fileno())
    version = Version(
        tag=f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"',
        size_bytes=found.st_size,
        modified=datetime.fromtimestamp(found.st_mtime_ns // 1_000_000_000, UTC),
    )
    limit = TEXT_LIMIT if is_compressible(name) else _SMALL_BYTES
    if found.st_size > limit:
        return Content(version=version, body=file)
    return Content(version=version, body=file.read(found.st_size))


@dataclass(frozen=True, slots=True)
class _Copy:
    content: Content | None
    error: StoreError | None
    until: float


@dataclass(slots=True, kw_only=True)
class StoreSource:
    """A store that people read at another address: from here, they get what leads them there.

    The installer, its signature and the page are read when they are asked for and kept for a
    minute, as their Cache-Control allows, so that the store is read a few times a minute at most.
    """

    store: ReleaseStore
    url: str | None = None
    now: Callable[[], float] = time.monotonic
    _copies: dict[str, _Copy] = field(default_factory=dict)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Content | None]:
        """Yield one of the few objects that are served from here; see Source."""
        copy = await self._copy(name) if name in _KEPT else None
        if copy and copy.error:
            raise copy.error
        yield copy.content if copy else None

    def elsewhere(self, name: str) -> str | None:
        """Return where the store is public, for a name that could be published; see Source."""
        if self.url is None or name in _KEPT or kind_of(name) is None:
            return None
        try:
            return f"{self.url.rstrip('/')}/{parse_name(name)}"
        except StoreError:
            return None

    async def _copy(self, name: str) -> _Copy:
        copy = self._fresh(name)
        if copy is None:
            async with self._reading:
                # Who had the turn before may have read it.
                copy = self._fresh(name)
                if copy is None:
                    self._copies[name] = copy = await self._read(name)
        return copy

    def _fresh(self, name: str) -> _Copy | None:
        copy = self._copies.get(name)
        return copy if copy and self.now() < copy.until else None

    async def _read(self, name: str) -> _Copy:
        try:
            found = await self.store.read(name, limit_bytes=TEXT_LIMIT)
        except StoreError as error:
            return _Copy(None, error, self.now() + _KEPT_ERROR_SECONDS)
        content = _held(found.data) if found else None
        return _Copy(content, None, self.now() + _KEPT_SECONDS)


_KEPT: Final = (INSTALL_SCRIPT, INSTALL_SIGNATURE, PAGE)
_KEPT_SECONDS: Final = 60
# A store in trouble is not asked again for each visitor.
_KEPT_ERROR_SECONDS: Final = 5


def _held(data: bytes) -> Content:
    version = Version(tag=f'"{sha256(data).hexdigest()[:32]}"', size_bytes=len(data))
    return Content(version=version, body=data)
