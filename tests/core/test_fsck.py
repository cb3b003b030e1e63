"""What is judged of a store, without one."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from orchestrator.core.fsck import (
    ChannelSummary,
    FsckReport,
    channels_among,
    damage,
    judge_archive,
    judge_expiry,
    judge_serial,
    repaired,
    unexplained,
    warning,
)
from orchestrator.core.index import Index, Status
from tests.core.rows import LINUX, NETBSD, row

TODAY = date(2026, 11, 21)
ROW = row(LINUX, "1.0.0")
PATH = f"releases/1.0.0/{LINUX}/b.tar.gz"
INDEX = Index(
    project="tool",
    channel="stable",
    serial=5,
    issued=TODAY,
    expires=TODAY + timedelta(days=90),
    rows=(ROW,),
)


def test_channels_are_those_with_an_index_or_with_copies_of_one() -> None:
    names = ("stable.idx", "index/beta/1.idx", "index/x/note", "install.sh", "a/b.idx", "index.idx")
    assert channels_among(names) == ("beta", "index", "stable")


@pytest.mark.parametrize(("newest", "is_back"), [(0, False), (5, False), (6, True)])
def test_an_index_below_its_newest_copy_went_back(newest: int, *, is_back: bool) -> None:
    problem = judge_serial(INDEX, newest)
    assert bool(problem) is is_back
    assert problem is None or "copy index/stable/6.idx over it" in problem


@pytest.mark.parametrize(
    ("days", "state"), [(0, None), (45, None), (46, "warning"), (90, "warning"), (91, "damage")]
)
def test_an_index_ages(days: int, state: str | None) -> None:
    finding = judge_expiry("stable.idx", INDEX, TODAY + timedelta(days=days))
    assert (finding.state if finding else None) == state


def test_an_archive_is_its_size_and_hash() -> None:
    assert judge_archive(ROW, 1834022, "a" * 64) is None
    assert "its row says 1834022" in str(judge_archive(ROW, 1, "a" * 64))
    assert "its sha256 is bbb" in str(judge_archive(ROW, 1834022, "b" * 64))


def test_only_what_belongs_to_an_archive_is_explained() -> None:
    mended = row(LINUX, "1.0.0", sha256="b" * 64, revision=2)
    folder = f"releases/1.0.0/{LINUX}"
    own = (
        PATH,
        *(f"{PATH}{ending}" for ending in (".sha256", ".minisig", ".sshsig")),
        f"{folder}/provenance.json",
        f"{PATH}.sbom.json",
    )
    strays = (
        f"{folder}/c.tar.gz",
        f"{PATH}.exe",
        f"{folder}/c.tar.gz.sha256",
        f"{folder}/r2/b.tar.gz",
        f"{folder}/r2/x.json",
        "releases/2.0.0/x.json",
    )
    assert unexplained((*own, *strays), (ROW, row(NETBSD, "1.0.0", Status.PENDING))) == strays
    assert unexplained(strays, (ROW, mended)) == (*strays[:3], strays[5])
    assert unexplained(own, ()) == own


def test_a_report_says_how_it_stands_in_one_line_and_a_code() -> None:
    report = FsckReport(
        store="here",
        channels=(ChannelSummary(name="stable", serial=5, rows=1),),
        objects=2,
        findings=(),
    )
    assert (report.exit_code, report.summary) == (0, "1 channel, 1 row, 2 objects: all is well")
    harmless = replace(report, findings=(repaired("a", "x"), warning("b", "y")))
    assert harmless.exit_code == 0
    assert harmless.summary.endswith(": 1 repaired, 1 to look at")
    bad = replace(report, findings=(damage("a", "gone"), *harmless.findings))
    assert bad.exit_code == 5
    assert bad.as_data() == {
        "store": "here",
        "exit_code": 5,
        "summary": "1 channel, 1 row, 2 objects: 1 damaged, 1 repaired, 1 to look at",
        "channels": [{"name": "stable", "serial": 5, "rows": 1}],
        "objects": 2,
        "findings": [
            {"object": "a", "state": "damage", "message": "gone"},
            {"object": "a", "state": "repaired", "message": "x: written again"},
            {"object": "b", "state": "warning", "message": "y"},
        ],
    }
