"""Releases whose deliveries were lost, and tags that were moved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.core.index import Index, Row, Status
from orchestrator.core.order import Order, Origin
from orchestrator.core.version import parse_version
from orchestrator.github.api import Api
from orchestrator.github.lookup import Lookup
from orchestrator.service.poller import Poller
from tests.github_server import REPOSITORY, TOKEN, Fault
from tests.releases import wait_for
from tests.service.book import Book

if TYPE_CHECKING:
    from tests.github_server import FakeGitHub

LONG_AGO = "2020-01-01T00:00:00Z"


@dataclass
class Round:
    """A poller and all that it touches."""

    github: FakeGitHub
    book: Book = field(default_factory=Book)
    published: dict[str, list[str]] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        api = Api(repository=REPOSITORY, token=TOKEN, url=self.github.url, pause=_at_once)
        self.poller = Poller(
            lookup=Lookup(api),
            queue=self.book,
            tag="v{version}",
            every=timedelta(seconds=0.01),
            channel_of=lambda version, flag: (
                "prerelease" if flag or version.is_prerelease else "stable"
            ),
            read_index=self.read_index,
            alarm=self.alarm,
        )

    def alarm(self, subject: str, *, title: str, text: str) -> None:
        self.alarms.append(f"{subject}: {title}: {text}")

    async def read_index(self, channel: str) -> Index | None:
        versions = self.published.get(channel)
        if versions is None:
            return None
        day = date(2026, 1, 1)
        rows = tuple(
            Row(target="x86_64-unknown-linux-gnu", version=parse_version(text), status=Status.OK)
            for text in versions
        )
        return Index(project="tool", channel=channel, serial=1, issued=day, expires=day, rows=rows)

    @property
    def found(self) -> list[str]:
        return [f"{order.version} {order.channel}" for order in self.book.orders]


async def _at_once(_: float) -> None:
    pass


async def test_what_is_new_is_queued_in_the_order_of_versions(github: FakeGitHub) -> None:
    for tag in ("v1.2.0", "v1.10.0", "v2.0.0-rc.1", "nightly", "v1.x"):
        github.add_release(tag)
    github.add_release("v1.3.0", prerelease=True)
    github.add_release("v9.0.0", is_draft=True)
    at = Round(github)
    await at.poller.look()
    assert at.found == [
        "1.2.0 stable",
        "1.3.0 prerelease",
        "1.10.0 stable",
        "2.0.0-rc.1 prerelease",
    ]
    assert {order.origin for order in at.book.orders} == {Origin.POLLER}
    assert at.book.orders[0].tag == "v1.2.0"
    await at.poller.look()
    assert len(at.found) == 4


async def test_what_is_known_or_published_or_of_the_past_is_left_alone(github: FakeGitHub) -> None:
    for number in (1, 2, 3, 4):
        github.add_release(f"v1.{number}.0", published_at=LONG_AGO)
    github.add_release("v0.9.1")
    at = Round(github, published={"stable": ["1.2.0", "1.0.0"]})
    known = Order(version="1.3.0", channel="stable", asked=datetime.now(UTC), origin=Origin.WEBHOOK)
    at.book.write(known)
    await at.poller.look()
    assert at.found == ["1.3.0 stable", "0.9.1 stable", "1.4.0 stable"]


async def test_a_first_start_does_not_release_the_past(github: FakeGitHub) -> None:
    github.add_release("v1.0.0", published_at=LONG_AGO)
    at = Round(github)
    await at.poller.look()
    assert at.found == []


async def test_what_could_not_be_queued_is_found_again(github: FakeGitHub) -> None:
    github.add_release("v1.0.0")
    at = Round(github)
    at.book.is_away = True
    with pytest.raises(StoreError):
        await at.poller.look()
    at.book.is_away = False
    await at.poller.look()
    assert at.found == ["1.0.0 stable"]


async def test_a_tag_that_was_moved_is_an_alarm_once(github: FakeGitHub) -> None:
    at = Round(github)
    for number, commit in enumerate([github.commit_of("v1.0.0"), "d" * 40, "e" * 40]):
        at.book.write(
            Order(
                version=f"1.0.{number}",
                channel="stable",
                asked=datetime.now(UTC),
                origin=Origin.WEBHOOK,
                tag=f"v1.0.{number}",
                commit=commit,
            )
        )
    github.tags.add("v1.0.1")
    for _ in range(6):
        await at.poller.look()
    moved, gone = sorted(at.alarms)
    assert moved.startswith("tag v1.0.1: the tag v1.0.1 was moved: the tag v1.0.1 was moved: it")
    assert "d" * 40 in moved
    assert "and names nothing now. find out who moved it" in gone


async def test_it_goes_on_through_whatever_happens(
    github: FakeGitHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.service.poller._LONGEST_PAUSE", timedelta(seconds=0.02))
    github.add_release("v1.0.0")
    github.faults.append(Fault(method="GET", path="releases", status=404))
    at = Round(github)
    broken = at.read_index
    failures = iter([ZeroDivisionError])

    async def read_index(channel: str) -> Index | None:
        if error := next(failures, None):
            raise error
        return await broken(channel)

    at.poller.read_index = read_index
    task = asyncio.create_task(at.poller.run())
    await asyncio.to_thread(wait_for, lambda: at.found)
    task.cancel()
    assert "GitHub cannot be asked for releases" in caplog.text
    assert "a bug of ours in the poller" in caplog.text
