"""docs/performance.md, made of the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.report import as_markdown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.report import Report

_HEAD: Final = """# Performance

A release costs its slowest node and little else. This page is made by `make bench`, which runs
every tool in turn on the same work and checks that the results are equal. Look at the ratios within
a table: absolute figures are those of one machine.
"""


def render_page(results: Sequence[tuple[Report, Mapping[str, str]]]) -> str:
    """Return the page: the machines, and a section for each report."""
    machines = dict.fromkeys(
        ", ".join(f"{what}: {value}" for what, value in machine.items()) for _, machine in results
    )
    parts = [_HEAD, *(f"Measured on {machine}.\n" for machine in machines)]
    parts += [as_markdown(report, charts="performance") for report, _ in results]
    return "\n".join(parts)
