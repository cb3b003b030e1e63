"""How a release ended: its results, what was published, the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from orchestrator.core.attachment import Attachment, AttachmentState, attachment_as_data
from orchestrator.core.inventory import Policy
from orchestrator.core.result import Built, Failed, FailureClass, Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

    from orchestrator.core.index import Row
    from orchestrator.core.inventory import Node
    from orchestrator.core.result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What came of reading a release back: through its public URL, or only in its store."""

    is_public: bool
    problems: tuple[str, ...]

    def __str__(self) -> str:
        if self.problems:
            return "failed"
        return "public" if self.is_public else "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The end of one release; `url` is where the installer is that leads to it, if there is one.

    `verified` is None when there was nothing to read back.
    """

    version: str
    results: tuple[Result, ...]
    published: tuple[str, ...]
    pending: tuple[str, ...]
    held_back: tuple[str, ...]
    serial: int | None
    url: str | None
    exit_code: int
    elapsed: timedelta
    verified: Verified | None = None
    attachment: Attachment | None = None
    # Where another compiler has built than built the last release.
    drifts: tuple[str, ...] = ()


def exit_code(
    tasks: Iterable[Sequence[Result]],
    nodes: Iterable[Node],
    attachment: Attachment | None = None,
) -> int:
    """Return 0, or the lowest failure class among the targets that count and are not delivered.

    A task is given as the results of its nodes: whoever of them delivered, delivered its target.
    A target counts unless every node of it is best-effort. An attachment that failed is a failure
    of a store.
    """
    best_effort = {node.name for node in nodes if node.policy is Policy.BEST_EFFORT}
    codes = [
        result.failure_class.value
        for results in tasks
        if not any(isinstance(result, Built) for result in results)
        and not all(result.node in best_effort for result in results)
        for result in results
        if isinstance(result, Failed)
    ]
    if attachment and attachment.state is AttachmentState.FAILED:
        codes.append(FailureClass.STORE.value)
    return min(codes, default=0)


def report_as_data(report: Report) -> Mapping[str, object]:
    """Return what `release --json` prints."""
    return {
        "version": report.version,
        "exit_code": report.exit_code,
        "published": list(report.published),
        "pending": list(report.pending),
        "held_back": list(report.held_back),
        "serial": report.serial,
        "url": report.url,
        "verified": str(report.verified) if report.verified else None,
        "unreadable": list(report.verified.problems) if report.verified else [],
        "github": attachment_as_data(report.attachment) if report.attachment else None,
        "drifts": list(report.drifts),
        "elapsed_seconds": round(report.elapsed.total_seconds(), 3),
        "results": [_result_as_data(result) for result in report.results],
    }


def row_as_data(row: Row) -> Mapping[str, object]:
    """Return what `status --json` prints of a row."""
    return {
        "target": row.target,
        "version": str(row.version),
        "status": str(row.status),
        "size_bytes": row.size_bytes,
        "sha256": row.sha256,
        "floors": [str(floor) for floor in row.floors],
        "path": row.path,
    }


def _result_as_data(result: Result) -> Mapping[str, object]:
    match result:
        case Built():
            artifact = result.artifact
            return {
                "node": result.node,
                "target": artifact.target.triple,
                "result": "built",
                "was_attached": result.was_attached,
                "elapsed_seconds": round(result.elapsed.total_seconds(), 3),
                "file": artifact.path.name,
                "path": str(artifact.path),
                "size_bytes": artifact.size_bytes,
                "sha256": artifact.sha256,
                "floors": [str(floor) for floor in artifact.floors],
                "warnings": list(result.warnings),
            }
        case Failed():
            return {
                "node": result.node,
                "target": result.target.triple,
                "result": "failed",
                "class": result.failure_class.name.lower(),
                "message": result.message,
                "hint": result.hint,
                "log": str(result.log_path) if result.log_path else None,
            }
        case Skipped():
            return {
                "node": result.node,
                "target": result.target.triple,
                "result": "skipped",
                "reason": result.reason,
            }
        case _:
            assert_never(result)
