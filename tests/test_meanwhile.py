"""Work that goes on beside other work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.meanwhile import meanwhile

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def left_early(work: Coroutine[Any, Any, None]) -> None:
    async with meanwhile(work):
        await asyncio.sleep(0)
        raise KeyError


async def awaited(work: Coroutine[Any, Any, None]) -> None:
    async with meanwhile(work) as task:
        await task


async def test_what_was_done_meanwhile_is_had_from_its_task() -> None:
    began = asyncio.Event()

    async def work() -> str:
        began.set()
        return "done"

    async with meanwhile(work()) as task:
        await began.wait()
        assert await task == "done"


async def test_who_leaves_early_ends_it_and_waits_until_it_has_let_go() -> None:
    events: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("let go")

    with pytest.raises(KeyError):
        await left_early(work())
    assert events == ["let go"]


async def test_of_two_failures_the_block_s_own_is_raised_and_nobody_complains_of_the_other() -> (
    None
):
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def work() -> None:
        raise ValueError("beside")

    with pytest.raises(KeyError):
        await left_early(work())
    with pytest.raises(ValueError, match="beside"):
        await awaited(work())
    assert not complaints
