"""`orchestrator bench`: clean builds apart from releases, and what is said when they fail."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.releases import VERSION, host_target, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk, NodeEntry


def measured(desk: Desk) -> list[NodeEntry]:
    """The lines of the record, without what differs from run to run."""
    lines = (desk.dist / "timings.jsonl").read_text().splitlines()
    known = ("node", "outcome", "warmth", "version", "bench")
    return [{key: json.loads(line).get(key) for key in known} for line in lines]


def saved(desk: Desk) -> list[Path]:
    return sorted((desk.dist / "bench").glob("*.json"))


def jobs(desk: Desk, name: str = "here") -> list[Path]:
    return sorted((desk.folder / f"{name}-work").glob("jobs/*"))


def test_a_project_without_a_source_is_told_what_that_means(desk: Desk, tmp_path: Path) -> None:
    desk.write(desk.node())
    chart = tmp_path / "chart.svg"
    outcome = desk.run("bench", "--version", VERSION, "--runs", "2", "--json", "--svg", str(chart))
    assert outcome.code == 0, outcome
    assert "the project has no `source`" in outcome.err
    assert "its time includes the network" in outcome.err
    (node,) = outcome.data["nodes"]
    assert (node["node"], node["target"], len(node["took_seconds"])) == ("here", host_target(), 2)
    assert (node["includes_network"], node["own_command"]) == (True, True)
    assert desk.builds("here") == [VERSION, VERSION]
    assert json.loads(saved(desk)[0].read_text()) == outcome.data
    assert chart.read_text().startswith("<svg ")
    expected = {"node": "here", "outcome": "built", "version": VERSION, "bench": True}
    assert measured(desk) == [{**expected, "warmth": None}] * 2


def test_a_release_and_a_benchmark_know_nothing_of_one_another(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.run("bench", "--version", VERSION, "--runs", "1").code == 0
    released = desk.release()
    assert (released.code, released.results["here"]["was_attached"]) == (0, False)
    # Without --version it is the newest one that is published.
    again = desk.run("bench", "--runs", "1", "--json")
    assert (again.code, again.data["version"]) == (0, VERSION)
    assert desk.builds("here") == [VERSION] * 3
    assert len(jobs(desk)) == 3
    status = desk.run("status", "--json").data["jobs"]
    assert {job["version"] for job in status} == {VERSION, f"bench-{VERSION}"}
    assert desk.run("status", VERSION, "--json").data["jobs"][0]["version"] == VERSION
    assert desk.run("logs", VERSION, "here").code == 0


@pytest.mark.thorough
def test_a_benchmark_waits_for_the_build_on_its_host(desk: Desk) -> None:
    desk.write(desk.node(build=desk.wait_then_copy()))
    with desk.started("release", "--version", VERSION) as release:
        wait_for(lambda: desk.builds("here"))
        with desk.started("bench", "--version", VERSION, "--runs", "1") as bench:
            wait_for(lambda: len(list(desk.folder.glob("here-work/jobs/*/pid"))) == 2)
            assert desk.builds("here") == [VERSION]
            desk.let_go()
            assert (release.end().code, bench.end().code) == (0, 0)
    assert desk.builds("here") == [VERSION, VERSION]


def test_a_run_that_fails_is_named_and_loses_no_other(desk: Desk) -> None:
    broken = desk.node("broken", build="echo the reason\nexit 7\n")
    desk.write(desk.node(), broken)
    outcome = desk.run("bench", "--version", VERSION, "--runs", "2")
    assert outcome.code == 4
    assert "broken: run 1 of 2: failed" in outcome.err
    assert "broken: run 1 failed (build): the build failed" in outcome.out
    (log,) = desk.dist.glob("bench/logs/*/broken-1.log")
    assert f"log: {log}" in outcome.out
    assert log.read_text() == "the reason\n"
    # A compile error would only come again.
    assert desk.builds("broken") == [VERSION]
    assert desk.builds("here") == [VERSION, VERSION]
    rows = [line.split()[:1] for line in outcome.out.splitlines()[2:4]]
    assert rows == [["here"], ["broken"]]


@pytest.mark.thorough
def test_a_machine_that_kills_a_run_has_the_others_all_the_same(desk: Desk) -> None:
    mark = desk.folder / "killed"
    kill = f'if [ ! -e {mark} ]; then : >{mark}; kill -KILL "-$(cat ../pid)"; fi\n'
    desk.write(desk.node(build=kill + desk.copy()))
    outcome = desk.run("bench", "--version", VERSION, "--runs", "2", "--json")
    assert outcome.code == 3
    (node,) = outcome.data["nodes"]
    assert [failed["class"] for failed in node["failures"]] == ["machine"]
    assert len(node["took_seconds"]) == 1


def test_a_node_that_is_down_or_unfit_is_a_failure_of_all_its_runs(desk: Desk) -> None:
    down = desk.node("down", host="b@127.0.0.1", port=1, host_key=None, connect_timeout=1)
    del down["host_key"]
    desk.write(desk.node(), down)
    outcome = desk.run("bench", "--version", VERSION, "--runs", "1")
    assert outcome.code == 3
    assert "down: all failed (machine): " in outcome.out


def test_only_the_named_nodes_are_measured_also_when_disabled(desk: Desk) -> None:
    desk.write(desk.node(), desk.node("off", enabled=False))
    outcome = desk.run("bench", "off", "--version", VERSION, "--runs", "1", "--json")
    assert [node["node"] for node in outcome.data["nodes"]] == ["off"]
    assert desk.builds("here") == []


def test_an_earlier_benchmark_is_told_beside_this_one(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.run("bench", "--version", VERSION, "--runs", "1").code == 0
    earlier = saved(desk)[0].rename(desk.folder / "earlier.json")
    data = json.loads(earlier.read_text())
    data["nodes"][0]["took_seconds"] = [1000.0]
    earlier.write_text(json.dumps(data))
    options = ("--version", VERSION, "--runs", "1", "--compare-with", str(earlier))
    outcome = desk.run("bench", *options)
    assert "1000.00 s" in outcome.out
    assert "before: 1.0.0, " in outcome.out
    assert "before" in outcome.out.splitlines()[1].split()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing is published yet"),
        (("nowhere", "--version", VERSION), "error: no node is named `nowhere`\n"),
        (("nowhere", "--version", VERSION), "the nodes are: here, off"),
        (("--version", VERSION, "--compare-with", "/nonexistent"), "dist/bench/*.json"),
        (
            ("here", "--version", VERSION, "--baseline", "off"),
            "--baseline: the node `off` is not measured",
        ),
        (("--version", VERSION, "--compare-with", "/nonexistent"), "cannot read /nonexistent"),
        (("--version", VERSION, "--compare-with", "{inventory}"), "is no benchmark"),
        (("--version", VERSION, "--compare-with", "{binary}"), "it is no text"),
    ],
)
def test_a_mistake_is_told_before_anything_is_built(
    options: tuple[str, ...], said: str, desk: Desk
) -> None:
    desk.write(desk.node(), desk.node("off", enabled=False))
    (desk.folder / "binary").write_bytes(b"\xff\xfe")
    places = {"inventory": str(desk.inventory), "binary": str(desk.folder / "binary")}
    outcome = desk.run("bench", *(option.format_map(places) for option in options))
    assert outcome.code == 2
    assert said in outcome.err
    assert desk.builds("here") == []


def test_without_an_enabled_node_there_is_nothing_to_measure(desk: Desk) -> None:
    desk.write(desk.node(enabled=False))
    outcome = desk.run("bench", "--version", VERSION)
    assert outcome.code == 2
    assert "none is enabled" in outcome.err


def test_who_interrupts_a_benchmark_ends_it_on_the_node(desk: Desk) -> None:
    desk.write(desk.node(build=desk.wait_then_copy()))
    with desk.started("bench", "--version", VERSION) as bench:
        wait_for(lambda: desk.builds("here"))
        bench.signal(signal.SIGINT)
        assert bench.end().code == 130
    (job,) = jobs(desk)
    assert (job / "exit").read_text().split()[1] == "cancelled"


def test_another_compiler_than_that_of_the_last_release_is_told(desk: Desk) -> None:
    desk.write(desk.node())
    first = desk.release()
    assert (first.code, first.data["drifts"]) == (0, [])
    record = desk.dist / "timings.jsonl"
    entry = json.loads(record.read_text())
    now = entry["rustc"]
    record.write_text(json.dumps({**entry, "rustc": "1.0.0"}) + "\n")
    said = f"rustc {now}, and the last release ({VERSION}) was built with 1.0.0"

    checked = desk.run("check", "--json")
    assert checked.code == 0
    findings = checked.data["nodes"][0]["findings"]
    assert [each["message"] for each in findings if each["check"] == "drift"] == [said]
    again = desk.run("release", "--version", VERSION, "--rebuild", "--no-publish")
    assert f"warning: here: {said}" in again.out
    # That was a build, and is the last one now.
    assert desk.release("--rebuild", "--no-publish").data["drifts"] == []


def test_two_benchmarks_at_once_measure_builds_of_their_own(desk: Desk) -> None:
    desk.write(desk.node(build=desk.wait_then_copy()))
    options = ("bench", "--version", VERSION, "--runs", "1")
    with desk.started(*options) as one:
        wait_for(lambda: desk.builds("here"))
        with desk.started(*options) as two:
            # It waits for the other one's build, and each writes a log of its own.
            wait_for(lambda: len(list(desk.dist.glob("bench/logs/*/here-1.log"))) == 2)
            wait_for(lambda: len(list(desk.folder.glob("here-work/jobs/*/pid"))) == 2)
            two.signal(signal.SIGINT)
            assert two.end().code == 130
        desk.let_go()
        assert one.end().code == 0
    assert [line["outcome"] for line in measured(desk)] == ["built"]


def test_a_run_that_a_person_ends_tells_nothing_of_its_node(desk: Desk) -> None:
    cancel = "touch ../cancelled\nkill -TERM -$(cat ../pid)\n"
    desk.write(desk.node(build=cancel))
    outcome = desk.run("bench", "--version", VERSION, "--runs", "2")
    assert outcome.code == 3
    assert "the job was cancelled" in outcome.out
    assert desk.builds("here") == [VERSION]
    assert not (desk.dist / "timings.jsonl").exists()


@pytest.mark.parametrize("command", ["release", "bench"])
def test_what_cannot_be_remembered_is_told_and_costs_nothing_else(command: str, desk: Desk) -> None:
    desk.write(desk.node())
    (desk.dist / "timings.jsonl").mkdir(parents=True)
    outcome = desk.run(command, "--version", VERSION)
    assert outcome.code == 0
    assert "timings.jsonl" in outcome.out + outcome.err
