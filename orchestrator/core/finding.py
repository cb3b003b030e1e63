"""One thing that was looked at, and what it means for a release."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from orchestrator.core.errors import BuildError, ConfigError, NodeError, StoreError

if TYPE_CHECKING:
    from orchestrator.core.errors import OrchestratorError


class Severity(StrEnum):
    """What a finding means for a release."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `exit_code` says who has to act on a problem."""

    severity: Severity
    subject: str
    message: str
    hint: str | None = None
    exit_code: int = NodeError.exit_code

    @property
    def is_problem(self) -> bool:
        """Whether a release would fail over it."""
        return self.severity is Severity.PROBLEM

    @classmethod
    def of(cls, subject: str, error: OrchestratorError) -> Self:
        """Return the problem that an error tells of."""
        return cls(
            severity=Severity.PROBLEM,
            subject=subject,
            message=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )

    def require(self) -> None:
        """Raise the error of whoever has to act, if it is a problem."""
        if self.is_problem:
            kinds = (ConfigError, NodeError, BuildError, StoreError)
            kind = next(kind for kind in kinds if kind.exit_code == self.exit_code)
            raise kind(self.message, hint=self.hint)


def fine(subject: str, message: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(severity=Severity.OK, subject=subject, message=message)


def warning(subject: str, message: str, hint: str) -> Finding:
    """Return the finding of what may go wrong."""
    return Finding(severity=Severity.WARNING, subject=subject, message=message, hint=hint)


def problem(subject: str, message: str, hint: str) -> Finding:
    """Return the finding of what will go wrong on a node."""
    return Finding(severity=Severity.PROBLEM, subject=subject, message=message, hint=hint)
