"""A bar chart of a benchmark as SVG: one file, without scripts, fonts or links of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from orchestrator.core.wording import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# As far from white as from a dark page, so that one file serves both.
_TEXT: Final = "#787878"
_LINE: Final = "#787878"
_BAR: Final = "#3f83d6"
_BASE_BAR: Final = "#d9822b"
_ROW: Final = 44
_TOP: Final = 58
_BARS: Final = 460
_CHARACTER: Final = 7.3
_TITLE_CHARACTER: Final = 8.5
_VALUE: Final = 150
_LONGEST_NAME: Final = 48
_TICKS: Final = 5
_MINUTE: Final = 60


def render_chart(benchmark: Mapping[str, Any]) -> str:
    """Return the chart of a benchmark (`benchmark_as_data`): a bar for each node that has a time.

    A bar is the average, the line at its end goes from the fastest run to the slowest.
    """
    nodes = [node for node in benchmark["nodes"] if node["average_seconds"] is not None]
    names = [_cut(node["node"]) for node in nodes]
    details = [_cut(_detail(node)) for node in nodes]
    left = 24 + round(max(map(len, (*names, *details)), default=0) * _CHARACTER)
    most = max((node["max_seconds"] for node in nodes), default=0) or 1
    step = tick_step(most)
    scale = _BARS / (step * -(-most // step))
    title = (
        f"Clean release builds of {benchmark['project']} {benchmark['version']}: "
        f"average of {benchmark['runs']}, fastest to slowest run"
    )
    width = max(left + _BARS + _VALUE, 24 + round(len(title) * _TITLE_CHARACTER))
    height = _TOP + _ROW * len(nodes) + 40
    bottom = _TOP + _ROW * len(nodes)
    parts = [
        _opening(width, height),
        f"<title>{_text(title)}</title>",
        _label(12, 24, title, how='font-size="14" font-weight="bold"'),
        *_axis(step, most, left=left, scale=scale, bottom=bottom),
    ]
    for index, node in enumerate(nodes):
        y = _TOP + _ROW * index
        parts += [
            _label(left - 10, y + 12, names[index], how=f'{_END} font-weight="bold"'),
            _label(left - 10, y + 27, details[index], how=f'{_END} font-size="11"'),
            *_bar(node, x=left, y=y, scale=scale, is_base=node["node"] == benchmark["baseline"]),
        ]
    return "\n".join((*parts, "</svg>", ""))


_END: Final = 'text-anchor="end"'
_FONTS: Final = "ui-monospace, Menlo, Consolas, monospace"


def _opening(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="{_FONTS}" font-size="12" '
        f'fill="{_TEXT}">'
    )


def _label(x: float, y: float, text: str, *, how: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {how}>{_text(text)}</text>'


def _path(strokes: str, attributes: str) -> str:
    return f'<path d="{strokes}" stroke="{_LINE}" fill="none" {attributes}/>'


def _axis(step: float, most: float, *, left: int, scale: float, bottom: int) -> list[str]:
    lines = []
    for number in range(round(-(-most // step)) + 1):
        x = left + number * step * scale
        lines += [
            _path(f"M{x:.1f} {_TOP - 8}V{bottom}", 'stroke-opacity="0.35"'),
            _label(x, bottom + 18, tick_text(number * step), how='text-anchor="middle"'),
        ]
    return lines


def _bar(node: Mapping[str, Any], *, x: int, y: int, scale: float, is_base: bool) -> list[str]:
    middle, colour = y + 12, _BASE_BAR if is_base else _BAR
    end, least, most = (
        x + node[key] * scale for key in ("average_seconds", "min_seconds", "max_seconds")
    )
    width = max(end - x, 1)
    ratio = "" if node["ratio"] is None else f" ({node['ratio']:.2f}x)"
    whisker = f"M{least:.1f} {middle}H{most:.1f}"
    caps = "".join(f"M{at:.1f} {y + 6}V{y + 18}" for at in (least, most))
    # The whisker is to be seen on the bar as well as beside it.
    bar = (
        f'<rect x="{x}" y="{y}" width="{width:.1f}" height="24" rx="2" fill="{colour}" '
        f'fill-opacity="0.6"/>'
    )
    return [
        bar,
        _path(whisker + caps, 'stroke-width="2"'),
        _label(max(end, most) + 8, middle + 5, f"{tick_text(node['average_seconds'])}{ratio}"),
    ]


def _detail(node: Mapping[str, Any]) -> str:
    cpu = node["cpu"] or node["target"]
    return f"{node['cpus']} x {cpu}" if node["cpus"] and node["cpu"] else cpu


def tick_step(most: float) -> float:
    """Return the distance between two ticks of an axis: seconds, or a sensible part of hours."""
    wanted = most / _TICKS
    steps: Sequence[float] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
    steps = (*steps, *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)))
    return next((step for step in steps if step >= wanted), _MINUTE * _MINUTE * -(-wanted // 3600))


def tick_text(seconds: float) -> str:
    """Return `0.5 s`, `7 s`, `3 min 07 s` or `2 h 05 min`."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    if hours:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"


def _cut(text: str) -> str:
    plain = visible(text)
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1]}…"


def _text(text: str) -> str:
    return escape(visible(text))
