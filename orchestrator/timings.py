"""How builds went: a record beside the logs, which may be deleted."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.record import Outcome, PastBuild, Record, Warmth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST_SECONDS: Final = timedelta(days=30).total_seconds()
# Years of releases; what is further up in a longer file is not looked at.
_LIMIT_BYTES: Final = 8 << 20


def read_record(path: Path, *, now: datetime | None = None) -> Record:
    """Return the builds on record; lines that are damaged count for nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LIMIT_BYTES))
            lines = file.read().splitlines()
    except OSError:
        lines = []
    return Record(builds=tuple(_builds(lines)), now=now)


def append_build(path: Path, build: PastBuild) -> None:
    """Add one build; one write in append mode, so that two coordinators don't mix their lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(_entry(build))
    # A machine that lost its power may have left half a line.
    start = "" if _ends_a_line(path) else "\n"
    with path.open("ab") as file:
        file.write(f"{start}{line}\n".encode())


def _builds(lines: list[bytes]) -> Iterator[PastBuild]:
    for line in lines:
        with suppress(
            ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
        ):
            yield _build(json.loads(line))


def _build(entry: Any) -> PastBuild:
    seconds = entry.get("seconds")
    outcome = Outcome(entry.get("outcome", Outcome.BUILT))
    if seconds is None and outcome is Outcome.BUILT:
        raise ValueError
    if seconds is not None and not 0 <= float(seconds) <= _LONGEST_SECONDS:  # which no NaN is
        raise ValueError
    warmth, at = entry.get("warmth"), entry.get("at")
    moment = None if at is None else datetime.fromisoformat(at)
    if moment is not None and moment.tzinfo is None:
        raise ValueError
    return PastBuild(
        node=str(entry["node"]),
        outcome=outcome,
        took=None if seconds is None else timedelta(seconds=float(seconds)),
        target=_text(entry, "target"),
        warmth=None if warmth is None else Warmth(warmth),
        at=moment,
        version=_text(entry, "version"),
        rustc=_text(entry, "rustc"),
        is_pinned=entry.get("pinned") is True,
        is_bench=entry.get("bench") is True,
    )


def _text(entry: Any, name: str) -> str | None:
    value = entry.get(name)
    return None if value is None else str(value)


def _entry(build: PastBuild) -> dict[str, object]:
    told = {
        "node": build.node,
        "target": build.target,
        "outcome": build.outcome.value,
        "seconds": None if build.took is None else round(build.took.total_seconds(), 3),
        "warmth": build.warmth and build.warmth.value,
        "at": build.at and f"{build.at:%Y-%m-%dT%H:%M:%S%z}",
        "version": build.version,
        "rustc": build.rustc,
        "pinned": build.is_pinned or None,
        "bench": build.is_bench or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _ends_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            # Not all of it: a release of a thousand nodes adds as many lines.
            file.seek(max(0, path.stat().st_size - 1))
            return file.read() in {b"", b"\n"}
    except FileNotFoundError:
        return True
