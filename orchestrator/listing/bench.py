"""A benchmark, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.console import Terminal, print_table
from orchestrator.core.wording import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO


def show_benchmark(benchmark: Mapping[str, Any], stream: TextIO) -> None:
    """Write a benchmark (`core.bench.benchmark_as_data`): a table, the fastest first, and notes."""
    terminal = Terminal(stream)
    builds = "1 clean build" if benchmark["runs"] == 1 else f"{benchmark['runs']} clean builds"
    title = f" {benchmark['version']}: {builds} on each node"
    terminal.print(Text.assemble((benchmark["project"], "bold"), visible(title)))
    is_compared = benchmark["compared_with"] is not None
    compared = ("before", "change") if is_compared else ()
    measures = ("average", "min", "max", "std dev", "ratio")
    heading = ("node", "target", *measures, *compared, "rustc", "cpu")
    rows = [_cells(node, is_compared=is_compared) for node in benchmark["nodes"]]
    print_table(terminal, heading, rows)
    terminal.print()
    for line in _notes(benchmark):
        terminal.print(Text(visible(line)))


def _cells(node: Mapping[str, Any], *, is_compared: bool) -> tuple[Text | str, ...]:
    cpus = f"{node['cpus']} x " if node["cpus"] and node["cpu"] else ""
    before = (_seconds(node["before_seconds"]), _change(node["change"])) if is_compared else ()
    return (
        Text(node["node"], style="bold"),
        node["target"],
        *(_seconds(node[f"{name}_seconds"]) for name in ("average", "min", "max", "deviation")),
        "" if node["ratio"] is None else f"{node['ratio']:.2f}",
        *before,
        visible(node["rustc"] or ""),
        visible(f"{cpus}{node['cpu'] or ''}"),
    )


def _seconds(seconds: float | None) -> str:
    # Plain seconds, so that a column can be compared and copied.
    return "-" if seconds is None else f"{seconds:.2f} s"


def _change(quotient: float | None) -> Text:
    if quotient is None:
        return Text("-")
    return Text(f"{quotient - 1:+.1%}", style="green" if quotient < 1 else "yellow")


def _notes(benchmark: Mapping[str, Any]) -> list[str]:
    nodes = benchmark["nodes"]
    notes = [
        f"{node['node']}: {_run(failed['run'])} failed ({failed['class']}): "
        f"{failed['message'].partition(chr(10))[0]}"
        for node in nodes
        for failed in node["failures"]
    ]
    notes += [
        f"log: {failed['log']}" for node in nodes for failed in node["failures"] if failed["log"]
    ]
    if benchmark["baseline"]:
        notes.append(f"ratios are to {benchmark['baseline']}")
    if benchmark["compared_with"]:
        notes.append(f"before: {benchmark['compared_with']}")
    if fetching := [node["node"] for node in nodes if node["includes_network"]]:
        notes.append(f"the time includes the network: {', '.join(fetching)}")
    own = [node["node"] for node in nodes if node["own_command"] and not node["includes_network"]]
    if own:
        notes.append(f"whether it was clean is up to its own command: {', '.join(own)}")
    return notes


def _run(number: int) -> str:
    return f"run {number}" if number else "all"
