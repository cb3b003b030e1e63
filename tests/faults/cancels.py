"""Cancellation in every phase: the whole tree goes, and its lock with it, not before it."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from orchestrator.cli import COMMANDS
from tests.faults import judge
from tests.faults.lab import GONE_SECONDS
from tests.faults.scenario import NotRunError, Scenario
from tests.releases import VERSION, Outcome, other_target
from tests.terminal import CTRL_C, at_terminal

if TYPE_CHECKING:
    from tests.faults.lab import Lab
    from tests.releases import Started

# Ignores what it is told, and leaves one child in a session of its own whose parent is gone.
_STUBBORN: Final = """\
trap '' TERM HUP INT
(setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' >/dev/null 2>&1 &)
(trap '' TERM; while :; do sleep 1; done) &
"""


def _in_the_build(lab: Lab, *, is_watched: bool, first: str) -> None:
    _require_cancel()
    lab.here()
    lab.far(build_command=lab.build("far", target=other_target(), hold="go", first=first))
    lab.write()
    with lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        time.sleep(lab.random.uniform(0, 1))
        if not is_watched:
            coordinator.signal(signal.SIGKILL)
            coordinator.process.wait()
        _cancel(lab, "far")
        if is_watched:
            _expect_told(lab, coordinator)


def _expect_told(lab: Lab, coordinator: Started) -> None:
    outcome = lab.end(coordinator)
    lab.expect(outcome, 3)
    lab.expect_named(outcome, "cancelled")


def _while_it_waits(lab: Lab) -> None:
    _require_cancel()
    names = ("here", "second")
    lab.here("here", build_command=lab.build("here", hold="go"))
    target = other_target()
    lab.here("second", target=target, build_command=lab.build("second", target=target, hold="go"))
    lab.write()
    with lab.releasing("--json") as coordinator:
        lab.wait_for(
            lambda: all(list(judge.workdir(lab, name).glob("jobs/*/pid")) for name in names),
            "one node waits for the other",
        )
        lab.wait_for(lambda: any(map(lab.has_begun, names)), "one builds")
        (waiting,) = (name for name in names if not lab.has_begun(name))
        _cancel(lab, waiting)
        if lab.has_begun(waiting):
            lab.findings.wrong_report.append(f"{waiting} was cancelled while it waited, and began")
        lab.let_go()
        _expect_told(lab, coordinator)


def _at_any_moment(lab: Lab) -> None:
    """Whatever it hits, the command says so, and what it hit is gone."""
    _require_cancel()
    lab.here()
    lab.far()
    lab.write()
    with lab.releasing("--json") as coordinator:
        time.sleep(lab.random.uniform(0.3, lab.stage.traffic.seconds))
        lab.excused["here"] += 1
        lab.excused["far"] += 1
        _cancel(lab)
        lab.expect(lab.end(coordinator), 0, 3)


def _after_the_end(lab: Lab) -> None:
    _require_cancel()
    lab.here()
    lab.far()
    lab.write()
    lab.survive(lab.release())
    _cancel(lab)


def _twice_ctrl_c(lab: Lab) -> None:
    _require_cancel()
    lab.here()
    lab.far(build_command=lab.build("far", target=other_target(), hold="go", first=_STUBBORN))
    lab.write()
    with at_terminal(lab.desk.inventory, "release", "--version", VERSION) as terminal:
        lab.wait_for(lambda: lab.has_begun("far"), "the build begins")
        terminal.type(CTRL_C)
        terminal.wait_for("another Ctrl-C within")
        terminal.type(CTRL_C)
        # Both are ended if they are still at work.
        for name in ("here", "far"):
            lab.excused[name] += 1
        lab.faults += 1
        code = terminal.end()
        lab.expect(Outcome(code=code, out="", err=terminal.said.decode(errors="replace")), 130)
        _expect_gone(lab)


def _cancel(lab: Lab, *nodes: str) -> None:
    outcome = lab.desk.run("cancel", VERSION, *nodes)
    lab.faults += 1
    for node in nodes:
        lab.excused[node] += 1
    if outcome.code != 0 or "Traceback" in outcome.err:
        lab.findings.wrong_report.append(f"cancel: exit code {outcome.code}: {outcome.err[-1500:]}")
    _expect_gone(lab, *nodes)


def _expect_gone(lab: Lab, *nodes: str) -> None:
    """Note what is left of the jobs after the time that the issue allows."""
    marks = [f"{judge.workdir(lab, node)}/jobs/" for node in nodes] or [str(lab.folder)]
    deadline = time.monotonic() + GONE_SECONDS

    def left() -> list[str]:
        return [
            f"{process.pid}: {process.arguments[:150]}"
            for process in lab.remains
            if process.is_marked and any(mark in process.mark for mark in marks)
        ]

    while (survivors := left()) and time.monotonic() < deadline:
        time.sleep(0.1)
    lab.findings.left_behind += [f"{GONE_SECONDS} s after cancel: {line}" for line in survivors]


def _require_cancel() -> None:
    if "cancel" not in COMMANDS:
        raise NotRunError("`orchestrator cancel` does not exist yet")


_FAULT: Final = "cancelled"

SCENARIOS: Final = tuple(
    Scenario(fault=_FAULT, phase=phase, play=play, runs=runs, seconds=20)
    for phase, play, runs in (
        ("waiting for the host", _while_it_waits, 4),
        ("build", partial(_in_the_build, is_watched=True, first=""), 4),
        ("build that ignores TERM", partial(_in_the_build, is_watched=True, first=_STUBBORN), 4),
        ("build; nobody is watching", partial(_in_the_build, is_watched=False, first=""), 4),
        ("at a random moment", _at_any_moment, 12),
        ("after the end", _after_the_end, 2),
        ("by Ctrl-C, twice", _twice_ctrl_c, 4),
    )
)
