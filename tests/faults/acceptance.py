"""What the suite has to prove by numbers: time, memory, and a hundred kills in a row."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.faults import judge
from tests.faults.scenario import Scenario
from tests.faults.trouble import Kind
from tests.releases import VERSION, other_target
from tests.systems import SYSTEMS, pass_for

if TYPE_CHECKING:
    from tests.faults.lab import Far, Lab
    from tests.releases import Started

_KILLS: Final = 100
# After so many kills one more node may go on.
_STAGES: Final = {33: "go-here", 66: "go-far", 98: "go-third"}
_SLACK_SECONDS: Final = 5
_LOG_BYTES: Final = 200_000_000
_MEMORY_LIMIT_BYTES: Final = 150_000_000


def _hundred_kills(lab: Lab) -> None:
    """One release whose coordinator is killed at a random moment, a hundred times in a row."""
    freebsd = "x86_64-unknown-freebsd"
    lab.here(build_command=lab.build("here", hold="go-here"))
    lab.far(build_command=lab.build("far", target=other_target(), hold="go-far"))
    third = lab.far(
        "third", target=freebsd, build_command=lab.build("third", target=freebsd, hold="go-third")
    )
    pass_for(third.home, SYSTEMS[freebsd])
    lab.write()
    while lab.faults < _KILLS:
        if word := _STAGES.get(lab.faults):
            lab.let_go(word)
        with lab.releasing("--json") as coordinator:
            time.sleep(lab.random.uniform(0, lab.stage.traffic.seconds))
            coordinator.signal(signal.SIGKILL)
            if coordinator.process.wait() == 0:
                break
        lab.faults += 1
    lab.notes.append(f"{lab.faults} kills")


def _one_is_silent(lab: Lab, kind: Kind, connect_timeout: int) -> None:
    """The release ends in time: the silent one delays nobody."""
    healthy = _six_nodes(lab, lines=100)
    dead = lab.far(
        "dead",
        target="x86_64-unknown-illumos",
        connect_timeout=connect_timeout,
        build_command="false",
    )
    lab.write()
    lab.fail_now(dead, kind, seconds=10_000)
    lab.faults += 1
    begun = time.monotonic()
    outcome = lab.release()
    wall = time.monotonic() - begun
    lab.expect(outcome, 3)
    report = judge.report_of(outcome) or {}
    slowest = max(judge.result_of(outcome, name).get("elapsed_seconds", 0) for name in healthy)
    limit = slowest + max(_SLACK_SECONDS, connect_timeout)
    took = report.get("elapsed_seconds", wall)
    lab.notes.append(
        f"slowest healthy node {slowest:.1f} s, the release {took:.1f} s of {limit:.1f} s"
    )
    if took > limit:
        lab.findings.gave_up.append(f"took {took:.1f} s, and {limit:.1f} s are allowed")
    if len(judge.published(lab)) != len(healthy):
        lab.findings.wrong_report.append("not every healthy node is published")
    # A system that no program of this machine can be made for: its part is not missed.
    del lab.nodes["dead"]
    lab.write()


def _much_log(lab: Lab) -> None:
    """The coordinator holds no logs: its memory does not grow with them."""
    flood = f"yes 'a line of a log that is as long as such lines are' | head -c {_LOG_BYTES}\n"
    _six_nodes(lab, first=flood)
    # The seventh writes as much, and delivers what no other system takes.
    illumos = "x86_64-unknown-illumos"
    lab.far(
        "seventh",
        target=illumos,
        policy="best-effort",
        gate_on="sun",
        build_command=lab.build("seventh", target=other_target(), first=flood),
    )
    for entry in lab.nodes.values():
        entry.update(timeout=900, silence_timeout=900)
    writers = tuple(lab.nodes)
    lab.node("sun", host="local", target=illumos, enabled=False, policy="best-effort")
    lab.write()
    lab.faults += 1
    with lab.releasing("--json") as coordinator:
        peak = _Peak(coordinator)
        outcome = lab.end(coordinator, seconds=900)
    lab.survive(outcome)
    lab.notes.append(f"peak {peak.bytes / 1e6:.0f} MB")
    for name in writers:
        size = (lab.desk.dist / VERSION / name / "build.log").stat().st_size
        if size < _LOG_BYTES:
            lab.findings.wrong_report.append(f"the log of {name} has only {size} bytes")
    if not 0 < peak.bytes < _MEMORY_LIMIT_BYTES:
        lab.findings.gave_up.append(f"{peak.bytes} bytes of memory, of {_MEMORY_LIMIT_BYTES}")


class _Peak:
    """Watches how much memory a process ever had."""

    def __init__(self, started: Started) -> None:
        self.bytes = 0
        self._status = Path(f"/proc/{started.process.pid}/status")
        threading.Thread(target=self._watch, args=(started,), daemon=True).start()

    def _watch(self, started: Started) -> None:
        while started.process.returncode is None:
            with suppress(OSError, StopIteration, ValueError):
                lines = self._status.read_text().splitlines()
                line = next(line for line in lines if line.startswith("VmHWM:"))
                self.bytes = max(self.bytes, int(line.split()[1]) * 1024)
            time.sleep(0.05)


def _six_nodes(lab: Lab, **build: Any) -> list[str]:
    """Add the six nodes for which this machine can make programs; return their names."""
    lab.here(build_command=lab.build("here", **build))
    lab.far(build_command=lab.build("far", target=other_target(), **build))
    for triple, system in SYSTEMS.items():
        name = system.name.lower()
        far: Far = lab.far(
            name, target=triple, build_command=lab.build(name, target=triple, **build)
        )
        pass_for(far.home, system)
    return list(lab.nodes)


SCENARIOS: Final = (
    Scenario(
        fault="coordinator killed (-9)",
        phase="100 times in one release",
        play=_hundred_kills,
        seconds=200,
        injects=_KILLS,
    ),
    *(
        Scenario(
            fault="one of seven nodes is out of reach",
            phase=f"{kind}, connect timeout {timeout} s",
            play=partial(_one_is_silent, kind=kind, connect_timeout=timeout),
            runs=2,
            seconds=40,
            alone=True,
        )
        for kind, timeout in ((Kind.SILENT, 2), (Kind.SILENT, 10), (Kind.REFUSE, 10))
    ),
    Scenario(
        fault="a flood of log",
        phase="seven nodes, 200 MB each",
        play=_much_log,
        seconds=300,
        alone=True,
    ),
)
