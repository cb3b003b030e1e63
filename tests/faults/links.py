"""Links that fail in every phase: the release has to survive that by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.faults import judge
from tests.faults.calibration import AFTER_THE_BUILD, PHASES
from tests.faults.scenario import Scenario
from tests.faults.trouble import Kind, Trouble, Way
from tests.releases import host_target, other_target

if TYPE_CHECKING:
    from tests.faults.lab import Lab

# How long it lasts. A pause is shorter than what tells that a link is dead; a refusal, and silence,
# are shorter than the time in which a node has to be reached.
_SECONDS: Final = {Kind.PAUSE: 3.5, Kind.SLOW: 5.0, Kind.REFUSE: 2.0, Kind.SILENT: 2.0}
# A dead link is noticed by keep-alives that are not answered.
_DURATION: Final = {Kind.DEAD: 90.0, Kind.PAUSE: 12.0, Kind.SLOW: 10.0}
_RUNS: Final = {Kind.RESET: 8, Kind.CLOSE: 3, Kind.PAUSE: 3, Kind.SLOW: 3}
_OTHER_RUNS: Final = 2


def _once(lab: Lab, kind: Kind, phase: str) -> None:
    is_late = phase in AFTER_THE_BUILD
    lab.here()
    hold = "go" if is_late else ""
    far = lab.far(build_command=lab.build("far", target=other_target(), hold=hold))
    lab.write()
    way, at_bytes = lab.stage.traffic.position(phase, lab.random)
    seconds = _SECONDS.get(kind, 0)
    trouble = Trouble(kind=kind, way=way, at_bytes=at_bytes, seconds=seconds)
    if is_late:
        with lab.releasing("--json") as coordinator:
            lab.await_silence(far)
            lab.arm(far, replace(trouble, at_bytes=far.wire.passed[way] + at_bytes))
            lab.let_go()
            outcome = lab.end(coordinator)
    else:
        lab.arm(far, trouble)
        outcome = lab.release()
    lab.faults += far.wire.happened
    if (kind, phase) == (Kind.DEAD, "handshake"):
        # Nobody can tell it from a node that is switched off.
        lab.expect(outcome, 0, 3)
    else:
        lab.survive(outcome)


def _cut_every(lab: Lab, way: Way, every_bytes: int) -> None:
    """Cut every link after as many bytes as make no whole transfer: only going on helps."""
    lab.here()
    far = lab.far()
    lab.write()
    lab.arm(far, Trouble(kind=Kind.RESET, way=way, at_bytes=every_bytes, every_bytes=every_bytes))
    outcome = lab.release()
    lab.faults += far.wire.happened
    lab.survive(outcome)


def _never_there(lab: Lab, kind: Kind) -> None:
    """A node that is out of reach for all of a release costs that release nothing else."""
    lab.here()
    far = lab.far()
    lab.write()
    lab.fail_now(far, kind, seconds=10_000)
    lab.faults += 1
    outcome = lab.release()
    lab.expect(outcome, 3)
    if host_target() not in judge.published(lab):
        lab.findings.wrong_report.append("the healthy node is not published")
    lab.expect_named(outcome, r"no answer|refused|cannot connect")


_ONCE: Final = tuple(
    Scenario(
        fault=str(kind),
        phase=phase,
        play=partial(_once, kind=kind, phase=phase),
        runs=_RUNS.get(kind, _OTHER_RUNS),
        seconds=_DURATION.get(kind, 7),
    )
    for kind in Kind
    for phase in PHASES
)

_EVERY: Final = tuple(
    Scenario(
        fault="cut again and again",
        phase=f"every {every_bytes // 1000} kB {way}",
        play=partial(_cut_every, way=way, every_bytes=every_bytes),
        runs=2,
        seconds=25,
        injects=4,
    )
    for way, every_bytes in ((Way.UP, 400_000), (Way.UP, 700_000), (Way.DOWN, 300_000))
)

_GONE: Final = tuple(
    Scenario(
        fault=str(kind),
        phase="the whole release",
        play=partial(_never_there, kind=kind),
        runs=3,
        seconds=15,
    )
    for kind in (Kind.SILENT, Kind.REFUSE)
)

SCENARIOS: Final = (*_ONCE, *_EVERY, *_GONE)
