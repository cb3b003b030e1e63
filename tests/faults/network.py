"""Packets that are lost or late, in every phase."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.faults.packets import HERE, THERE, own_network
from tests.faults.scenario import Scenario
from tests.releases import other_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.lab import Far, Lab
    from tests.faults.packets import Packets

# Six round trips make a handshake, and each packet of it may be lost more than once.
_CONNECT_SECONDS: Final = 30


@contextmanager
def _world(lab: Lab, hold: str = "") -> Iterator[tuple[Packets, Far]]:
    """Yield the packets, and a node at their other end; the lab is judged before they are gone."""
    with own_network(lab.random.random()) as packets:
        lab.here()
        far = lab.direct(
            *(HERE, THERE),
            build_command=lab.build("far", target=other_target(), hold=hold),
            connect_timeout=_CONNECT_SECONDS,
        )
        lab.write()
        yield packets, far
        packets.disturb()
        lab.complete()


Disturb = "Callable[[Packets], None]"


def _lossy(packets: Packets) -> None:
    packets.disturb(delay_seconds=0.15, loss=0.01)


def _nothing(packets: Packets) -> None:
    packets.disturb(loss=1.0)


def _all_of_it(lab: Lab) -> None:
    with _world(lab) as (packets, _):
        _lossy(packets)
        lab.faults += 1
        lab.survive(lab.release())
        lab.notes.append(f"{packets.lost} packets lost")


def _until_it_builds(lab: Lab) -> None:
    with _world(lab, hold="go") as (packets, far):
        _lossy(packets)
        lab.faults += 1
        with lab.releasing("--json") as coordinator:
            lab.wait_for(lambda: lab.has_begun(far.name), "the build begins", seconds=200)
            packets.disturb()
            lab.let_go()
            lab.survive(lab.end(coordinator))


def _while_it_builds(lab: Lab, disturb: Callable[[Packets], None], seconds: float) -> None:
    with _world(lab, hold="go") as (packets, far), lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun(far.name), "the build begins")
        disturb(packets)
        lab.faults += 1
        time.sleep(seconds)
        packets.disturb()
        lab.let_go()
        lab.survive(lab.end(coordinator))


def _after_the_build(lab: Lab, disturb: Callable[[Packets], None], seconds: float) -> None:
    with _world(lab, hold="go") as (packets, far), lab.releasing("--json") as coordinator:
        lab.wait_for(lambda: lab.has_begun(far.name), "the build begins")
        disturb(packets)
        lab.faults += 1
        lab.let_go()
        time.sleep(lab.random.uniform(0, 1))
        if disturb is _nothing:
            time.sleep(seconds)
            packets.disturb()
        lab.survive(lab.end(coordinator))


def _early(lab: Lab, seconds: float) -> None:
    """Nothing passes for a while, from any moment between the first packet and the build."""
    with _world(lab) as (packets, _), lab.releasing("--json") as coordinator:
        time.sleep(lab.random.uniform(0.4, lab.stage.traffic.seconds))
        _nothing(packets)
        lab.faults += 1
        time.sleep(seconds)
        packets.disturb()
        lab.survive(lab.end(coordinator))


def _for_good(lab: Lab) -> None:
    """The node is never seen again in this release: it fails, and the others are published."""
    with _world(lab, hold="go") as (packets, far):
        # No other node is behind the network: it might be ours that is gone.
        lab.nodes[far.name]["reconnect_timeout"] = 20
        lab.write()
        with lab.releasing("--json") as coordinator:
            lab.wait_for(lambda: lab.has_begun(far.name), "the build begins")
            _nothing(packets)
            lab.faults += 1
            lab.let_go()
            lab.expect(lab.end(coordinator), 3)


_LOSSY: Final = "1 % loss, 300 ms round trip"
_NOTHING: Final = "no packet passes"

SCENARIOS: Final = tuple(
    Scenario(fault=fault, phase=phase, play=play, runs=runs, seconds=seconds)
    for fault, phase, play, runs, seconds in (
        (_LOSSY, "the whole release", _all_of_it, 4, 90),
        (_LOSSY, "handshake, probe, push, start", _until_it_builds, 4, 60),
        (_LOSSY, "log", partial(_while_it_builds, disturb=_lossy, seconds=6), 4, 15),
        (_LOSSY, "collect, gate", partial(_after_the_build, disturb=_lossy, seconds=0), 4, 50),
        (_NOTHING, "any, for 6 s", partial(_early, seconds=6), 6, 25),
        (_NOTHING, "log, for 6 s", partial(_while_it_builds, disturb=_nothing, seconds=6), 3, 20),
        (
            _NOTHING,
            "log, for 70 s",
            partial(_while_it_builds, disturb=_nothing, seconds=70),
            2,
            90,
        ),
        (
            _NOTHING,
            "collect, gate, for 8 s",
            partial(_after_the_build, disturb=_nothing, seconds=8),
            3,
            25,
        ),
        (_NOTHING, "log, for good", _for_good, 2, 130),
    )
)
