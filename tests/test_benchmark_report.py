"""The benchmarks' page: what was measured, on what machine, and whether a goal was reached."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree.ElementTree import fromstring

import pytest

from benchmarks.chart import render_bars
from benchmarks.measuring import RunFailedError, in_turn, run_measured
from benchmarks.page import render_page
from benchmarks.report import Goal, Report, Row, Table, load, save

if TYPE_CHECKING:
    from pathlib import Path

TABLE = Table(
    title="7 nodes & more",
    charted="seconds",
    rows=(
        Row(tool="orchestrator", samples={"seconds": [3, 1, 2], "peak_bytes": [1 << 20]}),
        Row(tool="ssh", samples={"seconds": [8.0]}, note="41 of 50 answered"),
    ),
)
REPORT = Report(
    name="fan-out",
    title="Fan-out",
    about="What it is.",
    tables=(TABLE,),
    goals=(
        Goal(what="of ssh's time", value=0.25, limit=0.5),
        Goal(what="of the link", value=0.5, limit=0.9, is_least=True),
    ),
    versions={"ssh": "9.2"},
    runs=3,
)


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    save(REPORT, tmp_path, {"cores": "2"})
    assert load(tmp_path / "fan-out.json") == (REPORT, {"cores": "2"})


def test_the_page_shows_medians_goals_and_the_machine() -> None:
    page = render_page([(REPORT, {"cores": "2"})])
    assert "| **orchestrator** | 2 | 1 |  |\n| ssh | 8 |  | 41 of 50 answered |" in page
    assert "- of ssh's time: 0.25 (≤ 0.5: reached)" in page
    assert "- of the link: 0.5 (≥ 0.9: **not reached**)" in page
    assert "Measured on cores: 2." in page
    assert "Medians of 3. ssh 9.2" in page
    assert "One run of each. ssh 9.2" in render_page([(replace(REPORT, runs=1), {"cores": "2"})])


def test_the_chart_has_a_bar_for_each_tool_in_proportion() -> None:
    svg = render_bars(TABLE)
    bars = [each for each in fromstring(svg) if each.tag.endswith("rect")]
    assert [bar.get("width") for bar in bars] == ["110", "440"]
    assert "7 nodes &amp; more" in svg


def test_each_round_begins_with_another_tool() -> None:
    order: list[str] = []
    tools = {name: (lambda name=name: order.append(name)) for name in "ab"}
    assert in_turn(tools, runs=2, warm_up=1) == {"a": [None, None], "b": [None, None]}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_program_is_measured_with_its_children_and_a_failure_is_told() -> None:
    usage = run_measured(["sh", "-c", "python3 -c 'sum(range(3_000_000))'; echo said"])
    assert usage.output == b"said\n"
    # Far more than the shell's own; the two clocks may differ by some thousandths.
    assert usage.cpu_seconds > 0.01
    assert usage.seconds > 0.01
    assert usage.peak_bytes > 1 << 20
    with pytest.raises(RunFailedError, match="ended with 3: why"):
        run_measured(["sh", "-c", "echo why >&2; exit 3"])
