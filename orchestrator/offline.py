"""An offline bundle: what an installer needs of a store, verified, in one file or folder."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.offline import (
    BundleFile,
    BundleReport,
    bundle_command,
    bundle_folder,
    bundle_member,
    bundled_rows,
    parent_folders,
)
from orchestrator.core.provenance import PROVENANCE_NAME
from orchestrator.core.sbom import SBOM_NAME
from orchestrator.core.verification import Verdict
from orchestrator.parts import PART, create_part
from orchestrator.stores.channel import keys_ever, read_signed
from orchestrator.stores.installer import INSTALL_SIGNATURE
from orchestrator.stores.keyring import KEYS_NAME, accepted_keys, read_keys
from orchestrator.stores.pointers import INSTALL_SCRIPT
from orchestrator.verification.installer import read_installer
from orchestrator.verification.judge import Judge
from orchestrator.verification.release import Version, store_reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import date

    from orchestrator.core.index import Index, Row
    from orchestrator.core.offline import BundleRequest
    from orchestrator.core.verification import Check
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore

    Add = Callable[[BundleFile], None]

TAR: Final = ".tar"


async def make_offline_bundle(
    store: ReleaseStore, channel: Channel, request: BundleRequest, *, output: Path, today: date
) -> BundleReport:
    """Write a bundle and return what is in it: `output` is FILE.tar, or a folder to put it in.

    Nothing is there under its name before all of it is verified and written. Raise StoreError for
    what is not as it was signed, ConfigError for what is not there and for what cannot be written.
    """
    stored, index = await read_signed(store, channel)
    if stored is None or index is None:
        raise ConfigError(
            f"there is no {channel.index_name} in {store.describe()}",
            hint="the first release on a channel makes it",
        )
    if index.expires < today:
        raise StoreError(
            f"{channel.index_name} expired on {index.expires}, and installers refuse it",
            hint="sign it anew: orchestrator renew",
        )
    rows = sorted(bundled_rows(index.rows, request), key=lambda row: row.path or "")
    keys = await accepted_keys(store, channel.keys, channel.authority)
    judge = Judge(project=channel.project, keys=keys, past=await keys_ever(store, channel))
    top = [BundleFile(name=channel.index_name, data=stored.data)]
    top += await _installer(store, judge)
    top += await _keys(store, channel)
    folder = bundle_folder(index, request)
    names: list[str] = []
    with _destination(output, folder, index) as add:
        for file in sorted(top, key=lambda file: file.name):
            add(file)
            names.append(file.name)
        async for file in _archives(store, judge, index, rows=rows):
            add(file)
            names.append(file.name)
    return BundleReport(
        index=index,
        output=str(output),
        folder=folder,
        rows=tuple(rows),
        files=tuple(names),
        size_bytes=sum(row.size_bytes or 0 for row in rows),
        command=bundle_command(index, request, output=str(output), is_tar=_is_tar(output)),
    )


def _is_tar(output: Path) -> bool:
    return output.suffix == TAR


async def _installer(store: ReleaseStore, judge: Judge) -> list[BundleFile]:
    script, signature, checks = await read_installer(store_reader(store), judge)
    _require(checks)
    if script.data is None:
        raise ConfigError(
            f"there is no {INSTALL_SCRIPT} in {store.describe()}",
            hint="set `publication.url` in the inventory, then: orchestrator renew",
        )
    if signature.data is None:
        raise StoreError(
            f"{INSTALL_SCRIPT} in {store.describe()} is not signed",
            hint="sign it: orchestrator renew",
        )
    return [
        BundleFile(name=INSTALL_SCRIPT, data=script.data, is_executable=True),
        BundleFile(name=INSTALL_SIGNATURE, data=signature.data),
    ]


async def _keys(store: ReleaseStore, channel: Channel) -> list[BundleFile]:
    stored = await read_keys(store, channel.authority) if channel.authority else None
    return [BundleFile(name=KEYS_NAME, data=stored.data)] if stored else []


async def _archives(
    store: ReleaseStore, judge: Judge, index: Index, *, rows: Sequence[Row]
) -> AsyncIterator[BundleFile]:
    """Yield the files of each build, one build in memory at a time."""
    for row in rows:
        version = Version(
            version=str(row.version), judge=judge, read=store_reader(store), is_flat=False
        )
        files, checks = await version.archive(row, index)
        _require(checks)
        if files is None:
            raise StoreError(f"{row.path} is not there", hint="look closer: orchestrator fsck")
        folder = str(row.path).rpartition("/")[0]
        parts = {
            files.name: files.data,
            f"{files.name}.sha256": files.sha256,
            f"{files.name}.sshsig": files.sshsig,
            f"{files.name}.minisig": files.minisig,
            PROVENANCE_NAME: files.provenance,
            SBOM_NAME: files.sbom,
        }
        for name, data in sorted(parts.items()):
            if data is not None:
                yield BundleFile(name=f"{folder}/{name}", data=data)


def _require(checks: Sequence[Check]) -> None:
    """Raise StoreError, with everything that is wrong."""
    problems = [
        f"{check.subject}: {check.part}: {check.message}"
        for check in checks
        if check.verdict is Verdict.WRONG
    ]
    if problems:
        raise StoreError(
            "the store cannot be trusted as it is:\n" + "\n".join(problems),
            hint="nothing was written; look closer: orchestrator fsck --deep",
        )


def _destination(output: Path, folder: str, index: Index) -> AbstractContextManager[Add]:
    if _is_tar(output):
        return _tar(output, folder, index)
    if output.suffix in _COMPRESSED:
        raise ConfigError(
            f"{output}: a bundle is not compressed, as the archives in it are",
            hint="name a file that ends in .tar, or a folder",
        )
    return _folder(output, folder)


_COMPRESSED: Final = frozenset({".gz", ".tgz", ".xz", ".zst", ".bz2", ".zip"})


@contextmanager
def _tar(output: Path, folder: str, index: Index) -> Iterator[Add]:
    with _explained(output):
        part, file = create_part(output)
    try:
        with file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            made: set[str] = set()

            def add(item: BundleFile) -> None:
                path = f"{folder}/{item.name}"
                size, is_executable = len(item.data), item.is_executable
                head = bundle_member(path, index, size_bytes=size, is_executable=is_executable)
                with _explained(output):
                    for each in parent_folders(path):
                        if each not in made:
                            made.add(each)
                            tar.addfile(bundle_member(each, index))
                    tar.addfile(head, io.BytesIO(item.data))

            yield add
            with _explained(output):
                tar.close()
                file.flush()
                os.fsync(file.fileno())
                part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _folder(output: Path, folder: str) -> Iterator[Add]:
    place = output / folder
    if place.exists():
        raise ConfigError(
            f"{place} is there already", hint="remove it, or name another folder with --output"
        )
    is_new = not output.exists()
    with _explained(output):
        output.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder}.", suffix=PART, dir=output))
        staging.chmod(0o755)

    def add(item: BundleFile) -> None:
        with _explained(output):
            path = staging / item.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.data)
            path.chmod(0o755 if item.is_executable else 0o644)

    try:
        yield add
        with _explained(output):
            staging.rename(place)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # another's files are in it by now
            if is_new:
                output.rmdir()
        raise


@contextmanager
def _explained(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write {output}: {error.strerror or error}",
            hint="name a place that has room and can be written to with --output",
        ) from error
