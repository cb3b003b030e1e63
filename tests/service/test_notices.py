"""Notices on their way: real receivers on loopback, and what happens when they are down."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.notice import Message, Teller
from orchestrator.core.order import Order, Origin
from orchestrator.core.service_settings import NoticeByWebhook, NoticeFormat, Occasion
from orchestrator.service import notices as module
from orchestrator.service.channels import SendError, WebhookChannel, channels_of
from orchestrator.service.notices import PAUSES_SECONDS, Notices
from tests.core.test_notice import LATE, LINUX, NETBSD, outcome, row
from tests.servers import bytes_of, moved_to, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
ORDER = Order(version="1.0.0", channel="stable", asked=NOW, origin=Origin.WEBHOOK)
CANARY = "aVeryLongUnguessableWord"
MESSAGE = Message(key="k", occasion=Occasion.FAILED, title="tool: it failed", text="so it did")


@dataclass(slots=True)
class Receiver:
    """An HTTP server that takes notices, with the statuses that it is told to answer first."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    asked: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.asked += 1
        status = self.statuses.pop(0) if self.statuses else 204
        if status < 300:
            self.taken.append((dict(request.headers.items()), body))
        bytes_of(b"", status)(request)

    def titles(self) -> list[str]:
        return [json.loads(body)["title"] for _, body in self.taken]


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    receiver = Receiver(statuses=list(statuses))
    with serving(receiver.answer) as url:
        receiver.url = f"{url}/hooks/{CANARY}"
        yield receiver


def channel_to(
    url: str,
    form: NoticeFormat = NoticeFormat.JSON,
    about: Collection[Occasion] = tuple(Occasion),
) -> WebhookChannel:
    return WebhookChannel(name="a channel", about=about, url=url, form=form, project="tool")


@dataclass(slots=True)
class Office:
    """Notices whose pauses take no time."""

    file: Path
    pauses: list[float] = field(default_factory=list)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @asynccontextmanager
    async def open(
        self, *channels: WebhookChannel, is_patient: bool = True
    ) -> AsyncIterator[Notices]:
        notices = Notices(
            teller=Teller(project="tool"),
            channels=channels,
            file=self.file,
            pause=self._pause,
            clock=lambda: NOW,
        )
        running = asyncio.create_task(notices.run())
        try:
            yield notices
            if is_patient:
                await until(lambda: notices._changes.empty() and not notices._told.waiting)
                await until(lambda: self.file.exists() and not self.waiting())
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def waiting(self) -> list[Any]:
        kept: list[Any] = json.loads(self.file.read_text())["waiting"]
        return kept


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- what changes is on another thread
            await asyncio.sleep(0.005)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "state" / "notices.json")


@pytest.mark.parametrize("form", NoticeFormat)
def test_every_format_arrives_at_a_real_server(form: NoticeFormat) -> None:
    with receiving() as receiver:
        channel_to(receiver.url, form).send(MESSAGE, NOW)
    ((headers, body),) = receiver.taken
    assert b"so it did" in body
    if form is NoticeFormat.NTFY:
        assert headers["Title"] == "tool: it failed"
    else:
        assert json.loads(body)


async def test_a_release_that_failed_and_one_that_is_late_arrive(office: Office) -> None:
    with receiving() as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            failed = outcome(row(LINUX, "built"), row(NETBSD), version="1.1.0")
            notices.end(ORDER, failed)
            notices.look([LATE])
            notices.alarm("tag", title="a tag was moved", text="who did it?")
    assert sorted(receiver.titles()) == [
        f"tool: 1.1.0 failed for {NETBSD}",
        "tool: NetBSD amd64 is late: 1.1.0 is not there",
        "tool: a tag was moved",
    ]


async def test_a_channel_gets_only_what_it_is_about(office: Office) -> None:
    with receiving() as receiver, receiving() as other:
        async with office.open(
            channel_to(receiver.url, about=(Occasion.FAILED,)),
            channel_to(other.url, about=(Occasion.LATE,)),
        ) as notices:
            notices.end(ORDER, outcome(row(NETBSD)))
    assert len(receiver.taken) == 1
    assert not other.taken


async def test_nothing_is_told_again_after_a_restart(office: Office) -> None:
    with receiving() as receiver:
        for _ in range(3):
            async with office.open(channel_to(receiver.url)) as notices:
                notices.end(ORDER, outcome(row(NETBSD), version="1.1.0"))
                notices.look([LATE])
    assert len(receiver.taken) == 2


async def test_after_the_state_was_deleted_it_is_told_once_more(office: Office) -> None:
    with receiving() as receiver:
        for _ in range(2):
            async with office.open(channel_to(receiver.url)) as notices:
                notices.look([LATE])
            office.file.unlink()
    assert len(receiver.taken) == 2


async def test_an_alarm_that_was_quiet_is_told_again(office: Office) -> None:
    with receiving() as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            notices.alarm("index", title="it expires", text="renew it")
            notices.alarm("index", title="it expires", text="renew it")
            await until(lambda: bool(receiver.taken) and not notices._told.waiting)
            notices.quiet("index")
            notices.alarm("index", title="it expires", text="renew it")
    assert len(receiver.taken) == 2


async def test_a_receiver_that_is_down_for_a_while_gets_it_later(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(500, 429, 503) as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            notices.end(ORDER, outcome(row(NETBSD)))
    assert len(receiver.taken) == 1
    assert office.pauses == list(PAUSES_SECONDS[:3])
    assert office.pauses == sorted(office.pauses)
    assert caplog.text.count("a notice cannot be sent") == 3
    assert CANARY not in caplog.text


async def test_what_is_never_taken_is_given_up(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(*[500] * 99) as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            notices.end(ORDER, outcome(row(NETBSD)))
    assert receiver.asked == len(PAUSES_SECONDS) + 1
    assert "it answers 500; it is given up" in caplog.text


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_who_refuses_for_good_is_not_asked_again(office: Office, status: int) -> None:
    with receiving(status) as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            notices.end(ORDER, outcome(row(NETBSD)))
    assert receiver.asked == 1


async def test_one_that_is_down_does_not_hold_up_the_others(office: Office) -> None:
    held = asyncio.Event()

    async def pause(_: float) -> None:
        await held.wait()

    with receiving(*[500] * 99) as down, receiving() as up:
        async with office.open(channel_to(down.url), channel_to(up.url)) as notices:
            notices.pause = pause
            notices.end(ORDER, outcome(row(NETBSD), version="1.1.0"))
            notices.look([LATE])
            await until(lambda: len(up.taken) == 2)
            held.set()


async def test_what_was_not_sent_before_the_end_is_sent_by_the_next_start(office: Office) -> None:
    async def forever(_: float) -> None:
        await asyncio.Event().wait()

    with receiving(500) as receiver:
        async with office.open(channel_to(receiver.url), is_patient=False) as notices:
            notices.pause = forever
            notices.end(ORDER, outcome(row(NETBSD)))
            await until(lambda: receiver.asked == 1 and office.file.exists())
        assert len(office.waiting()) == 1
        async with office.open(channel_to(receiver.url)):
            await until(lambda: len(receiver.taken) == 1)


async def test_a_state_that_cannot_be_kept_is_logged_and_told_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with receiving() as receiver:
        notices = Notices(
            teller=Teller(project="tool"),
            channels=(channel_to(receiver.url),),
            file=tmp_path / "file" / "notices.json",
        )
        running = asyncio.create_task(notices.run())
        notices.look([LATE])
        await until(lambda: len(receiver.taken) == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert "cannot keep what was told" in caplog.text


@pytest.mark.parametrize("damaged", ["", "[", "[]", '{"format": 9}', "[" * 100_000])
async def test_a_damaged_state_is_as_if_there_were_none(office: Office, damaged: str) -> None:
    office.file.parent.mkdir()
    office.file.write_text(damaged)
    with receiving() as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            notices.look([LATE])
            await until(lambda: len(receiver.taken) == 1)


async def test_a_bug_in_one_notice_ends_neither_the_service_nor_the_next(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass(frozen=True)
    class Broken(WebhookChannel):
        def send(self, message: Message, at: datetime) -> None:
            raise RuntimeError(message, at)

    broken = Broken(name="x", about=tuple(Occasion), url="", form=NoticeFormat.JSON, project="t")
    with receiving() as receiver:
        async with office.open(broken, channel_to(receiver.url)) as notices:
            notices.end(ORDER, {"version": "1.0.0"})
            notices.look([LATE])
    assert len(receiver.taken) == 1
    assert caplog.text.count("a bug of ours") == 2


def test_no_url_is_in_what_goes_wrong() -> None:
    with serving(bytes_of(b"")) as gone:
        pass
    with serving(moved_to("https://example.org/")) as moved:
        for url in (gone, moved, f"{moved}/\x00"):
            channel = channel_to(f"{url}/{CANARY}")
            with pytest.raises(SendError) as caught:
                channel.send(MESSAGE, NOW)
            assert CANARY not in f"{caught.value} {channel!r}"


def test_the_settings_say_which_channels_there_are() -> None:
    settings = NoticeByWebhook(url_env="X", format=NoticeFormat.NTFY, about=(Occasion.LATE,))
    (channel,) = channels_of([settings], ["https://ntfy.example.org/x"], project="tool")
    assert channel.name == "service.notices[0] (ntfy)"
    assert channel.about == (Occasion.LATE,)
    assert isinstance(channel, WebhookChannel)
    assert channel.url == "https://ntfy.example.org/x"


async def test_what_is_sent_is_logged_without_its_url(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=module.__name__)
    with receiving() as receiver:
        async with office.open(channel_to(receiver.url)) as notices:
            notices.look([LATE])
    assert "told: tool: NetBSD amd64 is late" in caplog.text
    assert CANARY not in caplog.text
