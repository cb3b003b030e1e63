"""The log: JSON a line, no secret in it, and nothing that forges a line."""

from __future__ import annotations

import io
import json
import logging
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.board import Board
from orchestrator.core.events import (
    LogAppended,
    NodeFinished,
    Phase,
    PhaseChanged,
    Published,
    SourceReady,
    TryingAgain,
    Verifying,
    Warned,
)
from orchestrator.core.order import Order, Origin
from orchestrator.core.result import Failed, FailureClass, Skipped
from orchestrator.core.target import parse_target
from orchestrator.service.journal import Journal, set_up_log
from orchestrator.service.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.core.events import Event

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
ORDER = Order(version="1.0.0", channel="stable", asked=NOW, origin=Origin.WEBHOOK)
TARGET = parse_target("x86_64-unknown-netbsd")
SECRET = "a-canary-that-sings-loudly"
HOSTILE = [
    "\x1b[2J",
    "\x1b]52;c;aGk=\x07",
    '\r\n{"level": "info"}',
    "\u2028next",
    "\x85next",
    "\x9b31m",
    "\u202eevil",
    "\x00",
    "\udcff",
    "\x7f",
    "\u200b",
    '"}\n',
    "für 🐡",
]
log = logging.getLogger("orchestrator.service.test")


@contextmanager
def logged(*, is_terminal: bool = False) -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("orchestrator")
    before = root.handlers[:], root.level, ours.level
    stream = io.StringIO()
    set_up_log(stream, Secrets(webhook=SECRET).redact, is_terminal=is_terminal)
    try:
        yield stream
    finally:
        logging.captureWarnings(capture=False)
        logging.raiseExceptions = True
        root.handlers[:], root.level, ours.level = before


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_record_is_one_object_with_its_fields() -> None:
    with logged() as stream:
        log.info("webhook %s", "accepted", extra={"fields": {"delivery": "72d3", "count": 3}})
    (record,) = records(stream)
    assert datetime.fromisoformat(record.pop("time")).tzinfo == UTC
    assert record == {
        "level": "info",
        "logger": "orchestrator.service.test",
        "event": "webhook accepted",
        "delivery": "72d3",
        "count": 3,
    }


def test_a_field_takes_no_others_place() -> None:
    with logged() as stream:
        log.info("true", extra={"fields": {"event": "false", "level": "x", "time": "y"}})
    (record,) = records(stream)
    assert (record["event"], record["level"]) == ("true", "info")


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_harmless(text: str, *, is_terminal: bool) -> None:
    with logged(is_terminal=is_terminal) as stream:
        log.warning("a%sb", text, extra={"fields": {"delivery": text, "list": [text]}})
    told = stream.getvalue()
    assert told.endswith("\n")
    assert told.removesuffix("\n").isprintable()
    if not is_terminal:
        assert told.isascii()
        (record,) = records(stream)
        assert record["delivery"].isprintable()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_secret_is_in_a_record_whoever_logs_it(*, is_terminal: bool) -> None:
    with logged(is_terminal=is_terminal) as stream:
        log.warning("it is %s", SECRET, extra={"fields": {"url": f"https://x/{SECRET}"}})
        logging.getLogger("somebody.else").error("https://me:hunter2@example.org %s", SECRET)
        try:
            int(f"not {SECRET}")
        except ValueError:
            log.exception("it went wrong: %s", "x" * 1990 + SECRET)
        with warnings.catch_warnings(action="always"):
            logging.captureWarnings(capture=True)
            warnings.warn(SECRET, stacklevel=1)
    told = stream.getvalue()
    assert SECRET not in told
    assert "hunter2" not in told
    # A text is cut when nothing secret is left in it.
    assert SECRET[:6] not in told
    assert "ValueError" in told
    assert len(told.splitlines()) >= 4


def test_a_traceback_stays_in_its_record() -> None:
    with logged() as stream:
        try:
            int("\x1b[31m")
        except ValueError:
            log.exception("it went wrong")
    (record,) = records(stream)
    assert "Traceback" in record["traceback"]


def test_a_long_text_is_cut() -> None:
    with logged() as stream:
        log.info("x" * 10_000)
    assert len(records(stream)[0]["event"]) == 2000


def test_wrong_arguments_of_a_library_are_logged_as_they_are() -> None:
    with logged() as stream:
        logging.getLogger("somebody.else").warning("%d", "x")
    assert records(stream)[0]["event"] == "%d"


def test_what_cannot_be_logged_is_not_printed_instead(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd:
        def __str__(self) -> str:
            raise TypeError

    with logged() as stream:
        log.info("a secret: %s", SECRET, extra={"fields": {"odd": Odd()}})
    assert SECRET not in stream.getvalue() + capsys.readouterr().err


def test_of_libraries_only_what_matters_is_logged() -> None:
    with logged() as stream:
        logging.getLogger("aiohttp.access").info("GET /")
        log.debug("no")
        log.info("yes")
    assert [record["event"] for record in records(stream)] == ["yes"]


def test_at_a_terminal_it_is_for_people() -> None:
    with logged(is_terminal=True) as stream:
        log.info("it begins", extra={"fields": {"version": "1.0.0", "node": None}})
    time, level, rest = stream.getvalue().rstrip().split(maxsplit=2)
    assert time.replace(":", "").isdecimal()
    assert (level, rest) == ("info", "it begins  version=1.0.0")


EVENTS: list[tuple[Event, str, str]] = [
    (PhaseChanged(node="a", phase=Phase.BUILDING, detail="warm"), "info", "a: building"),
    (
        TryingAgain(node="a", reason="away", pause=timedelta(seconds=9)),
        "warning",
        "a: away; trying again in 9.0s",
    ),
    (
        NodeFinished(
            node="a",
            result=Failed(
                node="a", target=TARGET, failure_class=FailureClass.BUILD, message="no\nmore"
            ),
        ),
        "warning",
        "a: failed (build): no",
    ),
    (
        NodeFinished(node="a", result=Skipped(node="a", target=TARGET, reason="it stands by")),
        "info",
        "a: skipped: it stands by",
    ),
    (Published(targets=("x", "y"), serial=4), "info", "published: x, y"),
    (Warned(message="hm", node="a"), "warning", "hm"),
    (
        SourceReady(description="crate tool", digest="00", size_bytes=1),
        "info",
        "the source is crate tool",
    ),
    (Verifying(where="https://x", is_public=True), "info", "reading it back from https://x"),
]


@pytest.mark.parametrize(("event", "level", "text"), EVENTS)
def test_what_happens_in_a_release_is_logged(event: Event, level: str, text: str) -> None:
    with logged() as stream:
        Journal().observe(ORDER, event, NOW)
    (record,) = records(stream)
    assert (record["level"], record["event"]) == (level, text)
    assert (record["version"], record["attempt"]) == ("1.0.0", 1)


def test_what_a_build_prints_is_not_logged() -> None:
    with logged() as stream:
        Journal().observe(ORDER, LogAppended(node="a", data=b"Compiling"), NOW)
    assert not stream.getvalue()


def test_begin_and_end_are_logged() -> None:
    board = Board(ORDER, NOW)
    with logged() as stream:
        Journal().begin(ORDER, board)
        board.finish(NOW, error="no key")
        Journal().end(ORDER, board.as_data())
        Journal().end(ORDER, {"exit_code": 0, "error": None, "published": ["x"]})
    begin, failed, done = records(stream)
    assert begin["event"] == "the release of 1.0.0 begins"
    assert (failed["level"], failed["error"]) == ("warning", "no key")
    assert (done["level"], done["published"]) == ("info", ["x"])
