"""What a release looks like, from its events."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.attachment import Attachment, AttachmentState
from orchestrator.core.board import SPAN_LIMIT, TEXT_LIMIT, WARNING_LIMIT, Board, time_text
from orchestrator.core.errors import ConfigError
from orchestrator.core.events import (
    LogAppended,
    NodeFinished,
    Phase,
    PhaseChanged,
    Published,
    ReleaseStarted,
    SourceReady,
    TryingAgain,
    Verifying,
    Warned,
)
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.order import Order, Origin
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.record import PastBuild, Record
from orchestrator.core.report import Report, Verified
from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Skipped
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version

if TYPE_CHECKING:
    from orchestrator.core.events import Event
    from orchestrator.core.plan import BuildPlan
    from orchestrator.core.result import Result

NETBSD = "x86_64-unknown-netbsd"
LINUX = "x86_64-unknown-linux-musl"
BEGAN = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
ORDER = Order(version="1.2.3", channel="stable", asked=BEGAN, origin=Origin.WEBHOOK, attempt=2)


def plan() -> BuildPlan:
    """Two nodes for one target, one for another, and one that has nothing to do."""
    entries = [
        {"name": "first", "host": "local", "target": NETBSD, "group": "big"},
        {"name": "spare", "host": "b@192.0.2.2", "target": NETBSD},
        {"name": "linux", "host": "c@192.0.2.3", "target": LINUX},
    ]
    data = {"project": {"name": "tool", "source": {"path": "."}}, "nodes": entries}
    builds = (PastBuild(node="first", took=timedelta(seconds=90)),)
    request = ReleaseRequest(version=parse_version("1.2.3"))
    planned = plan_release(
        parse_inventory(data, place="x"), request, record=Record(builds=builds), begun={"first"}
    )
    idle = Skipped(node="idle", target=parse_target(LINUX), reason="1.2.3 is already published")
    return replace(planned, skipped=(idle,))


def built(node: str = "first", target: str = NETBSD, **more: Any) -> Built:
    artifact = Artifact(
        version="1.2.3",
        target=parse_target(target),
        os_release=None,
        path=Path("/dist/tool.tar.gz"),
        size_bytes=1_834_022,
        sha256="ab" * 32,
        floors=(),
        binaries=(),
    )
    elapsed = timedelta(seconds=80)
    return Built(node=node, artifact=artifact, elapsed=elapsed, was_attached=False, **more)


def failed(node: str = "first", message: str = "gone", **more: Any) -> Failed:
    target = parse_target(NETBSD)
    failure_class = FailureClass.MACHINE
    return Failed(node=node, target=target, failure_class=failure_class, message=message, **more)


def report(*results: Result, **more: Any) -> Report:
    values: dict[str, Any] = {
        "version": "1.2.3",
        "published": (NETBSD,),
        "pending": (LINUX,),
        "held_back": (),
        "serial": 8,
        "url": "https://example.org",
        "exit_code": 0,
        "elapsed": timedelta(seconds=100),
    }
    return Report(results=results, **values | more)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def text(seconds: float) -> str | None:
    return time_text(at(seconds))


def board(*events: tuple[float, Event]) -> Board:
    """A board that has seen the plan, and these events at these seconds."""
    new = Board(ORDER, BEGAN)
    new.observe(ReleaseStarted(plan=plan()), BEGAN)
    for seconds, event in events:
        new.observe(event, at(seconds))
    return new


def phase(node: str, name: Phase, detail: str = "") -> PhaseChanged:
    return PhaseChanged(node=node, phase=name, detail=detail)


def data_of(new: Board) -> dict[str, Any]:
    data = new.as_data()
    assert json.loads(json.dumps(data)) == data
    return data


def row(new: Board, node: str = "first") -> dict[str, Any]:
    return next(dict(each) for each in data_of(new)["rows"] if each["node"] == node)


def test_a_release_that_has_not_planned_yet_is_known_by_its_order() -> None:
    data = data_of(Board(ORDER, BEGAN))

    assert {key: data[key] for key in ("version", "channel", "attempt", "began", "ended")} == {
        "version": "1.2.3",
        "channel": "stable",
        "attempt": 2,
        "began": "2026-11-26T08:00:00.000Z",
        "ended": None,
    }
    assert data["rows"] == []


def test_the_rows_are_the_nodes_in_the_order_of_the_plan_with_what_is_left_out_last() -> None:
    rows = data_of(board())["rows"]

    assert [(each["node"], each["target"], each["phase"]) for each in rows] == [
        ("first", NETBSD, "waiting"),
        ("linux", LINUX, "waiting"),
        ("idle", LINUX, "done"),
    ]
    assert (rows[2]["result"], rows[2]["message"]) == ("skipped", "1.2.3 is already published")


def test_times_are_told_in_utc() -> None:
    eastern = datetime(2026, 11, 26, 3, 0, 1, 500_000, tzinfo=timezone(timedelta(hours=-5)))

    assert time_text(eastern) == "2026-11-26T08:00:01.500Z"


def test_a_node_goes_through_its_phases_and_each_is_a_span() -> None:
    new = board(
        (1, phase("first", Phase.CONNECTING)),
        (2, phase("first", Phase.BUILDING, "cargo")),
        (3, phase("first", Phase.BUILDING, "still cargo")),
    )
    first = row(new)

    assert (first["phase"], first["detail"], first["since"]) == (
        "building",
        "still cargo",
        text(2),
    )
    assert first["spans"] == [
        {"phase": "connecting", "from": text(1), "to": text(2)},
        {"phase": "building", "from": text(2), "to": None},
    ]


def test_a_build_is_expected_to_end_as_planned_and_once_it_runs_after_its_usual_time() -> None:
    begun = board((5, phase("first", Phase.CONNECTING)))
    building = board((30, phase("first", Phase.BUILDING)))
    gating = board((30, phase("first", Phase.BUILDING)), (99, phase("first", Phase.GATING)))

    assert row(begun)["expected_seconds"] == 90
    assert row(begun)["due"] == text(90)
    assert row(building)["due"] == text(120)
    assert row(gating)["due"] is None
    assert row(begun, "linux")["due"] is None


def test_what_is_published_after_it_was_built_ends_when_the_index_has_it() -> None:
    new = board(
        (1, phase("first", Phase.BUILDING)),
        (9, NodeFinished(node="first", result=built())),
    )
    assert (row(new)["phase"], row(new)["result"]) == ("done", "built")

    new.observe(phase("first", Phase.PUBLISHING), at(10))
    assert (row(new)["phase"], row(new)["since"]) == ("publishing", text(10))

    new.observe(Published(targets=(LINUX,), serial=7), at(11))
    assert row(new)["phase"] == "publishing"

    new.observe(Published(targets=(NETBSD, LINUX), serial=8), at(12))
    assert (row(new)["phase"], row(new)["since"]) == ("done", None)
    assert row(new)["spans"][-1] == {"phase": "publishing", "from": text(10), "to": text(12)}
    data = data_of(new)
    assert (data["published"], data["serial"]) == ([LINUX, NETBSD], 8)


def test_a_node_that_stands_by_is_a_row_once_it_takes_over() -> None:
    new = board((1, NodeFinished(node="first", result=failed())))
    assert [each["node"] for each in data_of(new)["rows"]] == ["first", "linux", "idle"]

    new.observe(phase("spare", Phase.CONNECTING), at(2))

    assert [each["node"] for each in data_of(new)["rows"]] == ["first", "spare", "linux", "idle"]
    assert row(new, "spare")["stands_by_for"] == "first"


def test_nodes_that_wait_for_one_another_are_of_one_group_and_no_address_is_told() -> None:
    entries = [
        {"name": name, "host": "b@192.0.2.2", "target": target, **more}
        for name, target, more in (
            ("one", NETBSD, {}),
            ("two", LINUX, {}),
            ("three", "x86_64-unknown-freebsd", {"group": "big"}),
        )
    ]
    data = {"project": {"name": "tool", "source": {"path": "."}}, "nodes": entries}
    request = ReleaseRequest(version=parse_version("1.2.3"))
    new = Board(ORDER, BEGAN)
    new.observe(ReleaseStarted(plan=plan_release(parse_inventory(data, place="x"), request)), BEGAN)

    assert [each["group"] for each in data_of(new)["rows"]] == ["one", "one", "big"]
    assert "192.0.2.2" not in json.dumps(new.as_data())


def test_a_node_that_stood_by_in_vain_is_no_row() -> None:
    idle = Skipped(node="spare", target=parse_target(NETBSD), reason="stands by for first")
    new = board((9, NodeFinished(node="spare", result=idle)))

    new.finish(at(10), report(idle))

    assert [each["node"] for each in data_of(new)["rows"]] == ["first", "linux", "idle"]


def test_a_failure_says_who_is_at_fault_what_it_is_and_what_to_do() -> None:
    lines = tuple(f"line {number}" for number in range(30))
    result = failed(message="no route\x1b[2J\nat all", hint="boot it", log_tail=lines)
    first = row(board((9, NodeFinished(node="first", result=result))))

    assert (first["result"], first["failure_class"]) == ("failed", "machine")
    assert first["message"] == "no route\\x1b[2J\nat all"
    assert first["hint"] == "boot it"
    assert (len(first["log_tail"]), first["log_tail"][-1]) == (20, "line 29")


def test_a_build_says_how_large_it_is_and_how_long_it_took() -> None:
    took = timedelta(seconds=70.25)
    first = row(board((9, NodeFinished(node="first", result=built(took=took, warnings=("w",))))))

    assert first["message"] == "1.8 MB, no floor"
    assert (first["was_attached"], first["took_seconds"]) == (False, 70.25)
    assert first["warnings"] == ["w"]
    own = row(board((9, NodeFinished(node="first", result=built()))))
    assert own["took_seconds"] == 80


def test_trouble_that_may_pass_is_told_as_a_warning() -> None:
    pause = timedelta(seconds=2)
    new = board((9, TryingAgain(node="first", reason="cut off", pause=pause)))

    assert row(new)["detail"] == "trying again in 2.0s"
    assert row(new)["warnings"] == ["cut off; trying again in 2.0s"]


def test_warnings_are_told_once_where_they_belong() -> None:
    new = board(
        (1, Warned(message="full soon", node="first")),
        (2, Warned(message="full soon", node="first")),
        (3, Warned(message="old index")),
        (4, Warned(message="nobody", node="stranger")),
        (5, LogAppended(node="first", data=b"x" * 1_000_000)),
    )

    assert row(new)["warnings"] == ["full soon"]
    assert data_of(new)["warnings"] == ["old index"]
    assert len(json.dumps(new.as_data())) < 10_000


def test_the_source_is_told_with_its_digest() -> None:
    notes = ("dirty",)
    source = SourceReady(description="crate tool", digest="ab", size_bytes=7, notes=notes)

    assert data_of(board((1, source)))["source"] == {
        "description": "crate tool",
        "digest": "ab",
        "size_bytes": 7,
        "notes": ["dirty"],
    }


@pytest.mark.parametrize(("is_public", "how"), [(True, "through"), (False, "in")])
def test_reading_it_back_is_a_stage_until_the_end(*, is_public: bool, how: str) -> None:
    new = board((1, Verifying(where="https://example.org", is_public=is_public)))
    assert data_of(new)["stage"] == f"reading it back {how} https://example.org"

    new.finish(at(2), report())
    assert data_of(new)["stage"] is None


def test_the_end_has_the_last_word_on_every_node() -> None:
    new = board(
        (1, phase("first", Phase.BUILDING)),
        (2, NodeFinished(node="first", result=built())),
        (3, phase("first", Phase.PUBLISHING)),
    )
    refused = replace(failed(message="refused"), failure_class=FailureClass.STORE)
    attachment = Attachment(state=AttachmentState.DRAFT, url="https://x")
    verified = Verified(is_public=True, problems=("stable.idx: gone",))
    stranger = failed("stranger")
    new.finish(
        at(9),
        report(
            refused,
            stranger,
            exit_code=5,
            attachment=attachment,
            verified=verified,
            drifts=("another compiler",),
        ),
    )

    data = data_of(new)
    assert (data["ended"], data["exit_code"]) == (text(9), 5)
    assert (data["published"], data["pending"], data["url"]) == (
        [NETBSD],
        [LINUX],
        "https://example.org",
    )
    assert (data["verified"], data["unreadable"]) == ("failed", ["stable.idx: gone"])
    assert data["github"] == {"state": "draft", "url": "https://x", "message": None, "hint": None}
    assert data["warnings"] == ["another compiler"]
    first = row(new)
    assert (first["result"], first["failure_class"], first["message"]) == (
        "failed",
        "store",
        "refused",
    )
    assert first["spans"][-1] == {"phase": "publishing", "from": text(3), "to": text(9)}


def test_a_release_that_was_not_read_back_says_nothing_of_it() -> None:
    new = board()
    new.finish(at(1), report())

    assert (data_of(new)["verified"], data_of(new)["github"]) == (None, None)


def test_an_error_that_stops_all_of_it_has_an_exit_code_and_a_hint() -> None:
    new = board((1, phase("first", Phase.BUILDING)))
    new.finish(at(2), error=ConfigError("bad key", hint="mend it"))

    data = data_of(new)
    assert (data["error"], data["hint"], data["exit_code"]) == ("bad key", "mend it", 2)
    assert row(new)["spans"] == [{"phase": "building", "from": text(1), "to": text(2)}]
    assert (row(new)["result"], row(new)["phase"]) == (None, "building")


def test_an_end_in_a_few_words_has_no_exit_code() -> None:
    new = board()
    new.finish(at(2), error="cancelled")

    assert (data_of(new)["error"], data_of(new)["exit_code"]) == ("cancelled", None)
    assert data_of(new)["hint"] is None


def test_credentials_are_in_no_text_even_where_it_is_cut() -> None:
    for padding in range(TEXT_LIMIT - 60, TEXT_LIMIT):
        message = "x" * padding + " https://ann:verysecret@example.org/ " + "y" * 100
        first = row(board((9, NodeFinished(node="first", result=failed(message=message)))))

        assert "very" not in first["message"]
        assert len(first["message"]) <= TEXT_LIMIT


def test_whatever_a_node_says_the_board_stays_small() -> None:
    noise = "\x1b\u202e" * 100_000
    new = board()
    for number in range(1000):
        for name in (Phase.CONNECTING, Phase.BUILDING):
            new.observe(phase("first", name, noise[:5000]), at(number))
        new.observe(Warned(node="first", message=f"{number} {noise[:5000]}"), at(number))
        new.observe(Warned(message=f"{number} {noise[:5000]}"), at(number))
    new.observe(NodeFinished(node="first", result=failed(message=noise, hint=noise)), at(1000))

    first = row(new)
    assert len(first["spans"]) == SPAN_LIMIT
    assert first["spans"][-1]["to"] == text(1000)
    assert len(first["warnings"]) == WARNING_LIMIT
    assert first["warnings"][-1].startswith("999 ")
    assert len(json.dumps(new.as_data())) < 120_000
