"""What the jobs of earlier runs are doing: their truth on the nodes, their records here."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, assert_never

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.inventory import BUILD_LOG, JOB_RECORD
from orchestrator.nodes.follow import Follower, follow_job, hand_over_log, require_success
from orchestrator.nodes.housekeeping import list_jobs
from orchestrator.nodes.job import Job, cancel_job
from orchestrator.nodes.job_state import (
    NeverStarted,
    Queued,
    Running,
    Stopped,
)
from orchestrator.nodes.line import Line
from orchestrator.nodes.workdir import find_workdir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.core.inventory import Node
    from orchestrator.core.version import Version
    from orchestrator.nodes.housekeeping import ListedJob
    from orchestrator.nodes.job_state import JobState
    from orchestrator.nodes.transport import Connect, Transport

# Who only watches does not judge: that a job is silent for too long is the release's business.
_WATCH_SILENCE: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownJob:
    """A job that some run here has started or attached to."""

    version: str
    node: Node
    job: Job


def known_jobs(dist: Path, nodes: Iterable[Node], version: Version | None) -> tuple[KnownJob, ...]:
    """Return the jobs on record, of one version or of all, in the order of versions and nodes."""
    versions = [str(version)] if version else sorted(path.name for path in _folders(dist))
    found = (
        (name, node, _read_record(dist / name / node.name / JOB_RECORD))
        for name in versions
        for node in nodes
    )
    return tuple(KnownJob(version=name, node=node, job=job) for name, node, job in found if job)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A job as its node tells of it."""

    version: str
    node: Node
    job: Job
    state: JobState

    @property
    def is_alive(self) -> bool:
        """Whether any process of it is left to be ended."""
        match self.state:
            case Queued() | Running():
                return True
            case Stopped(survivors=survivors):
                return bool(survivors)
            case _:
                return False


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentNode:
    """A node that did not say what jobs it has."""

    node: Node
    error: NodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Whose jobs are looked for: a project's, of one version or of all."""

    project: str
    version: Version | None

    def holds(self, listed: ListedJob) -> bool:
        """Whether the job is one of them."""
        is_this = self.version is None or listed.version == str(self.version)
        return is_this and listed.project == self.project


async def find_jobs(
    connect: Connect, nodes: Sequence[Node], search: Search
) -> list[FoundJob | SilentNode]:
    """Return the jobs that the nodes have, in the order of the nodes; asks all of them at once."""
    answers = await asyncio.gather(*(_find(connect, node, search) for node in nodes))
    return [found for answer in answers for found in answer]


async def _find(connect: Connect, node: Node, search: Search) -> list[FoundJob | SilentNode]:
    async def look(transport: Transport) -> list[FoundJob | SilentNode]:
        workdir = await find_workdir(transport, node.workdir)
        listed = await list_jobs(transport, workdir) if workdir else ()
        return [
            _found(node, str(workdir), each)
            for each in listed
            if each.node == node.name and search.holds(each)
        ]

    try:
        async with _line(connect, node) as line:
            return await line.run(look)
    except NodeError as error:
        return [SilentNode(node=node, error=error)]


async def find_job(connect: Connect, node: Node, search: Search) -> FoundJob:
    """Return the node's last job in a search; raise ConfigError if it has none."""
    for each in reversed(await find_jobs(connect, (node,), search)):
        if isinstance(each, SilentNode):
            raise each.error
        if each.job.attempt:
            return each
    raise ConfigError(
        f"{node.name} has no job of {search.version or 'any version'}",
        hint=f"`orchestrator release --node {node.name} --version V` would start one",
    )


def _found(node: Node, workdir: str, listed: ListedJob) -> FoundJob:
    attempt = 0 if isinstance(listed.state, NeverStarted) else listed.state.attempt
    job = Job(id=listed.id, workdir=workdir, attempt=attempt, was_attached=True)
    return FoundJob(version=listed.version, node=node, job=job, state=listed.state)


# Who looks around sits and waits; who means to do something there rather waits a moment.
_AT_ONCE: Final = timedelta(0)
_A_MOMENT: Final = timedelta(seconds=3)


def _line(connect: Connect, node: Node, patience: timedelta = _AT_ONCE) -> Line:
    return Line(lambda: connect(node), patience=lambda: patience, on_lost=lambda *_: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What became of a job that was to be ended; `survivors` are lines of `ps`."""

    found: FoundJob
    survivors: tuple[str, ...]


async def cancel_jobs(
    connect: Connect, nodes: Sequence[Node], search: Search
) -> list[Cancelled | SilentNode]:
    """End every process of the jobs that the nodes have, and return those that had any.

    A node that does not answer is an answer too: nothing was ended there.
    """
    found = await find_jobs(connect, nodes, search)
    return await asyncio.gather(
        *(_cancel(connect, each) for each in found if isinstance(each, SilentNode) or each.is_alive)
    )


async def _cancel(connect: Connect, found: FoundJob | SilentNode) -> Cancelled | SilentNode:
    if isinstance(found, SilentNode):
        return found
    try:
        async with _line(connect, found.node, _A_MOMENT) as line:
            survivors = await line.run(lambda transport: cancel_job(transport, found.job))
    except NodeError as error:
        return SilentNode(node=found.node, error=error)
    return Cancelled(found=found, survivors=survivors)


def found_as_data(found: FoundJob | SilentNode, version: Version | None) -> Mapping[str, object]:
    """Return what `status --json` prints of a job, or of a node that is silent."""
    match found:
        case FoundJob():
            told, state, evidence = found.version, type(found.state).__name__, found.state.evidence
        case SilentNode():
            told, state, evidence = str(version or ""), "unknown", found.error.message
        case _:
            assert_never(found)
    return {
        "version": told or None,
        "node": found.node.name,
        "target": found.node.target.triple,
        "state": state.lower(),
        "evidence": evidence,
    }


def cancelled_as_data(cancelled: Cancelled | SilentNode) -> Mapping[str, object]:
    """Return what `cancel --json` prints of a job, or of a node that is silent."""
    match cancelled:
        case Cancelled(found=found, survivors=survivors):
            node, was = found.node, type(found.state).__name__.lower()
            outcome, detail = ("survives" if survivors else "ended"), "; ".join(survivors)
        case SilentNode(node=node, error=error):
            was, outcome, detail = "unknown", "unreachable", error.message
        case _:
            assert_never(cancelled)
    return {
        "node": node.name,
        "target": node.target.triple,
        "was": was,
        "outcome": outcome,
        "detail": detail,
    }


def has_log(dist: Path, version: Version, node: Node) -> bool:
    """Whether a run here has fetched a log of the version from the node."""
    return log_file(dist, version, node).is_file()


def read_log(dist: Path, version: Version, node: Node) -> bytes:
    """Return the log that the last run here has fetched."""
    return log_file(dist, version, node).read_bytes()


def log_file(dist: Path, version: Version, node: Node) -> Path:
    """Return where the log of a node's newest build of the version is, if there is one."""
    return dist / str(version) / node.name / BUILD_LOG


async def read_rest(
    connect: Connect, known: KnownJob | FoundJob, write: Callable[[bytes], None]
) -> None:
    """Write the job's log as it is on the node now."""
    follower = _watcher(write)
    async with _line(connect, known.node) as line:
        await line.run(lambda transport: hand_over_log(transport, known.job, follower))


async def follow_log(
    connect: Connect, known: KnownJob | FoundJob, write: Callable[[bytes], None]
) -> None:
    """Write the job's log from its first byte to its end, as it grows, over lost links too.

    Raises BuildError or NodeError, by who is at fault, if the job does not end well.
    """
    follower = _watcher(write)
    line = Line(
        lambda: connect(known.node),
        patience=lambda: known.node.reconnect_timeout,
        on_lost=lambda *_: None,
    )
    async with line:
        end = await line.run(
            lambda transport: follow_job(transport, known.job, follower),
            progress=lambda: follower.cursor.offset,
        )
    require_success(end)


def _watcher(write: Callable[[bytes], None]) -> Follower:
    return Follower(on_log=write, on_state=lambda _: None, silence_timeout=_WATCH_SILENCE)


def _folders(dist: Path) -> Iterable[Path]:
    return (path for path in dist.iterdir() if path.is_dir()) if dist.is_dir() else ()


def _read_record(path: Path) -> Job | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Job(
            id=str(record["id"]),
            workdir=str(record["workdir"]),
            attempt=int(record["attempt"]),
            was_attached=True,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
