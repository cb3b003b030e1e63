"""A release as a stranger reads it: through the public URL, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.verification import (
    INDEX,
    Verdict,
    good,
    is_recent_copy,
    judge_headers,
    wrong,
)
from orchestrator.stores.channel import TEXT_LIMIT
from orchestrator.stores.installer import INSTALL_SIGNATURE
from orchestrator.stores.pointers import INSTALL_SCRIPT, PAGE
from orchestrator.stores.store import kind_of
from orchestrator.verification.release import Found
from orchestrator.web import WebError, fetch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.core.index import Index
    from orchestrator.core.verification import Check, IndexRules
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore
    from orchestrator.verification.judge import Judge
    from orchestrator.web import Answer

OBJECT: Final = "object"
_DERIVED: Final = (INSTALL_SCRIPT, PAGE, "versions.json", "keys.txt")
_OK: Final = 200
_NOT_FOUND: Final = 404
_ERROR_LIMIT: Final = 64 * 1024
_TIMEOUT: Final = timedelta(minutes=5)
# A cache between may hold what was there a moment ago; half a minute in all.
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicReader:
    """Reads published objects through their public URL, and compares them with the store's own."""

    url: str
    store: ReleaseStore

    async def __call__(self, name: str, *, limit_bytes: int) -> Found:
        """Return the object; see Reader. Only what the store does not have is not there."""
        answer = await self.answer(name, limit_bytes=limit_bytes)
        if isinstance(answer, str):
            return Found(data=None, checks=(wrong(name, OBJECT, answer),))
        if answer.status == _NOT_FOUND and await self.store.stat(name) is None:
            return Found(data=None)
        if answer.status != _OK:
            said = f"the server says {answer.status}"
            return Found(data=None, checks=(wrong(name, OBJECT, said),))
        checks = headers_of(name, answer)
        if not await self.store.holds(name, answer.body):
            checks.append(wrong(name, OBJECT, "it has other bytes than in the store"))
        return Found(data=answer.body, checks=tuple(checks))

    async def answer(self, name: str, *, limit_bytes: int) -> Answer | str:
        """Return what the server answers, or why it does not."""
        place = f"{self.url.rstrip('/')}/{name}"
        # What a server says of an error may be longer than a small object.
        limit = max(limit_bytes, _ERROR_LIMIT)
        try:
            answer = await asyncio.to_thread(fetch, place, limit_bytes=limit, timeout=_TIMEOUT)
        except WebError as error:
            return f"it cannot be read: {error}"
        if answer.status == _OK and len(answer.body) > limit_bytes:
            return f"it is larger than {limit_bytes} bytes"
        return answer


def headers_of(name: str, answer: Answer) -> list[Check]:
    """Return each header of the answer that is not as the object's kind says."""
    kind = kind_of(name)
    if kind is None:
        return []
    return list(
        judge_headers(
            name,
            answer.headers,
            content_type=kind.content_type,
            cache_control=kind.cache_control,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A project's public site beside the store that it is served from.

    `installer` returns install.sh as it is to be now; None if this version does not lead to it.
    """

    reader: PublicReader
    judge: Judge
    installer: Callable[[], Awaitable[bytes]] | None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def index(self, channel: Channel, rules: IndexRules) -> tuple[Index | None, list[Check]]:
        """Return the public index, once it is one that the store has or had, and what was found.

        `rules.newest` is the least serial to wait for: others may have published meanwhile.
        """
        name = channel.index_name

        async def is_right(answer: Answer) -> bool:
            index, _ = self.judge.index(name, answer.body, rules)
            return index is not None and await self._was_published(channel, index, answer.body)

        found = await self._until(name, is_right)
        if isinstance(found, str):
            return None, [wrong(name, INDEX, found)]
        index, checks = self.judge.index(name, found.body, rules)
        checks = [*headers_of(name, found), *checks]
        if index and not await self._was_published(channel, index, found.body):
            message = f"another one than the store's is served: serial {index.serial}"
            return None, [*checks, wrong(name, INDEX, message)]
        return index, checks

    async def _was_published(self, channel: Channel, index: Index, data: bytes) -> bool:
        # Read after the public one, and in this order: what took its place has kept a copy first.
        for name in (channel.index_name, channel.history_name(index.serial)):
            stored = await self.reader.store.read(name, limit_bytes=TEXT_LIMIT)
            if stored and stored.data == data:
                return True
        return False

    async def pointers(self) -> list[Check]:
        """Return a check of everything that follows from the index, as far as it is published."""
        names = [*_DERIVED, *await self.reader.store.list("latest/")]
        found = await asyncio.gather(*(self._pointer(name) for name in names))
        return [*(check for group in found for check in group), *await self._signature()]

    async def _signature(self) -> list[Check]:
        script = await self._expected(INSTALL_SCRIPT)
        if script is None:
            return []
        if await self.reader.store.stat(INSTALL_SIGNATURE) is None:
            return [self.judge.installer(INSTALL_SIGNATURE, script, None)]

        async def is_right(answer: Answer) -> bool:
            nonlocal script
            # Another release may have replaced both since it was read.
            script = await self._expected(INSTALL_SCRIPT) or b""
            return self._is_signed(script, answer.body)

        found = await self._until(INSTALL_SIGNATURE, is_right)
        if isinstance(found, str):
            return [wrong(INSTALL_SIGNATURE, OBJECT, found)]
        headers = headers_of(INSTALL_SIGNATURE, found)
        return [*headers, self.judge.installer(INSTALL_SIGNATURE, script, found.body)]

    def _is_signed(self, script: bytes, signature: bytes) -> bool:
        check = self.judge.installer(INSTALL_SIGNATURE, script, signature)
        return check.verdict is Verdict.GOOD

    async def _pointer(self, name: str) -> list[Check]:
        expected = await self._expected(name)
        if expected is None:
            return []
        # Who runs an older installer a minute longer must know it: it may trust other keys.
        is_script = name == INSTALL_SCRIPT and self.installer is not None

        async def is_right(answer: Answer) -> bool:
            nonlocal expected
            if answer.body == expected or (not is_script and is_recent_copy(answer.headers)):
                return True
            # Another release may have replaced it since it was read.
            expected = await self._expected(name)
            return answer.body == expected

        found = await self._until(name, is_right)
        if isinstance(found, str):
            return [wrong(name, OBJECT, found)]
        checks = headers_of(name, found)
        if found.body == expected:
            return [*checks, good(name, OBJECT)]
        if is_recent_copy(found.headers) and not is_script:
            age = found.headers["age"]
            return [*checks, good(name, OBJECT, f"an older copy, {age} s old, from a cache")]
        return [*checks, wrong(name, OBJECT, "it is not what the store has")]

    async def _expected(self, name: str) -> bytes | None:
        """Return what is to be served now, None if nothing is."""
        if name == INSTALL_SCRIPT and self.installer is not None:
            return await self.installer()
        stored = await self.reader.store.read(name, limit_bytes=TEXT_LIMIT)
        return stored.data if stored else None

    async def _until(
        self, name: str, is_right: Callable[[Answer], Awaitable[bool]]
    ) -> Answer | str:
        """Return the answer once it is right; after a short while, whatever it is."""
        answer: Answer | str = ""
        for pause in (*_PAUSES, None):
            answer = await self.reader.answer(name, limit_bytes=TEXT_LIMIT)
            if not isinstance(answer, str) and answer.status == _OK and await is_right(answer):
                return answer
            if pause is not None:
                await self.sleep(pause)
        if isinstance(answer, str) or answer.status == _OK:
            return answer
        return f"the server says {answer.status}"
