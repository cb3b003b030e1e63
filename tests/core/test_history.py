"""What happened to an index, from its copies."""

from __future__ import annotations

from datetime import date, timedelta

from orchestrator.core.history import differences, tell_history
from orchestrator.core.index import Index, Row, Status
from tests.core.rows import LINUX, NETBSD, OPENBSD, row

TODAY = date(2026, 11, 21)


def index(serial: int, *rows: Row) -> Index:
    return Index(
        project="tool",
        channel="stable",
        serial=serial,
        issued=TODAY,
        expires=TODAY + timedelta(days=90),
        rows=rows,
    )


def test_changes_are_told_a_line_each() -> None:
    before = (
        row(LINUX, "1.0.0"),
        row(NETBSD, "1.0.0", Status.PENDING),
        row(OPENBSD, "0.9.0", Status.OK, "openbsd==7.8"),
    )
    after = (
        row(LINUX, "1.1.0"),
        row(LINUX, "1.0.0", sha256="b" * 64, revision=2),
        row(NETBSD, "1.0.0", Status.YANKED),
    )
    assert [str(change) for change in differences(before, after)] == [
        f"+ 1.1.0 {LINUX} ok",
        f"1.0.0 {LINUX} ok -> ok (r2)",
        f"1.0.0 {NETBSD} pending -> yanked",
        f"- 0.9.0 {OPENBSD}7.8 ok",
    ]
    assert [change.as_data() for change in differences(before, after)][1:] == [
        {"version": "1.0.0", "target": LINUX, "from": "ok", "to": "ok", "revision": 2},
        {"version": "1.0.0", "target": NETBSD, "from": "pending", "to": "yanked", "revision": 1},
        {"version": "0.9.0", "target": f"{OPENBSD}7.8", "from": "ok", "to": None, "revision": 1},
    ]


def test_the_newest_serial_comes_first_and_the_oldest_is_compared_with_nothing() -> None:
    one, two = row(LINUX, "1.0.0"), row(LINUX, "1.1.0")
    copies: dict[int, Index | str] = {
        3: index(3, two, one),
        2: index(2, two, one),
        1: index(1, one),
    }
    entries = tell_history(copies, 10)
    assert [(entry.serial, entry.since, entry.lines()) for entry in entries] == [
        (3, 2, ["renewed"]),
        (2, 1, [f"+ 1.1.0 {LINUX} ok"]),
        (1, None, [f"+ 1.0.0 {LINUX} ok"]),
    ]
    assert [entry.serial for entry in tell_history(copies, 2)] == [3, 2]


def test_a_gap_and_a_bad_copy_are_told_as_such_and_changes_are_counted_across_them() -> None:
    one, two = row(LINUX, "1.0.0"), row(LINUX, "1.1.0")
    entries = tell_history({4: index(4, two, one), 3: "forged", 1: index(1, one)}, 10)
    assert [(entry.serial, entry.problem, entry.since) for entry in entries] == [
        (4, None, 1),
        (3, "forged", None),
        (2, "there is no copy of this serial", None),
        (1, None, None),
    ]
    assert entries[0].lines() == [f"+ 1.1.0 {LINUX} ok"]
    assert entries[1].as_data() == {
        "serial": 3,
        "issued": None,
        "expires": None,
        "problem": "forged",
        "since": None,
        "changes": [],
        "lines": [],
    }


def test_without_copies_there_is_no_history() -> None:
    assert tell_history({}, 10) == ()
