"""What became of a task: Built, Failed or Skipped, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from pathlib import Path

    from orchestrator.core.evidence import Evidence
    from orchestrator.core.record import Warmth
    from orchestrator.core.target import Target


class FailureClass(Enum):
    """Who is at fault; the value is the exit code of a run that ends with it."""

    MACHINE = 3
    BUILD = 4
    STORE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The lowest (or, with `==`, the only) OS or libc release that a binary runs on."""

    name: str
    operator: str
    release: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.release}"


def edition_of(floors: Iterable[Floor]) -> str | None:
    """Return what tells builds of one version and target apart, None where there is only one.

    That is the OS release of a binary that runs on one only, and the level of a CPU that it needs:
    `7.8`, `-v3`, `7.8-v3`. It stands behind the target in paths and file names.
    """
    exact = next((floor.release for floor in floors if floor.operator == "=="), "")
    level = cpu_level(floors)
    return (f"{exact}-v{level}" if level else exact) or None


def cpu_level(floors: Iterable[Floor]) -> int:
    """Return the level of the CPU that a build needs, 0 if every CPU of its target will do."""
    levels = (floor.release for floor in floors if floor.name == "cpu")
    return next((int(level.partition(".")[0]) for level in levels), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A checked, packed archive, ready to be published; `path` is the staged file."""

    version: str
    target: Target
    os_release: str | None
    path: Path
    size_bytes: int
    sha256: str
    floors: tuple[Floor, ...]
    binaries: tuple[CollectedFile, ...]
    # How it was made, to be published beside it; None: nothing is said.
    evidence: Evidence | None = None

    @property
    def edition(self) -> str | None:
        """What tells it from other builds of its version and target (`edition_of`)."""
        return edition_of(self.floors)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedFile:
    """A binary, or an extra file, as it came from its node; a binary's bytes are what was gated."""

    name: str
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The node delivered, and what it delivered passed every check.

    `elapsed` is all of its part of the release, `took` the build command's own time on the node,
    and `warmth` whether that found an earlier build. `own_rustc` is the node's compiler outside of
    the project, which may choose another. None is what the node did not say.
    """

    node: str
    artifact: Artifact
    elapsed: timedelta
    was_attached: bool
    warnings: tuple[str, ...] = ()
    took: timedelta | None = None
    warmth: Warmth | None = None
    own_rustc: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The node did not deliver; `log_tail` holds the last lines that it wrote.

    `is_final` says that no other node takes over, although the machine is at fault: a person
    ended the job.
    """

    node: str
    target: Target
    failure_class: FailureClass
    message: str
    hint: str | None = None
    log_tail: tuple[str, ...] = ()
    log_path: Path | None = None
    is_final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """The node had nothing to do, and why: already published, or it stands by."""

    node: str
    target: Target
    reason: str


Result = Built | Failed | Skipped
