"""Coordinators that are started together: each node builds once, and both reports are true."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tests.faults.scenario import Scenario

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


_FAULT: Final = "two coordinators at once"

SCENARIOS: Final = (
    Scenario(fault=_FAULT, phase="the whole release", play=_together, runs=50, seconds=7),
    Scenario(fault=_FAULT, phase="one is killed", play=_one_is_killed, runs=10, seconds=7),
)
