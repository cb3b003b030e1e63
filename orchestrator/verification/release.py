"""Everything of one version, read from wherever it is kept, and judged."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.errors import StoreError
from orchestrator.core.index import Status
from orchestrator.core.provenance import PROVENANCE_NAME
from orchestrator.core.sbom import SBOM_NAME
from orchestrator.core.target import TARGETS
from orchestrator.core.verification import (
    CHECKSUM,
    INDEX,
    PROVENANCE,
    good,
    judge_checksum,
    rows_of,
    unknown,
    wrong,
)
from orchestrator.stores.channel import TEXT_LIMIT
from orchestrator.stores.evidence import EVIDENCE_LIMIT
from orchestrator.stores.publish import revision_folder
from orchestrator.verification.judge import ArchiveFiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.index import Index, Row
    from orchestrator.core.verification import Check, IndexRules
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore
    from orchestrator.verification.judge import Judge

ARCHIVE: Final = "archive"
BINARY: Final = "bare binary"
_SIDE_LIMIT: Final = 64 * 1024
# Archives are held in memory while they are looked at.
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object as a reader has it, None if it is not there; and what was wrong on the way."""

    data: bytes | None
    checks: tuple[Check, ...] = ()


class Reader(Protocol):
    """Where published objects are read from."""

    async def __call__(self, name: str, *, limit_bytes: int) -> Found:
        """Return the object; what cannot be read is a check that is wrong."""
        ...


def store_reader(store: ReleaseStore) -> Reader:
    """Return the reader of a store."""

    async def read(name: str, *, limit_bytes: int) -> Found:
        try:
            stored = await store.read(name, limit_bytes=limit_bytes)
        except StoreError as error:
            return Found(data=None, checks=(wrong(name, "object", error.message),))
        return Found(data=stored.data if stored else None)

    return read


async def newest_serial(
    store: ReleaseStore, channel: Channel, judge: Judge
) -> tuple[int | None, bytes | None]:
    """Return the highest serial whose history copy is genuine, and that copy."""
    prefix = channel.history_name(0).removesuffix("0.idx")
    names = await store.list(prefix)
    serials = (name.removeprefix(prefix).removesuffix(".idx") for name in names)
    for serial in sorted((int(text) for text in serials if text.isdecimal()), reverse=True):
        copy = await store.read(channel.history_name(serial), limit_bytes=TEXT_LIMIT)
        index = judge.genuine(copy.data) if copy else None
        # What somebody planted there says nothing.
        if copy and index and index.serial == serial and index.channel == channel.name:
            return serial, copy.data
    return None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a project, read with one reader; `expected` are targets that it must have."""

    version: str
    judge: Judge
    read: Reader
    is_flat: bool
    expected: tuple[str, ...] = ()

    async def checks(self, index: Index) -> list[Check]:
        """Return a check of everything that the index lists of the version."""
        rows = rows_of(index, self.version)
        if not rows:
            return [wrong(self.version, INDEX, f"serial {index.serial} has nothing of it")]
        turn = asyncio.Semaphore(_AT_ONCE)

        async def check(row: Row) -> list[Check]:
            async with turn:
                return await self._row(row, index)

        found = await asyncio.gather(*(check(row) for row in rows))
        checks = [each for group in found for each in group]
        if all(row.status is Status.PENDING for row in rows):
            checks.append(wrong(self.version, INDEX, "nothing of it is published yet"))
        there = {row.target for row in rows if row.status is Status.OK}
        return checks + [
            wrong(f"{target} {self.version}", INDEX, "it is not offered")
            for target in self.expected
            if target not in there
        ]

    async def _row(self, row: Row, index: Index) -> list[Check]:
        files, found = await self.archive(row, index)
        if files and self.is_flat and row.status is Status.OK:
            found += await self._flat(row, files.provenance)
        return found

    async def archive(self, row: Row, index: Index) -> tuple[ArchiveFiles | None, list[Check]]:
        """Return an archive and what lies beside it, and a check of each; None if it is not it."""
        if row.path is None or row.size_bytes is None:
            return None, [unknown(f"{row.target} {row.version}", ARCHIVE, "it is pending")]
        archive = await self.read(row.path, limit_bytes=row.size_bytes)
        if archive.data is None:
            return None, list(archive.checks) or [wrong(row.path, ARCHIVE, "it is not there")]
        if (len(archive.data), hashlib.sha256(archive.data).hexdigest()) != (
            row.size_bytes,
            row.sha256,
        ):
            message = f"it has other bytes than serial {index.serial} says"
            return None, [*archive.checks, wrong(row.path, ARCHIVE, message)]
        files, checks = await self._files(row.path, archive.data)
        judged = self.judge.archive(files, index, is_for_use=False)
        return files, [*archive.checks, *checks, *judged]

    async def _files(self, path: str, data: bytes) -> tuple[ArchiveFiles, list[Check]]:
        folder, _, name = path.rpartition("/")
        ends = ("sha256", "sshsig", "minisig")
        sides = await asyncio.gather(
            *(self.read(f"{path}.{end}", limit_bytes=_SIDE_LIMIT) for end in ends),
            *(
                self.read(f"{folder}/{each}", limit_bytes=EVIDENCE_LIMIT)
                for each in (PROVENANCE_NAME, SBOM_NAME)
            ),
        )
        checks = [check for side in sides for check in side.checks]
        # These are published with every archive; evidence is, where a node can tell.
        checks += [
            wrong(f"{name}.{end}", "object", "it is not there")
            for end, side in zip(ends, sides, strict=False)
            if side.data is None and not side.checks
        ]
        sha256, sshsig, minisig, provenance, sbom = (side.data for side in sides)
        files = ArchiveFiles(
            name=name,
            version=self.version,
            data=data,
            sha256=sha256,
            sshsig=sshsig,
            minisig=minisig,
            provenance=provenance,
            sbom=sbom,
        )
        return files, checks

    async def _flat(self, row: Row, provenance: bytes | None) -> list[Check]:
        target = TARGETS.get(row.target)
        if target is None:
            # Another coordinator runs a later version of this program.
            return [unknown(f"{row.target} {row.version}", BINARY, "this target is not known here")]
        file_name = f"{self.judge.project}-{self.version}-{target.flat_name}{target.exe_suffix}"
        name = f"{self.version}/{revision_folder(row.revision)}{file_name}"
        binary = await self.read(name, limit_bytes=row_limit(row))
        if binary.data is None:
            # Two targets may share the name, and a binary may be refused it.
            return list(binary.checks) or [unknown(name, BINARY)]
        digest = hashlib.sha256(binary.data).hexdigest()
        line = await self.read(f"{name}.sha256", limit_bytes=_SIDE_LIMIT)
        checks = [*binary.checks, *line.checks]
        if line.data is None and not line.checks:
            checks.append(wrong(name, CHECKSUM, "it is not there"))
        checks.append(judge_checksum(file_name, digest, line.data))
        if provenance is None:
            return [*checks, unknown(name, PROVENANCE)]
        try:
            subjects = self.judge.claims(provenance).subjects
        except StoreError:
            return checks  # said of the archive already
        if digest in subjects.values():
            return [*checks, good(name, PROVENANCE)]
        return [*checks, unknown(name, PROVENANCE, "it is of another build of this platform")]


def row_limit(row: Row) -> int:
    """Return how large the binary inside an archive may be: a text of zeros shrinks by 1000."""
    return 1024 * (row.size_bytes or 0) + _SIDE_LIMIT


async def check_store_index(
    store: ReleaseStore, channel: Channel, judge: Judge, *, rules: IndexRules
) -> tuple[Index | None, list[Check]]:
    """Return the store's index if it may be believed, and what was found."""
    # In this order: others may publish meanwhile, and an index is there before its copy is.
    serial, copy = await newest_serial(store, channel, judge)
    found = await store.read(channel.index_name, limit_bytes=TEXT_LIMIT)
    if found is None:
        return None, [wrong(channel.index_name, INDEX, f"not in {store.describe()}")]
    rules = replace(rules, newest=serial, project=judge.project, channel=channel.name)
    index, checks = judge.index(channel.index_name, found.data, rules)
    if index and index.serial == serial and copy != found.data:
        message = f"mixed up: another index was published with the serial {serial}"
        return None, [wrong(channel.index_name, INDEX, message)]
    return index, checks


async def check_presence(store: ReleaseStore, rows: Sequence[Row]) -> list[Check]:
    """Return what the store itself says of the archives in these rows, without reading them."""

    async def look(row: Row) -> list[Check]:
        if row.path is None:
            return []
        try:
            found = await store.stat(row.path)
        except StoreError as error:
            return [wrong(row.path, ARCHIVE, error.message)]
        if found is None:
            return [wrong(row.path, ARCHIVE, "it is not there")]
        if found.size_bytes != row.size_bytes or found.sha256 not in {None, row.sha256}:
            return [wrong(row.path, ARCHIVE, "it is not what the index says")]
        return [good(row.path, ARCHIVE)]

    return [check for group in await asyncio.gather(*map(look, rows)) for check in group]
