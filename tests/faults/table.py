"""The table of what was injected and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.faults.scenario import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.scenario import Run

_BEGIN: Final = "<!-- the table: made by `make test-faults`, not by hand -->"
_END: Final = "<!-- the end of the table -->"


def as_markdown(runs: Sequence[Run], *, seed: str, seconds: float) -> str:
    """Return the table: each fault in each phase, its runs, and what must not be."""
    rows: list[tuple[str, ...]] = [("fault", "phase", "runs", "faults", *COLUMNS)]
    rows += [_row(name, group) for name, group in _grouped(runs).items()]
    played = [run for run in runs if run.not_run is None]
    rows.append(("all", "", *map(str, _counts(played))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|".join(("", *("-" * (width + 2) for width in widths), "")))
    faults = sum(run.faults for run in played)
    lines += ["", f"{faults} faults in {len(played)} runs, seed `{seed}`, {seconds / 60:.0f} min."]
    lines += [
        f"Not run: {name}: {group[0].not_run}."
        for name, group in _grouped(runs).items()
        if group[0].not_run
    ]
    return "\n".join(lines)


def as_details(runs: Sequence[Run], *, seed: str) -> str:
    """Return every finding with its evidence and the command that plays it again."""
    lines = []
    for run in runs:
        for title, column in zip(COLUMNS, run.findings.columns, strict=True):
            lines += [
                f"\n{title.upper()}: {run.scenario.name} #{run.number}: {text}" for text in column
            ]
        if run.findings:
            again = f"--seed {seed} --only '{run.scenario.name}' --number {run.number}"
            lines.append(f"  again: python -m tests.faults {again}")
    return "\n".join(lines)


def write_into(document: Path, text: str) -> None:
    """Replace the table in a document."""
    before, _, rest = document.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    assert after, f"{document} has no place for the table"
    document.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def _grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.scenario.name, []).append(run)
    return groups


def _row(name: str, group: list[Run]) -> tuple[str, ...]:
    fault, _, phase = name.partition(" / ")
    if group[0].not_run:
        return (fault, phase, "not run", "", *("" for _ in COLUMNS))
    return (fault, phase, *map(str, _counts(group)))


def _counts(group: Sequence[Run]) -> tuple[int, ...]:
    found = [
        sum(bool(run.findings.columns[index]) for run in group) for index in range(len(COLUMNS))
    ]
    return (len(group), sum(run.faults for run in group), *found)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        f" {cell:>{width}} " if index > 1 else f" {cell:<{width}} "
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "|".join(("", *cells, ""))
