"""A database that hangs: nothing waits for it but who asks, and not for long."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from orchestrator.service.questions import Questions

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Questions]:
    monkeypatch.setattr("orchestrator.service.questions.PATIENCE_SECONDS", 0.05)
    asked = Questions()
    yield asked
    asked.close()


async def test_an_answer_and_an_error_come_back(questions: Questions) -> None:
    assert await questions.ask(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await questions.ask(lambda: 1 // 0)


async def test_questions_that_hang_hold_up_neither_the_loop_nor_its_threads(
    questions: Questions,
) -> None:
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(20)
        raise OSError("gone")

    for _ in range(20):
        with pytest.raises(TimeoutError):
            await questions.ask(hang)
    assert await asyncio.to_thread(lambda: 1) == 1
    let_go.set()
    while True:
        try:
            assert await questions.ask(lambda: 7) == 7
        except TimeoutError:
            await asyncio.sleep(0.01)
        else:
            break


async def test_one_that_was_given_up_by_its_asker_is_no_hanging_one(questions: Questions) -> None:
    for _ in range(10):
        task = asyncio.create_task(questions.ask(lambda: 7))
        await asyncio.sleep(0)
        task.cancel()
    assert await questions.ask(lambda: 8) == 8
