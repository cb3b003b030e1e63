"""What Prometheus is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.board import Board
from orchestrator.core.events import Event, LogAppended, NodeFinished, Phase, PhaseChanged
from orchestrator.core.order import Entry, Order, Origin, State
from orchestrator.core.result import Artifact, Built, Failed, FailureClass
from orchestrator.core.target import parse_target
from orchestrator.service.metrics import Metrics, Platform

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
ORDER = Order(version="1.0.0", channel="stable", asked=NOW, origin=Origin.WEBHOOK)
TARGET = parse_target("x86_64-unknown-netbsd")


def built(took: timedelta | None) -> Built:
    artifact = Artifact(
        version="1.0.0",
        target=TARGET,
        os_release=None,
        path=Path("x"),
        size_bytes=1,
        sha256="0" * 64,
        floors=(),
        binaries=(),
    )
    elapsed = timedelta(minutes=5)
    return Built(node="netbsd", artifact=artifact, elapsed=elapsed, was_attached=False, took=took)


def samples(metrics: Metrics) -> dict[str, float]:
    told, kind = metrics.render()
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in told.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def outcome(*classes: str, exit_code: int | None = 0, error: str | None = None) -> dict[str, Any]:
    rows = [{"failure_class": word or None} for word in classes]
    return {"rows": rows, "exit_code": exit_code, "error": error}


def test_how_long_builds_and_phases_take_is_told_by_node() -> None:
    metrics = Metrics()
    events: list[tuple[int, Event]] = [
        (0, PhaseChanged(node="netbsd", phase=Phase.CONNECTING)),
        (2, PhaseChanged(node="netbsd", phase=Phase.BUILDING)),
        (50, LogAppended(node="netbsd", data=b"x")),
        (102, PhaseChanged(node="netbsd", phase=Phase.COLLECTING)),
        (105, NodeFinished(node="netbsd", result=built(timedelta(seconds=99)))),
        (106, NodeFinished(node="netbsd", result=built(None))),
    ]
    metrics.begin(ORDER, Board(ORDER, NOW))
    for seconds, event in events:
        metrics.observe(ORDER, event, NOW + timedelta(seconds=seconds))
    told = samples(metrics)
    assert told['orchestrator_build_seconds_sum{node="netbsd"}'] == 99
    assert told['orchestrator_build_seconds_count{node="netbsd"}'] == 1
    phase = 'orchestrator_phase_seconds_sum{{node="netbsd",phase="{}"}}'
    assert told[phase.format("connecting")] == 2
    assert told[phase.format("building")] == 100
    assert told[phase.format("collecting")] == 3
    assert told['orchestrator_phase_seconds_bucket{le="5.0",node="netbsd",phase="connecting"}'] == 1


def test_a_phase_of_an_earlier_release_is_not_counted_on() -> None:
    metrics = Metrics()
    metrics.observe(ORDER, PhaseChanged(node="a", phase=Phase.BUILDING), NOW)
    metrics.end(ORDER, outcome(exit_code=3, error="x"))
    later = NOW + timedelta(days=1)
    metrics.observe(ORDER, PhaseChanged(node="a", phase=Phase.DONE), later)
    assert not [name for name in samples(metrics) if "phase_seconds" in name]


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    metrics = Metrics()
    metrics.observe(ORDER, PhaseChanged(node="a", phase=Phase.BUILDING), NOW)
    failed = Failed(node="a", target=TARGET, failure_class=FailureClass.BUILD, message="no")
    metrics.observe(ORDER, NodeFinished(node="a", result=failed), NOW - timedelta(hours=1))
    assert samples(metrics)['orchestrator_phase_seconds_sum{node="a",phase="building"}'] == 0


def test_attempts_and_failures_are_counted_by_outcome_and_class() -> None:
    metrics = Metrics()
    before = samples(metrics)
    assert before['orchestrator_releases_total{outcome="done"}'] == 0
    assert before['orchestrator_failures_total{class="machine"}'] == 0
    metrics.end(ORDER, outcome(""))
    metrics.end(ORDER, outcome("machine", "machine", "build", "alien", exit_code=3))
    metrics.end(ORDER, outcome(exit_code=2, error="no key"))
    metrics.end(ORDER, outcome(exit_code=5, error="away"))
    metrics.end(ORDER, outcome(exit_code=None, error="a bug of ours"))
    told = samples(metrics)
    assert told['orchestrator_releases_total{outcome="done"}'] == 1
    assert told['orchestrator_releases_total{outcome="failed"}'] == 4
    counted = {
        word: told[f'orchestrator_failures_total{{class="{word}"}}']
        for word in ("machine", "build", "store", "config", "bug", "other")
    }
    assert counted == {"machine": 2, "build": 1, "store": 1, "config": 1, "bug": 1, "other": 1}


def test_what_the_board_says_is_understood() -> None:
    board = Board(ORDER, NOW)
    board.finish(NOW, error="a bug of ours")
    metrics = Metrics()
    metrics.end(ORDER, board.as_data())
    assert samples(metrics)['orchestrator_failures_total{class="bug"}'] == 1


def test_deliveries_are_counted_by_decision_and_no_word_makes_a_new_series() -> None:
    metrics = Metrics()
    for decision in ("accepted", "refused", "refused", "x", "y"):
        metrics.webhook(decision)
    told = {name: value for name, value in samples(metrics).items() if "webhooks" in name}
    assert told == {
        'orchestrator_webhooks_total{decision="accepted"}': 1,
        'orchestrator_webhooks_total{decision="ignored"}': 0,
        'orchestrator_webhooks_total{decision="refused"}': 2,
        'orchestrator_webhooks_total{decision="other"}': 2,
    }


def test_the_queue_is_told_of() -> None:
    metrics = Metrics()
    metrics.queue(
        [
            Entry(order=ORDER, state=state)
            for state in (State.QUEUED, State.QUEUED, State.RUNNING, State.DONE, State.FAILED)
        ]
    )
    told = samples(metrics)
    assert (told["orchestrator_queue_depth"], told["orchestrator_releases_running"]) == (2, 1)


def test_what_platforms_get_is_told_and_one_that_is_gone_is_not() -> None:
    metrics = Metrics()
    metrics.freshness([Platform("gone", 1, 0)])
    metrics.freshness([Platform("netbsd", 86_400.0, 2), Platform("new", None, 3)])
    told = {name: value for name, value in samples(metrics).items() if "platform" in name}
    assert told == {
        'orchestrator_platform_age_seconds{target="netbsd"}': 86_400,
        'orchestrator_platform_behind{target="netbsd"}': 2,
        'orchestrator_platform_behind{target="new"}': 3,
    }


def test_when_indexes_expire_is_told() -> None:
    metrics = Metrics()
    metrics.expires({"beta": NOW})
    metrics.expires({"stable": NOW})
    told = {name: value for name, value in samples(metrics).items() if "expires" in name}
    assert told == {
        'orchestrator_index_expires_timestamp_seconds{channel="stable"}': NOW.timestamp()
    }


def test_two_services_in_one_process_do_not_share_their_numbers() -> None:
    Metrics().webhook("accepted")
    assert samples(Metrics())['orchestrator_webhooks_total{decision="accepted"}'] == 0


def test_the_process_is_told_of() -> None:
    assert samples(Metrics())["process_resident_memory_bytes"] > 1_000_000


DOCUMENT = (Path(__file__).parents[2] / "docs/operating.md").read_text()
ALERTS = """\
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: orchestrator_platform_behind{target="netbsd"}
        values: 1x2000
      - series: orchestrator_platform_behind{target="linux"}
        values: 0x2000
      - series: orchestrator_index_expires_timestamp_seconds{channel="stable"}
        values: 2600000x2000
    alert_rule_test:
      - {eval_time: 23h, alertname: PlatformBehind, exp_alerts: []}
      - eval_time: 25h
        alertname: PlatformBehind
        exp_alerts:
          - exp_labels: {target: netbsd}
            exp_annotations: {summary: "netbsd is 1 versions behind"}
      - eval_time: 25h
        alertname: IndexExpires
        exp_alerts:
          - exp_labels: {channel: stable}
            exp_annotations: {summary: "nobody renews the index of stable"}
      - {eval_time: 1m, alertname: IndexExpires, exp_alerts: []}
"""


def full() -> Metrics:
    """Metrics in which every one of them has a value."""
    metrics = Metrics()
    metrics.end(ORDER, outcome("machine", exit_code=3))
    metrics.freshness([Platform("netbsd", 1, 0)])
    metrics.expires({"stable": NOW})
    metrics.observe(ORDER, PhaseChanged(node="a", phase=Phase.BUILDING), NOW)
    metrics.observe(ORDER, NodeFinished(node="a", result=built(timedelta(seconds=9))), NOW)
    return metrics


def test_every_metric_is_in_the_document_and_every_one_there_exists() -> None:
    told = full().render()[0].decode()
    types = dict(re.findall(r"^# TYPE (orchestrator_\w+) (\w+)$", told, re.MULTILINE))
    named = set(re.findall(r"\borchestrator_\w+", DOCUMENT))
    assert named == set(types)


@pytest.mark.thorough
def test_prometheus_understands_the_rules_of_the_document(tmp_path: Path) -> None:
    (rules,) = re.findall(r"^```yaml\n(groups:.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    (tmp_path / "rules.yaml").write_text(rules)
    (tmp_path / "alerts.yaml").write_text(ALERTS)
    for words in (["check", "rules", "rules.yaml"], ["test", "rules", "alerts.yaml"]):
        done = subprocess.run(
            ["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.thorough
def test_prometheus_own_checker_finds_nothing_wrong_with_the_names() -> None:
    checker = shutil.which("promtool")
    assert checker, "promtool is missing: apt-get install prometheus"
    done = subprocess.run(
        [checker, "check", "metrics"], input=full().render()[0], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
