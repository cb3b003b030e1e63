"""Whether the service can start, as a table and what there is to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from rich.text import Text

from orchestrator.console import Terminal, print_table
from orchestrator.core.wording import visible
from orchestrator.listing import STATES, show_findings

if TYPE_CHECKING:
    from collections.abc import Sequence


def show_readiness(findings: Sequence[Any], stream: TextIO) -> None:
    """Write what was found (`core.check.findings_as_data`), worst last."""
    terminal = Terminal(stream)
    cells = [
        (
            Text(finding["check"], style="bold"),
            Text(finding["state"], style=STATES[finding["state"]]),
            visible(finding["message"].partition("\n")[0]),
        )
        for finding in findings
    ]
    print_table(terminal, ("check", "state", "message"), cells)
    terminal.print()
    show_findings("service", [each for each in findings if each["state"] != "ok"], stream)
    can_start = all(each["state"] != "problem" for each in findings)
    verdict = "the service can start" if can_start else "the service cannot start"
    terminal.print(Text(verdict, style="bold" if can_start else "bold red"))
