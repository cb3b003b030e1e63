"""What a release would do, as data: `release --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from orchestrator.core.archive import archive_name
from orchestrator.core.forecast import forecast_as_data, node_forecast, task_forecast
from orchestrator.core.index import RowKey
from orchestrator.core.inventory import ArchiveSource, CrateSource, GitSource, PathSource
from orchestrator.core.merge import row_of
from orchestrator.core.plan import node_cpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.core.index import Row
    from orchestrator.core.inventory import Node, Source
    from orchestrator.core.plan import BuildPlan, BuildTask, NodeTask
    from orchestrator.core.version import Version


def plan_as_data(
    plan: BuildPlan, *, store: str, channel: str, rows: Sequence[Row]
) -> Mapping[str, object]:
    """Return the plan; `rows` is the index of the channel as it stands."""
    project = plan.inventory.project
    return {
        "project": project.name,
        "version": str(plan.version),
        "source": describe_source(project.source, plan.version),
        "store": store,
        "channel": channel,
        "publishes": plan.request.publish,
        "forecast": forecast_as_data(plan),
        "tasks": [_task(plan, task, rows) for task in plan.tasks],
        "skipped": [
            {"node": skip.node, "target": skip.target.triple, "reason": skip.reason}
            for skip in plan.skipped
        ],
        "already_published": [
            {"target": row.target, "status": str(row.status), "path": row.path}
            for row in rows
            if str(row.version) == str(plan.version)
        ],
    }


def describe_source(source: Source | None, version: Version) -> str:
    """Return one line: where the source of this version comes from."""
    match source:
        case CrateSource():
            return f"crate {source.crate} {version}"
        case GitSource():
            return f"git {source.git} at tag {source.tag.replace('{version}', str(version))}"
        case ArchiveSource():
            return f"archive {source.archive.replace('{version}', str(version))}"
        case PathSource():
            state = "as it is" if source.allow_dirty else "at its HEAD commit"
            return f"folder {source.path} {state}"
        case None:
            return "each node's build_command fetches its own"
        case _:
            assert_never(source)


def _task(plan: BuildPlan, task: BuildTask, rows: Sequence[Row]) -> Mapping[str, object]:
    return {
        "target": task.target.triple,
        **task_forecast(task),
        **_node_task(plan, task.first, rows),
        "standby": [_node_task(plan, spare, rows) for spare in task.standby],
    }


def _node_task(plan: BuildPlan, task: NodeTask, rows: Sequence[Row]) -> Mapping[str, object]:
    node = task.node
    project = plan.inventory.project
    return {
        "node": node.name,
        "host": node.host,
        "policy": str(node.policy),
        **node_forecast(task),
        "command": task.command,
        "env": dict(node.env),
        "binaries": list(task.binary_paths) or [f"$ORCHESTRATOR_OUT/{n}" for n in project.binaries],
        "extras": list(task.extra_paths),
        "gate_on": [gate.name for gate in task.gate_nodes] or [node.name],
        "gate": [project.version_command, *project.gate],
        "publishes": _objects(plan, node, rows) if plan.request.publish else [],
    }


def _objects(plan: BuildPlan, node: Node, rows: Sequence[Row]) -> list[str]:
    release = (node.os_release or "<release>") if node.target.is_bound_to_os_release else ""
    version, name = str(plan.version), plan.inventory.project.name
    level = node_cpu(plan.inventory.project, node)
    key = f"{node.target}{release}{f'-v{level}' if level else ''}"
    # The release of an OpenBSD node that does not say it is known once the node has answered.
    file = f"{name}-{version}-{key}.tar.gz" if "<" in key else archive_name(name, version, key)
    folder = _reissue_folder(plan, node, rows)
    objects = [f"releases/{version}/{key}/{folder}{file}"]
    if plan.inventory.publication.flat and not node.variant_of:
        flat = f"{name}-{version}-{node.target.flat_name}{node.target.exe_suffix}"
        objects.append(f"{version}/{folder}{flat}")
    return objects


def _reissue_folder(plan: BuildPlan, node: Node, rows: Sequence[Row]) -> str:
    """Return the folder of the next issue; a revision that a crash has left is found only later."""
    release = node.os_release if node.target.is_bound_to_os_release else None
    level = node_cpu(plan.inventory.project, node)
    edition = f"{release or ''}{f'-v{level}' if level else ''}" or None
    stands = row_of(rows, RowKey(node.target.triple, str(plan.version), edition))
    if not plan.request.reissue or stands is None or stands.sha256 is None:
        return ""
    return f"r{stands.revision + 1}/"
