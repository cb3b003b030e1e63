"""What people see and do on the pages, of a real store and real jobs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.order import Order, Origin, State
from orchestrator.service.desk import ReleaseDesk
from orchestrator.service.upkeep import Upkeep
from orchestrator.wiring import Operator
from tests.releases import Desk, wait_for
from tests.service.book import Book
from tests.shop import LINUX, NETBSD, Shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Programs

NOW = datetime.now(UTC)


def order(version: str = "1.0.0", attempt: int = 1) -> Order:
    return Order(
        version=version, channel="stable", asked=NOW, origin=Origin.WEBHOOK, attempt=attempt
    )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(folder=tmp_path)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def desk(shop: Shop, book: Book) -> ReleaseDesk:
    return desk_of(shop, book)


def desk_of(shop: Shop, book: Book) -> ReleaseDesk:
    return ReleaseDesk(read_operator=lambda: shop.operator, queue=book, changed=lambda: None)


async def test_before_the_first_release_every_target_has_nothing(desk: ReleaseDesk) -> None:
    [platform] = await desk.freshness()
    assert (platform.target, platform.version) == (LINUX, None)
    assert await desk.indexes() == ()


async def test_without_a_key_nothing_is_known(desk: ReleaseDesk, shop: Shop) -> None:
    (shop.folder / "key").unlink()
    (shop.folder / "key.pub").unlink()
    assert await desk.freshness() == ()
    assert await desk.index("stable") is None


async def test_each_platform_gets_what_was_published_for_it(
    desk: ReleaseDesk, shop: Shop, book: Book
) -> None:
    week = timedelta(days=7)
    await asyncio.to_thread(shop.publish, "1.0.0", LINUX, NETBSD, ago=2 * week)
    await asyncio.to_thread(shop.publish, "1.1.0", LINUX, pending=(NETBSD,), ago=week)
    book.write(order("1.1.0"), ended=NOW - timedelta(days=6), published=[LINUX])
    linux, netbsd = sorted(await desk.freshness(), key=lambda each: each.behind)
    assert (linux.version, linux.is_late) == ("1.1.0", False)
    assert (netbsd.version, netbsd.awaited, netbsd.is_late) == ("1.0.0", "1.1.0", True)
    # The history only knows the day, and here it was an earlier one.
    assert linux.released is not None
    assert linux.released.date() == (NOW - week).date()
    assert netbsd.released is not None
    assert netbsd.released.date() == (NOW - 2 * week).date()


async def test_the_order_knows_the_moment_of_a_day(
    desk: ReleaseDesk, shop: Shop, book: Book
) -> None:
    await asyncio.to_thread(shop.publish, "1.0.0", LINUX)
    book.write(order(), ended=NOW, published=[LINUX])
    [platform] = await desk.freshness()
    assert platform.released == NOW


async def test_the_store_is_not_read_for_every_visitor(desk: ReleaseDesk, shop: Shop) -> None:
    first = await desk.freshness()
    await asyncio.to_thread(shop.publish, "1.0.0", LINUX)
    assert await desk.freshness() is first
    await desk.yank("1.0.0")
    assert await desk.freshness() is not first


async def test_a_version_is_yanked_and_one_that_is_not_there_is_named(
    desk: ReleaseDesk, shop: Shop
) -> None:
    await asyncio.to_thread(shop.publish, "1.0.0", LINUX)
    await desk.yank("1.0.0")
    assert shop.rows() == [f"1.0.0 {LINUX} yanked"]
    with pytest.raises(ConfigError, match=r"2\.0\.0"):
        await desk.yank("2.0.0")


async def test_what_failed_is_tried_again_and_nothing_else(desk: ReleaseDesk, book: Book) -> None:
    book.write(order("1.0.0"), State.DONE)
    book.write(order("1.1.0"), State.FAILED)
    book.write(order("1.2.0"), State.RUNNING)
    await desk.retry("1.1.0")
    newest = book.orders[-1]
    assert (newest.key, newest.origin) == ("1.1.0#2", Origin.PERSON)
    assert [each.order.attempt for each in await desk.attempts("1.1.0")] == [2, 1]
    for version, complaint in (
        ("1.0.0", "was released"),
        ("1.1.0", "is queued already"),
        ("1.2.0", "is running already"),
        ("9.9.9", "nobody asked"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            await desk.retry(version)


async def test_what_runs_is_taken_back_with_its_jobs(
    tmp_path: Path, programs: Programs, book: Book
) -> None:
    bench = Desk(folder=tmp_path / "desk", programs=programs)
    bench.write(bench.node(build=bench.wait_then_copy()))
    with bench.started("release", "--version", "1.0.0") as started:
        await asyncio.to_thread(wait_for, lambda: bench.builds("here"))
        started.process.kill()
        book.write(order(), State.RUNNING)
        operator = Operator.at(str(bench.inventory))
        desk = ReleaseDesk(read_operator=lambda: operator, queue=book, changed=lambda: None)
        await desk.cancel("1.0.0")
        assert [each.state for each in book.written] == [State.CANCELLED]
        with pytest.raises(ConfigError, match="is over"):
            await desk.cancel("1.0.0")
    status = bench.run("status", "1.0.0", "--json").data
    assert [job["state"] for job in status["jobs"]] == ["stopped"]


async def test_a_node_that_does_not_answer_is_named_by_who_cancels(
    tmp_path: Path, programs: Programs, book: Book
) -> None:
    bench = Desk(folder=tmp_path / "desk", programs=programs)
    bench.write(bench.node(), bench.node("away", host="nobody@127.0.0.1", port=1))
    operator = Operator.at(str(bench.inventory))
    desk = ReleaseDesk(read_operator=lambda: operator, queue=book, changed=lambda: None)
    book.write(order(), State.RUNNING)
    with pytest.raises(NodeError, match="it cannot be said that its jobs ended on away") as caught:
        await desk.cancel("1.0.0")
    assert "orchestrator cancel 1.0.0" in str(caught.value.hint)
    assert [each.state for each in book.written] == [State.CANCELLED]


async def test_a_log_is_found_by_version_and_node(desk: ReleaseDesk, shop: Shop) -> None:
    log = shop.folder / "dist/1.0.0/a/build.log"
    assert desk.log_path("1.0.0", "a") is None
    log.parent.mkdir(parents=True)
    log.write_text("compiling\n")
    assert desk.log_path("1.0.0", "a") == log
    assert desk.log_path("1.0.0", "../a") is None
    assert desk.log_path("../1.0.0", "a") is None


class Heard:
    """What the upkeep tells."""

    def __init__(self) -> None:
        self.alarms: list[str] = []
        self.quiets: list[str] = []
        self.looks = 0

    def look(self, platforms: object) -> None:
        assert platforms is not None
        self.looks += 1

    def alarm(self, subject: str, *, title: str, text: str) -> None:
        assert "orchestrator renew" in text
        self.alarms.append(f"{subject}: {title}")

    def quiet(self, subject: str) -> None:
        self.quiets.append(subject)


async def test_what_may_pass_is_tried_again_and_an_index_that_ends_is_an_alarm(
    desk: ReleaseDesk, shop: Shop, book: Book
) -> None:
    await asyncio.to_thread(shop.publish, "1.0.0", LINUX, ago=timedelta(days=80))
    await asyncio.to_thread(shop.publish, "1.1.0-rc.1", LINUX, channel="prerelease")
    away = {"failure_class": "machine", "is_final": False}
    book.write(order(), State.FAILED, ended=NOW - timedelta(minutes=6), exit_code=3, rows=[away])
    heard = Heard()
    upkeep = Upkeep(queue=book, desk=desk, notices=heard)
    await upkeep.look()
    assert book.orders[-1].key == "1.0.0#2"
    assert heard.alarms == ["stable expires: the index of stable is valid for 10 more days"]
    assert heard.quiets == ["prerelease expires"]
    assert heard.looks == 1
    await upkeep.look()
    assert len(book.orders) == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.service.upkeep._LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
async def test_the_upkeep_goes_on_when_the_queue_is_away(
    desk: ReleaseDesk, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    book.is_away = True
    heard = Heard()
    task = asyncio.create_task(Upkeep(queue=book, desk=desk, notices=heard).run())
    await asyncio.to_thread(wait_for, lambda: "cannot see how things stand" in caplog.text)
    book.is_away = False
    await asyncio.to_thread(wait_for, lambda: heard.looks)
    task.cancel()
