"""ReleaseStore: what publishing needs from a place that keeps files, whatever keeps them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType, Protocol

from orchestrator.core.errors import StoreError

Generation = NewType("Generation", str)
"""Which content a name has: equal while nobody replaced it. Only its own store can read it."""


class ReleaseStore(Protocol):
    """Named objects; immutable ones are created once, the few mutable ones compared and swapped.

    Every method answers from the store itself, never from a cache, and raises StoreError for a name
    that `parse_name` refuses and for a store that cannot be reached, written or trusted.
    """

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        """Write a name that nobody wrote before, for good.

        The same bytes already under it are a success, so a lost answer or a second run does no
        harm; other bytes raise TakenError and stay as they are. Nobody ever sees half of them.
        """
        ...

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        """Return the object, None if there is none; more than the limit raises StoreError."""
        ...

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        """Write the name if it still has the expected generation (None: if it does not exist).

        Anything else is there: ConflictError, and nothing was written by this call. An answer that
        was lost may also end in ConflictError with the write done, so the caller reads again.
        """
        ...

    async def stat(self, name: str) -> ObjectStat | None:
        """Return what the store holds under the name now, None if nothing."""
        ...

    async def holds(self, name: str, data: bytes) -> bool:
        """Return whether the store itself says that it has exactly these bytes under the name.

        By a checksum that it made of what it keeps, so that nothing has to be fetched.
        """
        ...

    async def list(self, prefix: str) -> tuple[str, ...]:
        """Return the names that start with the prefix, sorted; the prefix need not be a folder."""
        ...

    async def check_writable(self) -> None:
        """Return if objects can be created and replaced now; raise StoreError, with a hint, if not.

        It leaves nothing behind, and makes no store that is not there yet.
        """
        ...

    def describe(self) -> str:
        """Return the store as a person would name it in a message."""
        ...


class ConflictError(StoreError):
    """Somebody else replaced the object first: read it again, merge, try again."""


class TakenError(StoreError):
    """A create-only name holds other bytes, and keeps them."""


class Created(Enum):
    """What `create` found."""

    NEW = "new"
    SAME = "already there, with the same bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object's content, and the generation that `replace` compares."""

    data: bytes
    generation: Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStat:
    """What the store holds under a name.

    `sha256` is None when the store cannot vouch for it (an object that something else uploaded and
    that carries only a checksum of the store's own): then the content has to be read.
    """

    size_bytes: int
    sha256: str | None


_TEXT: Final = "text/plain; charset=utf-8"
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
# A proxy that re-compresses a text changes its length and hash: no-transform.
_FRESH: Final = "no-cache, no-transform"
_POINTER: Final = "public, max-age=60, no-transform"


class ObjectKind(Enum):
    """What an object is for a reader over HTTP."""

    ARCHIVE = ("archive", "application/gzip", _IMMUTABLE)
    BINARY = ("binary", "application/octet-stream", _IMMUTABLE)
    TEXT = ("checksum, signature, history or a version's own script", _TEXT, _IMMUTABLE)
    STATEMENT = ("provenance or bill of materials", "application/json", _IMMUTABLE)
    INDEX = ("index", _TEXT, _FRESH)
    # Not application/x-sh: a person who opens the URL before running it should see the text.
    # It changes with each release, and goes with its signature.
    SCRIPT = ("script", _TEXT, _FRESH)
    SIGNATURE = ("signature of the script", _TEXT, _FRESH)
    PAGE = ("page", "text/html; charset=utf-8", _POINTER)
    # What follows from an index, for scripts that cannot read one.
    SUMMARY = ("summary", "application/json", _POINTER)
    LATEST = ("newest version", _TEXT, _POINTER)
    # The keys that may sign, vouched for by the rotation key.
    KEYS = ("keys", _TEXT, _FRESH)

    def __init__(self, label: str, content_type: str, cache_control: str) -> None:
        self.label = label
        self.content_type = content_type
        self.cache_control = cache_control


def kind_of(name: str) -> ObjectKind | None:
    """Return the kind of an object in the layout of docs/store.md, None for a name outside it."""
    for pattern, kind in _LAYOUT:
        if pattern.fullmatch(name):
            return kind
    return None


_LAYOUT: Final = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"[^/]+\.idx", ObjectKind.INDEX),
        (r"[^/]+\.sh", ObjectKind.SCRIPT),
        (r"[^/]+\.sh\.sig", ObjectKind.SIGNATURE),
        (r"[^/]+\.html", ObjectKind.PAGE),
        (r"index/[^/]+/[0-9]+\.idx", ObjectKind.TEXT),
        (r"versions\.json", ObjectKind.SUMMARY),
        (r"latest/[^/]+\.txt", ObjectKind.LATEST),
        (r"keys\.txt", ObjectKind.KEYS),
        (r"keys/[0-9]+\.txt", ObjectKind.TEXT),
        (r"[0-9].*/[^/]+\.sha256", ObjectKind.TEXT),
        (r"[0-9][^/]*/(?:r[0-9]+/)?[^/]+", ObjectKind.BINARY),
        (r"releases/.+\.tar\.gz", ObjectKind.ARCHIVE),
        (r"releases/.+\.json", ObjectKind.STATEMENT),
        (r"releases/.+\.(?:sha256|minisig|sshsig)", ObjectKind.TEXT),
        (r"releases/[^/]+/install\.sh(?:\.sig)?", ObjectKind.TEXT),
    )
)

MAX_NAME_LENGTH: Final = 512
# A file system takes 255 bytes; the rest is for the temporary names of the directory store.
MAX_PART_LENGTH: Final = 200
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")


def parse_name(text: str) -> str:
    """Return the name; raise StoreError unless it is a plain relative path.

    No part starts with a dot or a dash, so none is `..`, hidden, or an option to some program.
    """
    parts = text.split("/")
    if len(text) > MAX_NAME_LENGTH or not all(
        len(part) <= MAX_PART_LENGTH and _PART.fullmatch(part) for part in parts
    ):
        raise StoreError(
            f"not a name for a published object: {text[:80]!r}",
            hint="names are parts of A-Z a-z 0-9 . _ + - with / between; none starts with . or -",
        )
    return text


def parse_prefix(text: str) -> str:
    """Return the prefix of names; raise StoreError unless some name could start with it."""
    folder, slash, start = text.rpartition("/")
    if slash:
        parse_name(folder)
    if start:
        parse_name(start)
    return text


def taken(store: ReleaseStore, name: str) -> TakenError:
    """Return the error of a create-only name that holds other bytes."""
    return TakenError(
        f"{store.describe()} already holds other bytes as {name}",
        hint="nothing was changed: what is published stays; release these bytes as a new version, "
        "or beside the old ones with --reissue",
    )


def outrun(store: ReleaseStore, name: str) -> ConflictError:
    """Return the error of a replacement that came too late."""
    return ConflictError(
        f"somebody else replaced {name} in {store.describe()}",
        hint="run the same command again: it merges with what is there now",
    )


def oversized(store: ReleaseStore, name: str, limit_bytes: int) -> StoreError:
    """Return the error of an object that is longer than anything expected under its name."""
    return StoreError(
        f"{name} in {store.describe()} is larger than {limit_bytes} bytes",
        hint="this is not what was published there: find out who wrote it",
    )
