"""What the jobs of earlier runs are doing: their records here, their truth on the nodes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.delivery import BUILD_LOG, JOB_RECORD
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.job import Job, read_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.core.inventory import Node
    from orchestrator.core.version import Version
    from orchestrator.nodes.transport import Connect

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


async def describe_jobs(connect: Connect, jobs: Sequence[KnownJob]) -> list[Mapping[str, object]]:
    """Return how each job stands, as its node tells it; a node out of reach is an answer too."""
    return list(await asyncio.gather(*(_describe(connect, known) for known in jobs)))


def read_log(dist: Path, version: Version, node: Node) -> bytes:
    """Return the log that the last run here has fetched; raise ConfigError if there is none."""
    path = dist / str(version) / node.name / BUILD_LOG
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"there is no log of {version} on {node.name} in {dist}",
            hint=f"run: orchestrator release --version {version} --node {node.name}",
        ) from None


async def follow_log(connect: Connect, known: KnownJob, write: Callable[[bytes], None]) -> None:
    """Write the job's log from its first byte to its end, as it grows.

    Raises BuildError or NodeError, by who is at fault, if the job does not end well.
    """
    follower = Follower(on_log=write, on_state=lambda _: None, silence_timeout=_WATCH_SILENCE)
    async with connect(known.node) as transport:
        end = await follow_job(transport, known.job, follower)
    require_success(end)


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


async def _describe(connect: Connect, known: KnownJob) -> Mapping[str, object]:
    try:
        async with connect(known.node) as transport:
            state = await read_job(transport, workdir=known.job.workdir, job=known.job.id)
    except NodeError as error:
        name, evidence = "unknown", error.message
    else:
        name, evidence = type(state).__name__.lower(), state.evidence
    return {
        "version": known.version,
        "node": known.node.name,
        "target": known.node.target.triple,
        "state": name,
        "evidence": evidence,
    }
