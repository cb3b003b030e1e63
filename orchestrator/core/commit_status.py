"""What a commit's page at GitHub shows of a release: one status for each target."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from orchestrator.core.plan import BuildPlan

# GitHub takes no more: docs.github.com/en/rest/commits/statuses
_DESCRIPTION: Final = 140


class StatusState(StrEnum):
    """How a target stands: FAILURE is the code's fault, ERROR that of a machine or a store."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """How one target stands, in a few words."""

    target: str
    state: StatusState
    description: str


def pending_statuses(plan: BuildPlan) -> tuple[TargetStatus, ...]:
    """Return what is shown when the work begins: of targets that are published already, nothing."""
    targets = dict.fromkeys(task.target.triple for task in plan.tasks)
    text = f"{plan.version} is being built"
    return tuple(_status(target, StatusState.PENDING, text) for target in targets)


def published_statuses(
    plan: BuildPlan, published: Iterable[str], version: str
) -> tuple[TargetStatus, ...]:
    """Return what is shown as soon as targets can be installed.

    Where several nodes deliver for one target (two releases of OpenBSD), only the end tells.
    """
    tasks = Counter(task.target.triple for task in plan.tasks)
    text = f"{version} can be installed"
    return tuple(
        _status(target, StatusState.SUCCESS, text) for target in published if tasks[target] == 1
    )


def final_statuses(plan: BuildPlan, outcome: Mapping[str, Any]) -> tuple[TargetStatus, ...]:
    """Return what is shown at the end; `outcome` is what Board.as_data says."""
    tasks = Counter(task.target.triple for task in plan.tasks)
    return tuple(_final(target, count, outcome) for target, count in tasks.items())


def _final(target: str, tasks: int, outcome: Mapping[str, Any]) -> TargetStatus:
    rows = [row for row in outcome["rows"] if row["target"] == target]
    built = sum(row["result"] == "built" for row in rows)
    if built >= tasks and target in outcome["published"]:
        return _status(target, StatusState.SUCCESS, f"{outcome['version']} can be installed")
    failures = list(_failures(rows))
    if failures:
        state, text = min(failures, key=lambda failure: failure[0] is not StatusState.FAILURE)
        return _status(target, state, text)
    text = outcome["error"] or "it was not published"
    return _status(target, StatusState.ERROR, text)


def _failures(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[StatusState, str]]:
    for row in rows:
        if row["result"] == "failed":
            is_build = row["failure_class"] == "build"
            state = StatusState.FAILURE if is_build else StatusState.ERROR
            yield state, f"{row['node']}: {row['message']}"


def _status(target: str, state: StatusState, text: str) -> TargetStatus:
    line = text.strip().partition("\n")[0]
    cut = line if len(line) <= _DESCRIPTION else f"{line[: _DESCRIPTION - 1]}…"
    return TargetStatus(target=target, state=state, description=cut)
