"""Coordinators that are started together: each node builds once, and both reports are true."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tests.faults.scenario import Scenario
from tests.faults.stage import OTHER_VERSION
from tests.releases import VERSION, host_target, other_target

if TYPE_CHECKING:
    from tests.faults.lab import Lab


def _together(lab: Lab) -> None:
    lab.here()
    lab.far()
    lab.write()
    with lab.releasing("--json") as first:
        time.sleep(lab.random.choice((0, 0, lab.random.uniform(0, lab.stage.traffic.seconds))))
        with lab.releasing("--json") as second:
            outcomes = [lab.end(first), lab.end(second)]
    lab.faults += 1
    for outcome in outcomes:
        lab.survive(outcome)


def _one_is_killed(lab: Lab) -> None:
    lab.here()
    lab.far()
    lab.write()
    with lab.releasing("--json") as first, lab.releasing() as second:
        time.sleep(lab.random.uniform(0.3, lab.stage.traffic.seconds))
        second.process.kill()
        second.process.wait()
        lab.faults += 1
        lab.survive(lab.end(first))


def _two_versions(lab: Lab) -> None:
    """Two versions want the same nodes, whose builds use the same path: they take turns."""
    for name, target in (("here", host_target()), ("second", other_target())):
        binary = f"{lab.folder}/out-{name}/tool"
        build = lab.build(name, target=target).replace(f"tool-{VERSION}", "tool-{version}")
        build = build.replace("$ORCHESTRATOR_OUT/tool", binary)
        # Whatever the node and the version: one build at a time on this host.
        build = build.replace(f"pid-{name}", "pid-host").replace(f"overlap-{name}", "overlap-here")
        build = f"mkdir -p {lab.folder}/out-{name}\n{build}"
        lab.here(name, target=target, build_command=build, binary_path=binary)
        lab.excused[name] += 1
        lab.allowed_ends[name] += 1
    lab.write(has_source=False)
    with lab.releasing("--json", version=OTHER_VERSION) as first, lab.releasing("--json") as second:
        outcomes = [lab.end(first), lab.end(second)]
    lab.faults += 1
    for outcome in outcomes:
        lab.survive(outcome)


_FAULT: Final = "two coordinators at once"

SCENARIOS: Final = (
    Scenario(fault=_FAULT, phase="the whole release", play=_together, runs=50, seconds=7),
    Scenario(fault=_FAULT, phase="of two versions", play=_two_versions, runs=6, seconds=10),
    Scenario(fault=_FAULT, phase="one is killed", play=_one_is_killed, runs=10, seconds=7),
)
