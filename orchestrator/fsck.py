"""Whether a store holds what its indexes say: reading it, and writing again what can be."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.fsck import (
    SIDE_FILES,
    ChannelSummary,
    Finding,
    FsckReport,
    channels_among,
    damage,
    judge_archive,
    judge_expiry,
    judge_serial,
    repaired,
    unexplained,
    warning,
)
from orchestrator.core.index import parse_channel
from orchestrator.core.provenance import PROVENANCE_NAME
from orchestrator.core.sbom import SBOM_NAME
from orchestrator.core.verification import Verdict, judge_checksum
from orchestrator.site import Beside
from orchestrator.stores.channel import (
    TEXT_LIMIT,
    keys_ever,
    read_index,
    read_signed,
    refuse_signer,
)
from orchestrator.stores.evidence import EVIDENCE_LIMIT
from orchestrator.stores.history import read_copy, serials_among
from orchestrator.stores.installer import (
    INSTALL_SIGNATURE,
    SIGNATURE_LIMIT,
    is_copy,
    sign_script,
    signature_name,
)
from orchestrator.stores.keyring import KEYS_NAME, accepted_keys, keys_serial
from orchestrator.stores.pointers import INSTALL_SCRIPT, Pointer, publish_pointers
from orchestrator.stores.store import ObjectKind, kind_of
from orchestrator.verification.judge import ArchiveFiles, Judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from datetime import date

    from orchestrator.core.index import Index, Row
    from orchestrator.core.signature import Signer
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore, StoredObject

    Derive = Callable[[Channel, Index, Beside], tuple[Pointer, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is looked at: the channels of these names, or without names all, and how far it goes.

    Deep is to read every file; to repair is to write again what follows from an index.
    """

    names: tuple[str, ...] = ()
    is_deep: bool = False
    is_repairing: bool = False


async def check_store(
    store: ReleaseStore,
    channel: Channel,
    scope: Scope,
    *,
    derive: Derive,
    today: date,
    signer: Callable[[], Signer] | None = None,
) -> FsckReport:
    """Return what was found in the store.

    `channel` says whose project it is and who may sign; `derive` returns what follows from an
    index; `signer` is asked for when the signature of install.sh is to be written again. Raise
    ConfigError for a channel that is not there, StoreError for a store that cannot be listed.
    """
    names = scope.names
    # Before any index is read: what is published meanwhile is then no orphan and no later serial.
    objects = await store.list("")
    there = channels_among(objects)
    for name in names:
        if parse_channel(name) not in there:
            raise ConfigError(
                f"there is no channel {name} in {store.describe()}",
                hint=f"the channels are: {', '.join(there) or 'none'}",
            )
    inspection = _Inspection(
        store=store,
        objects=frozenset(objects),
        derive=derive,
        today=today,
        scope=scope,
        signer=signer,
    )
    channels = [replace(channel, name=name) for name in (names or there)]
    summaries = [await inspection.check_channel(each) for each in channels]
    past = await inspection.as_it_was(channel)
    await inspection.check_rows(past)
    await inspection.check_copies(channel, past)
    if not names:
        await inspection.find_orphans([replace(past, name=each.name) for each in channels])
    return FsckReport(
        store=store.describe(),
        channels=tuple(summaries),
        objects=len(inspection.looked_at),
        findings=tuple(sorted(inspection.findings, key=lambda each: (each.state, each.name))),
    )


_AT_ONCE: Final = 16
# Whole archives are held in memory meanwhile.
_READ_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspection:
    """One look at a store."""

    store: ReleaseStore
    objects: frozenset[str]
    derive: Derive
    today: date
    scope: Scope
    signer: Callable[[], Signer] | None = None

    findings: list[Finding] = field(default_factory=list)
    looked_at: set[str] = field(default_factory=set)
    rows: dict[tuple[str | None, str | None], Row] = field(default_factory=dict)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    reading_turns: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_READ_AT_ONCE)
    )

    async def check_channel(self, channel: Channel) -> ChannelSummary:
        """Look at the index of a channel, its copy, and what follows from it."""
        name = channel.index_name
        stored, index = None, None
        async with self._looking_at(name):
            stored, index = await read_signed(self.store, channel)
            if index is None:
                self._damaged(name, f"it is gone; copies of it are in index/{channel.name}/")
        if stored is None or index is None:
            return ChannelSummary(name=channel.name, serial=None, rows=0)
        self.rows.update(((row.path, row.sha256), row) for row in index.rows if row.path)
        if finding := judge_expiry(name, index, self.today):
            self.findings.append(finding)
        newest = max(serials_among(self.objects, channel), default=0)
        if problem := judge_serial(index, newest):
            # What follows from an index that went back is not written: it would go back too.
            self._damaged(name, problem)
        else:
            await self._check_copy(channel, index, stored)
            await self._check_derived(channel, index)
        return ChannelSummary(name=channel.name, serial=index.serial, rows=len(index.rows))

    async def as_it_was(self, channel: Channel) -> Channel:
        """Return the channel with the keys of all times: what they signed stays where it is."""
        if channel.authority is None:
            return channel
        keys = channel.keys
        async with self._looking_at(KEYS_NAME):
            keys = await keys_ever(self.store, channel)
        return replace(channel, keys=keys)

    async def _check_copy(self, channel: Channel, index: Index, stored: StoredObject) -> None:
        name = channel.history_name(index.serial)
        async with self._looking_at(name):
            copy = await self.store.read(name, limit_bytes=TEXT_LIMIT)
            if copy is None and self.scope.is_repairing:
                await self.store.create(name, stored.data, ObjectKind.TEXT)
                self.findings.append(repaired(name, "the copy of the index was missing"))
            elif copy is None:
                self._damaged(name, "the copy of the index is missing")
            elif copy.data != stored.data:
                self._damaged(name, f"it is another index than {channel.index_name}")

    async def _check_derived(self, channel: Channel, index: Index) -> None:
        beside = Beside(
            statements={each for each in self.objects if kind_of(each) is ObjectKind.STATEMENT},
            keys_serial=await keys_serial(self.store, channel.authority),
        )
        for pointer in self.derive(channel, index, beside):
            async with self._looking_at(pointer.name):
                await self._check_pointer(channel, index, pointer)
            if pointer.name == INSTALL_SCRIPT:
                async with self._looking_at(INSTALL_SIGNATURE):
                    await self._check_signature(channel, index, pointer.data)

    async def _check_pointer(self, channel: Channel, index: Index, pointer: Pointer) -> None:
        found = await self.store.read(pointer.name, limit_bytes=TEXT_LIMIT)
        if found is not None and found.data == pointer.data:
            return
        if await self._has_moved(channel, index):
            return
        problem = f"it does not follow from {channel.index_name}" if found else "it is missing"
        if self.scope.is_repairing:
            await publish_pointers(self.store, channel, (pointer,), serial=index.serial)
            self.findings.append(repaired(pointer.name, problem))
        else:
            self._damaged(pointer.name, problem)

    async def _has_moved(self, channel: Channel, index: Index) -> bool:
        """Return whether somebody is publishing, and writes what follows."""
        now = await read_index(self.store, channel)
        return now is None or now.serial != index.serial

    async def _check_signature(self, channel: Channel, index: Index, script: bytes) -> None:
        found = await self.store.read(INSTALL_SIGNATURE, limit_bytes=SIGNATURE_LIMIT)
        keys = await accepted_keys(self.store, channel.keys, channel.authority)
        judge = Judge(project=channel.project, keys=keys)
        check = judge.installer(INSTALL_SCRIPT, script, found.data if found else None)
        if check.verdict is Verdict.GOOD or await self._has_moved(channel, index):
            return
        problem = check.message
        if self.scope.is_repairing and self.signer:
            try:
                pointer = await self._signed(channel, script, self.signer())
            except ConfigError as error:
                problem = f"{problem}, and nobody could sign it: {error.message}"
            else:
                await publish_pointers(self.store, channel, (pointer,), serial=index.serial)
                self.findings.append(repaired(INSTALL_SIGNATURE, "install.sh was not signed"))
                return
        # Older releases left none.
        say = damage if found else warning
        self.findings.append(say(INSTALL_SIGNATURE, problem))

    async def _signed(self, channel: Channel, script: bytes, signer: Signer) -> Pointer:
        await refuse_signer(self.store, channel, signer.public)
        signature = await sign_script(script, signer, channel.project)
        return Pointer(INSTALL_SIGNATURE, signature, ObjectKind.SIGNATURE)

    async def check_copies(self, channel: Channel, past: Channel) -> None:
        """Look at the install.sh of each version, and whether it is signed."""
        keys = await accepted_keys(self.store, channel.keys, channel.authority)
        judge = Judge(project=channel.project, keys=keys, past=past.keys)
        scripts = [name for name in self.objects if is_copy(name)]
        await asyncio.gather(*(self._check_copy_of_script(judge, name) for name in scripts))
        for name in self.objects:
            script = name.removesuffix(".sig")
            if script != name and is_copy(script) and script not in self.objects:
                version = name.split("/")[1]
                told = f"its script is not there: `orchestrator release --version {version}`"
                self.findings.append(warning(name, f"{told} writes it"))

    async def _check_copy_of_script(self, judge: Judge, name: str) -> None:
        signature = signature_name(name)
        async with self._looking_at(signature):
            await self._require(signature)
        if not self.scope.is_deep or signature not in self.objects:
            return
        async with self._looking_at(name), self.turns:
            script = await self.store.read(name, limit_bytes=TEXT_LIMIT)
            found = await self.store.read(signature, limit_bytes=SIGNATURE_LIMIT)
            if script and found:
                check = judge.installer_copy(name, script.data, found.data)
                if check.verdict is Verdict.WRONG:
                    self._damaged(name, f"{check.part}: {check.message}")

    async def check_rows(self, channel: Channel) -> None:
        """Look at what every row of every index names."""
        await asyncio.gather(*(self._check_row(channel, row) for row in self.rows.values()))

    async def _check_row(self, channel: Channel, row: Row) -> None:
        path = row.path or ""
        data = None
        async with self._looking_at(path):
            data = await self._check_archive(row, path)
        for ending in SIDE_FILES:
            async with self._looking_at(f"{path}{ending}"):
                await self._require(f"{path}{ending}")
        if self.scope.is_deep and data is not None:
            await self._check_side_files(channel, row, data)

    async def _check_archive(self, row: Row, path: str) -> bytes | None:
        """Look at an archive, and return its bytes if they had to be read and are right."""
        async with self.turns:
            found = await self.store.stat(path)
        if found is None:
            self._damaged(path, "it is missing")
            return None
        # A size that is wrong needs no content to be read, and a right one bounds the reading.
        must_read = found.size_bytes == row.size_bytes and (
            self.scope.is_deep or found.sha256 is None
        )
        data = await self._content(path, found.size_bytes) if must_read else None
        sha256 = hashlib.sha256(data).hexdigest() if data is not None else found.sha256
        if problem := judge_archive(row, found.size_bytes, sha256 or ""):
            self._damaged(path, problem)
            return None
        return data

    async def _content(self, path: str, limit_bytes: int) -> bytes:
        async with self.reading_turns:
            stored = await self.store.read(path, limit_bytes=limit_bytes)
        return stored.data if stored else b""

    async def _require(self, name: str) -> None:
        if name in self.objects:
            return
        async with self.turns:
            if await self.store.stat(name) is None:
                self._damaged(name, "it is missing")

    async def _check_side_files(self, channel: Channel, row: Row, data: bytes) -> None:
        path, digest = row.path or "", hashlib.sha256(data).hexdigest()
        folder, _, name = path.rpartition("/")
        files = ArchiveFiles(
            name=name,
            version=str(row.version),
            data=data,
            sha256=await self._side_file(f"{path}.sha256"),
            sshsig=await self._side_file(f"{path}.sshsig"),
            minisig=await self._side_file(f"{path}.minisig"),
            provenance=await self._side_file(f"{folder}/{PROVENANCE_NAME}"),
            sbom=await self._side_file(f"{folder}/{SBOM_NAME}"),
        )
        judge = Judge(project=channel.project, keys=channel.keys)
        checksum = judge_checksum(name, digest, files.sha256)
        for check in (checksum, *judge.side_files(files, digest)):
            if check.verdict is Verdict.WRONG:
                self._damaged(path, f"{check.part}: {check.message}")

    async def _side_file(self, name: str) -> bytes | None:
        if name not in self.objects:
            return None
        found = None
        async with self._looking_at(name), self.turns:
            found = await self.store.read(name, limit_bytes=EVIDENCE_LIMIT)
        return found.data if found else None

    async def find_orphans(self, channels: Iterable[Channel]) -> None:
        """Look for releases that no row explains, nor a row of any index that ever was."""
        released = sorted(name for name in self.objects if name.startswith("releases/"))
        left = unexplained(released, tuple(self.rows.values()))
        for channel in channels:
            for serial in serials_among(self.objects, channel):
                if not left:
                    return
                async with self._looking_at(channel.history_name(serial)):
                    # Versions that fell out of the index are in the copies, the newest first.
                    copy = await read_copy(self.store, channel, serial)
                    left = unexplained(left, copy.rows if copy else ())
        for name in left:
            message = "no index names it: a release that goes on, or one that was given up"
            self.findings.append(warning(name, message))

    def _damaged(self, name: str, message: str) -> None:
        self.findings.append(damage(name, message))

    @asynccontextmanager
    async def _looking_at(self, name: str) -> AsyncIterator[None]:
        """Make what the store says of one object a finding: the others are looked at all the same.

        A store that cannot be reached at all was noticed when it was listed.
        """
        self.looked_at.add(name)
        try:
            yield
        except StoreError as error:
            self._damaged(name, error.message)
