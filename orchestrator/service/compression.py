"""Texts in gzip, each version of an object compressed once while it is asked for."""

from __future__ import annotations

import asyncio
import gzip
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from orchestrator.core.conditions import Version

if TYPE_CHECKING:
    from orchestrator.service.sources import Content


@dataclass(slots=True, kw_only=True)
class Compressor:
    """The compressed versions of what was asked for last."""

    limit_bytes: int = 32 * 1024 * 1024
    _kept: OrderedDict[str, Content] = field(default_factory=OrderedDict)
    _kept_bytes: int = 0
    _running: dict[str, asyncio.Task[Content]] = field(default_factory=dict)

    async def compress(self, content: Content) -> Content:
        """Return the same object in gzip, a version with an entity tag of its own.

        It is the same content when that is not worth it, or is too large to be in memory.
        """
        if not isinstance(content.body, bytes) or content.version.size_bytes < _WORTH_BYTES:
            return content
        tag = content.version.tag
        if (kept := self._kept.get(tag)) is not None:
            self._kept.move_to_end(tag)
            return kept
        task = self._running.get(tag)
        if task is None:
            task = asyncio.create_task(self._compress(content, content.body))
            self._running[tag] = task
        # Others wait for it too: it goes on when one of them goes away.
        return await asyncio.shield(task)

    async def _compress(self, content: Content, data: bytes) -> Content:
        tag = content.version.tag
        try:
            packed = await asyncio.to_thread(gzip.compress, data, 6, mtime=0)
        finally:
            del self._running[tag]
        if len(packed) >= len(data):
            self._keep(tag, content)
            return content
        version = Version(
            tag=f'{tag[:-1]}-gzip"', size_bytes=len(packed), modified=content.version.modified
        )
        compressed = replace(content, version=version, body=packed)
        self._keep(tag, compressed)
        return compressed

    def _keep(self, tag: str, content: Content) -> None:
        self._kept[tag] = content
        self._kept_bytes += content.version.size_bytes
        while self._kept_bytes > self.limit_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.version.size_bytes


# Less than this fits into one packet either way.
_WORTH_BYTES: Final = 1024
