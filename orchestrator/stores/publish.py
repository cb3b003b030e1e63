"""The order of publication: immutable files, read back; then the index; then what points at it.

A crash between any two steps leaves the last good release whole, and the same calls again finish
the work: every step is either create-only or a compare-and-swap.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from orchestrator.core.archive import archive_name, sha256_line
from orchestrator.core.errors import StoreError
from orchestrator.core.index import (
    Index,
    Row,
    Status,
    advance,
    changes,
    is_aging,
    join_signed,
    parse_index,
    render_index,
    split_signed,
)
from orchestrator.core.result import Floor
from orchestrator.core.signature import Signatures, artifact_namespace, index_namespace
from orchestrator.core.version import parse_version
from orchestrator.stores.store import ConflictError, ObjectKind, outrun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import date, timedelta
    from pathlib import Path

    from orchestrator.core.result import Artifact
    from orchestrator.core.signature import PublicKey, Signer, Verifier
    from orchestrator.core.target import Target
    from orchestrator.core.version import Version
    from orchestrator.stores.store import Generation, ReleaseStore, StoredObject

    Pause = Callable[[int], Awaitable[None]]

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One index of a project: who may sign it, and for how long each serial is valid."""

    project: str
    name: str
    keys: tuple[PublicKey, ...]
    verify: Verifier
    lifetime: timedelta

    @property
    def index_name(self) -> str:
        """The index's name in the store."""
        return f"{self.name}.idx"

    def history_name(self, serial: int) -> str:
        """Return the name of the copy that is kept of one serial."""
        return f"index/{self.name}/{serial}.idx"


async def pause_briefly(attempt: int) -> None:
    """Wait before another try, longer each time."""
    # At random over the whole span, or those who collided once collide again ("full jitter",
    # AWS Architecture Blog 2015).
    await asyncio.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311 -- no secret


async def publish_artifact(
    store: ReleaseStore, artifact: Artifact, *, project: str, signer: Signer, flat: bool
) -> Row:
    """Publish an archive and what lies beside it; return its row, which `publish_index` announces.

    Nobody looks at these files before a row names them. Running it again, anywhere, finds the same
    bytes: no signature holds a time. `flat` also writes the first binary of the project under
    `<version>/<project>-<version>-<os>-<arch>`; two artifacts of one version may share that name
    (two OpenBSD releases, two Windows ABIs), so the caller lets one of them have it.
    """
    objects = await asyncio.to_thread(_objects_of, artifact, project, signer, flat=flat)
    for item in objects:
        await store.create(item.name, item.data, item.kind)
    for item in objects:
        await _read_back(store, item)
    return Row(
        target=artifact.target.triple,
        version=parse_version(artifact.version),
        status=Status.OK,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        floors=artifact.floors,
        path=objects[0].name,
    )


async def publish_index(
    store: ReleaseStore,
    channel: Channel,
    rows: Iterable[Row],
    *,
    signer: Signer,
    today: date,
    pause: Pause = pause_briefly,
) -> Index:
    """Merge the rows into the index and return the index that then stands in the store.

    Rows that are there already change nothing, so no serial is used up, unless the index nears its
    end. Whoever else publishes at the same time loses nothing: the slower one merges again.
    """
    known = tuple(rows)
    step = partial(_publish_index, store, channel, known, signer=signer, today=today)
    return await _despite_others(step, pause)


async def publish_pointers(
    store: ReleaseStore,
    channel: Channel,
    *,
    install_script: str,
    page: str,
    serial: int,
    pause: Pause = pause_briefly,
) -> None:
    """Write install.sh and index.html as they follow from the index with this serial.

    Once a higher serial is published they are left alone: they are its publisher's to write.
    """
    script = _Object(INSTALL_SCRIPT, install_script.encode(), ObjectKind.SCRIPT)
    for item in (script, _Object(PAGE, page.encode(), ObjectKind.PAGE)):
        await _despite_others(partial(_publish_pointer, store, channel, item, serial=serial), pause)


async def read_index(store: ReleaseStore, channel: Channel) -> Index | None:
    """Return the channel's index, None before the first release; StoreError if it is forged."""
    _, index = await _read_signed(store, channel)
    return index


def pending_rows(
    version: Version, targets: Iterable[Target], *, os_release: str | None = None
) -> tuple[Row, ...]:
    """Return rows that announce a version for targets whose builds are late.

    `os_release` matters to targets whose binaries run on one release only: such a row waits for
    that release; without it, for any.
    """
    return tuple(
        Row(
            target=target.triple,
            version=version,
            status=Status.PENDING,
            floors=_bound_floors(target, os_release),
        )
        for target in targets
    )


INSTALL_SCRIPT: Final = "install.sh"
PAGE: Final = "index.html"
# 500 versions for 14 targets are 1 MB.
_TEXT_LIMIT: Final = 4 * 1024 * 1024
# Every lost race is somebody else's success, so this is how many may publish at the same moment.
_ATTEMPTS: Final = 40


class _Object(NamedTuple):
    name: str
    data: bytes
    kind: ObjectKind


def _objects_of(
    artifact: Artifact, project: str, signer: Signer, *, flat: bool
) -> tuple[_Object, ...]:
    """Return what is published for an artifact, the archive first: bytes that are checked here.

    They stay in memory until they are published: what was hashed is what is signed and written,
    whatever happens to the staged file.
    """
    data = _staged(artifact.path, artifact.size_bytes, artifact.sha256)
    key = _target_key(artifact)
    file_name = archive_name(project, artifact.version, key)
    archive = f"releases/{artifact.version}/{key}/{file_name}"
    signatures = signer.sign(
        data,
        namespace=artifact_namespace(project),
        comment=f"file:{file_name} version:{artifact.version}",
    )
    checksum = sha256_line(artifact.sha256, file_name).encode()
    return (
        _Object(archive, data, ObjectKind.ARCHIVE),
        _Object(f"{archive}.sha256", checksum, ObjectKind.TEXT),
        _Object(f"{archive}.minisig", signatures.minisig.encode(), ObjectKind.TEXT),
        _Object(f"{archive}.sshsig", signatures.sshsig.encode(), ObjectKind.TEXT),
        *(_flat_objects(artifact, project) if flat else ()),
    )


def _flat_objects(artifact: Artifact, project: str) -> tuple[_Object, ...]:
    binary, target = artifact.binaries[0], artifact.target
    file_name = f"{project}-{artifact.version}-{target.flat_name}{target.exe_suffix}"
    name = f"{artifact.version}/{file_name}"
    data = _staged(binary.path, binary.size_bytes, binary.sha256)
    checksum = sha256_line(binary.sha256, file_name).encode()
    return (
        _Object(name, data, ObjectKind.BINARY),
        _Object(f"{name}.sha256", checksum, ObjectKind.TEXT),
    )


def _target_key(artifact: Artifact) -> str:
    target = artifact.target
    if not target.is_bound_to_os_release:
        return target.triple
    if artifact.os_release is None:
        raise StoreError(
            f"nobody knows which release of {target.os} the artifact for {target} is for",
            hint="set `os_release` on the node that built it",
        )
    return f"{target.triple}{artifact.os_release}"


def _bound_floors(target: Target, os_release: str | None) -> tuple[Floor, ...]:
    if os_release is None or not target.is_bound_to_os_release:
        return ()
    return (Floor(name=str(target.os), operator="==", release=os_release),)


def _staged(path: Path, size_bytes: int, sha256: str) -> bytes:
    try:
        # O_NOFOLLOW and O_NONBLOCK: a link or FIFO that was planted is neither read nor waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 -- a descriptor, not a path
            data = file.read(size_bytes + 1)
    except OSError as error:
        raise StoreError(
            f"cannot read {path} to publish it: {error.strerror}",
            hint="run the same command again: it collects the file from its node again",
        ) from error
    if len(data) != size_bytes or hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError(
            f"{path} has changed since it was checked; nothing of it was published",
            hint="find out what writes there, remove the file and run the same command again",
        )
    return data


async def _read_back(store: ReleaseStore, item: _Object) -> None:
    """Raise StoreError unless the store itself says that it holds these bytes."""
    expected = hashlib.sha256(item.data).hexdigest()
    found = await store.stat(item.name)
    if found and found.sha256 is None:
        stored = await store.read(item.name, limit_bytes=len(item.data))
        sha256 = hashlib.sha256(stored.data).hexdigest() if stored else None
    else:
        sha256 = found.sha256 if found else None
    if not found or (found.size_bytes, sha256) != (len(item.data), expected):
        raise StoreError(
            f"{item.name} reads back from {store.describe()} other than it was written",
            hint="the index was not changed: check the disk or the bucket, then run it again",
        )


async def _despite_others(step: Callable[[], Awaitable[Outcome]], pause: Pause) -> Outcome:
    """Return what the step returns, in the end; each try of it begins by reading."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return await step()
        except ConflictError:
            await pause(attempt)
    return await step()


async def _publish_index(
    store: ReleaseStore, channel: Channel, rows: tuple[Row, ...], *, signer: Signer, today: date
) -> Index:
    stored, index = await _read_signed(store, channel)
    following = advance(
        index,
        rows,
        project=channel.project,
        channel=channel.name,
        today=today,
        lifetime=channel.lifetime,
    )
    if stored and index:
        # Before it can be replaced: its publisher may have died right after writing it.
        await _keep_history(store, channel.history_name(index.serial), stored.data)
        if not changes(index, rows) and not is_aging(index, today):
            return index
    data = _signed(following, channel, signer)
    expected = stored.generation if stored else None
    kept = channel.history_name(following.serial)
    if await store.stat(kept):
        await _refuse_rollback(store, channel, serial=following.serial, expected=expected)
    await store.replace(channel.index_name, data, ObjectKind.INDEX, expected=expected)
    await _keep_history(store, kept, data)
    return following


async def _read_signed(
    store: ReleaseStore, channel: Channel
) -> tuple[StoredObject, Index] | tuple[None, None]:
    stored = await store.read(channel.index_name, limit_bytes=_TEXT_LIMIT)
    if stored is None:
        return None, None
    try:
        return stored, _genuine(stored.data, channel)
    except StoreError as error:
        raise StoreError(
            f"{channel.index_name} in {store.describe()} cannot be trusted: {error.message}",
            hint=f"nothing was changed; restore it from index/{channel.name}/ in the store, and "
            "find out who wrote it",
        ) from error


def _genuine(data: bytes, channel: Channel) -> Index:
    if not data.isascii():
        raise StoreError("it is not ASCII text")
    text, sshsig, minisig = split_signed(data.decode())
    channel.verify(
        text.encode(),
        Signatures(sshsig=sshsig, minisig=minisig),
        keys=channel.keys,
        namespace=index_namespace(channel.project),
    )
    index = parse_index(text)
    if (index.project, index.channel) != (channel.project, channel.name):
        raise StoreError(f"it is the index of {index.project} {index.channel}")
    return index


def _signed(index: Index, channel: Channel, signer: Signer) -> bytes:
    text = render_index(index)
    signatures = signer.sign(
        text.encode(),
        namespace=index_namespace(channel.project),
        comment=f"file:{channel.index_name} serial:{index.serial}",
    )
    return join_signed(text, signatures.sshsig, signatures.minisig).encode()


async def _refuse_rollback(
    store: ReleaseStore, channel: Channel, *, serial: int, expected: Generation | None
) -> None:
    """Raise for a serial that was published before: ConflictError if it was just now."""
    now = await store.read(channel.index_name, limit_bytes=_TEXT_LIMIT)
    if (now.generation if now else None) != expected:
        raise outrun(store, channel.index_name)
    # Installers remember the serial that they saw and refuse a lower or a different one.
    raise StoreError(
        f"{channel.index_name} in {store.describe()} went back to before serial {serial}",
        hint=f"restore it: copy the newest of index/{channel.name}/ over it",
    )


async def _keep_history(store: ReleaseStore, name: str, data: bytes) -> None:
    await store.create(name, data, ObjectKind.TEXT)


async def _publish_pointer(
    store: ReleaseStore, channel: Channel, item: _Object, *, serial: int
) -> None:
    stored = await store.read(item.name, limit_bytes=_TEXT_LIMIT)
    if stored and stored.data == item.data:
        return
    # In this order: a publisher with a higher serial moves the index first. If that is not seen
    # here, its pointer was not there above either, and the swap below fails.
    index = await read_index(store, channel)
    if index and index.serial > serial:
        return
    expected = stored.generation if stored else None
    await store.replace(item.name, item.data, item.kind, expected=expected)
