"""What a bucket keeps: objects with generations, conditions on every change, checksums."""

from __future__ import annotations

import base64
import hashlib
import itertools
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# As the service does it: microseconds, so that a generation is never small and never repeats.
_GENERATIONS: Final = itertools.count(time.time_ns() // 1000)


class RefusedError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What the one who writes says of an object."""

    content_type: str = "application/octet-stream"
    cache_control: str | None = None
    content_encoding: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    crc32c: str | None = None
    md5: str | None = None

    @classmethod
    def of(cls, resource: Mapping[str, Any], content_type: str | None = None) -> Fields:
        """Return the fields of a resource in JSON."""
        return cls(
            content_type=resource.get("contentType") or content_type or cls().content_type,
            cache_control=resource.get("cacheControl"),
            content_encoding=resource.get("contentEncoding"),
            metadata=resource.get("metadata") or {},
            crc32c=resource.get("crc32c"),
            md5=resource.get("md5Hash"),
        )

    def check(self, data: bytes) -> None:
        """Refuse bytes other than the declared ones."""
        if self.crc32c not in {None, crc32c(data)}:
            raise RefusedError(400, f'Provided CRC32C "{self.crc32c}" doesn\'t match calculated')
        if self.md5 not in {None, md5(data)}:
            raise RefusedError(400, f'Provided MD5 hash "{self.md5}" doesn\'t match calculated')


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One generation of an object."""

    name: str
    data: bytes
    fields: Fields
    generation: int
    metageneration: int = 1
    updated: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'

    def resource(self, bucket: str) -> dict[str, Any]:
        """Return the object as the JSON API describes it; numbers of 64 bits are text there."""
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.fields.content_type,
            **({"cacheControl": self.fields.cache_control} if self.fields.cache_control else {}),
            **({"metadata": dict(self.fields.metadata)} if self.fields.metadata else {}),
            "size": str(len(self.data)),
            "crc32c": crc32c(self.data),
            "md5Hash": md5(self.data),
            "etag": self.etag,
            "timeCreated": self.updated.isoformat(),
            "updated": self.updated.isoformat(),
            "storageClass": "STANDARD",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The preconditions of one request; None is one that was not made."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Conditions:
        """Return those in the query of a URL."""

        def number(key: str) -> int | None:
            return int(query[key]) if key in query else None

        return cls(
            generation=number("ifGenerationMatch"),
            not_generation=number("ifGenerationNotMatch"),
            metageneration=number("ifMetagenerationMatch"),
            not_metageneration=number("ifMetagenerationNotMatch"),
        )

    def check(self, held: Held | None, *, unchanged: int = 412) -> None:
        """Refuse a request whose conditions do not hold; 0 is the generation of nothing."""
        generation = held.generation if held else 0
        metageneration = held.metageneration if held else 0
        unmet = self.generation not in {None, generation} or (
            self.metageneration not in {None, metageneration}
        )
        if unmet:
            raise RefusedError(412, "At least one of the pre-conditions you specified did not hold")
        if self.not_generation == generation or self.not_metageneration == metageneration:
            raise RefusedError(unchanged, "At least one of the pre-conditions did not hold")


@dataclass(slots=True, kw_only=True)
class Bucket:
    """All objects of one bucket; every change is one step."""

    name: str
    is_public: bool = True
    is_versioned: bool = False
    live: dict[str, Held] = field(default_factory=dict)
    past: list[Held] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def insert(  # noqa: PLR0917 -- an object
        self, name: str, data: bytes, fields: Fields, conditions: Conditions
    ) -> Held:
        """Write an object and return it."""
        with self.lock:
            conditions.check(self.live.get(name))
            fields.check(data)
            held = Held(
                name=name,
                data=data,
                fields=fields,
                generation=next(_GENERATIONS),
                updated=datetime.now(tz=UTC),
            )
            self._retire(name)
            self.live[name] = held
            return held

    def find(self, name: str, generation: int | None = None) -> Held:
        """Return the live object, or one generation of it that is still there."""
        with self.lock:
            held = self.live.get(name)
            if generation is not None and (held is None or held.generation != generation):
                kept = self.past if self.is_versioned else []
                matches = (each for each in kept if each.generation == generation)
                held = next((each for each in matches if each.name == name), None)
            if held is None:
                raise RefusedError(404, f"No such object: {self.name}/{name}")
            return held

    def patch(self, name: str, changes: Mapping[str, Any], conditions: Conditions) -> Held:
        """Change what is said of an object and return it."""
        with self.lock:
            held = self.find(name)
            conditions.check(held)
            merged = {**held.resource(self.name), **changes}
            fields = replace(Fields.of(merged), crc32c=None, md5=None)
            self.live[name] = replace(held, fields=fields, metageneration=held.metageneration + 1)
            return self.live[name]

    def delete(self, name: str, conditions: Conditions) -> None:
        with self.lock:
            conditions.check(self.find(name))
            self._retire(name)

    def previous(self, name: str) -> Held | None:
        """Return the generation before the live one: what a cache may still have."""
        with self.lock:
            return next((held for held in reversed(self.past) if held.name == name), None)

    def page(self, query: Mapping[str, str]) -> tuple[list[Held], list[str], str | None]:
        """Return objects, common prefixes, and where the next page starts."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        with self.lock:
            found = [self.live[name] for name in sorted(self.live) if name.startswith(prefix)]
            if query.get("versions") == "true" and self.is_versioned:
                found += [held for held in self.past if held.name.startswith(prefix)]
        entries = list(dict(_entries(found, prefix, delimiter)).items())
        start, most = int(query.get("pageToken", "0")), int(query.get("maxResults", "1000"))
        chosen = entries[start : start + most]
        items = [held for _, held in chosen if held]
        prefixes = [key for key, held in chosen if held is None]
        following = str(start + most) if start + most < len(entries) else None
        return items, prefixes, following

    def _retire(self, name: str) -> None:
        if name in self.live:
            self.past.append(self.live.pop(name))


def _entries(found: list[Held], prefix: str, delimiter: str) -> Iterator[tuple[str, Held | None]]:
    for held in found:
        rest = held.name[len(prefix) :]
        if delimiter and delimiter in rest:
            yield prefix + rest.partition(delimiter)[0] + delimiter, None
        else:
            yield f"{held.name}#{held.generation}", held


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4)).decode()


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
