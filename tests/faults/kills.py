"""`kill -9` of the coordinator, at every event and at any moment; then the same command again."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.faults.scenario import Scenario
from tests.releases import other_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.lab import Lab
    from tests.releases import Started

_QUEUED: Final = ": waiting for the host"
# What a release says when it goes on to something.
EVENTS: Final = (
    "releasing",
    "source:",
    ": connecting",
    ": pushing source",
    _QUEUED,
    ": building",
    ": collecting",
    ": gating",
    ": checking",
    ": publishing",
    ": built",
    "published:",
)
_ONCE: Final = ("releasing", "source:", _QUEUED)
_FOLDERS: Final = ("node", "dist", "store")


def _at_event(lab: Lab, event: str) -> None:
    # Two nodes of one host take turns, and each node comes to its own events.
    _two_nodes(lab, one_host=event == _QUEUED)
    left = 1 if event in _ONCE else lab.random.choice((1, 2))
    with lab.releasing() as coordinator:
        assert coordinator.process.stderr is not None
        for line in coordinator.process.stderr:
            left -= event in line
            if not left:
                break
        time.sleep(lab.random.choice((0, lab.random.uniform(0, 0.1))))
        _kill(lab, coordinator)


def _at_random(lab: Lab) -> None:
    _two_nodes(lab)
    with lab.releasing() as coordinator:
        time.sleep(lab.random.uniform(0, lab.stage.traffic.seconds))
        _kill(lab, coordinator)


def _at_file(lab: Lab, folder: str) -> None:
    _two_nodes(lab)
    place = {
        "node": lab.folder / "here-work",
        "dist": lab.desk.dist,
        "store": lab.desk.store,
    }[folder]
    wanted = lab.random.randint(1, {"node": 25, "dist": 10, "store": 20}[folder])
    with lab.releasing() as coordinator:
        seen: set[str] = set()
        while len(seen) < wanted and coordinator.process.poll() is None:
            seen |= _names(place)
            time.sleep(0.002)
        _kill(lab, coordinator)


def _names(folder: Path) -> set[str]:
    return {os.path.join(at, name) for at, _, files in os.walk(folder) for name in files}  # noqa: PTH118


def _again_and_again(lab: Lab) -> None:
    lab.here(build_command=lab.build("here", hold="go"))
    lab.far()
    lab.write()
    when = lab.random.randint(1, 4)
    for kill in range(5):
        if kill == when:
            lab.let_go()
        with lab.releasing() as coordinator:
            time.sleep(lab.random.uniform(0.3, lab.stage.traffic.seconds))
            _kill(lab, coordinator)


def _two_nodes(lab: Lab, *, one_host: bool = False) -> None:
    lab.here()
    if one_host:
        lab.here("second", target=other_target())
    else:
        lab.far()
    lab.write()


def _kill(lab: Lab, coordinator: Started) -> None:
    """Kill it; one that had come to its end was not hit."""
    coordinator.signal(signal.SIGKILL)
    lab.faults += coordinator.process.wait() == -signal.SIGKILL
    lab.last = None


_FAULT: Final = "coordinator killed (-9)"

SCENARIOS: Final = (
    *(
        Scenario(
            fault=_FAULT,
            phase=event.strip(": "),
            play=partial(_at_event, event=event),
            runs=6,
        )
        for event in EVENTS
    ),
    *(
        Scenario(
            fault=_FAULT,
            phase=f"at a new file in the {folder}",
            play=partial(_at_file, folder=folder),
            runs=10,
        )
        for folder in _FOLDERS
    ),
    Scenario(fault=_FAULT, phase="at a random moment", play=_at_random, runs=30),
    Scenario(
        fault=_FAULT, phase="five times", play=_again_and_again, runs=4, injects=5, seconds=15
    ),
)
