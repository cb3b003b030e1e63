"""Doubles of the seams, typed by their Protocols and held to the same contract suites."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    from orchestrator.stores.store import ReleaseStore


@dataclass(slots=True)
class MemoryStore:
    """A ReleaseStore in a dictionary, with counted generations like those of a bucket."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    kinds: dict[str, ObjectKind] = field(default_factory=dict)
    writes: int = 0

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

    async def list(self, prefix: str) -> tuple[str, ...]:
        parse_prefix(prefix)
        return tuple(sorted(name for name in self.objects if name.startswith(prefix)))

    def _write(self, name: str, data: bytes, kind: ObjectKind) -> Generation:
        self.writes += 1
        generation = Generation(str(self.writes))
        self.objects[name] = StoredObject(data=data, generation=generation)
        self.kinds[name] = kind
        return generation


if TYPE_CHECKING:
    _: ReleaseStore = MemoryStore()
