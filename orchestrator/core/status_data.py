"""What the status pages show, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.core.board import time_text
from orchestrator.core.status_words import board_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.core.freshness import Freshness
    from orchestrator.core.order import Entry
    from orchestrator.core.status_shell import Present, Site


def status_as_data(
    site: Site, present: Present, entries: Sequence[Entry], *, platforms: Sequence[Freshness]
) -> Mapping[str, Any]:
    """Return what `/status.json` is: orders without their nodes, the newest first."""
    return {
        "project": site.project,
        "now": time_text(present.now),
        "running": [each.data for each in present.running.values()],
        "releases": [_summary(each) for each in entries],
        "platforms": [each.as_data() for each in platforms],
    }


def release_as_data(present: Present, attempts: Sequence[Entry]) -> Mapping[str, Any]:
    """Return what `/status/releases/VERSION.json` is: every attempt, the newest first."""
    return {
        "version": attempts[0].order.version,
        "now": time_text(present.now),
        "attempts": [_attempt(each, present) for each in attempts],
    }


def _summary(entry: Entry) -> Mapping[str, Any]:
    outcome: Mapping[str, Any] = entry.outcome or {}
    kept = ("published", "pending", "exit_code", "error", "hint")
    return {**entry.as_data(), "outcome": {key: outcome.get(key) for key in kept}}


def _attempt(entry: Entry, present: Present) -> Mapping[str, Any]:
    live = present.running.get(entry.order.key)
    return {**entry.as_data(), "outcome": live.data if live else board_of(entry)}
