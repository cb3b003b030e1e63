"""Measures a release without faults: how long it takes, and which bytes belong to which phase."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncssh

from tests.faults.lab import lab
from tests.faults.trouble import Way
from tests.releases import other_target

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from tests.faults.lab import Far, Lab
    from tests.faults.stage import Stage

# In their order; a node's traffic is cut into these.
PHASES: Final = ("handshake", "probe", "push", "start", "log", "collect", "gate")
AFTER_THE_BUILD: Final = ("collect", "gate")
# What a release says of a node when the phase is over; what is not said is seen otherwise.
_ENDS: Final = {
    "pushing source": "probe",
    "building": "start",
    "gating": "collect",
    "checking": "gate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The bytes of each phase as (first, last) of each way, and the seconds of a release.

    How much is asked while a build runs depends on the moment, so what comes after it is counted
    from the end of a silent build: see `Lab.await_silence`.
    """

    spans: dict[str, dict[Way, tuple[int, int]]]
    seconds: float

    def position(self, phase: str, chance: random.Random) -> tuple[Way, int]:
        """Return a way and a number of bytes that falls into the phase."""
        spans = self.spans[phase]
        ways = [way for way in Way if spans[way][1] > spans[way][0]]
        # A log comes down; what goes up meanwhile are the scripts that ask for it.
        way = chance.choice([*ways, Way.DOWN, Way.DOWN] if phase == "log" else ways)
        return way, chance.randint(*spans[way])


def measure(stage: Stage) -> Traffic:
    """Release without a fault, after a release that did what has to be done once."""
    with lab(stage, "warm-up", "1") as warm:
        warm.here()
        warm.far()
        warm.write()
        assert warm.release().code == 0, warm.last
    with lab(stage, "timing", "1") as timed:
        timed.here()
        timed.far()
        timed.write()
        begun = time.monotonic()
        assert timed.release().code == 0, timed.last
        seconds = time.monotonic() - begun
    with lab(stage, "calibration", "1") as made:
        return Traffic(spans=_spans(_marks(made)), seconds=seconds)


_Counts = dict[Way, int]


def _marks(made: Lab) -> dict[str, _Counts]:
    """Return the bytes that had gone by at the end of each phase."""
    made.here()
    far = made.far(build_command=made.build("far", target=other_target(), hold="go"))
    made.write()
    marks = {"handshake": asyncio.run(_shake_hands(far))}
    far.wire.passed = dict.fromkeys(Way, 0)
    with made.releasing() as started:
        assert started.process.stderr is not None
        reader = threading.Thread(target=_note_all, args=(started.process.stderr, far, marks))
        reader.start()
        made.await_silence(far)
        marks["log"] = dict(far.wire.passed)
        made.let_go()
        reader.join()
        assert started.process.wait() == 0
    # Nothing says where a push ends; all of the source has gone up by then.
    marks["push"] = {
        Way.UP: marks["probe"][Way.UP] + made.stage.bundle_bytes,
        Way.DOWN: marks["probe"][Way.DOWN] + 1000,
    }
    return marks


def _note_all(lines: Iterable[str], far: Far, marks: dict[str, _Counts]) -> None:
    for line in lines:
        _note(line, far, marks)


def _note(line: str, far: Far, marks: dict[str, dict[Way, int]]) -> None:
    for said, phase in _ENDS.items():
        if f"{far.name}/" in line and f": {said}" in line:
            marks[phase] = dict(far.wire.passed)


def _spans(marks: dict[str, _Counts]) -> dict[str, dict[Way, tuple[int, int]]]:
    spans: dict[str, dict[Way, tuple[int, int]]] = {}
    before = dict.fromkeys(Way, 0)
    for phase in PHASES:
        base = marks["log"] if phase in AFTER_THE_BUILD else dict.fromkeys(Way, 0)
        spans[phase] = {
            way: (before[way] + 1 - base[way], marks[phase][way] - base[way]) for way in Way
        }
        before = marks[phase]
    return spans


async def _shake_hands(far: Far) -> dict[Way, int]:
    """Log in and out again; return what that took."""
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{far.wire.port} {far.server.host_key}")
    async with asyncssh.connect(
        "127.0.0.1",
        far.wire.port,
        username=far.server.host.partition("@")[0],
        client_keys=[str(far.server.identity)],
        known_hosts=known,
        agent_path=None,
    ):
        return dict(far.wire.passed)
