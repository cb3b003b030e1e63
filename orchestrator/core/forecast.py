"""When a plan is expected to be built, in words and as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.wording import human_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from orchestrator.core.plan import BuildPlan, BuildTask, NodeTask


def forecast_line(plan: BuildPlan) -> str | None:
    """Return when the last target is expected to be built, and where; None if nothing is known."""
    critical = plan.critical
    if critical is None or critical.finish is None:
        return None
    line = f"expected to be built after {human_time(critical.finish)}"
    if len(plan.tasks) > 1:
        line += f", last on {critical.node.name}"
    unmeasured = [task.node.name for task in plan.tasks if task.finish is None]
    return f"{line}; never measured: {', '.join(unmeasured)}" if unmeasured else line


def forecast_as_data(plan: BuildPlan) -> Mapping[str, object]:
    """Return what `--dry-run --json` says of all targets; the unmeasured count for nothing."""
    critical = plan.critical
    return {
        "finish_seconds": _seconds(critical.finish) if critical else None,
        "critical": critical.node.name if critical else None,
        "unmeasured": [task.node.name for task in plan.tasks if task.finish is None],
        "line": forecast_line(plan),
    }


def task_forecast(task: BuildTask) -> Mapping[str, object]:
    """Return when a target is expected to be begun and built, in seconds after the begin."""
    return {
        "begins_seconds": _seconds(task.begins),
        "finish_seconds": _seconds(task.finish),
    }


def node_forecast(task: NodeTask) -> Mapping[str, object]:
    """Return how long a node is expected to build, and how often its machine was up to it."""
    rate = task.success_rate
    return {
        "expected_seconds": _seconds(task.expected),
        "success_rate": None if rate is None else round(rate, 3),
    }


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else round(duration.total_seconds(), 3)
