"""What a release waited for, from its end back to its begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.events import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Who gets a machine that is free needs a moment to begin.
_HANDOVER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the path: what a node did from one time to another, in seconds of the caller."""

    node: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a node did, and when: its phases in order, none of them open."""

    node: str
    group: str
    stands_by_for: str | None
    spans: Sequence[tuple[str, float, float]]

    @property
    def begin(self) -> float:
        """When it began."""
        return self.spans[0][1]

    @property
    def end(self) -> float:
        """When it was over."""
        return self.spans[-1][2]

    @property
    def build(self) -> tuple[float, float] | None:
        """When its last build began and ended, None if it never built."""
        builds = [(begin, end) for phase, begin, end in self.spans if phase == Phase.BUILDING]
        return builds[-1] if builds else None


def work_of(row: Mapping[str, Any], spans: Sequence[tuple[str, float, float]]) -> Work:
    """Return the work of a row of a board whose spans are given in seconds; there is one."""
    return Work(
        node=row["node"], group=row["group"], stands_by_for=row["stands_by_for"], spans=spans
    )


def critical_path(works: Sequence[Work]) -> tuple[Segment, ...]:
    """Return the path, first part first: shortening anything else would not end it earlier.

    The last part is that of the node that was done last. Before it, the path leads to whom that
    node took over from, or to whose build on the same machine it waited for.
    """
    by_node = {work.node: work for work in works}
    work = max(works, key=lambda each: each.end, default=None)
    segments: list[Segment] = []
    end = work.end if work else 0.0
    while work is not None:
        del by_node[work.node]
        before = _awaited(work, by_node)
        begin = max(work.begin, before[1]) if before else work.begin
        segments.append(Segment(node=work.node, begin=min(begin, end), end=end))
        work, end = before or (None, 0.0)
    return tuple(reversed(segments))


def _awaited(work: Work, others: Mapping[str, Work]) -> tuple[Work, float] | None:
    """Return who had to be done before this one could go on, and when that was."""
    if first := others.get(work.stands_by_for or ""):
        return first, first.end
    if work.build is None:
        return None
    begin = work.build[0]
    on_machine = [
        (other, other.build[1])
        for other in others.values()
        if other.group == work.group
        and other.build is not None
        and max(work.begin, begin - _HANDOVER_SECONDS) <= other.build[1] <= begin
    ]
    return max(on_machine, key=lambda each: each[1], default=None)
