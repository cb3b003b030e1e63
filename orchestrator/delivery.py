"""One node's part of a release: from its task to a checked, packed artifact."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import (
    BuildError,
    CancelledError,
    LinkError,
    NodeError,
    PassingError,
)
from orchestrator.core.events import LogAppended, Phase, PhaseChanged, TryingAgain, Warned
from orchestrator.core.extras import extra_name
from orchestrator.core.finding import Severity
from orchestrator.core.inventory import BUILD_LOG, JOB_RECORD
from orchestrator.core.plan import fill_command, fill_extra
from orchestrator.core.preflight import GOOD_DISK_BYTES, judge, needs_of
from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Skipped
from orchestrator.core.wording import human_size
from orchestrator.evidence import Witness
from orchestrator.inspection import Inspection, Place
from orchestrator.meanwhile import meanwhile
from orchestrator.nodes.bundle import source_folder, tree_folder
from orchestrator.nodes.collect import EXTRAS, Collection
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.housekeeping import tidy
from orchestrator.nodes.job import (
    JobSpec,
    job_id,
    read_job,
    start_job,
)
from orchestrator.nodes.job_state import (
    Finished,
    Queued,
    Running,
    Stopped,
)
from orchestrator.nodes.probe import probe
from orchestrator.parts import sweep_parts, write_whole
from orchestrator.pushing import Pushes
from orchestrator.reach import Reach
from orchestrator.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.core.errors import OrchestratorError
    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Node
    from orchestrator.core.plan import BuildPlan, BuildTask, NodeTask
    from orchestrator.core.result import CollectedFile, Result
    from orchestrator.nodes.job import Job
    from orchestrator.nodes.job_state import JobState
    from orchestrator.nodes.line import Line
    from orchestrator.nodes.project import BuiltProject
    from orchestrator.source import Bundle
    from orchestrator.world import World

# Below the folder of a version and node: an extra file may have any name.
_EXTRAS: Final = "extras"
_LOG_TAIL_LINES: Final = 20
_LOG_TAIL_BYTES: Final = 16 * 1024
_DISK_ERRORS: Final = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
)
# What findings on a node's room are about.
_ROOM: Final = frozenset(("disk", "inodes"))
# A machine that killed or lost a job gets one more chance, then the next machine has its turn.
_PAUSES: Final = (timedelta(seconds=2),)
# Nobody comes back to a build after so long; the next version would build from cold.
_MAX_AGE: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the nodes of one release share; the bundle may still be in the making."""

    plan: BuildPlan
    bundle: Awaitable[Bundle | None]
    world: World

    reach: Reach = field(default_factory=Reach)
    pushes: Pushes = field(default_factory=Pushes)
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        coming = ((task.node, task.rank) for task in self.plan.tasks)
        object.__setattr__(self, "turns", Turns(coming))

    async def deliver(self, task: BuildTask) -> AsyncIterator[Result]:
        """Yield what became of the task's nodes, in their order.

        A stand-by node takes over when the one before it failed for a reason of the machine,
        never for a compile error, that would only fail again, nor for a job that a person ended.
        """
        candidates = (task.first, *task.standby)
        for number, candidate in enumerate(candidates, start=1):
            spares = candidates[number:]
            result = await _NodeDelivery(self, candidate, has_spare=bool(spares)).run()
            self.turns.leave(candidate.node)
            yield result
            if not _is_taken_over(result):
                for spare in spares:
                    reason = f"stands by for {candidate.node.name}"
                    yield Skipped(node=spare.node.name, target=spare.node.target, reason=reason)
                return


def _is_taken_over(result: Result) -> bool:
    return (
        isinstance(result, Failed)
        and result.failure_class is FailureClass.MACHINE
        and not result.is_final
    )


class _NodeDelivery:
    """One node, from its task to its result."""

    def __init__(self, delivery: Delivery, task: NodeTask, *, has_spare: bool) -> None:
        self._plan = delivery.plan
        self._bundle = delivery.bundle
        self._world = delivery.world
        self._reach = delivery.reach
        self._task = task
        self._node = task.node
        self._has_spare = has_spare
        self._turns = delivery.turns
        self._pushes = delivery.pushes
        self._folder = delivery.world.dist / str(delivery.plan.version) / task.node.name
        self._log_path = self._folder / BUILD_LOG
        self._has_log = False
        self._is_built = False
        self._was_judged = False

    @property
    def _binary_names(self) -> tuple[str, ...]:
        suffix = self._node.target.exe_suffix
        return tuple(f"{name}{suffix}" for name in self._plan.inventory.project.binaries)

    async def run(self) -> Result:
        begun = self._world.monotonic()
        try:
            sweep_parts(self._folder)
            sweep_parts(self._folder / _EXTRAS)
            return await self._build_again_and_again(begun)
        except NodeError as error:
            return self._failed(FailureClass.MACHINE, error)
        except BuildError as error:
            return self._failed(FailureClass.BUILD, error)
        except OSError as error:
            # A node's own troubles are NodeErrors: this is the disk here, which all of them need.
            if error.errno not in _DISK_ERRORS:
                raise
            raise _unwritable(self._folder, error) from error

    async def _build_again_and_again(self, begun: float) -> Built | Skipped:
        for pause in _PAUSES:
            try:
                return await self._build(begun)
            except PassingError as error:
                self._note_trouble(error, pause)
                await asyncio.sleep(pause.total_seconds())
        return await self._build(begun)

    async def _build(self, begun: float) -> Built | Skipped:
        self._enter(Phase.CONNECTING)
        async with AsyncExitStack() as turn:
            # What boots it is work for its group's CPU, too.
            if self._node.vm:
                await turn.enter_async_context(self._turns.of(self._node))
            return await self._build_in(turn, begun)

    async def _build_in(self, turn: AsyncExitStack, begun: float) -> Built | Skipped:
        async with self._line(self._node, has_spare=self._has_spare) as line:
            facts = await line.run(partial(probe, workdir=self._node.workdir))
            if skipped := self._is_there(facts):
                return skipped
            has_room = not self._is_short(facts)
            if not has_room:
                facts = await self._make_room(line, facts)
            bundle = await asyncio.shield(asyncio.ensure_future(self._bundle))
            spec = self._spec(facts, bundle)
            await self._preflight(line, facts, spec)
            if bundle:
                self._enter(Phase.PUSHING)
                await self._pushes.push(line, self._node, facts=facts, bundle=bundle)
            if not self._node.vm:
                if self._node.group:
                    self._enter(Phase.QUEUED)
                line.is_waiting = True
                await turn.enter_async_context(self._turns.of(self._node))
                line.is_waiting = False
            job = await self._start(line, facts, spec)
            # Where nothing depends on it, a build leaves it all the time that it needs.
            tidying = self._make_room(line, facts) if has_room else _nothing()
            async with meanwhile(tidying):
                end = await self._follow(line, job)
            # Before the gate, which may have to wait for a turn of the same group.
            await turn.aclose()
            self._is_built = True
            witness = Witness(
                plan=self._plan, task=self._task, line=line, facts=facts, job=job, bundle=bundle
            )
            artifact, warnings = await self._take_delivery(witness)
        elapsed = timedelta(seconds=self._world.monotonic() - begun)
        return Built(
            node=self._node.name,
            artifact=artifact,
            elapsed=elapsed,
            was_attached=job.was_attached,
            warnings=warnings,
            took=end.took,
            warmth=end.warmth,
            own_rustc=facts.rustc,
        )

    def _is_there(self, facts: NodeFacts) -> Skipped | None:
        """Return why there is nothing to do, where only the node could say so."""
        if self._task.gate_nodes or facts.release not in self._task.published_on:
            return None
        system = f"{facts.system} {facts.release}"
        reason = f"{self._plan.version} is already published for {system}"
        return Skipped(node=self._node.name, target=self._node.target, reason=reason)

    def _is_short(self, facts: NodeFacts) -> bool:
        """Return whether the node needs room before anything else."""
        findings = judge(facts, self._node, needs_of(self._plan.inventory.project, self._node))
        return any(
            finding.subject in _ROOM and finding.severity is not Severity.OK for finding in findings
        )

    async def _make_room(self, line: Line, facts: NodeFacts) -> NodeFacts:
        """Remove from the node what nobody has used for long, or what its room is needed for."""
        try:
            tidied = await line.run(
                partial(tidy, facts=facts, max_age=_MAX_AGE, min_free_bytes=GOOD_DISK_BYTES)
            )
        except LinkError:
            raise
        except NodeError as error:
            self._warn(error.message)
            return facts
        counts = (
            (len(tidied.jobs), "old job"),
            (len(tidied.targets), "warm target folder"),
            (len(tidied.sources), "source"),
        )
        if removed := ", ".join(
            f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count
        ):
            self._warn(f"removed {removed} to make room: {human_size(tidied.freed_bytes)}")
        free = facts.disk_free_bytes
        return replace(facts, disk_free_bytes=free and free + tidied.freed_bytes)

    async def _preflight(self, line: Line, facts: NodeFacts, spec: JobSpec) -> None:
        """Warn of what may go wrong; raise NodeError if a build there would be pointless."""
        findings = judge(facts, self._node, needs_of(self._plan.inventory.project, self._node))
        for finding in findings:
            if finding.severity is Severity.WARNING and not self._was_judged:
                self._warn(
                    f"{finding.message} ({finding.hint})" if finding.hint else finding.message
                )
        self._was_judged = True
        problems = [finding for finding in findings if finding.is_problem]
        if not problems:
            return
        state = await line.run(partial(read_job, job=spec.id, workdir=facts.workdir))
        if _is_begun(state) or (
            # Its last attempt may have filled it, and the next one clears that away first.
            isinstance(state, Finished | Stopped)
            and {finding.subject for finding in problems} <= _ROOM
        ):
            return
        hints = dict.fromkeys(finding.hint for finding in problems if finding.hint)
        raise NodeError(
            "; ".join(finding.message for finding in problems), hint="; ".join(hints) or None
        )

    async def _start(self, line: Line, facts: NodeFacts, spec: JobSpec) -> Job:
        # What went wrong after the build does not need another one.
        rebuild = self._plan.request.rebuild and not self._is_built
        start = partial(start_job, facts=facts, spec=spec, rebuild=rebuild)
        # A word for this attempt: over how many links it may be asked for, it is started once.
        job = await line.run(partial(start, request=secrets.token_hex(16)))
        line.has_job = True
        self._record(job)
        return job

    async def _take_delivery(self, witness: Witness) -> tuple[Artifact, tuple[str, ...]]:
        self._enter(Phase.COLLECTING)
        # The node tells of the project while it sends what it built and while it runs that.
        async with meanwhile(witness.project()) as telling:
            binaries = await self._collect(
                witness, Collection(witness.job, names=self._binary_names, into=self._folder)
            )
            extras: tuple[CollectedFile, ...] = ()
            if names := tuple(map(extra_name, self._task.extra_paths)):
                into = self._folder / _EXTRAS
                extras = await self._collect(
                    witness, Collection(witness.job, names=names, into=into, sort=EXTRAS)
                )
            return await self._inspect(witness, telling, binaries=binaries, extras=extras)

    async def _inspect(
        self,
        witness: Witness,
        telling: asyncio.Task[BuiltProject],
        *,
        binaries: tuple[CollectedFile, ...],
        extras: tuple[CollectedFile, ...],
    ) -> tuple[Artifact, tuple[str, ...]]:
        inspection = Inspection(
            plan=self._plan, task=self._task, enter=self._enter, open_line=self._gate_line
        )
        place = Place(line=witness.line, facts=witness.facts, out=f"{witness.job.directory}/out")
        scan = asyncio.to_thread(inspection.scan, witness.facts, binaries, extras)
        async with meanwhile(scan) as scanning:
            gated = await inspection.gate(place, binaries, extras)
            self._enter(Phase.CHECKING)
            leaks = await scanning
            evidence, unknown = await witness.tell(await telling, gated)
        artifact = await asyncio.to_thread(
            inspection.settle, binaries, gated, evidence, into=self._folder
        )
        return artifact, (*leaks, *unknown)

    async def _collect(self, witness: Witness, collection: Collection) -> tuple[CollectedFile, ...]:
        with collection:
            return await witness.line.run(
                collection.fetch, progress=lambda: collection.received_bytes
            )

    @asynccontextmanager
    async def _gate_line(self, node: Node, *, has_spare: bool) -> AsyncIterator[Line]:
        async with self._turns.of(node), self._line(node, has_spare=has_spare) as line:
            yield line

    def _line(self, node: Node, *, has_spare: bool) -> AbstractAsyncContextManager[Line]:
        return self._reach.line(
            self._world.connect, node, has_spare=has_spare, on_lost=self._note_trouble
        )

    def _spec(self, facts: NodeFacts, bundle: Bundle | None) -> JobSpec:
        node, project = self._node, self._plan.inventory.project
        folder = source_folder(facts, bundle.digest) if bundle else None
        is_kept_warm = self._task.is_kept_warm
        tree = tree_folder(facts, node.name) if bundle and is_kept_warm else None
        place = tree or folder
        source = f"{place}/source/{bundle.subdirectory}".rstrip("/") if bundle else None
        command = fill_command(self._task, source=source, jobs=node.jobs or facts.cpus or 1)
        target_dir = f"{facts.workdir}/target/{node.name}" if is_kept_warm else None
        extras = tuple(fill_extra(path, source=source) for path in self._task.extra_paths)
        id_ = job_id(
            project=project.name,
            version=str(self._plan.version),
            target=node.target.triple,
            command=command,
            source_digest=bundle.digest if bundle else None,
            # Nodes that share a host build in folders of their own, so these are different jobs.
            env=(
                *node.env,
                ("CARGO_TARGET_DIR", target_dir or ""),
                ("binaries", " ".join((*project.binaries, *self._task.binary_paths))),
                # Where there are none, a job is the one that it was before there were any.
                *([("extras", " ".join(extras))] if extras else ()),
            ),
        )
        names = self._binary_names
        paths = self._task.binary_paths or (None,) * len(names)
        return JobSpec(
            id=id_,
            command=command,
            binaries=tuple(zip(names, paths, strict=True)),
            extras=tuple((extra_name(path), path) for path in extras),
            lock=node.group or "host",
            slots=node.slots,
            timeout=node.timeout,
            log_limit_bytes=node.log_limit,
            env=node.env,
            source=folder,
            tree=tree,
            target_dir=target_dir,
            label=(project.name, str(self._plan.version), node.target.triple, node.name),
        )

    async def _follow(self, line: Line, job: Job) -> Finished:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb", buffering=0) as log:
            self._has_log = True

            def on_log(data: bytes) -> None:
                line.touch()
                log.write(data)
                self._world.observe(LogAppended(node=self._node.name, data=data))

            follower = Follower(
                on_log=on_log,
                on_state=self._note_state,
                silence_timeout=self._node.silence_timeout,
                timeout=self._node.timeout,
            )
            end = await line.run(
                lambda transport: follow_job(transport, job, follower),
                progress=lambda: follower.cursor.offset,
            )
        return require_success(end, log_tail=_tail(self._log_path))

    def _note_state(self, state: JobState) -> None:
        match state:
            case Queued():
                self._enter(Phase.QUEUED)
            case Running():
                self._enter(Phase.BUILDING)
            case _:
                pass

    def _record(self, job: Job) -> None:
        """Leave word of the job for `logs` and `status`; losing it loses nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = {"id": job.id, "workdir": job.workdir, "attempt": job.attempt}
        write_whole(self._folder / JOB_RECORD, json.dumps(record).encode())

    def _failed(self, failure_class: FailureClass, error: OrchestratorError) -> Failed:
        hint = error.hint
        if self._is_built and failure_class is FailureClass.BUILD:
            # The same job gives the same binary, also when what its command fetches has changed.
            again = "the build is kept: `--rebuild` makes another one"
            hint = f"{hint}; {again}" if hint else again
        tail = _last_lines(self._log_path) if self._has_log else ()
        return Failed(
            node=self._node.name,
            target=self._node.target,
            failure_class=failure_class,
            message=error.message,
            hint=hint,
            log_tail=tail,
            log_path=self._log_path if self._has_log else None,
            is_final=isinstance(error, CancelledError),
        )

    def _note_trouble(self, error: NodeError, pause: timedelta) -> None:
        reason = error.message.partition("\n")[0]
        self._world.observe(TryingAgain(node=self._node.name, reason=reason, pause=pause))

    def _warn(self, message: str) -> None:
        self._world.observe(Warned(node=self._node.name, message=message))

    def _enter(self, phase: Phase, detail: str = "") -> None:
        self._world.observe(PhaseChanged(node=self._node.name, phase=phase, detail=detail))


async def _nothing() -> None:
    pass


def _is_begun(state: JobState) -> bool:
    """Whether it runs or has succeeded: no problem stops that, and it may be the very cause."""
    match state:
        case Queued() | Running() | Finished(exit_status=0):
            return True
        case _:
            return False


def _unwritable(folder: Path, error: OSError) -> NodeError:
    return NodeError(
        f"cannot write to {folder}: {error.strerror}",
        hint="make room there, or make it writable, and run the same command again",
    )


def _last_lines(log: Path) -> tuple[str, ...]:
    return tuple(_tail(log).decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:])


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        return file.read()
