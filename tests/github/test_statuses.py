"""Commit statuses: what is sent, what is not, and that nothing of it stops a release."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.commit_status import StatusState
from orchestrator.core.errors import StoreError
from orchestrator.core.events import Event, NodeFinished, Published, ReleaseStarted
from orchestrator.github.statuses import Status, Statuses
from orchestrator.service.statuses import CommitStatuses
from tests.core.test_board import BEGAN, LINUX, NETBSD, ORDER, board, built, failed, plan, report
from tests.github.test_releases import Desk, desk_of
from tests.servers import bytes_of, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from orchestrator.core.order import Order

COMMIT = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
PAGE = "https://example.org/status"
PENDING = Status(
    context="tool/x", state=StatusState.PENDING, description="1.0.0 is being built", page=PAGE
)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with desk_of() as made:
        yield made


def statuses(desk: Desk) -> Statuses:
    return Statuses(api=desk.releases.api)


def shown(desk: Desk, commit: str = COMMIT) -> list[tuple[str, str, str]]:
    """What was set, oldest first."""
    found = reversed(desk.github.statuses.get(commit, []))
    return [(each["context"], each["state"], each["description"]) for each in found]


async def test_a_status_is_set_and_read_back(desk: Desk) -> None:
    await statuses(desk).set(COMMIT, PENDING)
    (told,) = desk.github.statuses[COMMIT]
    assert {key: told[key] for key in ("state", "context", "description", "target_url")} == {
        "state": "pending",
        "context": "tool/x",
        "description": "1.0.0 is being built",
        "target_url": PAGE,
    }
    done = replace(PENDING, state=StatusState.SUCCESS, page=None)
    await statuses(desk).set(COMMIT, done)
    assert await statuses(desk).of(COMMIT) == {"tool/x": done}


async def test_without_an_answer_it_is_set_again(desk: Desk) -> None:
    desk.fail("POST", "statuses", status=502, is_done=True)
    desk.fail("POST", "statuses", is_cut=True)
    await statuses(desk).set(COMMIT, PENDING)
    assert len(desk.github.asked("POST")) == 3
    assert desk.pauses == [5.0, 5.0]
    for _ in range(3):
        desk.fail("POST", "statuses", status=500)
    with pytest.raises(StoreError, match="cannot set a status of 6dcb"):
        await statuses(desk).set(COMMIT, PENDING)


async def test_a_rate_limit_is_waited_for(desk: Desk) -> None:
    desk.fail("POST", "statuses", status=403, headers={"Retry-After": "7"})
    await statuses(desk).set(COMMIT, PENDING)
    assert desk.pauses == [7.0]
    assert len(shown(desk)) == 1


async def test_what_other_programs_set_is_passed_over(desk: Desk) -> None:
    desk.github.statuses[COMMIT] = [
        {"context": "ci", "state": "odd", "description": None, "target_url": None},
        {"state": "success"},
        {"context": "ci", "state": "success", "description": None, "target_url": None},
    ]
    found = await statuses(desk).of(COMMIT)
    assert found == {"ci": Status(context="ci", state=StatusState.SUCCESS, description="")}


async def test_an_answer_that_is_no_list_is_an_error(desk: Desk) -> None:
    with serving(bytes_of(b"{}")) as url, pytest.raises(StoreError, match="not one of its API"):
        await Statuses(api=replace(desk.releases.api, url=url)).of(COMMIT)


class Watched:
    """A watcher of orders, and what it is told."""

    def __init__(self, desk: Desk) -> None:
        self.watcher = CommitStatuses(statuses=statuses(desk), project="tool", page=PAGE)

    def release(self, *events: Event, order: Order, outcome: dict[str, Any] | None = None) -> None:
        self.watcher.begin(order, board())
        for event in events:
            self.watcher.observe(order, event, BEGAN)
        if outcome:
            self.watcher.end(order, outcome)


@pytest.fixture
async def watched(desk: Desk) -> AsyncIterator[Watched]:
    made = Watched(desk)
    running = asyncio.create_task(made.watcher.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


RELEASE = replace(ORDER, commit=COMMIT)
BEGINNING = ReleaseStarted(plan=plan())


def outcome_of_failure() -> dict[str, Any]:
    new = board()
    new.finish(BEGAN, report(failed()))
    return new.as_data()


async def test_each_target_is_told_of_when_work_begins_and_when_it_ended(
    desk: Desk, watched: Watched
) -> None:
    watched.release(
        BEGINNING,
        NodeFinished(node="linux", result=built("linux", LINUX)),
        Published(targets=(LINUX,), serial=7),
        Published(targets=(LINUX,), serial=8),
        order=RELEASE,
        outcome=outcome_of_failure(),
    )
    await watched.watcher.sent()
    assert shown(desk) == [
        (f"tool/{NETBSD}", "pending", "1.2.3 is being built"),
        (f"tool/{LINUX}", "pending", "1.2.3 is being built"),
        (f"tool/{LINUX}", "success", "1.2.3 can be installed"),
        (f"tool/{NETBSD}", "error", "first: gone"),
    ]
    assert {each["target_url"] for each in desk.github.statuses[COMMIT]} == {PAGE}


async def test_what_is_shown_already_is_not_sent_again_after_a_restart(
    desk: Desk, watched: Watched
) -> None:
    again = Watched(desk)
    running = asyncio.create_task(again.watcher.run())
    for each in (watched, again):
        each.release(BEGINNING, order=RELEASE)
        await each.watcher.sent()
    running.cancel()
    assert len(desk.github.asked("POST")) == 2


async def test_another_attempt_begins_anew(desk: Desk, watched: Watched) -> None:
    for _ in range(2):
        watched.release(BEGINNING, order=RELEASE, outcome=outcome_of_failure())
    await watched.watcher.sent()
    assert [state for context, state, _ in shown(desk) if context.endswith(NETBSD)] == [
        "pending",
        "error",
    ] * 2


async def test_without_a_commit_or_a_plan_nothing_is_told(desk: Desk, watched: Watched) -> None:
    watched.release(BEGINNING, order=ORDER, outcome=outcome_of_failure())
    watched.release(
        Published(targets=(LINUX,), serial=1), order=RELEASE, outcome=outcome_of_failure()
    )
    await watched.watcher.sent()
    assert not desk.github.requests


async def test_what_github_refuses_is_logged_without_the_token_and_the_rest_goes_on(
    desk: Desk, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    desk.fail("GET", "statuses", status=403, data={"message": "Resource not accessible"})
    desk.fail("POST", "statuses", status=403, data={"message": f"not with {desk.token}"})
    watched.release(BEGINNING, order=RELEASE)
    await watched.watcher.sent()
    assert [context for context, *_ in shown(desk)] == [f"tool/{LINUX}"]
    assert "GitHub cannot set a status" in caplog.text
    assert desk.token not in caplog.text


async def test_a_bug_in_it_is_logged_and_ends_nothing(
    desk: Desk,
    watched: Watched,
    *,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(Statuses, "set", broken)
        watched.release(BEGINNING, order=RELEASE)
        await watched.watcher.sent()
    assert "a bug of ours in commit statuses" in caplog.text
    watched.release(BEGINNING, order=RELEASE)
    await watched.watcher.sent()
    assert len(shown(desk)) == 2
