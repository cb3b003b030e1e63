"""A thousand and more requests that no friend sends: clean refusals, no order, no traceback."""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from orchestrator.core.errors import StoreError
from orchestrator.core.webhook import MAX_BODY_BYTES, Expected
from orchestrator.service.headers import add_headers
from orchestrator.service.intake import Submitted
from orchestrator.service.listening import listening
from orchestrator.service.webhook import add_webhook
from tests.github_server import REPOSITORY
from tests.service.running import SECRET, payload, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.core.order import Order

COUNT: Final = 1500


@dataclass
class Recorder:
    """An intake that keeps what it is given, and what was counted."""

    orders: list[Order] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    is_away: bool = False

    async def submit(self, order: Order) -> Submitted:
        if self.is_away:
            raise StoreError("the database of the queue does not answer: gone")
        self.orders.append(order)
        return Submitted(order=order, is_new=len(self.orders) == 1)


@dataclass
class Gate:
    """The route under test, at a URL."""

    url: str
    recorder: Recorder

    async def send(self, data: bytes) -> tuple[int, bytes]:
        """Send raw bytes; return the status and all that came, 0 if nothing did."""
        parts = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(data)
            answer = await asyncio.wait_for(reader.read(), 20)
        except ConnectionError:
            return 0, b""
        finally:
            writer.close()
        return (int(answer.split(None, 2)[1]) if answer else 0), answer

    async def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        return await self.send(request(body, headers))


def request(body: bytes, headers: dict[str, str], method: str = "POST") -> bytes:
    lines = {"Host": "x", "Connection": "close", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} /webhook HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace") + body


@pytest.fixture
async def gate(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    monkeypatch.setattr("orchestrator.service.listening._LINGERING_SECONDS", 0.1)
    recorder = Recorder()
    app = web.Application()
    add_headers(app)
    add_webhook(
        app,
        secret=SECRET.encode(),
        expected=Expected(repository=REPOSITORY, tag="v{version}"),
        channel_of=lambda _, is_prerelease: "prerelease" if is_prerelease else "stable",
        intake=recorder,
        count=recorder.counted.append,
    )
    async with listening(app) as url:
        yield Gate(url, recorder)


def hostile(chance: random.Random) -> bytes:
    """Return the bytes of a request that must not lead to anything."""
    return chance.choice((_badly_signed, _of_another_kind, _badly_meant, _no_post))(chance)


def _badly_signed(chance: random.Random) -> bytes:
    good = payload()
    noise = chance.randbytes(20).decode("latin-1").translate(dict.fromkeys(map(ord, "\r\n\0")))
    signature = chance.choice([f"sha256={chance.randbytes(32).hex()}", noise, "", "sha256="])
    headers = signed(good)
    if chance.random() < 0.3:
        return request(good + b" ", headers)
    return request(good, headers | {"X-Hub-Signature-256": signature})


def _of_another_kind(chance: random.Random) -> bytes:
    body = b"payload=" + payload()
    kind = chance.choice(["application/x-www-form-urlencoded", "text/html", "a/b", "application/"])
    return request(body, signed(body) | {"Content-Type": kind})


def _badly_meant(chance: random.Random) -> bytes:
    body = chance.choice(
        (
            chance.randbytes(chance.randrange(300)),
            payload(chance.choice(_HOSTILE_TAGS)),
            payload(repository="evil/" + "x" * chance.randrange(1, 80)),
        )
    )
    return request(body, signed(body))


def _no_post(chance: random.Random) -> bytes:
    good = payload()
    long = {"X-" + "y" * chance.randrange(1, 20): "z" * chance.randrange(9000, 20_000)}
    return chance.choice(
        (
            request(good, signed(good), method=chance.choice(["PUT", "DELETE", "PATCH"])),
            chance.randbytes(chance.randrange(1, 400)) + b"\r\n\r\n",
            request(good, signed(good) | long),
        )
    )


_HOSTILE_TAGS: Final = (
    "v1.0.0;rm${IFS}-rf${IFS}x",
    "--upload-pack=touch${IFS}/x;git-upload-pack",
    "v1.0.0|sh",
    "v1.0.0\x1b[2J",
    "v1.0.0\u202e",
    "v$(id)",
    "v" + "1" * 5000,
    "../../v1.0.0",
)


async def test_a_thousand_hostile_requests_are_refused_and_nothing_is_released(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chance = random.Random(7)
    statuses: Counter[int] = Counter()
    for _ in range(COUNT):
        status, answer = await gate.send(hostile(chance))
        statuses[status] += 1
        assert status == 0 or 400 <= status < 500, answer[:500]
        assert b"Traceback" not in answer
        assert SECRET.encode() not in answer
    assert set(statuses) >= {400, 401, 403, 405, 415, 422}
    assert not gate.recorder.orders
    assert "Traceback" not in caplog.text
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_thousand_replays_are_one_order_for_whoever_dedups(gate: Gate) -> None:
    body = payload()
    answers = [await gate.post(body, signed(body)) for _ in range(20)]
    assert {status for status, _ in answers} == {202}
    assert {order.key for order in gate.recorder.orders} == {"1.0.0#1"}
    assert b"1.0.0 is queued" in answers[0][1]
    assert b"1.0.0 is known already" in answers[1][1]
    assert gate.recorder.counted == ["accepted"] * 20


async def test_a_body_that_is_too_large_is_not_read(gate: Gate) -> None:
    head = request(b"", signed(b"") | {"Content-Length": str(MAX_BODY_BYTES + 1)})
    status, answer = await gate.send(head)
    assert status == 413
    assert b"connection: close" in answer.lower()


async def test_a_body_without_an_end_is_cut_off_at_the_limit(gate: Gate) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    headers = signed(b"") | {"Transfer-Encoding": "chunked"}
    head = request(b"", headers).replace(b"Content-Length: 0\r\n", b"")
    status, _ = await gate.send(head + chunk * 6)
    assert status in {413, 0}
    assert not gate.recorder.orders


async def test_a_body_that_takes_too_long_is_given_up(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.service.webhook._PATIENCE_SECONDS", 0.1)
    head = request(b"", signed(b"") | {"Content-Length": "10"})
    assert (await gate.send(head))[0] == 408


async def test_compressed_bytes_are_the_bytes_that_count(gate: Gate) -> None:
    packed = gzip.compress(payload())
    headers = signed(packed) | {"Content-Encoding": "gzip"}
    assert (await gate.post(packed, headers))[0] == 400


async def test_a_queue_that_is_away_is_said_so_that_it_is_delivered_again(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.recorder.is_away = True
    body = payload()
    status, answer = await gate.post(body, signed(body))
    assert status == 503
    assert b"deliver it again" in answer
    assert "a release cannot be queued" in caplog.text


async def test_a_refusal_is_logged_with_its_reason_and_who_sent_it(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    body = payload()
    await gate.post(body, signed(body, secret="another secret"))
    [record] = [record for record in caplog.records if "webhook" in record.message]
    assert record.levelno == logging.WARNING
    assert record.message == "webhook refused: 401 the signature is missing or wrong"
    fields: dict[str, Any] = record.__dict__["fields"]
    assert fields["delivery"] == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert fields["remote"] == "127.0.0.1"
