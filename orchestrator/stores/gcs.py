"""GcsStore: a bucket of Google Cloud Storage as a store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.stores.gcs_calls import (
    THREADS,
    Call,
    Purpose,
    answer,
    explain,
    open_client,
    prepare,
)
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
    from collections.abc import Callable

    from google.cloud.storage import Blob, Bucket, Client

Value = TypeVar("Value")

_SCHEME: Final = "gs://"


class _Item(NamedTuple):
    name: str
    data: bytes
    kind: ObjectKind


class GcsStore:
    """A bucket, or what lies below one prefix of it.

    Every write has a precondition. A failed one is never believed by itself: the answer to an
    earlier attempt may have been lost, so what is there is read and compared. What passes (429,
    5xx, lost connections) is tried again until the store was silent for `patience`.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        client: Callable[[], Client] | None = None,
        patience: timedelta = timedelta(minutes=2),
    ) -> None:
        self._bucket_name = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._open = client or open_client
        self._patience = patience
        self._client: Client | None = None
        self._opening = threading.Lock()
        # Of its own: the default one has few threads on a small machine, and others wait for them.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the store of `gs://BUCKET[/PREFIX]`; ConfigError if that is none."""
        bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
        prefix = prefix.strip("/")
        if prefix:
            try:
                parse_name(prefix)
            except StoreError as error:
                raise ConfigError(
                    f"publication.store: no objects can be published below {url[:200]}",
                    hint=error.hint,
                ) from error
        return cls(bucket, prefix)

    def describe(self) -> str:
        """Return the URL of the store, as gcloud takes it."""
        return f"{_SCHEME}{self._bucket_name}/{self._prefix}".rstrip("/")

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        """Upload if there is no such object; see ReleaseStore."""
        parse_name(name)
        item = _Item(name, data, kind)
        return await self._run(partial(self._create, item), f"create {name}", _writer(kind))

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        """Download the generation that was looked at; see ReleaseStore."""
        parse_name(name)
        return await self._run(partial(self._read, name, limit_bytes), f"read {name}", _READER)

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        """Upload over the expected generation; see ReleaseStore."""
        parse_name(name)
        work = partial(self._replace, _Item(name, data, kind), int(expected or 0))
        return await self._run(work, f"replace {name}", _writer(kind))

    async def stat(self, name: str) -> ObjectStat | None:
        """Return the size, and the hash that was kept with it; see ReleaseStore."""
        parse_name(name)
        return await self._run(partial(self._stat, name), f"look at {name}", _READER)

    async def holds(self, name: str, data: bytes) -> bool:
        """Compare the size and the CRC32C that the server made; see ReleaseStore."""
        parse_name(name)
        return await self._run(partial(self._holds, name, data), f"look at {name}", _READER)

    async def list(self, prefix: str) -> tuple[str, ...]:
        """Return the names below the store's own prefix; see ReleaseStore."""
        parse_prefix(prefix)
        return await self._run(partial(self._list, prefix), f"list {prefix}*", _READER)

    async def check_writable(self) -> None:
        """Try writes that must fail for another reason; see ReleaseStore."""
        for item in _SAMPLES:
            work = partial(self._check_writable, item)
            await self._run(work, f"write {item.name}", _writer(item.kind))

    def _check_writable(self, item: _Item, call: Call) -> None:
        # To ask which permissions one has on the bucket says nothing of those that are granted for
        # a folder or by a condition. No object has ever had this generation, so who may write is
        # told that it does not match, and nothing was written.
        from google.api_core.exceptions import PreconditionFailed  # noqa: PLC0415 -- see gcs_calls

        try:
            self._upload(item, 1, call)
        except PreconditionFailed:
            self._look(item.name, call)
        else:
            raise StoreError(
                f"{self.describe()} does not heed the conditions of a write ({item.name})",
                hint="nothing can be published safely there: this is not Google Cloud Storage",
            )

    def _create(self, item: _Item, call: Call) -> Created:
        from google.api_core.exceptions import (  # noqa: PLC0415 -- see gcs_calls
            Forbidden,
            PreconditionFailed,
        )

        try:
            self._upload(item, 0, call)
        except PreconditionFailed:
            found = self._look(item.name, call)
        except Forbidden:
            # Who may only create is told so for a name that is taken.
            found = self._look(item.name, call)
            if found is None:
                raise
        else:
            return Created.NEW
        if found is None:
            raise StoreError(
                f"{item.name} was removed from {self.describe()} while it was written",
                hint="find out who removes objects there, and run the same command again",
            )
        if not self._is_same(found, item.data, call):
            raise taken(self, item.name)
        return Created.SAME

    def _replace(self, item: _Item, before: int, call: Call) -> Generation:
        from google.api_core.exceptions import PreconditionFailed  # noqa: PLC0415 -- see gcs_calls

        try:
            return self._upload(item, before, call)
        except PreconditionFailed:
            found = self._look(item.name, call)
        if found and found.generation > before and self._is_same(found, item.data, call):
            return Generation(str(found.generation))
        raise outrun(self, item.name)

    def _upload(self, item: _Item, before: int, call: Call) -> Generation:
        blob = self._bucket().blob(self._prefix + item.name, chunk_size=_CHUNK_BYTES)
        blob.cache_control = item.kind.cache_control
        blob.metadata = {_HASH_KEY: hashlib.sha256(item.data).hexdigest()}
        # Declared, so that the server refuses other bytes. The library's own `checksum` would do
        # that too, but removes what is under the name, whoever wrote it, when the answer differs.
        blob.crc32c = crc32c = _crc32c(item.data)
        try:
            blob.upload_from_file(
                _Source(item.data, call),
                size=len(item.data),
                content_type=item.kind.content_type,
                checksum=None,
                if_generation_match=before,
                **call.options(),
            )
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            # What the library says when the server has kept a part of a chunk.
            raise StoreError(
                f"{self.describe()}: the upload of {item.name} lost its place",
                hint="run the same command again: it begins this upload anew",
            ) from error
        if (blob.size, blob.crc32c) != (len(item.data), crc32c):
            raise self._damaged(item.name)
        return Generation(str(blob.generation))

    def _look(self, name: str, call: Call) -> Blob | None:
        """Return what the server says of an object, None if there is none."""
        from google.api_core.exceptions import NotFound  # noqa: PLC0415 -- see gcs_calls

        blob = self._bucket().blob(self._prefix + name)
        try:
            blob.reload(**call.options())
        except NotFound as error:
            if "bucket does not exist" in answer(error):
                raise
            return None
        return blob

    def _read(self, name: str, limit_bytes: int, call: Call) -> StoredObject | None:
        for _ in range(_READ_ATTEMPTS):
            found = self._look(name, call)
            if found is None:
                return None
            if found.size > limit_bytes:
                raise oversized(self, name, limit_bytes)
            data = self._download(name, found, call)
            if data is not None:
                return StoredObject(data=data, generation=Generation(str(found.generation)))
        raise StoreError(
            f"{name} in {self.describe()} was replaced each time that it was read",
            hint="run the same command again, when less is published at the same time",
        )

    def _download(self, name: str, found: Blob, call: Call) -> bytes | None:
        """Return the bytes of that very generation, None if it was replaced meanwhile."""
        from google.api_core.exceptions import NotFound  # noqa: PLC0415 -- see gcs_calls

        blob = self._bucket().blob(self._prefix + name, generation=found.generation)
        sink = _Sink(found.size)
        try:
            # Raw: an object that says it is compressed would grow beyond the limit here.
            blob.download_to_file(sink, raw_download=True, checksum=None, **call.options())
        except NotFound:
            return None
        data = sink.getvalue()
        if (len(data), _crc32c(data)) != (found.size, found.crc32c):
            raise self._damaged(name)
        return data

    def _is_same(self, found: Blob, data: bytes, call: Call) -> bool:
        if not _agrees(found, data):
            return False
        sha256 = _kept_sha256(found)
        if sha256 is None:
            name = found.name.removeprefix(self._prefix)
            return self._download(name, found, call) == data
        return sha256 == hashlib.sha256(data).hexdigest()

    def _stat(self, name: str, call: Call) -> ObjectStat | None:
        found = self._look(name, call)
        return found and ObjectStat(size_bytes=found.size, sha256=_kept_sha256(found))

    def _holds(self, name: str, data: bytes, call: Call) -> bool:
        found = self._look(name, call)
        return found is not None and _agrees(found, data)

    def _list(self, prefix: str, call: Call) -> tuple[str, ...]:
        found = self._bucket().list_blobs(
            prefix=self._prefix + prefix, fields="items(name),nextPageToken", **call.options()
        )
        names = (blob.name.removeprefix(self._prefix) for blob in found)
        return tuple(sorted(name for name in names if _is_published(name)))

    def _damaged(self, name: str) -> StoreError:
        return StoreError(
            f"{name} in {self.describe()} is not what the store says that it holds",
            hint="run the same command again; if it stays so, read docs/gcs.md",
        )

    def _bucket(self) -> Bucket:
        with self._opening:
            if self._client is None:
                self._client = prepare(self._open())
            return self._client.bucket(self._bucket_name)

    async def _run(self, work: Callable[[Call], Value], words: str, role: str) -> Value:
        call = Call(patience=self._patience)
        purpose = Purpose(words=words, role=role)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work, call)
        except StoreError:
            raise
        except Exception as error:
            store, patience = self.describe(), self._patience
            explained = explain(error, purpose, store=store, patience=patience)
            if explained is None:
                raise
            raise explained from error
        finally:
            # Whoever cancels this cannot stop the thread, but it sends no further part of an upload
            # and tries no more.
            call.is_over.set()


# A lost connection costs this much of an upload; a multiple of 256 KiB.
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_READ_ATTEMPTS: Final = 5
_HASH_KEY: Final = "sha256"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What `check_writable` tries: a folder that is only added to, and what each release replaces.
_SAMPLES: Final = (
    _Item("releases/check.tar.gz", b"", ObjectKind.ARCHIVE),
    _Item("stable.idx", b"", ObjectKind.INDEX),
)

_READER: Final = "roles/storage.objectViewer on the bucket"


def _writer(kind: ObjectKind) -> str:
    if "immutable" in kind.cache_control:
        return "roles/storage.objectCreator on releases/, index/ and the folders of versions"
    return "roles/storage.objectUser on what each release replaces (stable.idx, install.sh, …)"


class _Source(io.BytesIO):
    """What an upload is read from, part by part; once nobody waits for it, there are no more."""

    def __init__(self, data: bytes, call: Call) -> None:
        super().__init__(data)
        self._call = call

    def read(self, size: int | None = -1, /) -> bytes:
        if self._call.is_over.is_set():
            raise StoreError("nobody waits for this upload any more")
        return super().read(size)


class _Sink(io.BytesIO):
    """What a download is written to; it takes no more bytes than the object has."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._left = size_bytes

    def write(self, data: Any, /) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OSError("more bytes come than the object has")
        return super().write(data)


def _crc32c(data: bytes) -> str:
    import google_crc32c  # noqa: PLC0415 -- see gcs_calls

    return base64.b64encode(google_crc32c.value(data).to_bytes(4)).decode()


def _agrees(found: Blob, data: bytes) -> bool:
    return bool((found.size, found.crc32c) == (len(data), _crc32c(data)))


def _kept_sha256(found: Blob) -> str | None:
    text = (found.metadata or {}).get(_HASH_KEY, "")
    return text if _SHA256.fullmatch(text) else None


def _is_published(name: str) -> bool:
    # A console leaves empty objects as folders, and others may keep theirs in the bucket.
    try:
        parse_name(name)
    except StoreError:
        return False
    return True
