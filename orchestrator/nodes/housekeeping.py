"""What lies on a node: list its jobs, and remove what is not needed any more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.nodes.job import (
    JOB_SH,
    REQUEST_TIMEOUT,
    parse_lines,
    refusal,
)
from orchestrator.nodes.job_state import parse_state
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from orchestrator.nodes.job_state import JobState
    from orchestrator.nodes.probe import NodeFacts
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


_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")


def _listed(block: bytes) -> ListedJob:
    id_, _, answer = block.partition(b"\n")
    if not _ID.fullmatch(id_):
        raise ValueError(id_)
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


# Target folders hold tens of thousands of files, and a node's disk may be an SD card.
_TIDY_TIMEOUT: Final = timedelta(minutes=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """What was removed from a node, by name, and how much more of its disk is free than before.

    `targets` are named after nodes; `leftovers` are of transfers and gates that were cut off.
    """

    jobs: tuple[str, ...]
    targets: tuple[str, ...]
    sources: tuple[str, ...]
    leftovers: tuple[str, ...]
    freed_bytes: int


async def tidy(
    transport: Transport, facts: NodeFacts, *, max_age: timedelta, min_free_bytes: int
) -> Tidied:
    """Remove what was not used for `max_age`; then, until so much is free, the longest unused.

    Nothing goes that a job uses which is queued, runs or is being started, or that was used within
    the last hour. Safe beside any number of starts and of its own kind. Raise NodeError if the node
    cannot do it.
    """
    completed = await run(
        transport,
        JOB_SH,
        *("tidy", facts.workdir, "-"),
        *(str(max(1, int(max_age.total_seconds() // 60))), str(-(-min_free_bytes // 1024))),
        timeout=_TIDY_TIMEOUT,
    )
    told = re.search(rb"^freed (-?[0-9]+)\n\Z", completed.stdout, re.MULTILINE)
    if completed.exit_status != 0 or (completed.stdout and told is None):
        raise refusal("tidy up", completed)
    removed = completed.stdout.decode(errors="replace").splitlines()
    names = {
        kind: tuple(name for each in removed if (name := each.removeprefix(f"{kind}/")) != each)
        for kind in ("jobs", "target", "sources", "gates")
    }
    sources = tuple(filter(_BUNDLE.fullmatch, names["sources"]))
    return Tidied(
        jobs=names["jobs"],
        targets=names["target"],
        sources=sources,
        leftovers=(*(each for each in names["sources"] if each not in sources), *names["gates"]),
        freed_bytes=max(0, int(told[1]) * 1024) if told else 0,
    )


_BUNDLE: Final = re.compile(r"[A-Za-z0-9_-]+")
