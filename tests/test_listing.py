"""Plans and states, as a person reads them."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from orchestrator.listing import show_check, show_plan, show_status

TASK: dict[str, Any] = {
    "target": "x86_64-unknown-netbsd",
    "node": "a",
    "host": "root@192.0.2.1",
    "policy": "expected",
    "begins_seconds": 0.0,
    "expected_seconds": 187.0,
    "success_rate": 1.0,
    "command": f"cd /tmp\necho [bold]{'x' * 200}\n",
    "env": {"CC": "cc", "A": "\x1b[2J"},
    "binaries": ["/tmp/one", "/tmp/two"],
    "gate_on": ["b", "c"],
    "gate": ["{binary} --version", "first\nsecond"],
    "publishes": ["releases/1.2.3/x/tool.tar.gz"],
}
PLAN: dict[str, Any] = {
    "project": "tool",
    "version": "1.2.3",
    "source": "crate tool 1.2.3",
    "store": "/srv/store",
    "channel": "stable",
    "publishes": True,
    "forecast": {"line": "expected to be built after 3m07s"},
    "tasks": [
        {
            **TASK,
            "standby": [
                {**TASK, "node": "spare", "env": {}, "publishes": [], "expected_seconds": None}
            ],
        }
    ],
    "skipped": [{"node": "c", "target": "t", "reason": "1.2.3 is already published"}],
    "already_published": [
        {"target": "t", "status": "ok", "path": "releases/x"},
        {"target": "u", "status": "pending", "path": None},
    ],
}


def shown_plan(**changes: Any) -> str:
    stream = io.StringIO()
    show_plan(PLAN | changes, stream)
    return stream.getvalue()


def test_a_plan_shows_each_node_with_all_that_runs_there() -> None:
    assert (
        shown_plan()
        == f"""\
tool 1.2.3
source       crate tool 1.2.3
store        /srv/store, channel stable

1. a  x86_64-unknown-netbsd
   host      root@192.0.2.1, expected
   expected  3m07s
   env       CC=cc A=\\x1b[2J
   build     cd /tmp
             echo [bold]{"x" * 200}
   binaries  /tmp/one
             /tmp/two
   gate      {{binary}} --version
             first
             second
   gate on   b, else c
   publishes releases/1.2.3/x/tool.tar.gz
   stands by: spare
   host      root@192.0.2.1, expected
   expected  never measured
   build     cd /tmp
             echo [bold]{"x" * 200}
   binaries  /tmp/one
             /tmp/two
   gate      {{binary}} --version
             first
             second
   gate on   b, else c

skipped      c (t): 1.2.3 is already published
there        t ok at releases/x
there        u pending

expected to be built after 3m07s
1 target builds; nothing was touched: leave out --dry-run to do it
"""
    )


def test_a_plan_counts_its_targets() -> None:
    tasks = PLAN["tasks"]

    assert "\n2 targets build, one at a time on each host; nothing was touched" in shown_plan(
        tasks=tasks * 2
    )
    shaky = {**tasks[0], "success_rate": 0.75}
    assert "3m07s; the machine was up to 75% of its builds\n" in shown_plan(tasks=[shaky])
    later = {**tasks[0], "begins_seconds": 60.0}
    assert "   expected  3m07s, after 1m00s for others there\n" in shown_plan(tasks=[later])
    none: dict[str, Any] = {"line": None}
    nothing = shown_plan(forecast=none, tasks=[], publishes=False, skipped=[], already_published=[])
    assert nothing.endswith(
        "store        nothing is published\n\nno target builds; nothing was touched\n"
    )


def test_a_state_shows_rows_and_jobs_uncut() -> None:
    stream = io.StringIO()
    row = {
        "version": "1.2.3",
        "target": "x86_64-unknown-netbsd",
        "status": "ok",
        "size_bytes": 1200,
        "floors": ["netbsd>=10.0"],
        "path": "releases/" + "x" * 100,
    }
    late = {**row, "status": "pending", "size_bytes": None, "floors": [], "path": None}
    evidence = "the command \x1b exited" + "y" * 100
    job = {"version": "1.2.3", "node": "a", "state": "finished", "evidence": evidence}
    show_status(
        {
            "project": "tool",
            "store": "/srv/store",
            "version": None,
            "serial": 7,
            "published": [row, late],
            "jobs": [job],
        },
        stream,
    )

    lines = [re.split(r" {2,}", line) for line in stream.getvalue().splitlines()]
    assert lines == [
        ["tool in /srv/store, index serial 7"],
        ["version", "target", "status", "size", "floors", "path"],
        ["1.2.3", row["target"], "ok", "1.2 kB", "netbsd>=10.0", row["path"]],
        ["1.2.3", row["target"], "pending"],
        [""],
        ["version", "node", "job", "evidence"],
        ["1.2.3", "a", "finished", evidence.replace("\x1b", "\\x1b")],
    ]


@pytest.mark.parametrize(
    ("version", "said"),
    [(None, "nothing is published"), ("3.0.0", "nothing of 3.0.0 is published")],
)
def test_a_state_with_nothing_published_is_two_lines(version: str | None, said: str) -> None:
    stream = io.StringIO()
    status = {"project": "tool", "version": version, "store": "s", "serial": None}
    show_status(status | {"published": [], "jobs": []}, stream)

    assert stream.getvalue() == f"tool in s\n{said}\n"


def test_what_a_node_said_can_forge_no_line_of_a_check() -> None:
    finding = {
        "check": "probe",
        "state": "problem",
        "message": "first\nsecond \x1b[2J",
        "hint": "do this:\n    key: \x9b",
    }
    check = {
        "verdict": "a release cannot start: no node can build",
        "can_start": False,
        "coordinator": [],
        "nodes": [{"node": "a", "target": "t", "findings": [finding, finding | {"hint": None}]}],
    }
    stream = io.StringIO()
    show_check(check, stream)

    assert (
        stream.getvalue()
        == """\
node  target  check  state    message
a     t       probe  problem  first
a     t       probe  problem  first

problem: a: first
  second \\x1b[2J
hint: do this:
    key: \\x9b

problem: a: first
  second \\x1b[2J

a release cannot start: no node can build
"""
    )
