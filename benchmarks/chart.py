"""Bars of a table as SVG: one file, without scripts, fonts or links of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from benchmarks.report import METRICS, OURS

if TYPE_CHECKING:
    from benchmarks.report import Table

# As far from white as from a dark page, so that one file serves both.
_TEXT: Final = "#787878"
_BAR: Final = "#9a9a9a"
_OUR_BAR: Final = "#3f83d6"
_WIDTH: Final = 860
_LEFT: Final = 300
_BARS: Final = 440
_ROW: Final = 26
_TOP: Final = 44


def render_bars(table: Table) -> str:
    """Return the chart: a bar for each tool, as long as the median of the table's metric."""
    metric = METRICS[table.charted]
    rows = [row for row in table.rows if table.charted in row.samples]
    values = [row.middle(metric.name) * metric.scale for row in rows]
    most = max(values, default=1) or 1
    height = _TOP + _ROW * len(rows) + 12
    title = f"{table.title}: {metric.heading}"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="13" fill="{_TEXT}" role="img">'
    )
    parts = [
        opening,
        f"<title>{escape(title)}</title>",
        f'<text x="12" y="24" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (row, value) in enumerate(zip(rows, values, strict=True)):
        y = _TOP + _ROW * index
        long = max(1, round(_BARS * value / most))
        bar = _OUR_BAR if row.tool.startswith(OURS) else _BAR
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(row.tool)}</text>',
            f'<rect x="{_LEFT}" y="{y + 2}" width="{long}" height="16" rx="2" fill="{bar}"/>',
            f'<text x="{_LEFT + long + 8}" y="{y + 15}">{metric.form.format(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
