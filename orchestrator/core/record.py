"""What builds of the past tell of the next one: how long it takes, and who is up to it.

docs/placement.md says the same for people.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.core.inventory import Node

# Enough to forget a machine that was replaced, and not to jump with one slow night.
_REMEMBERED: Final = 5
# Each build counts this much less than the one after it.
_FADING: Final = 0.7
# How long one failure of the machine speaks against it; each further one in a row doubles it.
_TROUBLE: Final = timedelta(hours=24)
_LONGEST_TROUBLE: Final = timedelta(days=7)
# As many builds as a success rate looks back on.
_RATED: Final = 20


class Warmth(StrEnum):
    """Whether a build found what an earlier one had left in its target folder."""

    COLD = "cold"
    WARM = "warm"


class Outcome(StrEnum):
    """How a build ended, and who was at fault."""

    BUILT = "built"
    MACHINE = "machine"
    BUILD = "build"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastBuild:
    """One build as it is on record; None is what nobody wrote down.

    `took` is the command's own time on the node where that is known, else the node's whole part of
    a release. A build whose warmth is None went to a folder of its command's own choice. `rustc` is
    the release of the compiler that built it; `is_pinned` says that the project chose it, and not
    the node.
    """

    node: str
    outcome: Outcome = Outcome.BUILT
    took: timedelta | None = None
    target: str | None = None
    warmth: Warmth | None = None
    at: datetime | None = None
    version: str | None = None
    rustc: str | None = None
    is_pinned: bool = False
    is_bench: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The builds of the past, in the order in which they ended; `now` is when that is read."""

    builds: tuple[PastBuild, ...] = ()
    now: datetime | None = None
    _by_node: Mapping[str, tuple[PastBuild, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        by_node: dict[str, list[PastBuild]] = {}
        for build in self.builds:
            by_node.setdefault(build.node, []).append(build)
        sorted_out = {name: tuple(builds) for name, builds in by_node.items()}
        object.__setattr__(self, "_by_node", sorted_out)

    def of(self, node: Node) -> tuple[PastBuild, ...]:
        """Return what the node built for its target; who wrote no target down meant this one."""
        builds = self._by_node.get(node.name, ())
        return tuple(build for build in builds if build.target in {None, node.target.triple})

    def expected(self, node: Node, *, is_cold: bool = False) -> timedelta | None:
        """Return how long the node's next build takes, None if it never built anything.

        A node that has only cold builds on record is believed to need as long again, although
        the next may be a warm one; so is, with `is_cold`, one that has only warm ones.
        """
        built = [
            (build.warmth, build.took)
            for build in self.of(node)
            if build.outcome is Outcome.BUILT and build.took is not None
        ]
        unwanted = Warmth.WARM if is_cold else Warmth.COLD
        wanted = [took for warmth, took in built if warmth is not unwanted]
        return faded_median((wanted or [took for _, took in built])[-_REMEMBERED:])

    def success_rate(self, node: Node) -> float | None:
        """Return the part of the node's last builds that no machine has failed, None without any.

        A compile error is no failure of the node's.
        """
        builds = self.of(node)[-_RATED:]
        if not builds:
            return None
        return sum(build.outcome is not Outcome.MACHINE for build in builds) / len(builds)

    def is_in_trouble(self, node: Node) -> bool:
        """Whether the machine failed its last build, and lately: a day ago, or, after more, longer.

        Whatever else became of a later build, the machine was up to it.
        """
        builds = self.of(node)
        failures = 0
        for build in reversed(builds):
            if build.outcome is not Outcome.MACHINE:
                break
            failures += 1
        last = builds[-1].at if failures else None
        if last is None or self.now is None:
            return False
        patience = min(_TROUBLE * (1 << min(failures - 1, 8)), _LONGEST_TROUBLE)
        # A clock that was far ahead speaks against nobody until its day comes.
        return abs(self.now - last) < patience

    def last_delivery(self, target: str) -> PastBuild | None:
        """Return what was built last for a release, on whatever node, if its rustc is known."""
        for build in reversed(self.builds):
            is_delivery = build.outcome is Outcome.BUILT and not build.is_bench
            if is_delivery and build.target == target and build.version and build.rustc:
                return build
        return None


def drift(last: PastBuild | None, *, node: str, rustc: str | None) -> str | None:
    """Return how a node's compiler differs from that of the last release of its target, or None."""
    if last is None or rustc is None or last.rustc == rustc:
        return None
    where = "" if last.node == node else f" on {last.node}"
    return (
        f"rustc {rustc}, and the last release ({last.version}) was built with {last.rustc}{where}"
    )


def faded_median(values: Iterable[timedelta]) -> timedelta | None:
    """Return the median of values, the newest last; older ones count less. None of none."""
    weighted = sorted((value, _FADING**age) for age, value in enumerate(reversed(tuple(values))))
    half = sum(weight for _, weight in weighted) / 2
    reached = 0.0
    for value, weight in weighted:
        reached += weight
        if reached >= half:
            return value
    return None
