"""DirectoryStore: a folder as a store, for the default, the demo and mirrors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from orchestrator.core.errors import StoreError
from orchestrator.parts import PART, hold, is_left
from orchestrator.stores.store import (
    Created,
    Generation,
    ObjectKind,
    ObjectStat,
    StoredObject,
    outrun,
    oversized,
    parse_name,
    parse_prefix,
    taken,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path


class Link(Protocol):
    """os.link, as this module calls it."""

    def __call__(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        """Give a file a second name; FileExistsError if the name is taken."""
        ...


class DirectoryStore:
    """A folder on this machine, shared safely by every process that goes through this class.

    A generation is the SHA-256 of the content: whoever finds the content that it expects may
    replace it, whatever happened in between. Files carry no headers; whoever serves the folder asks
    `kind_of`. Symbolic links below the folder are refused, wherever they point.
    """

    def __init__(
        self, root: Path, *, link: Link = os.link, patience: timedelta = timedelta(seconds=30)
    ) -> None:
        self._root = root
        self._link = link
        self._patience = patience

    def describe(self) -> str:
        """Return the folder's path."""
        return str(self._root)

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        """Write a new file; see ReleaseStore."""
        del kind
        return await asyncio.to_thread(self._create, parse_name(name), data)

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        """Return a file's content; see ReleaseStore."""
        return await asyncio.to_thread(self._read, parse_name(name), limit_bytes)

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        """Replace a file under the store's lock; see ReleaseStore."""
        del kind
        return await asyncio.to_thread(self._replace, parse_name(name), data, expected)

    async def stat(self, name: str) -> ObjectStat | None:
        """Return a file's size and hash, read from the file; see ReleaseStore."""
        return await asyncio.to_thread(self._stat, parse_name(name))

    async def holds(self, name: str, data: bytes) -> bool:
        """Read and hash the file; see ReleaseStore."""
        found = await self.stat(name)
        return found is not None and found.sha256 == hashlib.sha256(data).hexdigest()

    async def list(self, prefix: str) -> tuple[str, ...]:
        """Return the published files, never links or temporary ones; see ReleaseStore."""
        return await asyncio.to_thread(self._list, parse_prefix(prefix))

    async def check_writable(self) -> None:
        """Write a temporary file where the next release will write; see ReleaseStore."""
        await asyncio.to_thread(self._check_writable)

    def _check_writable(self) -> None:
        place = self._root
        try:
            # A store that is not there yet will be made below what there is of its path, in which a
            # link to nothing is something.
            while not os.path.lexists(place):
                place = place.absolute().parent
            _try_to_write(place, "")
            if place == self._root:
                self._check_parts()
        except OSError as error:
            raise StoreError(
                f"{self.describe()} cannot be written: {error.strerror or error}",
                hint=_hint(error.errno, place),
            ) from error

    def _check_parts(self) -> None:
        for part in _TOPS:
            with contextlib.suppress(FileNotFoundError):
                _try_to_write(self._root, part)
        # Another user's lock could never be taken.
        with contextlib.suppress(FileNotFoundError):
            os.close(os.open(self._root / ".lock", os.O_RDWR | _PLAIN))

    def _create(self, name: str, data: bytes) -> Created:
        with self._explained(name), self._writable_folder(name) as (folder, leaf):
            with _temporary(folder, leaf, data) as temporary:
                try:
                    self._publish_new(temporary, leaf, folder)
                except FileExistsError:
                    if _sha256_of(folder, leaf) != hashlib.sha256(data).hexdigest():
                        raise taken(self, name) from None
                    return Created.SAME
            os.fsync(folder)
            return Created.NEW

    def _publish_new(self, temporary: str, leaf: str, folder: int) -> None:
        try:
            self._link(temporary, leaf, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if error.errno not in _LINKS_REFUSED:
                raise
            with self._lock():
                if _exists(folder, leaf):
                    raise FileExistsError from None
                os.rename(temporary, leaf, src_dir_fd=folder, dst_dir_fd=folder)

    def _read(self, name: str, limit_bytes: int) -> StoredObject | None:
        with self._explained(name), open_object(self._root, name) as file:
            if file is None:
                return None
            data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise oversized(self, name, limit_bytes)
        return StoredObject(data=data, generation=_generation(data))

    def _replace(self, name: str, data: bytes, expected: Generation | None) -> Generation:
        with self._explained(name), self._writable_folder(name) as (folder, leaf), self._lock():
            current = _sha256_of(folder, leaf) if _exists(folder, leaf) else None
            if current != expected:
                raise outrun(self, name)
            with _temporary(folder, leaf, data) as temporary:
                os.rename(temporary, leaf, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
            return _generation(data)

    def _stat(self, name: str) -> ObjectStat | None:
        with self._explained(name), open_object(self._root, name) as file:
            if file is None:
                return None
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return ObjectStat(size_bytes=file.tell(), sha256=digest)

    def _list(self, prefix: str) -> tuple[str, ...]:
        top = prefix.rpartition("/")[0]
        with self._explained(prefix or "."), contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(_folder(self._root, top, make=False))
            except FileNotFoundError:
                return ()
            names = tuple(_published_names(folder, top))
        return tuple(sorted(name for name in names if name.startswith(prefix)))

    @contextlib.contextmanager
    def _writable_folder(self, name: str) -> Iterator[tuple[int, str]]:
        parent, _, leaf = name.rpartition("/")
        with _folder(self._root, parent, make=True) as folder:
            _sweep(folder)
            yield folder, leaf

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        # The kernel drops an flock with its holder, however that one dies: no stale lock exists.
        lock = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | _PLAIN, _FILE_MODE)
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        # Not the blocking form: a holder that is stopped, not dead, would hang this process for
        # good, since a thread that waits in the kernel cannot be cancelled.
        deadline = time.monotonic() + self._patience.total_seconds()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"another process holds the lock of {self.describe()}",
                        hint=f"find it with: fuser {self._root / '.lock'}",
                    ) from None
                # A holder needs two fsyncs: a few milliseconds.
                time.sleep(0.002)
            else:
                return

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{name} in {self.describe()}: {error.strerror or error}",
                hint=_hint(error.errno, self._root),
            ) from error


@contextlib.contextmanager
def open_object(root: Path, name: str) -> Iterator[BufferedReader | None]:
    """Open a published file for reading, None if there is none; links raise OSError."""
    parent, _, leaf = parse_name(name).rpartition("/")
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_folder(root, parent, make=False))
            file = stack.enter_context(_open_regular(folder, leaf))
        except FileNotFoundError:
            file = None
        yield file


@contextlib.contextmanager
def _folder(root: Path, path: str, *, make: bool) -> Iterator[int]:
    """Open a folder of the store one step at a time, so that no step is through a link."""
    if make:
        _make_root(root)
    # The root itself may be a link: the operator named it.
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.split("/") if path else ():
            is_new = make and _made(part, folder)
            child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _PLAIN, dir_fd=folder)
            os.close(folder)
            folder = child
            if is_new:
                os.fchmod(folder, _FOLDER_MODE)
        yield folder
    finally:
        os.close(folder)


def _make_root(root: Path) -> None:
    with contextlib.suppress(FileExistsError):
        root.mkdir(parents=True)
        # mkdir leaves out what the umask forbids; a store is for everyone to read.
        root.chmod(_FOLDER_MODE)


def _made(part: str, folder: int) -> bool:
    try:
        os.mkdir(part, _FOLDER_MODE, dir_fd=folder)
    except FileExistsError:
        return False
    os.fsync(folder)
    return True


@contextlib.contextmanager
def _open_regular(folder: int, leaf: str) -> Iterator[BufferedReader]:
    # O_NONBLOCK: opening a FIFO that somebody planted would wait for a writer for ever.
    descriptor = os.open(leaf, os.O_RDONLY | os.O_NONBLOCK | _PLAIN, dir_fd=folder)
    with open(descriptor, "rb") as file:  # noqa: PTH123 -- a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ELOOP, "not a regular file")
        yield file


@contextlib.contextmanager
def _temporary(folder: int, leaf: str, data: bytes) -> Iterator[str]:
    """Write the data beside its destination, durably; the name is gone at the end, or moved."""
    name, file = _create_part(folder, leaf)
    # Held until it has its name, so that nobody takes it for what a killed writer left.
    with file:
        try:
            os.fchmod(file.fileno(), _FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            yield name
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def _create_part(folder: int, leaf: str) -> tuple[str, BinaryIO]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN
    while True:
        name = f".{leaf}.{secrets.token_hex(8)}{PART}"
        file = os.fdopen(os.open(name, flags, dir_fd=folder), "wb")
        if hold(file.fileno()):
            return name, file
        file.close()


def _try_to_write(root: Path, part: str) -> None:
    with _folder(root, part, make=False) as folder, _temporary(folder, "check", b"\0"):
        pass


def _sweep(folder: int) -> None:
    """Remove what writers that were killed have left in a folder."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        if not (name.startswith(".") and name.endswith(PART)):
            continue
        # What cannot be removed, or is no file of ours, is in nobody's way.
        with contextlib.suppress(OSError), _open_regular(folder, name) as file:
            if is_left(file.fileno()):
                os.unlink(name, dir_fd=folder)


def _published_names(folder: int, top: str) -> Iterator[str]:
    for path, folders, files, descriptor in os.fwalk(".", onerror=_stop, dir_fd=folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = path[2:]
        for name in files:
            if name.startswith(".") or not _is_regular(descriptor, name):
                continue
            yield "/".join(part for part in (top, below, name) if part)


def _stop(error: OSError) -> None:
    # os.fwalk leaves out what it cannot read unless it is told otherwise.
    raise error


def _is_regular(folder: int, leaf: str) -> bool:
    return stat.S_ISREG(os.stat(leaf, dir_fd=folder, follow_symlinks=False).st_mode)


def _exists(folder: int, leaf: str) -> bool:
    try:
        os.stat(leaf, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sha256_of(folder: int, leaf: str) -> str:
    with _open_regular(folder, leaf) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _generation(data: bytes) -> Generation:
    return Generation(hashlib.sha256(data).hexdigest())


# Folders of the store that every release adds to.
_TOPS: Final = ("releases", "index")
_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755
_PLAIN: Final = os.O_NOFOLLOW | os.O_CLOEXEC

# FAT, some network file systems and Android have no hard links, and each says so differently.
_LINKS_REFUSED: Final = {
    errno.EACCES,
    errno.EMLINK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}
_NO_ROOM: Final = {errno.EDQUOT, errno.EFBIG, errno.ENOSPC}
# What O_NOFOLLOW says on Linux and macOS, for a folder on Linux, on FreeBSD, and on NetBSD.
_NOT_PLAIN: Final = {
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EMLINK,
    getattr(errno, "EFTYPE", errno.ELOOP),
}


def _hint(number: int | None, root: Path) -> str:
    if number in _NO_ROOM:
        return f"make room on the disk of {root} and run the same command again"
    if number == errno.EROFS:
        return f"mount the file system of {root} for writing, or name another store"
    if number in {errno.EACCES, errno.EPERM}:
        return f"let the user who runs this read and write {root}, or name another store"
    if number in _NOT_PLAIN:
        return "the store follows no links: put a plain file or folder in its place"
    return "run the same command again once the folder can be read and written"
