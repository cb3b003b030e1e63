"""The order of publication: immutable files, read back; then the index; then what points at it.

The files are written here, the index in `channel`, what points at it in `pointers`.

A crash between any two steps leaves the last good release whole, and the same calls again finish
the work: every step is either create-only or a compare-and-swap.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestrator.core.archive import archive_name, sha256_line
from orchestrator.core.errors import StoreError
from orchestrator.core.index import Row, Status
from orchestrator.core.result import Floor
from orchestrator.core.signature import Signatures, artifact_namespace
from orchestrator.core.version import parse_version
from orchestrator.stores.store import ObjectKind, TakenError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.core.result import Artifact
    from orchestrator.core.signature import Signer
    from orchestrator.core.target import Target
    from orchestrator.core.version import Version
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore


async def publish_artifact(
    store: ReleaseStore,
    artifact: Artifact,
    *,
    channel: Channel,
    signer: Signer,
    flat: bool,
    revision: int = 1,
) -> Row:
    """Publish an archive and what lies beside it; return its row, which `publish_index` announces.

    Nobody looks at these files before a row names them. Running it again, anywhere, finds the same
    bytes: no signature holds a time. After a change of keys, signatures of the same archive by
    another of the channel's keys stay; any other is a StoreError. `flat` also writes the first
    binary of the project under `<version>/<project>-<version>-<os>-<arch>`; two artifacts of one
    version may share that name (two OpenBSD releases, two Windows ABIs), so the caller lets one of
    them have it. A higher revision is published in a folder of its own, beside the ones before it.
    """
    objects = await asyncio.to_thread(
        _objects_of, artifact, channel.project, signer, flat=flat, revision=revision
    )
    archive, *others = objects
    # Whoever gets the name of the archive has the folder: nobody else leaves anything there.
    await store.create(archive.name, archive.data, archive.kind)
    taken = await asyncio.gather(*(_place(store, item) for item in others))
    placed = [item for item, is_taken in zip(others, taken, strict=True) if not is_taken]
    if len(placed) < len(others):
        await _require_genuine(store, archive, channel)
    await asyncio.gather(*(_read_back(store, item) for item in (archive, *placed)))
    return Row(
        target=artifact.target.triple,
        version=parse_version(artifact.version),
        status=Status.OK,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        floors=artifact.floors,
        path=objects[0].name,
    )


async def publish_reissue(
    store: ReleaseStore,
    artifact: Artifact,
    *,
    channel: Channel,
    signer: Signer,
    flat: bool,
    above: int,
) -> Row:
    """Publish an artifact under the first free revision above one, and return its row.

    A revision that holds other bytes is not free, whether a row names it or somebody died there.
    """
    for revision in range(above + 1, LAST_REVISION + 1):
        with suppress(TakenError):
            return await publish_artifact(
                store,
                artifact,
                channel=channel,
                signer=signer,
                flat=flat,
                revision=revision,
            )
    raise StoreError(
        f"{artifact.target} {artifact.version} has no free revision up to r{LAST_REVISION}",
        hint="release the code as a new version",
    )


def revision_folder(revision: int) -> str:
    """Return what a revision's path has after the target: nothing for the first one."""
    return f"r{revision}/" if revision > 1 else ""


LAST_REVISION: Final = 9999


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


class _Object(NamedTuple):
    name: str
    data: bytes
    kind: ObjectKind


def _objects_of(
    artifact: Artifact, project: str, signer: Signer, *, flat: bool, revision: int
) -> tuple[_Object, ...]:
    """Return what is published for an artifact, the archive first: bytes that are checked here.

    They stay in memory until they are published: what was hashed is what is signed and written,
    whatever happens to the staged file.
    """
    data = _staged(artifact.path, artifact.size_bytes, artifact.sha256)
    key = _target_key(artifact)
    file_name = archive_name(project, artifact.version, key)
    archive = f"releases/{artifact.version}/{key}/{revision_folder(revision)}{file_name}"
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
        *(_flat_objects(artifact, project, revision) if flat else ()),
    )


def _flat_objects(artifact: Artifact, project: str, revision: int) -> tuple[_Object, ...]:
    binary, target = artifact.binaries[0], artifact.target
    file_name = f"{project}-{artifact.version}-{target.flat_name}{target.exe_suffix}"
    name = f"{artifact.version}/{revision_folder(revision)}{file_name}"
    data = _staged(binary.path, binary.size_bytes, binary.sha256)
    checksum = sha256_line(binary.sha256, file_name).encode()
    return (
        _Object(name, data, ObjectKind.BINARY),
        _Object(f"{name}.sha256", checksum, ObjectKind.TEXT),
    )


def _target_key(artifact: Artifact) -> str:
    target = artifact.target
    if target.is_bound_to_os_release and artifact.os_release is None:
        raise StoreError(
            f"nobody knows which release of {target.os} the artifact for {target} is for",
            hint="set `os_release` on the node that built it",
        )
    return f"{target.triple}{artifact.edition or ''}"


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


async def _place(store: ReleaseStore, item: _Object) -> bool:
    """Write the object; return whether it is a signature, and another one is there already."""
    try:
        await store.create(item.name, item.data, item.kind)
    except TakenError:
        if item.name.endswith(_SIGNATURES):
            return True
        raise
    return False


async def _require_genuine(store: ReleaseStore, archive: _Object, channel: Channel) -> None:
    """Raise StoreError unless the signatures that are there are some of the project's own keys."""
    texts = []
    for ending in _SIGNATURES:
        name = f"{archive.name}{ending}"
        found = await store.read(name, limit_bytes=_SIGNATURE_LIMIT)
        texts.append(found.data.decode("ascii", "replace") if found else "")
    minisig, sshsig = texts
    try:
        channel.verify(
            archive.data,
            Signatures(sshsig=sshsig, minisig=minisig),
            keys=channel.keys,
            namespace=artifact_namespace(channel.project),
        )
    except StoreError as error:
        raise StoreError(
            f"{store.describe()} holds another signature beside {archive.name}: {error.message}",
            hint="find out who wrote it; `release --reissue` publishes beside it",
        ) from error


_SIGNATURES: Final = (".minisig", ".sshsig")
_SIGNATURE_LIMIT: Final = 16 * 1024


async def _read_back(store: ReleaseStore, item: _Object) -> None:
    """Raise StoreError unless the store itself says that it holds these bytes."""
    if not await store.holds(item.name, item.data):
        raise StoreError(
            f"{item.name} reads back from {store.describe()} other than it was written",
            hint="the index was not changed: check the disk or the bucket, then run it again",
        )
