"""The timeline of a release as a picture: who did what when, and what all of it waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.chart import tick_step, tick_text
from orchestrator.core.critical_path import Work, critical_path, work_of
from orchestrator.core.events import Phase
from orchestrator.core.status_words import instant, plain, target_title

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from orchestrator.core.critical_path import Segment

_LEFT: Final = 180
_BARS: Final = 650
_RIGHT: Final = 115
_WIDTH: Final = _LEFT + _BARS + _RIGHT
_TOP: Final = 34
_ROW: Final = 44
_BAR: Final = 20
# Narrower than this, a bar would be missed.
_LEAST: Final = 2.0
_LONGEST_NAME: Final = 24

# What is shown alike: five kinds are told apart, each by a pattern, too.
_KINDS: Final = {
    Phase.WAITING: "wait",
    Phase.QUEUED: "wait",
    Phase.BOOTING: "prepare",
    Phase.CONNECTING: "prepare",
    Phase.PUSHING: "prepare",
    Phase.BUILDING: "build",
    Phase.COLLECTING: "check",
    Phase.GATING: "check",
    Phase.CHECKING: "check",
    Phase.PUBLISHING: "publish",
    Phase.DONE: "wait",
}
_LEGEND: Final = (
    ("wait", "waiting for the machine"),
    ("prepare", "getting ready"),
    ("build", "building"),
    ("check", "collecting, gating, checking"),
    ("publish", "publishing"),
)


def render_timeline(data: Mapping[str, Any], *, now: datetime) -> str:
    """Return a board's timeline as a figure with its legend; `now` counts while it goes on.

    Nothing, where no node has begun.
    """
    began = instant(data["began"])
    end = instant(data["ended"]) if data["ended"] else now
    length = max((end - began).total_seconds(), 1.0)
    works = [work for row in data["rows"] if (work := _work(row, began, end))]
    if not works:
        return ""
    rows = {row["node"]: row for row in data["rows"]}
    path = critical_path(works) if data["ended"] else ()
    height = _TOP + _ROW * len(works) + 8
    parts = [
        _OPENING.format(width=_WIDTH, height=height),
        f'<title id="timeline-name">Timeline of {plain(data["version"])}</title>',
        f'<desc id="timeline-words">{plain(_in_words(works, rows, path))}</desc>',
        _PATTERNS,
        *_axis(length, height),
    ]
    for index, work in enumerate(works):
        own = [segment for segment in path if segment.node == work.node]
        parts += _row(work, rows[work.node], own, y=_TOP + _ROW * index, length=length)
    picture = "\n".join((*parts, "</svg>"))
    return (
        '<figure>\n<div class="scroll" role="region" aria-label="timeline" tabindex="0">\n'
        f"{picture}\n</div>\n<figcaption>{_legend(has_path=bool(path))}</figcaption>\n</figure>"
    )


def _work(row: Mapping[str, Any], began: datetime, end: datetime) -> Work | None:
    def seconds(text: str | None) -> float:
        return ((instant(text) if text else end) - began).total_seconds()

    spans = [(span["phase"], seconds(span["from"]), seconds(span["to"])) for span in row["spans"]]
    return work_of(row, spans) if spans else None


def _x(seconds: float, length: float) -> float:
    return _LEFT + _BARS * seconds / length


def _axis(length: float, height: int) -> list[str]:
    step = tick_step(length)
    lines = []
    for number in range(int(length // step) + 1):
        x = _x(number * step, length)
        lines += [
            f'<path class="grid" d="M{x:.1f} {_TOP - 8}V{height - 4}"/>',
            _TICK.format(x=x, y=_TOP - 14, text=tick_text(number * step)),
        ]
    return lines


def _row(
    work: Work, row: Mapping[str, Any], path: Sequence[Segment], *, y: int, length: float
) -> list[str]:
    mark = "◆ " if path else ""
    lines = [
        f'<text class="name" x="8" y="{y + 15}">{plain(mark + _cut(work.node))}</text>',
        f'<text class="tick" x="8" y="{y + 30}">{plain(_cut(target_title(row["target"])))}</text>',
    ]
    for phase, begin, end in work.spans:
        x = _x(begin, length)
        width = max(_x(end, length) - x, _LEAST)
        kind = _KINDS.get(Phase(phase), "wait")
        lines.append(_bar(kind, f"{work.node}: {phase}, {_took(end - begin)}", x, y, width))
    for segment in path:
        x, to = _x(segment.begin, length), _x(segment.end, length)
        lines.append(f'<path class="critical" d="M{x:.1f} {y + _BAR + 6}H{max(to, x + 2):.1f}"/>')
    words = f"{_END_MARKS.get(row['result'], '…')} {_took(work.end - work.begin)}"
    x = _x(work.end, length) + 8
    return [
        *lines,
        f'<text class="end {row["result"] or "open"}" x="{x:.1f}" y="{y + 15}">{words}</text>',
    ]


def _bar(kind: str, title: str, x: float, y: int, width: float) -> str:  # noqa: PLR0917 -- a rectangle has so many sides
    place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}"'
    pattern = f'<rect {place} fill="url(#pattern-{kind})"/>' if kind in _PATTERNED else ""
    return f'<g><title>{plain(title)}</title><rect class="bar {kind}" {place}/>{pattern}</g>'


_OPENING: Final = (
    '<svg class="timeline" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'role="img" aria-labelledby="timeline-name timeline-words">'
)
_TICK: Final = '<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>'
_PATTERNED: Final = ("prepare", "check", "publish")
_END_MARKS: Final = {"built": "✔", "failed": "✘", "skipped": "»"}


def _took(seconds: float) -> str:
    return tick_text(round(seconds)) if seconds >= 1 else f"{seconds:.1f} s"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _in_words(
    works: Sequence[Work], rows: Mapping[str, Mapping[str, Any]], path: Sequence[Segment]
) -> str:
    words = []
    for work in works:
        spans = ", ".join(f"{phase} {_took(end - begin)}" for phase, begin, end in work.spans)
        words.append(f"{work.node}: {spans}; {rows[work.node]['result'] or 'not over'}.")
    if path:
        names = ", then ".join(segment.node for segment in path)
        words.append(f"The critical path: {names}.")
    return " ".join(words)


def _legend(*, has_path: bool) -> str:
    items = [
        f'<span><svg class="swatch" viewBox="0 0 28 14" width="28" height="14" aria-hidden="true">'
        f"{_bar(kind, words, 0, 0, 28)}</svg> {words}</span>"
        for kind, words in _LEGEND
    ]
    if has_path:
        items.append(
            '<span><svg class="swatch" viewBox="0 0 28 14" width="28" height="14" '
            'aria-hidden="true"><path class="critical" d="M0 7H28"/></svg> '
            "◆ critical path: what all of it waited for</span>"
        )
    return f'<p class="legend swatches">{" ".join(items)}</p>'


_PATTERNS: Final = """\
<defs>
<pattern id="pattern-prepare" width="6" height="6" patternUnits="userSpaceOnUse">
<circle class="grain" cx="2" cy="2" r="1.1"/></pattern>
<pattern id="pattern-check" width="7" height="7" patternUnits="userSpaceOnUse">
<path class="stripe" d="M-1 8L8 -1M-1 1L1 -1M6 8L8 6"/></pattern>
<pattern id="pattern-publish" width="6" height="6" patternUnits="userSpaceOnUse">
<path class="stripe" d="M0 3H6"/></pattern>
</defs>"""
