"""What a release would do, as data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.core.dry_run import describe_source, plan_as_data
from orchestrator.core.index import Row, Status
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.plan import BuildPlan, ReleaseRequest, plan_release
from orchestrator.core.version import parse_version

VERSION = parse_version("1.2.3")
NETBSD = "x86_64-unknown-netbsd"
OPENBSD = "aarch64-unknown-openbsd"


def plan(*nodes: dict[str, Any], publish: bool = True, **keys: Any) -> BuildPlan:
    project = {"name": "tool", "source": {"crate": "tool"}, **keys.pop("project", {})}
    inventory = parse_inventory({"project": project, "nodes": list(nodes), **keys}, place="x")
    request = ReleaseRequest(version=VERSION, publish=publish)
    return plan_release(inventory, request, rows=ROWS)


ROWS = (
    Row(target="x86_64-unknown-freebsd", version=VERSION, status=Status.PENDING),
    Row(target=NETBSD, version=parse_version("1.0.0"), status=Status.PENDING),
)


def as_data(planned: BuildPlan) -> dict[str, Any]:
    data = plan_as_data(planned, store="a folder", channel="stable", rows=ROWS)
    return dict(json.loads(json.dumps(data)))


def test_a_plan_says_what_runs_where_and_what_is_published() -> None:
    first = {
        "name": "a",
        "host": "root@192.0.2.1",
        "target": NETBSD,
        "build_command": "make {version} {source}",
        "env": {"CC": "cc"},
        "gate_on": "b",
    }
    second = {"name": "b", "host": "192.0.2.2", "target": NETBSD, "binary_path": "/b/tool"}
    project = {"gate": "{binary} 1", "extras": ["man/{name}.1", "/made/{version}/{name}.fish"]}
    data = as_data(plan(first, second, project=project, publication={"flat": True}))

    [task] = data.pop("tasks")
    [spare] = task.pop("standby")
    assert task == {
        "target": NETBSD,
        "node": "a",
        "host": "root@192.0.2.1",
        "policy": "expected",
        "begins_seconds": 0.0,
        "expected_seconds": None,
        "success_rate": None,
        "finish_seconds": None,
        "command": "make 1.2.3 {source}",
        "env": {"CC": "cc"},
        "binaries": ["$ORCHESTRATOR_OUT/tool"],
        "extras": ["{source}/man/tool.1", "/made/1.2.3/tool.fish"],
        "gate_on": ["b"],
        "gate": ["{binary} --version", "{binary} 1"],
        "publishes": [
            f"releases/1.2.3/{NETBSD}/tool-1.2.3-{NETBSD}.tar.gz",
            "1.2.3/tool-1.2.3-netbsd-x86_64",
        ],
    }
    assert (spare["node"], spare["binaries"], spare["gate_on"]) == ("b", ["/b/tool"], ["b"])
    assert data == {
        "project": "tool",
        "version": "1.2.3",
        "source": "crate tool 1.2.3",
        "forecast": {
            "finish_seconds": None,
            "critical": None,
            "unmeasured": ["a"],
            "line": None,
        },
        "store": "a folder",
        "channel": "stable",
        "publishes": True,
        "skipped": [],
        "already_published": [
            {"target": "x86_64-unknown-freebsd", "status": "pending", "path": None}
        ],
    }


def test_an_openbsd_release_is_in_the_path_or_known_when_the_node_answers() -> None:
    node = {"name": "a", "host": "192.0.2.1", "target": OPENBSD}
    told = {**node, "name": "b", "os_release": "7.8"}

    paths = [task["publishes"] for task in as_data(plan(node, told))["tasks"]]

    assert paths == [
        [f"releases/1.2.3/{OPENBSD}<release>/tool-1.2.3-{OPENBSD}<release>.tar.gz"],
        [f"releases/1.2.3/{OPENBSD}7.8/tool-1.2.3-{OPENBSD}7.8.tar.gz"],
    ]


def test_a_plan_without_publication_publishes_nothing() -> None:
    node = {"name": "a", "host": "192.0.2.1", "target": NETBSD}
    data = as_data(plan(node, publish=False))

    assert data["publishes"] is False
    assert data["tasks"][0]["publishes"] == []


def test_what_is_left_out_has_its_reason() -> None:
    row = Row(
        target=NETBSD,
        version=VERSION,
        status=Status.OK,
        size_bytes=1,
        sha256="ab" * 32,
        path=f"releases/1.2.3/{NETBSD}/tool-1.2.3-{NETBSD}.tar.gz",
    )
    node = {"name": "a", "host": "192.0.2.1", "target": NETBSD}
    data = {"project": {"name": "tool", "source": {"crate": "tool"}}, "nodes": [node]}
    inventory = parse_inventory(data, place="x")
    planned = plan_release(inventory, ReleaseRequest(version=VERSION), rows=(row,))

    shown = plan_as_data(planned, store="s", channel="stable", rows=(row,))

    reason = "1.2.3 is already published"
    assert shown["skipped"] == [{"node": "a", "target": NETBSD, "reason": reason}]
    assert shown["already_published"] == [{"target": NETBSD, "status": "ok", "path": row.path}]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"crate": "tool"}, "crate tool 1.2.3"),
        ({"git": "https://example.org/x.git"}, "git https://example.org/x.git at tag v1.2.3"),
        (
            {"archive": "https://example.org/{version}.tar.gz", "sha256": {"1.2.3": "ab" * 32}},
            "archive https://example.org/1.2.3.tar.gz",
        ),
        ({"path": "/src"}, "folder /src at its HEAD commit"),
        ({"path": "/src", "allow_dirty": True}, "folder /src as it is"),
    ],
)
def test_a_source_is_one_line(source: dict[str, Any], line: str) -> None:
    node = {"name": "a", "host": "192.0.2.1", "target": NETBSD}
    planned = plan(node, project={"source": source})

    assert describe_source(planned.inventory.project.source, VERSION) == line


def test_without_a_source_each_node_fetches_its_own() -> None:
    assert describe_source(None, VERSION) == "each node's build_command fetches its own"
