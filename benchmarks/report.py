"""What a benchmark found, as data, as a table for people, and as a chart."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OURS: Final = "orchestrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A quantity: its name in the data, its heading in a table, and how its values are written."""

    name: str
    heading: str
    form: str = "{:.2f}"
    scale: float = 1


METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric(name="seconds", heading="wall s", form="{:.3g}"),
        Metric(name="overhead_seconds", heading="overhead s", form="{:.2f}"),
        Metric(name="ratio", heading="ratio", form="{:.3f}"),
        Metric(name="cpu_seconds", heading="CPU s", form="{:.2f}"),
        Metric(name="milliseconds", heading="ms", form="{:.0f}"),
        Metric(name="peak_bytes", heading="peak MiB", form="{:.0f}", scale=1 / (1 << 20)),
        Metric(name="bytes_per_second", heading="MB/s", form="{:.0f}", scale=1e-6),
        Metric(name="cpu_seconds_per_gb", heading="CPU s/GB", form="{:.2f}"),
        Metric(name="round_trips", heading="round trips", form="{:.0f}"),
        Metric(name="connections", heading="connections", form="{:.0f}"),
        Metric(name="answered", heading="answered", form="{:.0f}"),
        Metric(name="kib_per_node", heading="KiB per node", form="{:.1f}"),
        Metric(name="lag_milliseconds", heading="loop lag p99 ms", form="{:.1f}"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tool in one case: for each metric, the values of its runs."""

    tool: str
    samples: Mapping[str, list[float]]
    note: str = ""

    def middle(self, metric: str) -> float:
        """Return the median of its runs."""
        return median(self.samples[metric])


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Tools side by side on the same work; `charted` is the metric whose bars are drawn."""

    title: str
    rows: tuple[Row, ...]
    charted: str = ""

    def row(self, tool: str) -> Row:
        """Return the row of a tool."""
        return next(row for row in self.rows if row.tool == tool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure that was to be reached: at most `limit`, or at least."""

    what: str
    value: float
    limit: float
    is_least: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether the value is on the right side of the limit."""
        return self.value >= self.limit if self.is_least else self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that one benchmark has to tell; `remarks` are paragraphs below its tables."""

    name: str
    title: str
    about: str
    tables: tuple[Table, ...]
    goals: tuple[Goal, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    runs: int = 1


def save(report: Report, folder: Path, machine: Mapping[str, str]) -> None:
    """Write the report as NAME.json, with the machine that it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": dict(machine), **asdict(report)}
    (folder / f"{report.name}.json").write_text(json.dumps(data, indent=1) + "\n")


def load(file: Path) -> tuple[Report, dict[str, str]]:
    """Return the report in the file, and its machine."""
    data: dict[str, Any] = json.loads(file.read_text())
    machine = data.pop("machine")
    tables = tuple(
        Table(
            title=table["title"],
            charted=table["charted"],
            rows=tuple(Row(**row) for row in table["rows"]),
        )
        for table in data.pop("tables")
    )
    goals = tuple(Goal(**goal) for goal in data.pop("goals"))
    remarks = tuple(data.pop("remarks"))
    return Report(**data, tables=tables, goals=goals, remarks=remarks), machine


def as_markdown(report: Report, *, charts: str) -> str:
    """Return the report's section of the page; `charts` is the folder of the charts, from there."""
    parts = [f"## {report.title}", report.about]
    for number, table in enumerate(report.tables, 1):
        parts.append(f"### {table.title}" if len(report.tables) > 1 else "")
        parts.append(_table(table))
        if table.charted:
            parts.append(f"![{table.title}]({charts}/{chart_name(report, number)})")
    if report.goals:
        parts.append("\n".join(_goal(goal) for goal in report.goals))
    parts += report.remarks
    versions = ", ".join(f"{tool} {version}" for tool, version in report.versions.items())
    how = f"Medians of {report.runs}." if report.runs > 1 else "One run of each."
    parts.append(f"{how} {versions}".rstrip())
    return "\n\n".join(part for part in parts if part) + "\n"


def chart_name(report: Report, number: int) -> str:
    """Return the file name of the chart of a report's table."""
    return f"{report.name}-{number}.svg"


def _table(table: Table) -> str:
    names = list(dict.fromkeys(name for row in table.rows for name in row.samples))
    has_notes = any(row.note for row in table.rows)
    heads = ["", *(METRICS[name].heading for name in names), *([""] if has_notes else [])]
    lines = [_cells(heads), _cells(["---", *["---:"] * len(names), *["---"] * has_notes])]
    for row in table.rows:
        tool = f"**{row.tool}**" if row.tool.startswith(OURS) else row.tool
        values = [_value(row, name) for name in names]
        lines.append(_cells([tool, *values, *([row.note] if has_notes else [])]))
    return "\n".join(lines)


def _value(row: Row, name: str) -> str:
    if name not in row.samples:
        return ""
    metric = METRICS[name]
    return metric.form.format(row.middle(name) * metric.scale)


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _goal(goal: Goal) -> str:
    sign = "≥" if goal.is_least else "≤"
    mark = "reached" if goal.is_reached else "**not reached**"
    return f"- {goal.what}: {goal.value:.3g} ({sign} {goal.limit:g}: {mark})"
