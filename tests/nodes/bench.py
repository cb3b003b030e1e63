"""A workbench for tests of jobs: this machine as a node, with a scratch home."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.nodes.follow import Follower, LogCursor, follow_job
from orchestrator.nodes.job import JobSpec, cancel_job, job_id, start_job
from orchestrator.nodes.local import LocalProcess, LocalTransport
from orchestrator.nodes.probe import NodeFacts
from orchestrator.nodes.transport import shell_words, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.nodes.job import Job
    from orchestrator.nodes.job_state import JobEnd, JobState
    from orchestrator.nodes.transport import Transport


class ShellTransport(LocalTransport):
    """This machine, with another shell for every script and job."""

    def __init__(self, shell: str) -> None:
        super().__init__(os.environ)
        self._shell = shell

    async def open(self, script: str, *args: str) -> LocalProcess:
        words = [self._shell if word == "/bin/sh" else word for word in shell_words(args)]
        # posh cannot read a script from its standard input; it runs the jobs all the same.
        if Path(self._shell).resolve().name == "posh":
            words[0] = "/bin/sh"
        return LocalProcess(*self._start(tuple(words), wrap(script)))


@dataclass(kw_only=True)
class Bench:
    """A node, its facts, and the jobs that a test started on it."""

    transport: Transport
    facts: NodeFacts
    folder: Path
    jobs: list[Job] = field(default_factory=list)

    def spec(self, command: str, /, **changes: object) -> JobSpec:
        values: dict[str, object] = {
            "id": job_id(
                project="demo",
                version="1.0.0",
                target="t",
                command=command,
                source_digest=None,
                env=(),
            ),
            "command": command,
            "binaries": (),
            "lock": "host",
            "timeout": timedelta(seconds=60),
        }
        return JobSpec(**(values | changes))  # type: ignore[arg-type]  # a test's own keywords

    async def start(self, spec: JobSpec, *, rebuild: bool = False) -> Job:
        job = await start_job(self.transport, self.facts, spec, rebuild=rebuild)
        self.jobs.append(job)
        return job

    async def follow(self, job: Job, **changes: object) -> Followed:
        log = bytearray()
        states: list[JobState] = []
        values: dict[str, object] = {
            "on_log": log.extend,
            "on_state": states.append,
            "silence_timeout": timedelta(seconds=30),
        }
        follower = Follower(**(values | changes))  # type: ignore[arg-type]  # as above
        end = await follow_job(self.transport, job, follower)
        return Followed(end=end, log=bytes(log), states=states, cursor=follower.cursor)

    async def run(self, command: str, **changes: object) -> Followed:
        return await self.follow(await self.start(self.spec(command, **changes)))

    async def cancel_all(self) -> None:
        for job in {job.id: job for job in self.jobs}.values():
            # The number of a job that was started a moment ago may not be there yet; a start that
            # was refused after somebody had tidied up leaves a folder without an attempt.
            if (self.folder_of(job) / "attempt").exists():
                await until((self.folder_of(job) / "pid").exists)
                await cancel_job(self.transport, job)

    def folder_of(self, job: Job) -> Path:
        return self.folder / "jobs" / job.id


@dataclass(kw_only=True)
class Followed:
    """What a follower was told."""

    end: JobEnd
    log: bytes
    states: list[JobState]
    cursor: LogCursor


def bench(home: Path, transport: Transport | None = None) -> Bench:
    folder = home / "work"
    folder.mkdir(mode=0o700, exist_ok=True)
    return Bench(
        transport=transport or LocalTransport(os.environ),
        facts=facts(home, folder),
        folder=folder,
    )


def facts(home: Path, folder: Path) -> NodeFacts:
    """What a probe would say, without its 0.1 seconds."""
    return NodeFacts(
        system="Linux",
        kernel="6.1",
        machine="x86_64",
        processor=None,
        release=None,
        glibc=None,
        hostname=None,
        user="builder",
        home=str(home),
        workdir=str(folder),
        path=os.environ["PATH"],
        cargo_home=os.environ.get("CARGO_HOME"),
        rustup_home=os.environ.get("RUSTUP_HOME"),
        cpus=None,
        memory_bytes=None,
        data_limit_bytes=None,
        disk_free_bytes=None,
        inodes_free=None,
        boot_id=None,
        cargo=None,
        rustc=None,
        host_triple=None,
        rust_targets=(),
        linker=None,
        tar=None,
        hash_tool=None,
        workdir_runs_programs=None,
        tmp_runs_programs=None,
        kills_processes=None,
        clock_offset=timedelta(0),
    )


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
