"""Measures a release without faults: how long it takes, and which bytes belong to which phase."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncssh

from tests.faults.lab import lab
from tests.faults.wire import Way

if TYPE_CHECKING:
    import random

    from tests.faults.lab import Far
    from tests.faults.stage import Stage

# In their order; a node's traffic is cut into these.
PHASES: Final = ("handshake", "probe", "push", "start", "log", "collect", "gate")
# What a release says of a node when the phase is over; what is not said is seen otherwise.
_ENDS: Final = {
    "pushing source": "probe",
    "building": "start",
    "collecting": "log",
    "gating": "collect",
    "checking": "gate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The bytes of each phase as (first, last) of each way, and the seconds of a release."""

    spans: dict[str, dict[Way, tuple[int, int]]]
    seconds: float

    def position(self, phase: str, chance: random.Random) -> tuple[Way, int]:
        """Return a way and a number of bytes that falls into the phase."""
        ways = [way for way in Way if self.spans[phase][way][1] > self.spans[phase][way][0]]
        way = chance.choice(ways)
        return way, chance.randint(*self.spans[phase][way])


def measure(stage: Stage) -> Traffic:
    """Release twice without a fault: what only the first one has to do is not measured."""
    with lab(stage, "warm-up", "1") as warm:
        warm.here()
        warm.write()
        assert warm.release().code == 0, warm.last
    with lab(stage, "calibration", "1") as made:
        made.here()
        far = made.far()
        made.write()
        shaken = asyncio.run(_shake_hands(far))
        marks: dict[str, dict[Way, int]] = {"handshake": {way: shaken[way] for way in Way}}
        begun = time.monotonic()
        with made.releasing() as started:
            assert started.process.stderr is not None
            for line in started.process.stderr:
                _note(line, far, marks)
            assert started.process.wait() == 0
        seconds = time.monotonic() - begun
    for counts in marks.values():
        for way in Way:
            counts[way] -= shaken[way]
    marks["handshake"] = shaken
    # Nothing says where a push ends; all of the source has gone up by then.
    sources = {Way.UP: stage.bundle_bytes, Way.DOWN: 0}
    marks["push"] = {way: marks["probe"][way] + sources[way] for way in Way}
    marks["push"][Way.DOWN] += 1000
    return Traffic(spans=_spans(marks), seconds=seconds)


def _note(line: str, far: Far, marks: dict[str, dict[Way, int]]) -> None:
    for said, phase in _ENDS.items():
        if f"{far.name}/" in line and f": {said}" in line:
            marks[phase] = dict(far.wire.passed)


def _spans(marks: dict[str, dict[Way, int]]) -> dict[str, dict[Way, tuple[int, int]]]:
    spans: dict[str, dict[Way, tuple[int, int]]] = {}
    before = dict.fromkeys(Way, 0)
    for phase in PHASES:
        spans[phase] = {way: (before[way] + 1, marks[phase][way]) for way in Way}
        before = marks[phase]
    return spans


async def _shake_hands(far: Far) -> dict[Way, int]:
    """Log in and out again; return what that took."""
    async with asyncssh.connect(
        "127.0.0.1",
        far.wire.port,
        username=far.server.host.partition("@")[0],
        client_keys=[str(far.server.identity)],
        known_hosts=None,
        agent_path=None,
    ):
        return dict(far.wire.passed)
