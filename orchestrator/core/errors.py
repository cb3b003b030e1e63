"""What stops a run: who must act, and the exit code.

OrchestratorError
├── ConfigError     2    edit the file or the command line
│   └── NotYetError      what is named is not there yet: it may come by itself
├── NodeError       3    a machine: unreachable, wrong host key, disk full, rebooted
│   ├── LinkError        the way to it is broken: the same step may be done over another link
│   ├── PassingError     it lost what it did: another attempt there may succeed
│   └── CancelledError   a person ended the job: nobody takes over
├── BuildError      4    the code: compile error, failed gate
└── StoreError      5    credentials, bucket, a conflict

One expected failure of one node is a value (`result.Failed`), not one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable


class OrchestratorError(Exception):
    """One line that says what is wrong and where; `hint` says what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Problem(NamedTuple):
    """One mistake in a file or on the command line, and where it stands."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class ConfigError(OrchestratorError):
    """The inventory, an argument or the environment is wrong: a person edits it."""

    exit_code = 2

    @classmethod
    def of(cls, problems: Iterable[Problem], *, hint: str | None = None) -> Self:
        """Return one error that lists every problem, one line each."""
        return cls("\n".join(str(problem) for problem in problems), hint=hint)


class NotYetError(ConfigError):
    """A tag or a published crate is not there: a mistake, or it follows in a moment."""


class NodeError(OrchestratorError):
    """A machine is at fault: the same build may succeed there later, or elsewhere."""

    exit_code = 3


class LinkError(NodeError):
    """The way to a machine is broken, or cannot be made now; what runs there goes on."""


class PassingError(NodeError):
    """A machine lost or damaged what it did, for a reason that another attempt may not meet."""


class CancelledError(NodeError):
    """A person ended the job: it is neither tried again nor taken over by another node."""


class BuildError(OrchestratorError):
    """The code is at fault: the same build would fail again."""

    exit_code = 4


class StoreError(OrchestratorError):
    """The store refused: credentials, a missing bucket, or other bytes under a taken name."""

    exit_code = 5
