"""One answer for all who ask the same thing at the same time."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.service.sharing import Shared


class Kitchen:
    """Makes values, one after another, and counts them; it may be closed."""

    def __init__(self) -> None:
        self.made = 0
        self.now = 0.0
        self.is_closed = False
        self.open = asyncio.Event()
        self.open.set()
        self.shared = Shared[int](1.0, lambda: self.now)

    async def make(self) -> int:
        self.made += 1
        number = self.made
        await self.open.wait()
        if self.is_closed:
            raise ValueError(number)
        return number


async def test_who_asks_at_the_same_time_gets_the_same() -> None:
    kitchen = Kitchen()

    assert await asyncio.gather(*(kitchen.shared.get("a", kitchen.make) for _ in range(9))) == (
        [1] * 9
    )
    assert await kitchen.shared.get("b", kitchen.make) == 2


async def test_it_is_made_again_when_it_is_old() -> None:
    kitchen = Kitchen()
    assert await kitchen.shared.get("a", kitchen.make) == 1
    kitchen.now = 0.9
    assert await kitchen.shared.get("a", kitchen.make) == 1
    kitchen.now = 1.0
    assert await kitchen.shared.get("a", kitchen.make) == 2


async def test_who_goes_away_takes_it_from_nobody() -> None:
    kitchen = Kitchen()
    kitchen.open.clear()
    first = asyncio.ensure_future(kitchen.shared.get("a", kitchen.make))
    second = asyncio.ensure_future(kitchen.shared.get("a", kitchen.make))
    await asyncio.sleep(0)
    first.cancel()
    kitchen.open.set()

    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_fails_fails_for_all_and_is_not_kept() -> None:
    kitchen = Kitchen()
    kitchen.is_closed = True
    asking = [kitchen.shared.get("a", kitchen.make) for _ in range(3)]
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["1", "1", "1"]

    kitchen.is_closed = False
    assert await kitchen.shared.get("a", kitchen.make) == 2


async def test_a_failure_does_not_throw_away_what_came_after_it() -> None:
    kitchen = Kitchen()
    kitchen.is_closed = True
    kitchen.open.clear()
    first = asyncio.ensure_future(kitchen.shared.get("a", kitchen.make))
    await asyncio.sleep(0)
    kitchen.now = 2
    second = asyncio.ensure_future(kitchen.shared.get("a", kitchen.make))
    await asyncio.sleep(0)
    kitchen.open.set()
    with pytest.raises(ValueError, match="1"):
        await first
    with pytest.raises(ValueError, match="2"):
        await second
    assert kitchen.shared._kept == {}


async def test_many_addresses_take_little_memory() -> None:
    kitchen = Kitchen()
    for number in range(1000):
        await kitchen.shared.get(str(number), kitchen.make)

    assert len(kitchen.shared._kept) <= 64
