"""What a fault is, and what is found after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.lab import Lab


class NotRunError(Exception):
    """A fault that cannot be made here, and why: it is shown, never left out in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault in one phase: `play` makes it happen in a lab of its own, and looks.

    `runs` says how often in the whole suite, `seconds` how long one run takes about. `injects`
    faults happen in each run. One that measures time runs `alone`; the sample for every change
    has only what is quick.
    """

    fault: str
    phase: str
    play: Callable[[Lab], None]
    runs: int = 1
    seconds: float = 5
    injects: int = 1
    alone: bool = False

    @property
    def name(self) -> str:
        """What `--only` selects it by."""
        return f"{self.fault} / {self.phase}"


@dataclass(slots=True, kw_only=True)
class Findings:
    """What must not be, each with its evidence; all of them empty is a good end."""

    lost: list[str] = field(default_factory=list)
    built_twice: list[str] = field(default_factory=list)
    wrong_report: list[str] = field(default_factory=list)
    # It did not come to its end by itself, though it should have survived this.
    gave_up: list[str] = field(default_factory=list)
    # Partial files, or processes of a job.
    left_behind: list[str] = field(default_factory=list)

    @property
    def columns(self) -> tuple[list[str], ...]:
        """The kinds of findings, in the order of the table."""
        return (
            self.lost,
            self.built_twice,
            self.wrong_report,
            self.gave_up,
            self.left_behind,
        )

    def __bool__(self) -> bool:
        return any(self.columns)


COLUMNS = ("lost", "built twice", "wrong report", "gave up", "left behind")


@dataclass(slots=True, kw_only=True)
class Run:
    """How one run of a scenario went; `faults` counts those that really happened."""

    scenario: Scenario
    number: int
    faults: int = 0
    findings: Findings = field(default_factory=Findings)
    seconds: float = 0.0
    not_run: str | None = None
    notes: tuple[str, ...] = ()
