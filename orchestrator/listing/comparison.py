"""Builds that were compared, as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from orchestrator.console import Terminal
from orchestrator.core.wording import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

_SHOWN: Final = 12


def show_comparisons(comparisons: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Write what differs between the builds of each target (`core.comparison.Comparison`)."""
    terminal = Terminal(stream)
    for compared in comparisons:
        terminal.print()
        names = ", ".join(compared["equal"])
        title = f"{compared['binary']} for {compared['target']}: "
        if len(compared["equal"]) > 1:
            same = Text(f"equal on {names}", style="green")
            terminal.print(Text.assemble((title, "bold"), same, f" ({compared['sha256'][:12]})"))
        for difference in compared["differences"]:
            said = f"{difference['node']} differs from {compared['first']}"
            terminal.print(Text.assemble((title, "bold"), (said, "bold red")))
            _show_difference(terminal, difference)


def _show_difference(terminal: Terminal, difference: Mapping[str, Any]) -> None:
    sections = [_section(section) for section in difference["sections"]]
    shown = ", ".join(sections[:_SHOWN])
    more = f" and {len(sections) - _SHOWN} more" if len(sections) > _SHOWN else ""
    if sections:
        terminal.print(Text(f"  in {visible(shown)}{more}"))
    for reason in difference["reasons"]:
        terminal.print(Text(f"  {visible(reason)}"))


def _section(section: Mapping[str, Any]) -> str:
    here, there = section["size_bytes"], section["other_size_bytes"]
    if here is None or there is None:
        return f"{section['section']} (missing on one of them)"
    sizes = f"{here} bytes" if here == there else f"{here} and {there} bytes"
    return f"{section['section']} ({sizes})"
