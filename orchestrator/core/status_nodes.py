"""The nodes of a release that runs, as a list: what each is at, how long yet, what it says."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.core.board import time_text
from orchestrator.core.board_view import row_view
from orchestrator.core.log_tail import Lines
from orchestrator.core.status_words import (
    badge,
    duration_text,
    instant,
    log_address,
    moment,
    plain,
    target_title,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from orchestrator.core.board_view import LiveRelease

_NO_LINES = Lines(first=0, lines=())


def render_nodes(release: LiveRelease, *, now: datetime) -> str:
    """Return the list; status.js finds each node by its name and the order's key."""
    if not release.data["rows"]:
        return '<p class="quiet">It is being planned: which nodes build what.</p>'
    items = "\n".join(_node(row, release, now=now) for row in release.data["rows"])
    return f'<ul class="nodes">\n{items}\n</ul>'


def _node(row: Mapping[str, Any], release: LiveRelease, *, now: datetime) -> str:
    view = row_view(row)
    name, state = plain(view["node"]), plain(view["state"])
    log = release.logs.get(view["node"], _NO_LINES)
    return (
        f'<li class="node {state}" data-release="{plain(release.order.key)}" '
        f'data-node="{name}">\n'
        f'<p class="name"><b>{name}</b> '
        f'<span class="quiet">{plain(target_title(row["target"]))}</span></p>\n'
        f'<p class="phase">{badge(view["state"], view["phase"])} '
        f'<span class="note">{plain(view["note"])}</span></p>\n'
        f"{_clock(view, now)}\n{_log(log, release.order.version, name)}\n</li>"
    )


def progress_line(data: Mapping[str, Any], now: datetime) -> str:
    """Return how long a release has been running, when it should be built, and what it is at."""
    began = instant(data["began"])
    finish = (data["forecast"] or {}).get("finish_seconds")
    is_open = any(row["result"] is None for row in data["rows"])
    due = began + timedelta(seconds=finish) if finish and is_open else None
    stage = f' <span class="stage">{plain(data["stage"])}</span>' if data["stage"] else ""
    return (
        f'<p class="clock quiet" data-began="{data["began"]}" data-ended="" '
        f'data-due="{time_text(due) or ""}">since {moment(began)}, '
        f'<span class="elapsed">{duration_text(now - began)}</span> '
        f'<span class="left">{left_text(due, now) if due else ""}</span>{stage}</p>'
    )


def _clock(view: Mapping[str, Any], now: datetime) -> str:
    began, ended, due = (view[key] and instant(view[key]) for key in ("began", "ended", "due"))
    elapsed = duration_text((ended or now) - began) if began else ""
    left = left_text(due, now) if due else ""
    return (
        f'<p class="clock" data-began="{view["began"] or ""}" data-ended="{view["ended"] or ""}" '
        f'data-due="{view["due"] or ""}"><span class="elapsed">{elapsed}</span> '
        f'<span class="left">{left}</span></p>\n{_progress(view, now)}'
    )


def left_text(due: datetime, now: datetime) -> str:
    """Return how long a build is expected to take yet, and until when."""
    if now > due:
        return f"expected at {due:%H:%M} UTC, late by {duration_text(now - due)}"
    return f"expected at {due:%H:%M} UTC, in {duration_text(due - now)}"


def _progress(view: Mapping[str, Any], now: datetime) -> str:
    expected, since = view["expected"], view["since"]
    is_building = view["phase"] == "building" and expected and since
    done = min((now - instant(since)).total_seconds(), expected) if is_building else 0
    hidden = f' data-since="{since}"' if is_building else " hidden"
    return (
        f'<progress max="{expected or 1}" value="{done:.0f}" '
        f'aria-label="expected progress of the build"{hidden}></progress>'
    )


def _log(log: Lines, version: str, name: str) -> str:
    last = log.lines[-1] if log.lines else ""
    hidden = "" if log.lines else " hidden"
    text = plain("\n".join(log.lines))
    return (
        f'<details class="log"{hidden}>\n'
        f'<summary><code class="last">{plain(last)}</code></summary>\n'
        f'<pre tabindex="0" role="region" aria-label="end of the log of {name}" '
        f'data-next="{log.next}">\n{text}</pre>\n'
        f'<p><a href="{plain(log_address(version, name))}">The log</a></p></details>'
    )
