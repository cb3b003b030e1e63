"""What happened, for observers: the console, the logs, the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from orchestrator.core.plan import BuildPlan
    from orchestrator.core.result import Result


class Phase(StrEnum):
    """What a node is busy with, in the order of a release."""

    WAITING = "waiting"
    BOOTING = "starting the VM"
    CONNECTING = "connecting"
    PUSHING = "pushing source"
    QUEUED = "waiting for the host"
    BUILDING = "building"
    COLLECTING = "collecting"
    GATING = "gating"
    CHECKING = "checking"
    PUBLISHING = "publishing"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStarted:
    """The plan is made and work begins."""

    plan: BuildPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReady:
    """The bundle that every node builds; `note` says what was changed or is unusual about it."""

    description: str
    digest: str
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChanged:
    """A node went on to another phase."""

    node: str
    phase: Phase
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TryingAgain:
    """A node's trouble that may pass: what it was, and how long until the next try."""

    node: str
    reason: str
    pause: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAppended:
    """A node's job wrote these bytes; they may hold anything."""

    node: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """A node's part is over."""

    node: str
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The index stands at this serial: these targets can be installed now."""

    targets: tuple[str, ...]
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifying:
    """The release is read back: as a stranger would, through its public URL, or in the store."""

    where: str
    is_public: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that does not stop the release, but that a person should know."""

    message: str
    node: str | None = None


Event = (
    ReleaseStarted
    | SourceReady
    | PhaseChanged
    | TryingAgain
    | LogAppended
    | NodeFinished
    | Published
    | Verifying
    | Warned
)


# Told of every event, in order, on the coordinator's loop; it must not block or raise.
Observer = Callable[[Event], None]
