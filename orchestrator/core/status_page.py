"""The status page: what runs, what waits, what each platform gets, and what was."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from orchestrator.core.order import State
from orchestrator.core.status_nodes import progress_line, render_nodes
from orchestrator.core.status_shell import cell, render_shell, section, table
from orchestrator.core.status_words import (
    age_text,
    attempt_address,
    badge,
    board_of,
    duration_text,
    plain,
    release_address,
    state_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
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
        section("now", "Now", "\n".join((*here, *elsewhere)) or _IDLE),
        section("queue", "Waiting", _queue(waiting, present)) if waiting else "",
        section("platforms", "What each platform gets", _platforms(platforms, present.now)),
        section("history", "History", history_table(past, present.now)),
    ]
    return render_shell(
        site,
        present,
        title=f"{site.project}: releases",
        header=f"<h1>{plain(site.project)} <b>releases</b></h1>\n{_summary(present, platforms)}",
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
        header=f"<h1>{plain(site.project)} <b>history</b></h1>",
        main=section("history", "History", history_table(past, present.now)),
        is_live=False,
    )


def render_problem(site: Site, present: Present, message: str, *, hint: str | None = None) -> str:
    """Return a page that says why there is nothing to show, or why nothing was done.

    It has no mark: nobody should ask for it again, at an address that may be a form's.
    """
    words = f'<p class="message">{plain(message)}</p>'
    if hint:
        words += f'\n<p class="message"><b>What to do:</b> {plain(hint)}</p>'
    return render_shell(
        site,
        replace(present, mark=""),
        title=f"{site.project}: not done",
        header=f"<h1>{plain(site.project)}</h1>",
        main=f'<section id="problem">\n{words}\n</section>',
        is_live=False,
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
    return f"<p>{plain(' '.join(words))}</p>"


def _live(release: LiveRelease, now: datetime) -> str:
    nodes = render_nodes(release, now=now)
    return f"{_title(release.order)}\n{progress_line(release.data, now)}\n{nodes}"


def _elsewhere(entry: Entry) -> str:
    where = plain(entry.coordinator or "another coordinator")
    return f"{_title(entry.order)}\n<p>It runs on {where}, whose own page shows it live.</p>"


def _title(order: Order) -> str:
    address, version = plain(release_address(order.version)), plain(order.version)
    return f'<h3><a href="{address}">{version}</a></h3>'


def _queue(waiting: Sequence[Entry], present: Present) -> str:
    items = "\n".join(
        f"<li><b>{plain(each.order.version)}</b> for {plain(each.order.channel)}, asked "
        f"{age_text(present.now - each.order.asked)} ago by the {plain(each.order.origin)}</li>"
        for each in waiting
    )
    return f"<ol>\n{items}\n</ol>"


def _platforms(platforms: Sequence[Freshness], now: datetime) -> str:
    if not platforms:
        return "<p>Nothing is published yet.</p>"
    rows = "\n".join(_platform(each, now) for each in platforms)
    return table("what each platform gets", ("Platform", "Version", "Released", "State"), rows)


def _platform(each: Freshness, now: datetime) -> str:
    state, words = _freshness(each, now)
    version = plain(each.version) if each.version else "none yet"
    age = f"{age_text(now - each.released)} ago" if each.released else "—"
    return (
        f'<tr><th scope="row">{plain(each.title)}<code>{plain(each.name)}</code></th>'
        f"{cell('Version', version)}{cell('Released', age)}"
        f"{cell('State', badge(state, words), is_wide=True)}</tr>"
    )


def _freshness(each: Freshness, now: datetime) -> tuple[str, str]:
    if each.awaited:
        since = f" {age_text(now - each.since)} ago" if each.since else ""
        words = f"{each.awaited} was due{since}"
        return ("late", f"late: {words}") if each.is_late else ("behind", f"waits: {words}")
    if each.behind:
        count = "1 version" if each.behind == 1 else f"{each.behind} versions"
        return "behind", f"{count} behind"
    return ("fresh", "newest") if each.version else ("behind", "never built")


def history_table(entries: Sequence[Entry], now: datetime) -> str:
    """Return what became of orders, a row for each."""
    if not entries:
        return "<p>No release has ended yet.</p>"
    rows = "\n".join(_past(each, now) for each in entries)
    return table("history", ("Version", "State", "Ended", "Took", "Targets"), rows)


def _past(entry: Entry, now: datetime) -> str:
    order, data = entry.order, board_of(entry)
    attempt = f" attempt {order.attempt}" if order.attempt > 1 else ""
    address = plain(attempt_address(order.version, order.attempt))
    ended = f"{age_text(now - entry.ended)} ago" if entry.ended else "—"
    took = duration_text(entry.ended - entry.began) if entry.ended and entry.began else "—"
    words = f"{len(data['published'])} published" if data["published"] else ""
    if data["error"]:
        words = str(data["error"]).partition("\n")[0]
    return (
        f'<tr><th scope="row"><a href="{address}">{plain(order.version)}</a>'
        f'<span class="quiet">{attempt}</span></th>'
        f"{cell('State', badge(str(entry.state), state_text(entry)))}"
        f"{cell('Ended', ended)}{cell('Took', took)}"
        f"{cell('Targets', plain(words), is_wide=True)}</tr>"
    )


_IDLE: Final = '<p class="quiet">Nothing is being released.</p>'
