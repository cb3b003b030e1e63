"""How a job stands, and how job.sh says so."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from orchestrator.core.diagnosis import Strain
from orchestrator.core.record import Warmth


class StopReason(StrEnum):
    """Why a job ended that did not come to an end of its own."""

    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    REBOOT = "reboot"
    KILLED = "killed"
    UNABLE = "unable"
    FLOODED = "flooded"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverStarted:
    """The node knows nothing of the job, or only that somebody meant to start it."""

    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """It waits for another job on its host."""

    attempt: int
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Its command runs; `ran` tells for how long, by a clock of the node that nobody sets."""

    attempt: int
    evidence: str
    # Not compared: the state stays the same while time goes by.
    ran: timedelta | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The command came to its end; with status 0 its binaries are there to be collected.

    `strain` is what the node was short of then. `took` is how long the command ran, by a clock of
    the node that nobody sets, and `warmth` whether its target folder held an earlier build: None
    where the node does not say.
    """

    attempt: int
    exit_status: int
    evidence: str
    strain: Strain = field(default=Strain(), compare=False)
    took: timedelta | None = field(default=None, compare=False)
    warmth: Warmth | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Something else ended it; `survivors` are processes of it that are still there."""

    attempt: int
    reason: StopReason
    evidence: str
    survivors: tuple[int, ...] = ()


JobEnd = Finished | Stopped
JobState = NeverStarted | Queued | Running | JobEnd


def parse_state(said: dict[str, str]) -> JobState:
    """Return the state from what `job.sh state` said."""
    attempt = int(said.get("attempt") or 0)
    match said["state"]:
        case "never":
            known = (
                f"attempt {attempt} was prepared only" if attempt else "the node has no such job"
            )
            return NeverStarted(evidence=known)
        case "queued":
            return Queued(attempt=attempt, evidence=f"{_process(said)} waits for the host")
        case "running":
            ran = _number(said.get("ran_seconds"))
            return Running(
                attempt=attempt,
                evidence=f"{_process(said)} is alive",
                ran=None if ran is None else timedelta(seconds=ran),
            )
        case "finished":
            status = int(said["status"])
            evidence = said.get("undelivered") or f"the command exited with status {status}"
            strain = Strain(
                free_kib=_number(said.get("free_kb")),
                free_inodes=_number(said.get("free_inodes")),
                oom_kills=_number(said.get("oom_kills")) or 0,
            )
            took, warmth = _measured(said.get("took", ""))
            return Finished(
                attempt=attempt,
                exit_status=status,
                evidence=evidence,
                strain=strain,
                took=took,
                warmth=warmth,
            )
        case _:
            return _stopped(said, attempt)


def _stopped(said: dict[str, str], attempt: int) -> Stopped:
    process = _process(said)
    survivors = tuple(int(pid) for pid in said.get("survivors", "").split())
    match said["reason"]:
        case "deadline":
            reason = StopReason.DEADLINE
            evidence = f"it ran longer than its {said.get('deadline')} s"
        case "flooded":
            reason = StopReason.FLOODED
            evidence = f"its log grew beyond {said.get('flooded')} bytes"
        case "cancelled":
            reason = StopReason.CANCELLED
            evidence = "it was cancelled"
        case "reboot":
            reason = StopReason.REBOOT
            evidence = (
                f"{process} is gone without an exit status, and the node has rebooted since "
                f"(boot {said.get('boot')} then, {said.get('boot_now')} now)"
            )
        case "unable":
            reason = StopReason.UNABLE
            evidence = said.get("unable") or "the node could not do its part"
        case "terminated":
            reason = StopReason.KILLED
            evidence = f"{process} was told to end (SIGTERM), exit status {said.get('status')}"
        case _:
            reason = StopReason.KILLED
            evidence = f"{process} is gone without an exit status, on the same boot"
    if survivors:
        evidence += f"; still there: {', '.join(map(str, survivors))}"
    return Stopped(attempt=attempt, reason=reason, evidence=evidence, survivors=survivors)


_TOOK: Final = re.compile(
    r"(?P<begun>\d{1,12}(?:\.\d{1,9})?) (?P<ended>\d{1,12}(?:\.\d{1,9})?) (?P<warmth>cold|warm|-)",
    re.ASCII,
)


def _measured(text: str) -> tuple[timedelta | None, Warmth | None]:
    found = _TOOK.fullmatch(text)
    if found is None:
        return None, None
    seconds = round(float(found["ended"]) - float(found["begun"]), 3)
    warmth = None if found["warmth"] == "-" else Warmth(found["warmth"])
    return (timedelta(seconds=seconds) if seconds >= 0 else None), warmth


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _process(said: dict[str, str]) -> str:
    return f"process {said['pid']}" if said.get("pid") else "its process"
