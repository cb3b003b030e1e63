"""What of a release is worth remembering for the next one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from orchestrator.core.record import Outcome, PastBuild, Warmth
from orchestrator.core.result import Built, Failed, FailureClass

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.core.result import Result


def record_of(
    result: Result, *, version: str, at: datetime, is_clean: bool = False
) -> PastBuild | None:
    """Return what there is to remember of a node's part of a release, None if nothing.

    A build that was there already is remembered already, and a job that a person ended tells
    nothing of its node. `is_clean` says that the command has cleared its target folder itself.
    """
    match result:
        case Built(was_attached=False):
            rustc = built_with(result)
            warmth = Warmth.COLD if is_clean and result.warmth else result.warmth
            return PastBuild(
                node=result.node,
                target=result.artifact.target.triple,
                took=result.elapsed if result.took is None else result.took,
                warmth=warmth,
                at=at,
                version=version,
                rustc=rustc,
                is_pinned=rustc != result.own_rustc,
            )
        case Failed(is_final=False) if result.failure_class in _FAILURES:
            return PastBuild(
                node=result.node,
                target=result.target.triple,
                outcome=_FAILURES[result.failure_class],
                at=at,
                version=version,
            )
        case _:
            return None


def built_with(result: Built) -> str | None:
    """Return the release of the compiler that built it: the project's own choice, or the node's."""
    record = result.artifact.evidence and result.artifact.evidence.record
    return rustc_release(record.rustc) if record and record.rustc else result.own_rustc


_FAILURES: Final = {FailureClass.MACHINE: Outcome.MACHINE, FailureClass.BUILD: Outcome.BUILD}


def rustc_release(said: str) -> str | None:
    """Return `1.94.1` from what `rustc -V` prints, None if it is nothing of the kind."""
    found = re.match(r"rustc ([0-9A-Za-z.+-]+)", said)
    return found[1] if found else None
