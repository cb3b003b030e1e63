"""Every scenario there is, and which of them are played."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.faults import acceptance, cancels, disks, kills, lies, links, machines, network, races

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.scenario import Scenario

    # A scenario, and which of its runs.
    Chosen = tuple[Scenario, int]

SCENARIOS: Final = (
    *kills.SCENARIOS,
    *links.SCENARIOS,
    *network.SCENARIOS,
    *machines.SCENARIOS,
    *disks.SCENARIOS,
    *lies.SCENARIOS,
    *races.SCENARIOS,
    *cancels.SCENARIOS,
    *acceptance.SCENARIOS,
)

# The sample is for every change: it must not wait for a single run.
_SAMPLE_SECONDS: Final = 30


def choose(
    scenarios: Sequence[Scenario],
    *,
    seed: str,
    faults: int | None,
    only: str | None,
    number: int | None,
) -> list[Chosen]:
    """Return what is played: all of it, or a sample that has something of every kind of fault."""
    every = [
        (scenario, run)
        for scenario in scenarios
        if only is None or only in scenario.name
        for run in range(scenario.runs)
        if number is None or run == number
    ]
    return every if faults is None else _sample(every, seed, faults)


def _sample(every: list[Chosen], seed: str, faults: int) -> list[Chosen]:
    shuffled = [one for one in every if one[0].seconds <= _SAMPLE_SECONDS]
    random.Random(seed).shuffle(shuffled)
    kinds: dict[str, list[Chosen]] = {}
    for one in shuffled:
        kinds.setdefault(one[0].fault, []).append(one)
    taken: set[tuple[str, int]] = set()
    count = 0
    # Each kind in its turn, so that no kind is left out because another one has many runs.
    while count < faults and any(kinds.values()):
        for waiting in kinds.values():
            if waiting and count < faults:
                scenario, run = waiting.pop()
                taken.add((scenario.name, run))
                count += scenario.injects
    return [one for one in every if (one[0].name, one[1]) in taken]
