"""What a release spent its time on: the phases of its critical path, and what was around them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.critical_path import critical_path, work_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.core.critical_path import Segment, Work

PLANNING: Final = "planning"
HANDING_OVER: Final = "handing over"
FINISHING: Final = "finishing"
# What the clock cannot tell apart.
_LEAST_SECONDS: Final = 0.002


def timings_as_data(board: Mapping[str, Any], *, began: datetime) -> dict[str, Any]:
    """Return where the time of a release went (`Board.as_data` at its end), from its own begin on.

    `waited_for` lists, in order and without gaps, what all of it waited for: phases of nodes on the
    critical path, and without a node what came before them (reading the index, planning, the
    source) and after (the index, the installer, reading it back). `slowest_build_seconds` is what
    the node that built longest took by its own clock, None where nobody built now; `ratio` is all
    of the time divided by it.
    """
    end = _seconds(board["ended"], began)
    works = [
        work_of(row, [(each["phase"], *_span(each, began, end)) for each in row["spans"]])
        for row in board["rows"]
        if row["spans"]
    ]
    builds = [
        (row["took_seconds"], row["node"])
        for row in board["rows"]
        if row["took_seconds"] is not None and not row["was_attached"]
    ]
    seconds, node = max(builds, default=(None, None))
    return {
        "seconds": round(end, 3),
        "slowest_build": node,
        "slowest_build_seconds": seconds,
        "ratio": seconds and round(end / seconds, 3),
        "waited_for": list(_waits(works, end)),
    }


def _waits(works: Sequence[Work], end: float) -> Iterator[dict[str, Any]]:
    by_node = {work.node: work for work in works}
    at = 0.0
    for segment in critical_path(works):
        for phase, first, last in _clipped(by_node[segment.node], segment):
            if first - at >= _LEAST_SECONDS:
                yield _wait(None, HANDING_OVER if at else PLANNING, (at, first))
            yield _wait(segment.node, phase, (first, last))
            at = last
    if end - at >= _LEAST_SECONDS:
        yield _wait(None, FINISHING, (at, end))


def _clipped(work: Work, segment: Segment) -> Iterator[tuple[str, float, float]]:
    for phase, first, last in work.spans:
        begin, end = max(first, segment.begin), min(last, segment.end)
        if end - begin >= _LEAST_SECONDS:
            yield phase, begin, end


def _wait(node: str | None, phase: str, span: tuple[float, float]) -> dict[str, Any]:
    begin, end = span
    return {
        "node": node,
        "phase": phase,
        "from_seconds": round(begin, 3),
        "seconds": round(end - begin, 3),
    }


def _span(span: Mapping[str, Any], began: datetime, end: float) -> tuple[float, float]:
    last = end if span["to"] is None else _seconds(span["to"], began)
    return _seconds(span["from"], began), last


def _seconds(text: str, began: datetime) -> float:
    return (datetime.fromisoformat(text) - began).total_seconds()
