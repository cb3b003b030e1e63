"""Doubles of the seams, typed by their Protocols and held to the same contract suites."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.order import Origin, State
from orchestrator.core.result import Artifact, CollectedFile, Floor
from orchestrator.core.signature import PublicKey, Signatures
from orchestrator.core.target import parse_target
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
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.core.evidence import Evidence
    from orchestrator.core.freshness import Freshness
    from orchestrator.core.order import Entry
    from orchestrator.core.signature import RawVerifier, Signer, SshVerifier, Verifier
    from orchestrator.service.pages import Desk
    from orchestrator.stores.store import ReleaseStore


@dataclass(slots=True)
class MemoryStore:
    """A ReleaseStore in a dictionary, with counted generations like those of a bucket."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    kinds: dict[str, ObjectKind] = field(default_factory=dict)
    writes: int = 0
    is_writable: bool = True

    async def check_writable(self) -> None:
        if not self.is_writable:
            raise StoreError("memory is read-only", hint="set is_writable")

    def describe(self) -> str:
        return "memory"

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        held = self.objects.get(parse_name(name))
        if held is None:
            self._write(name, data, kind)
            return Created.NEW
        if held.data != data:
            raise taken(self, name)
        return Created.SAME

    async def read(self, name: str, *, limit_bytes: int) -> StoredObject | None:
        held = self.objects.get(parse_name(name))
        if held and len(held.data) > limit_bytes:
            raise oversized(self, name, limit_bytes)
        return held

    async def replace(
        self, name: str, data: bytes, kind: ObjectKind, *, expected: Generation | None
    ) -> Generation:
        held = self.objects.get(parse_name(name))
        if (held.generation if held else None) != expected:
            raise outrun(self, name)
        return self._write(name, data, kind)

    async def stat(self, name: str) -> ObjectStat | None:
        held = self.objects.get(parse_name(name))
        if held is None:
            return None
        return ObjectStat(size_bytes=len(held.data), sha256=hashlib.sha256(held.data).hexdigest())

    async def holds(self, name: str, data: bytes) -> bool:
        held = self.objects.get(parse_name(name))
        return held is not None and held.data == data

    async def list(self, prefix: str) -> tuple[str, ...]:
        parse_prefix(prefix)
        return tuple(sorted(name for name in self.objects if name.startswith(prefix)))

    def _write(self, name: str, data: bytes, kind: ObjectKind) -> Generation:
        self.writes += 1
        held = self.objects.get(name)
        generation = Generation(str(int(held.generation) + 1 if held else 1))
        self.objects[name] = StoredObject(data=data, generation=generation)
        self.kinds[name] = kind
        return generation


@dataclass(frozen=True, slots=True)
class ToySigner:
    """A Signer that takes microseconds and no secret: for tests of what is signed, and when."""

    name: str = "toy"

    @property
    def public(self) -> PublicKey:
        return PublicKey(ssh=self.name, minisign=self.name, key_id=self.name, fingerprint=self.name)

    def sign(self, data: bytes, *, namespace: str, comment: str) -> Signatures:
        mark = _toy_mark(self.name, data)
        block = base64.b64encode(f"{namespace} {mark}".encode()).decode()
        return Signatures(
            sshsig=f"-----BEGIN SSH SIGNATURE-----\n{block}\n-----END SSH SIGNATURE-----\n",
            minisig=f"untrusted comment: toy\n{mark}\ntrusted comment: {comment}\n{mark}\n",
        )

    def sign_ssh(self, data: bytes, *, namespace: str) -> str:
        return self.sign(data, namespace=namespace, comment="any").sshsig

    def sign_raw(self, data: bytes) -> bytes:
        return _toy_mark(self.name, data).encode()


def toy_verify_ssh(data: bytes, sshsig: str, *, keys: Sequence[PublicKey], namespace: str) -> None:
    """Accept the SSHSIG of a ToySigner with one of the keys."""
    if sshsig not in {ToySigner(key.ssh).sign_ssh(data, namespace=namespace) for key in keys}:
        raise StoreError("bad toy signature")


def toy_verify_raw(data: bytes, signature: bytes, *, keys: Sequence[PublicKey]) -> PublicKey:
    """Return the key whose ToySigner signed."""
    for key in keys:
        if ToySigner(key.ssh).sign_raw(data) == signature:
            return key
    raise StoreError("bad toy signature")


def toy_verify(
    data: bytes, signatures: Signatures, *, keys: Sequence[PublicKey], namespace: str
) -> None:
    """Accept what a ToySigner with one of the keys signed."""
    for key in keys:
        good = ToySigner(key.ssh).sign(data, namespace=namespace, comment="any")
        if (good.sshsig, good.minisig.split("\n")[1]) == (
            signatures.sshsig,
            signatures.minisig.split("\n")[1],
        ):
            return
    raise StoreError("bad toy signature")


def _toy_mark(name: str, data: bytes) -> str:
    return hashlib.sha256(name.encode() + b" " + data).hexdigest()


def make_artifact(
    folder: Path,
    triple: str = "x86_64-unknown-netbsd",
    version: str = "1.0.0",
    *,
    os_release: str | None = None,
    floors: tuple[Floor, ...] = (),
    evidence: Evidence | None = None,
) -> Artifact:
    """Stage an archive and two binaries that hold nothing but their own names."""
    target = parse_target(triple)
    if os_release and target.is_bound_to_os_release and not floors:
        floors = (Floor(name=str(target.os), operator="==", release=os_release),)
    folder.mkdir(parents=True, exist_ok=True)
    label = f"{version}-{triple}{os_release or ''}"
    binaries = tuple(_make_binary(folder, label, name) for name in ("demo", "demo-extra"))
    path = folder / f"{label}.tar.gz"
    data = f"archive of {label}".encode()
    path.write_bytes(data)
    return Artifact(
        version=version,
        target=target,
        os_release=os_release,
        path=path,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        floors=floors,
        binaries=binaries,
        evidence=evidence,
    )


def _make_binary(folder: Path, label: str, name: str) -> CollectedFile:
    data = f"{name} of {label}".encode()
    path = folder / f"{label}.{name}"
    path.write_bytes(data)
    return CollectedFile(
        name=name, path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


@dataclass(slots=True)
class FakeDesk:
    """A Desk of lists; `done` has what was asked of it."""

    orders: list[Entry] = field(default_factory=list)
    platforms: list[Freshness] = field(default_factory=list)
    logs: dict[tuple[str, str], Path] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)
    reads: int = 0

    async def entries(self, limit: int) -> Sequence[Entry]:
        self.reads += 1
        return self.orders[:limit]

    async def attempts(self, version: str) -> Sequence[Entry]:
        return [each for each in self.orders if each.order.version == version]

    async def freshness(self) -> Sequence[Freshness]:
        return self.platforms

    async def retry(self, version: str) -> None:
        entry = await self._newest(version)
        if not entry.state.is_final:
            raise ConfigError(f"{version} is {entry.state}", hint="cancel it first")
        self.done.append(("retry", version))
        again = entry.order.again(asked=entry.order.asked, origin=Origin.RETRY)
        self.orders.insert(0, replace(entry, order=again, state=State.QUEUED, outcome=None))

    async def cancel(self, version: str) -> None:
        entry = await self._newest(version)
        if entry.state.is_final:
            raise ConfigError(f"{version} is {entry.state} already")
        self.done.append(("cancel", version))
        self.orders[self.orders.index(entry)] = replace(entry, state=State.CANCELLED)

    async def yank(self, version: str) -> None:
        await self._newest(version)
        self.done.append(("yank", version))

    def log_path(self, version: str, node: str) -> Path | None:
        return self.logs.get((version, node))

    async def _newest(self, version: str) -> Entry:
        entries = await self.attempts(version)
        if not entries:
            raise ConfigError(f"nobody asked for {version}")
        return entries[0]


if TYPE_CHECKING:
    _desk: Desk = FakeDesk()
    _store: ReleaseStore = MemoryStore()
    _signer: Signer = ToySigner()
    _verify: Verifier = toy_verify
    _verify_ssh: SshVerifier = toy_verify_ssh
    _verify_raw: RawVerifier = toy_verify_raw
