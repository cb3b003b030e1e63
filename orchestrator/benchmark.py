"""How long a node takes for a clean build: the same jobs as a release's, apart from them.

A bench job has an id of its own, so that nobody else attaches to it; it takes the lock of the host
like every other job, so that it never runs beside one.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from orchestrator.core.bench import Benchmark, FailedRun, NodeBench
from orchestrator.core.dry_run import describe_source
from orchestrator.core.errors import (
    BuildError,
    CancelledError,
    LinkError,
    NodeError,
    OrchestratorError,
)
from orchestrator.core.plan import fill_command
from orchestrator.core.preflight import judge, needs_of
from orchestrator.core.record import Outcome, PastBuild, Warmth
from orchestrator.core.result import FailureClass
from orchestrator.core.wording import human_time
from orchestrator.nodes.bundle import source_folder
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.job import JobSpec, cancel_job, job_id, start_job
from orchestrator.nodes.probe import probe
from orchestrator.nodes.transport import run
from orchestrator.pushing import Pushes
from orchestrator.reach import Reach
from orchestrator.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.plan import BuildPlan, NodeTask
    from orchestrator.nodes.job import Job
    from orchestrator.nodes.job_state import Finished
    from orchestrator.nodes.line import Line
    from orchestrator.nodes.transport import Completed, Transport
    from orchestrator.source import Bundle
    from orchestrator.world import World

_CLEARING: Final = timedelta(minutes=10)
_LOG_TAIL_BYTES: Final = 16 * 1024
# Whoever interrupts a benchmark wants it to end, and waits for that.
_CANCELLING_SECONDS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured, and how often; `tell` is told of each run, in words."""

    plan: BuildPlan
    runs: int
    world: World
    tell: Callable[[str], None]
    logs: Path
    # In the id of each job: two benchmarks at once must not measure the same build.
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    reach: Reach = field(default_factory=Reach)
    turns: Turns = field(default_factory=Turns)
    pushes: Pushes = field(default_factory=Pushes)

    async def measure(self) -> Benchmark:
        """Build on every node of the plan, stand-by ones too, and return what that took.

        Hosts are measured at once, the nodes of one host or group by turns. A node that fails is a
        part of the result; no source at all raises.
        """
        at = self.world.now()
        project = self.plan.inventory.project
        bundle = None
        if project.source is not None:
            bundle = await self.world.make_bundle(
                project.source, self.plan.version, project.binaries
            )
        tasks = [each for task in self.plan.tasks for each in (task.first, *task.standby)]
        order = {node.name: number for number, node in enumerate(self.plan.inventory.nodes)}
        tasks.sort(key=lambda task: order[task.node.name])
        async with asyncio.TaskGroup() as nodes:
            found = [nodes.create_task(_NodeRuns(self, task, bundle).measure()) for task in tasks]
        return Benchmark(
            project=project.name,
            version=str(self.plan.version),
            source=describe_source(project.source, self.plan.version),
            at=at,
            runs=self.runs,
            nodes=tuple(node.result() for node in found),
        )


class _NodeRuns:
    """The runs of one node."""

    def __init__(self, bench: Bench, task: NodeTask, bundle: Bundle | None) -> None:
        self._bench = bench
        self._task = task
        self._node = task.node
        self._bundle = bundle
        self._took: list[timedelta] = []
        self._failures: list[FailedRun] = []
        self._facts: NodeFacts | None = None

    async def measure(self) -> NodeBench:
        reach, world = self._bench.reach, self._bench.world
        try:
            way = reach.line(world.connect, self._node, has_spare=False, on_lost=self._on_lost)
            # What boots a machine is work for its group's CPU, and disturbs whom it measures.
            async with self._turn(is_boot=True), way as line:
                await self._build_all(line)
        except NodeError as error:
            self._fail(0, error)
        except OSError as error:
            # A node's own troubles are NodeErrors: this is the disk here.
            here = NodeError(f"cannot write to {self._bench.logs}: {error.strerror}")
            self._fail(0, here, is_of_node=False)
        facts = self._facts
        return NodeBench(
            node=self._node.name,
            target=self._node.target.triple,
            took=tuple(self._took),
            failures=tuple(self._failures),
            rustc=facts.rustc if facts else None,
            cpu=facts.cpu if facts else None,
            cpus=facts.cpus if facts else None,
            system=f"{facts.system} {facts.release or facts.kernel}" if facts else None,
            is_own_command=not self._task.is_kept_warm,
            is_fetching=self._bundle is None,
        )

    async def _build_all(self, line: Line) -> None:
        facts = await line.run(partial(probe, workdir=self._node.workdir))
        self._facts = facts
        self._require_fit(facts)
        if self._bundle:
            await self._bench.pushes.push(line, self._node, facts=facts, bundle=self._bundle)
        spec = self._spec(facts)
        for number in range(1, self._bench.runs + 1):
            if not await self._try(line, facts, spec=spec, number=number):
                break
        await self._clear(line, facts, spec)

    def _turn(self, *, is_boot: bool = False) -> AbstractAsyncContextManager[object]:
        is_needed = is_boot is (self._node.vm is not None)
        return self._bench.turns.of(self._node) if is_needed else nullcontext()

    async def _try(self, line: Line, facts: NodeFacts, *, spec: JobSpec, number: int) -> bool:
        """Make one run, and return whether another one makes sense."""
        of = f"{self._node.name}: run {number} of {self._bench.runs}"
        try:
            end = await self._build(line, facts, spec=spec, number=number)
            if end.took is None:
                raise NodeError("the node did not say how long it took", hint="look at its clock")  # noqa: TRY301 -- as any other failure
        except LinkError:
            raise
        except (NodeError, BuildError) as error:
            # A job that a person ended tells nothing of its node.
            is_cancelled = isinstance(error, CancelledError)
            self._fail(number, error, is_of_node=not is_cancelled)
            self._bench.tell(f"{of}: failed: {error.message}")
            # The code would only fail again.
            return isinstance(error, NodeError) and not is_cancelled
        self._took.append(end.took)
        self._bench.tell(f"{of}: {human_time(end.took)}")
        warmth = Warmth.COLD if self._task.is_kept_warm else None
        self._remember(Outcome.BUILT, took=end.took, warmth=warmth, rustc=facts.rustc)
        return True

    async def _build(self, line: Line, facts: NodeFacts, *, spec: JobSpec, number: int) -> Finished:
        line.is_waiting = True
        async with self._turn():
            line.is_waiting = False
            start = partial(start_job, facts=facts, spec=spec, rebuild=True)
            job = await line.run(partial(start, request=secrets.token_hex(16)))
            line.has_job = True
            try:
                return await self._follow(line, job, number)
            except asyncio.CancelledError:
                with suppress(OrchestratorError, TimeoutError):
                    async with asyncio.timeout(_CANCELLING_SECONDS):
                        await line.run(partial(cancel_job, job=job))
                raise

    async def _follow(self, line: Line, job: Job, number: int) -> Finished:
        self._bench.logs.mkdir(parents=True, exist_ok=True)
        path = self._log(number)
        with path.open("wb", buffering=0) as log:

            def on_log(data: bytes) -> None:
                line.touch()
                log.write(data)

            follower = Follower(
                on_log=on_log,
                on_state=lambda _: None,
                silence_timeout=self._node.silence_timeout,
                timeout=self._node.timeout,
            )
            end = await line.run(
                lambda transport: follow_job(transport, job, follower),
                progress=lambda: follower.cursor.offset,
            )
        return require_success(end, log_tail=_tail(path))

    async def _clear(self, line: Line, facts: NodeFacts, spec: JobSpec) -> None:
        """Remove what the last build left: nothing of it is ever used again."""
        folder = f"{facts.workdir}/jobs/{spec.id}"

        def clear(transport: Transport) -> Awaitable[Completed]:
            return run(transport, _CLEAR, folder, timeout=_CLEARING)

        with suppress(NodeError):
            await line.run(clear)

    def _require_fit(self, facts: NodeFacts) -> None:
        needs = needs_of(self._bench.plan.inventory.project, self._node)
        problems = [each for each in judge(facts, self._node, needs) if each.is_problem]
        if problems:
            raise NodeError("; ".join(each.message for each in problems))

    def _spec(self, facts: NodeFacts) -> JobSpec:
        node, plan, task = self._node, self._bench.plan, self._task
        bundle = self._bundle
        folder = source_folder(facts, bundle.digest) if bundle else None
        source = f"{folder}/source/{bundle.subdirectory}".rstrip("/") if bundle else None
        command = fill_command(task, source=source, jobs=node.jobs or facts.cpus or 1)
        id_ = job_id(
            project=plan.inventory.project.name,
            version=str(plan.version),
            target=node.target.triple,
            command=command,
            source_digest=bundle.digest if bundle else None,
            env=(
                *node.env,
                ("bench", f"{node.name} {self._bench.token}"),
                ("workdir", facts.workdir),
            ),
        )
        # Each attempt begins with an empty work folder, so the target folder in it is cold.
        cold = (("CARGO_TARGET_DIR", f"{facts.workdir}/jobs/{id_}/work/target"),)
        suffix = node.target.exe_suffix
        names = tuple(f"{name}{suffix}" for name in plan.inventory.project.binaries)
        paths = task.binary_paths or (None,) * len(names)
        return JobSpec(
            id=id_,
            command=command,
            binaries=tuple(zip(names, paths, strict=True)),
            lock=node.group or "host",
            slots=node.slots,
            timeout=node.timeout,
            log_limit_bytes=node.log_limit,
            env=(
                *node.env,
                *(cold if task.is_kept_warm else ()),
                *((("CARGO_NET_OFFLINE", "true"),) if bundle else ()),
            ),
            source=folder,
            label=(
                plan.inventory.project.name,
                f"bench-{plan.version}",
                node.target.triple,
                node.name,
            ),
        )

    def _fail(self, number: int, error: NodeError | BuildError, *, is_of_node: bool = True) -> None:
        is_build = isinstance(error, BuildError)
        failure_class = FailureClass.BUILD if is_build else FailureClass.MACHINE
        self._failures.append(
            FailedRun(
                number=number,
                failure_class=failure_class,
                message=error.message,
                log=str(log) if (log := self._log(number)).exists() else None,
            )
        )
        if is_of_node:
            self._remember(Outcome.BUILD if is_build else Outcome.MACHINE)

    def _remember(self, outcome: Outcome, **more: object) -> None:
        known = PastBuild(
            node=self._node.name,
            target=self._node.target.triple,
            outcome=outcome,
            at=self._bench.world.now(),
            version=str(self._bench.plan.version),
            is_bench=True,
        )
        try:
            self._bench.world.remember(replace(known, **more))  # type: ignore[arg-type]  # its fields
        except OSError as error:
            self._bench.tell(f"{self._node.name}: this cannot be recorded: {error}")

    def _log(self, number: int) -> Path:
        return self._bench.logs / f"{self._node.name}-{number}.log"

    def _on_lost(self, error: NodeError, pause: timedelta) -> None:
        reason = error.message.partition("\n")[0]
        self._bench.tell(f"{self._node.name}: {reason}; trying again in {human_time(pause)}")


_CLEAR: Final = 'chmod -R u+w "$1/work" 2>/dev/null; rm -rf "$1/work" "$1/out"\n'


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        return file.read()
