from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.bench import (
    Benchmark,
    FailedRun,
    NodeBench,
    benchmark_as_data,
    read_benchmark,
)
from orchestrator.core.chart import render_chart
from orchestrator.core.errors import ConfigError
from orchestrator.core.result import FailureClass

AT = datetime(2026, 11, 26, 4, 5, 6, tzinfo=UTC)
FAILED = FailedRun(number=2, failure_class=FailureClass.BUILD, message="no\nmore")


def node(name: str, *seconds: float, **more: Any) -> NodeBench:
    took = tuple(timedelta(seconds=number) for number in seconds)
    return NodeBench(node=name, target="x86_64-unknown-netbsd", took=took, **more)


def bench(*nodes: NodeBench, **more: Any) -> Benchmark:
    values: dict[str, Any] = {
        "project": "tool",
        "version": "1.0.0",
        "source": "crate tool 1.0.0",
        "at": AT,
        "runs": 3,
        "nodes": nodes,
    }
    return Benchmark(**(values | more))


def rows(data: Any) -> dict[str, Any]:
    return {row["node"]: row for row in data["nodes"]}


PI = node("pi", 30, 33, 36, rustc="1.94.1", cpu="Cortex-A72", cpus=4, system="FreeBSD 14.3")
RIG = node("rig", 10, 11, 12)
DOWN = node("down", failures=(FAILED,))


def test_nodes_are_ranked_with_average_extremes_deviation_and_ratio() -> None:
    data = benchmark_as_data(bench(DOWN, PI, RIG))
    assert [row["node"] for row in data["nodes"]] == ["rig", "pi", "down"]
    assert data["baseline"] == "rig"
    pi = rows(data)["pi"]
    assert (pi["average_seconds"], pi["min_seconds"], pi["max_seconds"]) == (33, 30, 36)
    assert (pi["deviation_seconds"], pi["ratio"]) == (3, 3)
    assert (pi["rustc"], pi["cpu"], pi["cpus"]) == ("1.94.1", "Cortex-A72", 4)
    down = rows(data)["down"]
    assert (down["average_seconds"], down["min_seconds"], down["ratio"]) == (None, None, None)
    assert down["failures"] == [{"run": 2, "class": "build", "message": "no\nmore", "log": None}]


def test_ratios_are_to_the_baseline_that_was_named() -> None:
    data = benchmark_as_data(bench(PI, RIG), baseline="pi")
    assert {name: row["ratio"] for name, row in rows(data).items()} == {"rig": 0.3333, "pi": 1}
    # A baseline that gave no time is no measure for anything.
    data = benchmark_as_data(bench(DOWN, RIG), baseline="down")
    assert rows(data)["rig"]["ratio"] is None
    assert benchmark_as_data(bench())["baseline"] is None


def test_one_run_has_no_deviation() -> None:
    assert rows(benchmark_as_data(bench(node("a", 5))))["a"]["deviation_seconds"] is None


def test_what_changed_since_an_earlier_one_is_told_for_the_same_node_and_target() -> None:
    before = bench(node("rig", 22, 22), node("pi", 30), version="0.9.0")
    data = benchmark_as_data(bench(RIG, node("new", 5)), before=before)
    assert data["compared_with"] == "0.9.0, 2026-11-26 04:05 UTC"
    assert (rows(data)["rig"]["before_seconds"], rows(data)["rig"]["change"]) == (22, 0.5)
    assert (rows(data)["new"]["before_seconds"], rows(data)["new"]["change"]) == (None, None)


def test_the_exit_code_is_the_lowest_of_those_at_fault() -> None:
    machine = FailedRun(number=0, failure_class=FailureClass.MACHINE, message="down")
    assert bench(PI).exit_code == 0
    assert bench(PI, DOWN).exit_code == 4
    assert bench(DOWN, node("a", 1, failures=(machine,))).exit_code == 3


def test_what_is_saved_is_read_back() -> None:
    text = json.dumps(benchmark_as_data(bench(RIG, PI)))
    assert read_benchmark(text, "bench.json") == bench(RIG, PI)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [{"node": "a"}]},
        {"nodes": [{"node": "a", "target": "t", "took_seconds": [-1]}]},
        {"nodes": [{"node": "a", "target": "t", "took_seconds": [float("nan")]}]},
        {"nodes": [{"node": "a", "target": "t", "took_seconds": [10**400]}]},
        {"runs": float("inf")},
        {"nodes": None},
        {"at": "yesterday"},
        {"runs": "many"},
        {"format": 2},
    ],
)
def test_what_is_no_benchmark_is_refused(change: dict[str, Any]) -> None:
    data = {**benchmark_as_data(bench(RIG)), **change}
    with pytest.raises(ConfigError, match=r"bench\.json"):
        read_benchmark(json.dumps(data), "bench.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000])
def test_what_is_no_data_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no benchmark"):
        read_benchmark(text, "bench.json")


# --- the chart ----------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def drawn(benchmark: Benchmark) -> ET.Element:
    return ET.fromstring(render_chart(benchmark_as_data(benchmark)))


def texts(chart: ET.Element) -> list[str]:
    return [element.text or "" for element in chart.iter(f"{SVG}text")]


def test_a_chart_has_a_bar_for_each_node_with_a_time_as_long_as_its_average() -> None:
    chart = drawn(bench(PI, RIG, DOWN))
    short, long = (float(bar.attrib["width"]) for bar in chart.iter(f"{SVG}rect"))
    assert long == pytest.approx(3 * short, abs=0.2)
    assert texts(chart)[0].startswith("Clean release builds of tool 1.0.0")
    assert {"rig", "pi", "4 x Cortex-A72", "x86_64-unknown-netbsd"} <= set(texts(chart))
    assert "11 s (1.00x)" in texts(chart)
    assert "33 s (3.00x)" in texts(chart)
    assert "down" not in texts(chart)


def test_a_chart_is_one_file_that_asks_for_nothing() -> None:
    text = render_chart(benchmark_as_data(bench(PI, RIG)))
    assert text.count("http") == 1  # the name of SVG itself
    assert "<script" not in text
    assert "<style" not in text


def test_a_chart_shows_what_a_node_says_and_does_not_obey_it() -> None:
    hostile = node("a", 1, cpu="<script>\x1b[2J&" + "x" * 100, cpus=None)
    shown = texts(drawn(bench(hostile)))
    assert any(text.startswith("<script>\\x1b[2J&xxx") and len(text) == 48 for text in shown)


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (0, ["0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1 s"]),
        (11, ["0 s", "5 s", "10 s", "15 s"]),
        (187, ["0 s", "1 min", "2 min", "3 min", "4 min"]),
        (6000, ["0 s", "30 min", "1 h", "1 h 30 min", "2 h"]),
        (900_000, ["0 s", "50 h", "100 h", "150 h", "200 h", "250 h"]),
    ],
)
def test_the_axis_has_a_few_round_times(seconds: float, ticks: list[str]) -> None:
    chart = drawn(bench(node("a", seconds)))
    middle = [e for e in chart.iter(f"{SVG}text") if e.attrib.get("text-anchor") == "middle"]
    assert [element.text for element in middle] == ticks


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert list(drawn(bench(DOWN)).iter(f"{SVG}rect")) == []


def test_times_on_bars_are_in_the_unit_that_fits() -> None:
    shown = texts(drawn(bench(node("a", 937), node("b", 6000), node("c", 0.5))))
    for text in ("15 min 37 s (1874.00x)", "1 h 40 min (12000.00x)", "0.5 s (1.00x)"):
        assert text in shown
