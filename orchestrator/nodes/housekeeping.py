"""What lies on a node: list its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.nodes.job import JOB_SH, REQUEST_TIMEOUT, parse_lines, parse_state, refusal
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from orchestrator.nodes.job import JobState
    from orchestrator.nodes.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """A job's folder on a node; what its start has not noted is empty."""

    id: str
    project: str
    version: str
    target: str
    node: str
    state: JobState


async def list_jobs(transport: Transport, workdir: str) -> tuple[ListedJob, ...]:
    """Return every job in a workdir, by id, each judged by the node from its own evidence."""
    completed = await run(transport, JOB_SH, "list", workdir, "-", timeout=REQUEST_TIMEOUT)
    if completed.exit_status != 0:
        raise refusal("list its jobs", completed)
    try:
        return tuple(map(_listed, (b"\n" + completed.stdout).split(b"\njob=")[1:]))
    except (KeyError, ValueError) as error:
        raise refusal("list its jobs", completed) from error


def _listed(block: bytes) -> ListedJob:
    id_, _, answer = block.partition(b"\n")
    said = parse_lines(answer)
    project, version, target, node = (*said.get("label", "").split(" "), "", "", "", "")[:4]
    return ListedJob(
        id=id_.decode(errors="replace"),
        project=project,
        version=version,
        target=target,
        node=node,
        state=parse_state(said),
    )
