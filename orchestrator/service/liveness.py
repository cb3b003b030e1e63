"""Which coordinators are alive: each holds a lock of its own name as long as it lives.

The lock is the kernel's, or the database server's for as long as its session lasts: it goes with
whoever held it, whatever ended that, and no clock has to be right.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from orchestrator.core.errors import ConfigError
from orchestrator.core.wording import redacted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

SQLITE: Final = "sqlite:///"


class Liveness(Protocol):
    """One process among those that share a database."""

    @property
    def name(self) -> str:
        """What this process is called, and no other one ever was or will be."""
        ...

    async def keep(self) -> None:
        """See to it that the own lock is held; raises if it cannot be, for now."""
        ...

    async def is_dead(self, name: str) -> bool:
        """Whether a process of that name has ended."""
        ...


def liveness_at(url: str, project: str) -> AbstractAsyncContextManager[Liveness]:
    """Return a context in which this process counts as alive for who shares that database."""
    if url.startswith(SQLITE):
        return _held_file(Path(url.removeprefix(SQLITE)))
    return _held_session(url, project)


def _new_name() -> str:
    host = "".join(c for c in socket.gethostname() if c.isalnum() or c in ".-")[:40]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A lock on a file beside the database, which is on this machine."""

    name: str
    folder: Path

    async def keep(self) -> None:
        """Do nothing: the kernel keeps it."""

    async def is_dead(self, name: str) -> bool:
        """Return whether its lock is free."""
        path = self.folder / f"{name}.alive"
        if path.parent != self.folder:
            return False
        try:
            with path.open("rb") as file:
                if not _lock(file):
                    return False
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            # It took its file along when it ended.
            return True
        return True


@asynccontextmanager
async def _held_file(database: Path) -> AsyncIterator[Liveness]:
    folder = database.parent / f"{database.name}.coordinators"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = _new_name()
        path = folder / f"{name}.alive"
        with path.open("xb") as file:
            _lock(file)
            try:
                yield _File(name=name, folder=folder)
            finally:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the queue cannot be kept beside {database}: {error.strerror}",
            hint="is the folder there, and may this user write to it?",
        ) from error


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(slots=True, kw_only=True)
class _Session:
    """An advisory lock of a PostgreSQL session; a new session takes it again if one is lost."""

    name: str
    project: str
    url: str
    _connection: Any = field(default=None, init=False)
    # Names whose lock was free once: after the server restarts, everybody's is, for a moment.
    _suspects: set[str] = field(default_factory=set, init=False)

    async def keep(self) -> None:
        """Take the own lock, on a new session if the old one is gone."""
        import psycopg  # noqa: PLC0415 -- only who shares a database needs it

        if self._connection is not None:
            try:
                await self._ask("SELECT 1")
            except psycopg.Error:
                await self.close()
            else:
                return
        # Whoever vanishes without a word is noticed: a server by us, and we by the server.
        self._connection = await psycopg.AsyncConnection.connect(
            self.url,
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
            options="-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 "
            "-c tcp_keepalives_count=3 -c tcp_user_timeout=10000",
        )
        self._suspects.clear()
        if not await self._try_lock(self.name):
            # The old session is not over for the server yet: nobody takes this one for alive.
            await self.close()
            raise OSError("the lock of this coordinator is not free yet")

    async def is_dead(self, name: str) -> bool:
        """Return whether its lock was free twice in a row."""
        if not await self._try_lock(name):
            self._suspects.discard(name)
            return False
        await self._ask("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", self._key(name))
        if name in self._suspects:
            self._suspects.discard(name)
            return True
        self._suspects.add(name)
        return False

    async def close(self) -> None:
        """End the session, and with it the lock."""
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close()
            self._connection = None

    async def _try_lock(self, name: str) -> bool:
        query = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
        return bool(await self._ask(query, self._key(name)))

    def _key(self, name: str) -> str:
        return f"orchestrator {self.project} {name}"

    async def _ask(self, query: str, *values: str) -> Any:
        cursor = await self._connection.execute(query, values)
        return (await cursor.fetchone())[0]


@asynccontextmanager
async def _held_session(url: str, project: str) -> AsyncIterator[Liveness]:
    try:
        import psycopg  # noqa: F401, PLC0415 -- see above
    except ImportError as error:
        raise ConfigError(
            f"the service needs packages that are not installed: {error.name}",
            hint="run `make service`",
        ) from error
    session = _Session(name=_new_name(), project=project, url=url)
    try:
        await session.keep()
    except Exception as error:
        raise ConfigError(
            f"the database of the queue cannot be reached: {str(error).splitlines()[0][:300]}",
            hint=f"is it there, and may this user log in? {redacted(url)}",
        ) from error
    try:
        yield session
    finally:
        await session.close()
