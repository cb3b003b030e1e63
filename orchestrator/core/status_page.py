"""The status page: what runs, what waits, what each platform gets, and what was."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.order import State
from orchestrator.core.status_nodes import left_text, render_nodes
from orchestrator.core.status_shell import render_shell
from orchestrator.core.status_words import (
    age_text,
    attempt_address,
    badge,
    board_of,
    duration_text,
    instant,
    moment,
    release_address,
    state_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from orchestrator.core.board_view import LiveRelease
    from orchestrator.core.freshness import Freshness
    from orchestrator.core.order import Entry, Order
    from orchestrator.core.status_shell import Present, Site

RECENT: Final = 20


def render_status(
    site: Site, present: Present, *, entries: Sequence[Entry], platforms: Sequence[Freshness]
) -> str:
    """Return the page; `entries` are the newest first."""
    here = [_live(each, present.now) for each in present.running.values()]
    elsewhere = [
        _elsewhere(each)
        for each in entries
        if each.state is State.RUNNING and each.order.key not in present.running
    ]
    waiting = [
        each
        for each in reversed(entries)
        if each.state is State.QUEUED and each.order.key not in present.running
    ]
    past = [each for each in entries if each.state.is_final][:RECENT]
    parts = [
        _section("now", "Now", "\n".join((*here, *elsewhere)) or _IDLE),
        _section("queue", "Waiting", _queue(waiting, present)) if waiting else "",
        _section("platforms", "What each platform gets", _platforms(platforms, present.now)),
        _section("history", "History", history_table(past, present.now)),
    ]
    return render_shell(
        site,
        present,
        title=f"{site.project}: releases",
        header=f"<h1>{escape(site.project)} <b>releases</b></h1>\n{_summary(present, platforms)}",
        main="\n".join(part for part in parts if part),
        is_live=bool(here or elsewhere or waiting),
    )


def render_history(site: Site, present: Present, entries: Sequence[Entry]) -> str:
    """Return the page of all releases that are remembered."""
    past = [each for each in entries if each.state.is_final]
    return render_shell(
        site,
        present,
        title=f"{site.project}: history of releases",
        header=f"<h1>{escape(site.project)} <b>history</b></h1>",
        main=_section("history", "History", history_table(past, present.now)),
        is_live=False,
    )


def _section(name: str, title: str, content: str) -> str:
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n{content}\n</section>'
    )


def _summary(present: Present, platforms: Sequence[Freshness]) -> str:
    late = sum(each.is_late for each in platforms)
    words = [f"{each.order.version} is being released." for each in present.running.values()] or [
        "Nothing is being released."
    ]
    if late:
        words.append(f"{late} of {len(platforms)} platforms are late.")
    newest = next((each.newest for each in platforms if each.newest), None)
    if newest:
        words.append(f"The newest version is {newest}.")
    return f"<p>{escape(' '.join(words))}</p>"


def _live(release: LiveRelease, now: datetime) -> str:
    nodes = render_nodes(release, now=now)
    return f"{_title(release.order)}\n{progress_line(release.data, now)}\n{nodes}"


def _elsewhere(entry: Entry) -> str:
    where = escape(entry.coordinator or "another coordinator")
    return f"{_title(entry.order)}\n<p>It runs on {where}, whose own page shows it live.</p>"


def _title(order: Order) -> str:
    address, version = escape(release_address(order.version)), escape(order.version)
    return f'<h3><a href="{address}">{version}</a></h3>'


def progress_line(data: Mapping[str, Any], now: datetime) -> str:
    """Return how long a release has been running, what it is at, and when it should be built."""
    began = instant(data["began"])
    words = [f"since {moment(began)}"]
    finish = (data["forecast"] or {}).get("finish_seconds")
    is_open = any(row["result"] is None for row in data["rows"])
    due = began.fromtimestamp(began.timestamp() + finish, tz=began.tzinfo) if finish else None
    parts = [
        f'<span class="elapsed">{duration_text(now - began)}</span>',
        f'<span class="left">{left_text(due, now) if due and is_open else ""}</span>',
    ]
    if data["stage"]:
        parts.append(escape(data["stage"]))
    due_text = data["began"] and due and is_open and f"{due:%Y-%m-%dT%H:%M:%SZ}"
    return (
        f'<p class="clock quiet" data-began="{data["began"]}" data-ended="" '
        f'data-due="{due_text or ""}">{words[0]}: {" ".join(part for part in parts if part)}</p>'
    )


def _queue(waiting: Sequence[Entry], present: Present) -> str:
    items = "\n".join(
        f"<li><b>{escape(each.order.version)}</b> for {escape(each.order.channel)}, asked "
        f"{age_text(present.now - each.order.asked)} ago by the {escape(each.order.origin)}</li>"
        for each in waiting
    )
    return f"<ol>\n{items}\n</ol>"


def _platforms(platforms: Sequence[Freshness], now: datetime) -> str:
    if not platforms:
        return "<p>Nothing is published yet.</p>"
    rows = "\n".join(_platform(each, now) for each in platforms)
    return _table("what each platform gets", ("Platform", "Version", "Released", "State"), rows)


def _platform(each: Freshness, now: datetime) -> str:
    state, words = _freshness(each, now)
    version = escape(each.version) if each.version else "none yet"
    age = f"{age_text(now - each.released)} ago" if each.released else "—"
    return (
        f'<tr><th scope="row">{escape(each.title)}<code>{escape(each.name)}</code></th>'
        f'<td>{version}</td><td>{age}</td><td class="words">{badge(state, words)}</td></tr>'
    )


def _freshness(each: Freshness, now: datetime) -> tuple[str, str]:
    if each.awaited:
        since = f" for {age_text(now - each.since)}" if each.since else ""
        state = "late" if each.is_late else "behind"
        return state, f"{'late' if each.is_late else 'waits'}: {each.awaited} is due{since}"
    if each.behind:
        count = "1 version" if each.behind == 1 else f"{each.behind} versions"
        return "behind", f"{count} behind"
    return ("fresh", "newest") if each.version else ("behind", "never built")


def history_table(entries: Sequence[Entry], now: datetime) -> str:
    """Return what became of orders, a row for each."""
    if not entries:
        return "<p>No release has ended yet.</p>"
    rows = "\n".join(_past(each, now) for each in entries)
    return _table("history", ("Version", "State", "Ended", "Took", "Targets"), rows)


def _past(entry: Entry, now: datetime) -> str:
    order, data = entry.order, board_of(entry)
    attempt = f" attempt {order.attempt}" if order.attempt > 1 else ""
    address = escape(attempt_address(order.version, order.attempt))
    ended = f"{age_text(now - entry.ended)} ago" if entry.ended else "—"
    took = duration_text(entry.ended - entry.began) if entry.ended and entry.began else "—"
    words = f"{len(data['published'])} published" if data["published"] else ""
    if data["error"]:
        words = str(data["error"]).partition("\n")[0]
    return (
        f'<tr><th scope="row"><a href="{address}">{escape(order.version)}</a>'
        f'<span class="quiet">{attempt}</span></th>'
        f"<td>{badge(str(entry.state), state_text(entry))}</td>"
        f'<td>{ended}</td><td>{took}</td><td class="words">{escape(words)}</td></tr>'
    )


def _table(label: str, heads: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


_IDLE: Final = '<p class="quiet">Nothing is being released.</p>'
