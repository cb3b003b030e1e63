"""Where the time of a release went, as a person reads it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.console import Terminal, print_table
from orchestrator.core.wording import human_time, visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO


def show_timings(timings: Mapping[str, Any], stream: TextIO) -> None:
    """Write what all of the release waited for, in its order (`core.waiting.timings_as_data`)."""
    terminal = Terminal(stream)
    terminal.print()
    rows = [
        (
            _time(wait["from_seconds"]),
            _time(wait["seconds"]),
            visible(wait["node"] or ""),
            visible(wait["phase"]),
        )
        for wait in timings["waited_for"]
    ]
    print_table(terminal, ("at", "for", "node", "it waited for"), rows)
    terminal.print(Text(_summary(timings)))


def _summary(timings: Mapping[str, Any]) -> str:
    took = f"{timings['seconds']:.1f}s in all"
    if timings["slowest_build"] is None:
        return f"{took}; nothing was built"
    build = f"{timings['slowest_build_seconds']:.1f}s of {visible(timings['slowest_build'])}"
    return f"{took}: {timings['ratio']:.2f} times the slowest build, {build}"


def _time(seconds: float) -> str:
    return human_time(timedelta(seconds=seconds))
