"""The page of one release: how it goes or went, its timeline, what became of each node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.board_view import row_view
from orchestrator.core.status_actions import render_actions
from orchestrator.core.status_nodes import progress_line, render_nodes
from orchestrator.core.status_shell import cell, render_shell, section, table
from orchestrator.core.status_words import (
    age_text,
    attempt_address,
    badge,
    board_of,
    duration_text,
    instant,
    log_address,
    moment,
    plain,
    state_text,
    target_title,
)
from orchestrator.core.timeline import render_timeline
from orchestrator.core.wording import human_size, install_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from orchestrator.core.order import Entry
    from orchestrator.core.status_shell import Present, Site


def render_release(site: Site, present: Present, *, entry: Entry, attempts: Sequence[Entry]) -> str:
    """Return the page of one attempt; `attempts` are all of its version, the newest first."""
    order = entry.order
    live = present.running.get(order.key)
    data = live.data if live else board_of(entry)
    parts = [
        section("now", "Now", _now(data, render_nodes(live, now=present.now), present.now))
        if live
        else "",
        section("timeline", "Timeline", _timeline(data, present.now)),
        section("results", "Results", _results(data) if not live else ""),
        section("messages", "Messages", _messages(data)),
        section("facts", "About this release", _facts(entry, data, present.now)),
        section("attempts", "Attempts", _attempts(attempts, order.attempt, present.now)),
        section("actions", "Actions", render_actions(entry) if site.has_actions else ""),
    ]
    return render_shell(
        site,
        present,
        title=f"{site.project} {order.version}",
        header=f"<h1>{plain(site.project)} <b>{plain(order.version)}</b></h1>\n{_state(entry)}",
        main="\n".join(part for part in parts if part),
        is_live=not entry.state.is_final,
    )


def _state(entry: Entry) -> str:
    attempt = f", attempt {entry.order.attempt}" if entry.order.attempt > 1 else ""
    return f"<p>{badge(str(entry.state), state_text(entry))}{attempt}</p>"


def _now(data: Mapping[str, Any], nodes: str, now: datetime) -> str:
    return f"{progress_line(data, now)}\n{nodes}"


def _timeline(data: Mapping[str, Any], now: datetime) -> str:
    return render_timeline(data, now=now) if data["began"] else ""


def _results(data: Mapping[str, Any]) -> str:
    if not data["rows"]:
        return ""
    rows = "\n".join(_result(row, data) for row in data["rows"])
    return table("results", ("Node", "Target", "Result", "Took", "What there is"), rows)


def _result(row: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    view = row_view(row)
    took = "—"
    if view["began"] and view["ended"]:
        took = duration_text(instant(view["ended"]) - instant(view["began"]))
    log = ""
    if row["spans"]:
        log = f' <a href="{plain(log_address(data["version"], row["node"]))}">log</a>'
    published = " Published." if row["target"] in data["published"] else ""
    note = f"{plain(view['note'])}.{published}" if row["result"] == "built" else plain(view["note"])
    return (
        f'<tr><th scope="row">{plain(row["node"])}</th>'
        f"{cell('Target', plain(target_title(row['target'])))}"
        f"{cell('Result', badge(view['state'], view['phase']))}{cell('Took', took)}"
        f"{cell('What there is', note + log, is_wide=True)}</tr>"
    )


def _messages(data: Mapping[str, Any]) -> str:
    parts = []
    if data["error"]:
        parts.append(_failure("It was stopped", data["error"], hint=data["hint"]))
    parts += [
        _failure(
            f"{row['node']}: failed ({row['failure_class']})",
            row["message"],
            hint=row["hint"],
            log_tail=row["log_tail"],
        )
        for row in data["rows"]
        if row["result"] == "failed"
    ]
    if data["unreadable"]:
        parts.append(_failure("It does not read back", "\n".join(data["unreadable"])))
    warnings = [(row["node"], text) for row in data["rows"] for text in row["warnings"]]
    warnings += [("", text) for text in data["warnings"]]
    if warnings:
        items = "\n".join(
            f'<li class="message">{plain(f"{node}: {text}" if node else text)}</li>'
            for node, text in warnings
        )
        parts.append(f"<h3>Warnings</h3>\n<ul>\n{items}\n</ul>")
    return "\n".join(parts)


def _failure(
    title: str, message: str, *, hint: str | None = None, log_tail: Sequence[str] = ()
) -> str:
    parts = [f"<h3>{plain(title)}</h3>", f'<p class="message">{plain(message)}</p>']
    if log_tail:
        text = plain("\n".join(log_tail))
        label = plain(f"end of the log: {title}")
        parts.append(f'<pre tabindex="0" role="region" aria-label="{label}">\n{text}</pre>')
    if hint:
        parts.append(f'<p class="message"><b>What to do:</b> {plain(hint)}</p>')
    joined = "\n".join(parts)
    return f'<div class="failure">\n{joined}\n</div>'


def _facts(entry: Entry, data: Mapping[str, Any], now: datetime) -> str:
    pairs = "\n".join(
        f"<dt>{name}</dt>\n<dd>{value}</dd>" for name, value in _pairs(entry, data, now) if value
    )
    return f'<dl class="facts">\n{pairs}\n</dl>'


def _pairs(
    entry: Entry, data: Mapping[str, Any], now: datetime
) -> Iterable[tuple[str, str | None]]:
    order, source = entry.order, data["source"]
    yield "Asked", f"{moment(order.asked)}, by the {plain(order.origin)}"
    yield "Began", moment(instant(data["began"])) if data["began"] else None
    if entry.ended:
        yield "Ended", f"{moment(entry.ended)}, {age_text(now - entry.ended)} ago"
    if entry.ended and entry.began:
        yield "Took", duration_text(entry.ended - entry.began)
    yield "Channel", plain(order.channel)
    yield "Tag", plain(f"{order.tag} at {order.commit or '?'}") if order.tag else None
    if order.page and order.page.startswith("https://"):
        yield (
            "Announced",
            f'<a href="{plain(order.page)}" rel="noreferrer">{plain(order.page)}</a>',
        )
    if source:
        size = human_size(source["size_bytes"])
        yield (
            "Source",
            f"{plain(source['description'])}, {size}, <code>{plain(source['digest'][:12])}</code>",
        )
        yield "Notes", plain("; ".join(source["notes"]))
    yield "Published", _targets(data["published"])
    yield "Pending", _targets(data["pending"])
    yield "Held back", _targets(data["held_back"])
    yield "Index", plain(f"serial {data['serial']}") if data["serial"] else None
    yield "Verified", _VERIFIED.get(data["verified"])
    if data["github"]:
        yield "GitHub", plain(" ".join(str(part) for part in data["github"].values() if part))
    if data["url"] and data["published"]:
        yield "Install", f"<code>{plain(install_command(data['url']))}</code>"


_VERIFIED: Final = {
    "public": "read back through the public address",
    "store": "read back in the store",
    "failed": "it does not read back",
}


def _targets(targets: Iterable[str]) -> str:
    return ", ".join(plain(target_title(target)) for target in targets)


def _attempts(attempts: Sequence[Entry], shown: int, now: datetime) -> str:
    if len(attempts) < 2:  # noqa: PLR2004 -- one is this one
        return ""
    items = "\n".join(_attempt(each, shown, now) for each in attempts)
    return f"<ul>\n{items}\n</ul>"


def _attempt(entry: Entry, shown: int, now: datetime) -> str:
    order = entry.order
    words = f"attempt {order.attempt}"
    if order.attempt == shown:
        title = f"<b>{words}</b> (shown here)"
    else:
        address = plain(attempt_address(order.version, order.attempt))
        title = f'<a href="{address}">{words}</a>'
    error = (entry.outcome or {}).get("error")
    why = f": {plain(str(error).partition(chr(10))[0])}" if error else ""
    asked = f"asked {age_text(now - order.asked)} ago by the {plain(order.origin)}"
    return f"<li>{title}, {asked}: {badge(str(entry.state), state_text(entry))}{why}</li>"
