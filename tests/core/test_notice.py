"""What people are told of, and that each of it is told once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.notice import Message, Teller, Told
from orchestrator.core.service_settings import Occasion

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
TELLER = Teller(project="tool", link="https://example.org/status")
LINUX = "x86_64-unknown-linux-gnu"
NETBSD = "x86_64-unknown-netbsd"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What core/freshness.py tells of one."""

    name: str
    target: str
    title: str = "NetBSD amd64"
    version: str | None = "1.0.0"
    awaited: str | None = None
    since: datetime | None = None
    is_late: bool = False


FRESH = Platform(name=NETBSD, target=NETBSD)
LATE = replace(FRESH, awaited="1.1.0", since=NOW - timedelta(hours=30), is_late=True)


def row(target: str, result: str | None = "failed", **more: Any) -> dict[str, Any]:
    told = {
        "node": f"node-{target[-4:]}",
        "target": target,
        "result": result,
        "failure_class": "machine" if result == "failed" else None,
        "message": "it is away\nfor long",
        "hint": None,
    }
    return {**told, **more}


def outcome(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {
        "version": "1.0.0",
        "channel": "stable",
        "attempt": 1,
        "rows": list(rows),
        "published": [row["target"] for row in rows if row["result"] == "built"],
        "pending": [row["target"] for row in rows if row["result"] == "failed"],
        "exit_code": 3 if any(row["result"] == "failed" for row in rows) else 0,
        "error": None,
        "hint": None,
        "unreadable": [],
        "github": None,
        "url": "https://example.org",
    }
    return {**told, **more}


def occasions(told: Told) -> list[Occasion]:
    return [message.occasion for message in told.waiting]


def told_of(*outcomes: dict[str, Any]) -> Told:
    told = Told()
    for each in outcomes:
        told = TELLER.of_attempt(told, each)
    return told


def test_a_release_that_reached_everybody_is_told_once() -> None:
    done = outcome(row(LINUX, "built"), row(NETBSD, "skipped"))
    assert told_of(done, done).waiting == (
        Message(
            key="released:1.0.0",
            occasion=Occasion.RELEASED,
            title="tool: 1.0.0 is released",
            text="Every platform has it.\nIts installer is at https://example.org/install.sh",
            version="1.0.0",
            targets=(LINUX,),
            link="https://example.org/status",
        ),
    )
    assert told_of(outcome(url=None)).waiting[0].text == "Every platform has it."


def test_a_release_that_still_waits_for_somebody_is_no_news() -> None:
    assert not told_of(outcome(row(LINUX, "built"), pending=[NETBSD])).waiting


def test_who_failed_why_and_how_to_go_on_is_told() -> None:
    told = told_of(
        outcome(
            row(LINUX, "built"),
            row(NETBSD, hint="start it\nnow"),
            row("aarch64-apple-darwin", failure_class="build", message=""),
        )
    )
    (message,) = told.waiting
    assert message.occasion is Occasion.FAILED
    assert message.title == f"tool: 1.0.0 failed for {NETBSD}, aarch64-apple-darwin"
    assert message.targets == (NETBSD, "aarch64-apple-darwin")
    assert message.text.splitlines() == [
        f"{NETBSD} on node-tbsd: the machine is at fault: it is away",
        "aarch64-apple-darwin on node-rwin: the code is at fault: no reason was given",
        "What to do: start it",
        "The same code will fail again: a new version has to mend it.",
        "To go on with what is missing: orchestrator release --version 1.0.0 --channel stable",
    ]
    assert told.failed == {NETBSD: "1.0.0", "aarch64-apple-darwin": "1.0.0"}


def test_an_attempt_that_fails_as_the_last_one_did_is_not_told_again() -> None:
    once = outcome(row(NETBSD))
    assert occasions(told_of(once, {**once, "attempt": 2})) == [Occasion.FAILED]
    otherwise = outcome(row(NETBSD, failure_class="build"))
    assert occasions(told_of(once, otherwise)) == [Occasion.FAILED] * 2


def test_a_node_that_another_one_stood_in_for_has_not_failed_its_target() -> None:
    told = told_of(outcome(row(NETBSD), row(NETBSD, "built"), pending=[], exit_code=0))
    assert occasions(told) == [Occasion.RELEASED]


def test_best_effort_that_failed_is_told_although_the_release_is_done() -> None:
    assert occasions(told_of(outcome(row(NETBSD), exit_code=0, pending=[]))) == [Occasion.FAILED]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"error": "no key", "exit_code": 2, "hint": "make one"}, "was stopped: no key"),
        ({"error": "a bug of ours: x", "exit_code": None}, "was stopped: a bug of ours"),
        ({"exit_code": 5, "unreadable": ["a.tar.gz: gone"]}, "does not read back: a.tar.gz: gone"),
        (
            {"exit_code": 5, "github": {"state": "failed", "message": "403"}},
            "GitHub's release has not all of it: 403",
        ),
        (
            {"exit_code": 5, "github": {"state": "failed", "message": None}},
            "has not all of it: no reason was given",
        ),
    ],
)
def test_what_failed_as_a_whole_is_told(more: dict[str, Any], words: str) -> None:
    (message,) = told_of(outcome(**more)).waiting
    assert message.title == "tool: 1.0.0 failed"
    assert words in message.text
    assert not message.targets


def test_a_release_that_failed_as_a_whole_is_well_when_it_was_made() -> None:
    stopped = outcome(error="no key", exit_code=2)
    told = told_of(stopped, stopped, outcome(row(LINUX, "built")))
    assert occasions(told) == [Occasion.FAILED, Occasion.RECOVERED, Occasion.RELEASED]
    assert told.waiting[1].title == "tool: releases are made again"
    assert not told.failed
    # It does not hide what fails then.
    assert occasions(told_of(stopped, outcome(row(NETBSD)))) == [Occasion.FAILED] * 2


def test_a_target_that_is_delivered_after_it_failed_has_recovered_once() -> None:
    again = outcome(row(NETBSD, "built"))
    told = told_of(outcome(row(NETBSD)), again, again)
    assert occasions(told) == [Occasion.FAILED, Occasion.RECOVERED, Occasion.RELEASED]
    assert told.waiting[1].title == f"tool: {NETBSD} is well again"
    assert not told.failed


def test_a_newer_version_makes_it_well_and_an_older_one_does_not() -> None:
    failed = outcome(row(NETBSD), version="1.1.0")
    assert Occasion.RECOVERED not in occasions(told_of(failed, outcome(row(NETBSD, "built"))))
    newer = outcome(row(NETBSD, "built"), version="1.10.0")
    assert Occasion.RECOVERED in occasions(told_of(failed, newer))


def test_a_platform_that_is_late_is_told_once_and_then_that_it_is_well() -> None:
    told = TELLER.of_look(Told(), [FRESH, LATE], NOW)
    assert TELLER.of_look(told, [LATE], NOW + timedelta(days=1)) == told
    (message,) = told.waiting
    assert message.title == "tool: NetBSD amd64 is late: 1.1.0 is not there"
    assert message.text.startswith("It has waited for 1.1.0 for 30h00m. It gets 1.0.0.\n")
    after = TELLER.of_look(told, [replace(FRESH, version="1.1.0")], NOW)
    assert occasions(after) == [Occasion.LATE, Occasion.RECOVERED]
    assert after.waiting[1].text == "It had waited for 1.1.0, and gets 1.1.0 now."
    assert not after.late
    assert TELLER.of_look(after, [replace(FRESH, version="1.1.0")], NOW) == after


def test_late_for_another_version_is_told_again() -> None:
    told = TELLER.of_look(Told(), [LATE], NOW)
    told = TELLER.of_look(told, [replace(LATE, awaited="1.2.0")], NOW)
    assert occasions(told) == [Occasion.LATE] * 2


def test_a_platform_that_never_had_a_version_says_so() -> None:
    told = TELLER.of_look(Told(), [replace(LATE, version=None, since=None)], NOW)
    assert told.waiting[0].text.startswith("It has waited for 1.1.0. It gets nothing.\n")
    after = TELLER.of_look(told, [replace(FRESH, version=None)], NOW)
    assert after.waiting[1].text == "It had waited for 1.1.0, and gets nothing newer now."


def test_a_target_that_failed_and_was_late_is_well_again_once() -> None:
    told = TELLER.of_attempt(Told(), outcome(row(NETBSD), version="1.1.0"))
    told = TELLER.of_look(told, [LATE], NOW)
    told = TELLER.of_look(told, [replace(FRESH, version="1.1.0")], NOW)
    assert occasions(told) == [Occasion.FAILED, Occasion.LATE, Occasion.RECOVERED]
    assert not told.failed


def test_a_target_that_somebody_else_delivered_has_recovered() -> None:
    told = TELLER.of_attempt(Told(), outcome(row(NETBSD)))
    assert TELLER.of_look(told, [replace(FRESH, version="0.9.0")], NOW) == told
    told = TELLER.of_look(told, [FRESH], NOW)
    assert occasions(told) == [Occasion.FAILED, Occasion.RECOVERED]


def test_an_alarm_is_told_once_until_it_was_quiet() -> None:
    alarm = {"title": "a tag was moved", "text": "find out who moved it"}
    told = TELLER.of_alarm(Told(), "tag:1.0.0", **alarm)
    assert TELLER.of_alarm(told, "tag:1.0.0", **alarm) == told
    (message,) = told.waiting
    assert message.title == "tool: a tag was moved"
    assert (message.occasion, message.version) == (Occasion.ALARM, None)
    told = TELLER.of_quiet(told, "tag:1.0.0")
    assert occasions(TELLER.of_alarm(told, "tag:1.0.0", **alarm)) == [Occasion.ALARM] * 2


def test_what_was_sent_does_not_wait() -> None:
    told = TELLER.of_alarm(Told(), "a", title="a", text="a")
    assert told.without("alarm:b") == told
    sent = told.without("alarm:a")
    assert not sent.waiting
    assert TELLER.of_alarm(sent, "a", title="a", text="a") == sent


def test_all_of_it_survives_as_data() -> None:
    told = TELLER.of_attempt(Told(), outcome(row(NETBSD)))
    told = TELLER.of_look(told, [LATE], NOW)
    assert Told.from_data(json.loads(json.dumps(told.as_data()))) == told


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"format": 2},
        {"format": 1, "keys": 1},
        {"format": 1, "keys": [], "failed": [], "late": {}, "waiting": []},
        {"format": 1, "keys": [], "failed": {}, "late": {}, "waiting": [{"occasion": "x"}]},
        {"format": 1, "keys": [], "failed": {}, "late": {}, "waiting": ["x"]},
    ],
)
def test_what_is_damaged_is_as_if_nothing_had_been_told(data: Any) -> None:
    assert Told.from_data(data) == Told()


def test_what_is_kept_has_a_limit() -> None:
    told = Told()
    for number in range(1100):
        told = TELLER.of_alarm(told, str(number), title="x", text="x")
    assert (len(told.keys), len(told.waiting)) == (1000, 100)
