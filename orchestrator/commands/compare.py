"""The builds of one target, held against one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.comparison import Comparison, Specimen, compare
from orchestrator.core.plan import alternatives
from orchestrator.core.recording import built_with
from orchestrator.core.result import Built

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.plan import BuildPlan
    from orchestrator.core.report import Report


def compare_builds(plan: BuildPlan, report: Report) -> tuple[Comparison, ...]:
    """Return how the binaries of each target differ, of those nodes that have built them."""
    built = {result.node: result for result in report.results if isinstance(result, Built)}
    env = {task.node.name: task.node.env for task in plan.tasks}
    groups = (
        [built[node.name] for node in nodes if node.name in built]
        for nodes in alternatives(plan.inventory.project, [task.node for task in plan.tasks])
    )
    return tuple(
        compare(binary.name, group[0].artifact.target, _specimens(group, number, env))
        for group in groups
        if len(group) > 1
        for number, binary in enumerate(group[0].artifact.binaries)
    )


def _specimens(
    group: list[Built], number: int, env: Mapping[str, tuple[tuple[str, str], ...]]
) -> list[Specimen]:
    return [
        Specimen(
            node=each.node,
            data=each.artifact.binaries[number].path.read_bytes(),
            rustc=built_with(each),
            env=env[each.node],
        )
        for each in group
    ]
