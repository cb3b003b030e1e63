"""One node's part of a release: from its task to a checked, packed artifact."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import secrets
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from orchestrator.core.archive import ArchiveEntry, archive_name, pack_archive
from orchestrator.core.binary import check_binary
from orchestrator.core.errors import BuildError, CancelledError, NodeError, PassingError
from orchestrator.core.events import LogAppended, Phase, PhaseChanged, TryingAgain
from orchestrator.core.floors import join_floors
from orchestrator.core.inventory import LeakPolicy
from orchestrator.core.leaks import find_leaks
from orchestrator.core.plan import fill_command
from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Skipped
from orchestrator.core.target import OS
from orchestrator.nodes.bundle import Sending, push_bundle
from orchestrator.nodes.collect import Collection
from orchestrator.nodes.follow import Follower, follow_job, require_success
from orchestrator.nodes.gate import Gate, GateBinary, run_gate
from orchestrator.nodes.job import JobSpec, Queued, Running, job_id, start_job
from orchestrator.nodes.probe import probe
from orchestrator.reach import Reach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.core.errors import OrchestratorError
    from orchestrator.core.inventory import Node
    from orchestrator.core.plan import BuildPlan, BuildTask, NodeTask
    from orchestrator.core.result import CollectedBinary, Floor, Result
    from orchestrator.core.target import Target
    from orchestrator.nodes.job import Job, JobState
    from orchestrator.nodes.line import Line
    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.source import Bundle
    from orchestrator.world import World

# In the folder of a version and node.
BUILD_LOG: Final = "build.log"
JOB_RECORD: Final = "job.json"
_LOG_TAIL_LINES: Final = 20
_LOG_TAIL_BYTES: Final = 16 * 1024
_DISK_ERRORS: Final = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
)
_GATE_TIMEOUT: Final = timedelta(minutes=10)
# A machine that killed or lost a job gets one more chance, then the next machine has its turn.
_PAUSES: Final = (timedelta(seconds=2),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the nodes of one release share; the bundle may still be in the making."""

    plan: BuildPlan
    bundle: Awaitable[Bundle | None]
    world: World

    turns: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    reach: Reach = field(default_factory=Reach)

    def turn_of(self, node: Node) -> AbstractAsyncContextManager[object]:
        """Return what a node's build waits for: the machines of its group share a CPU.

        The lock on each host does not see the other hosts of a group; this does, for one run.
        """
        if node.group is None:
            return nullcontext()
        return self.turns.setdefault(node.group, asyncio.Semaphore(node.slots))

    async def deliver(self, task: BuildTask) -> AsyncIterator[Result]:
        """Yield what became of the task's nodes, in their order.

        A stand-by node takes over when the one before it failed for a reason of the machine,
        never for a compile error, that would only fail again, nor for a job that a person ended.
        """
        candidates = (task.first, *task.standby)
        for number, candidate in enumerate(candidates, start=1):
            spares = candidates[number:]
            result = await _NodeDelivery(self, candidate, has_spare=bool(spares)).run()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A machine that can run the binaries; `out` is where they lie there already, if they do."""

    line: Line
    facts: NodeFacts
    out: str | None


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
        self._turn = delivery.turn_of(task.node)
        self._folder = delivery.world.dist / str(delivery.plan.version) / task.node.name
        self._log_path = self._folder / BUILD_LOG
        self._has_log = False
        self._is_built = False

    @property
    def _binary_names(self) -> tuple[str, ...]:
        suffix = self._node.target.exe_suffix
        return tuple(f"{name}{suffix}" for name in self._plan.inventory.project.binaries)

    async def run(self) -> Built | Failed:
        begun = self._world.monotonic()
        try:
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

    async def _build_again_and_again(self, begun: float) -> Built:
        for pause in _PAUSES:
            try:
                return await self._build(begun)
            except PassingError as error:
                self._note_trouble(error, pause)
                await asyncio.sleep(pause.total_seconds())
        return await self._build(begun)

    async def _build(self, begun: float) -> Built:
        self._enter(Phase.CONNECTING)
        waiting = self._reach.line(
            self._world.connect, self._node, has_spare=self._has_spare, on_lost=self._note_trouble
        )
        async with waiting as line:
            facts = await line.run(partial(probe, workdir=self._node.workdir))
            bundle = await asyncio.shield(asyncio.ensure_future(self._bundle))
            folder = await self._push(line, facts, bundle) if bundle else None
            spec = self._spec(facts, bundle, folder)
            async with self._turn:
                job = await self._start(line, facts, spec)
                await self._follow(line, job)
            self._is_built = True
            artifact, warnings = await self._take_delivery(line, facts, job)
        elapsed = timedelta(seconds=self._world.monotonic() - begun)
        return Built(
            node=self._node.name,
            artifact=artifact,
            elapsed=elapsed,
            was_attached=job.was_attached,
            warnings=warnings,
        )

    async def _start(self, line: Line, facts: NodeFacts, spec: JobSpec) -> Job:
        rebuild = self._plan.request.rebuild
        job = await line.run(lambda transport: start_job(transport, facts, spec, rebuild=rebuild))
        line.has_job = True
        self._record(job)
        return job

    async def _take_delivery(
        self, line: Line, facts: NodeFacts, job: Job
    ) -> tuple[Artifact, tuple[str, ...]]:
        self._enter(Phase.COLLECTING)
        with Collection(job, names=self._binary_names, into=self._folder) as collection:
            binaries = await line.run(collection.fetch, progress=lambda: collection.received_bytes)
        place = _Place(line=line, facts=facts, out=f"{job.directory}/out")
        floors, os_release = await self._gate(place, binaries)
        self._enter(Phase.CHECKING)
        warnings = await asyncio.to_thread(self._scan, facts, binaries)
        return await asyncio.to_thread(self._pack, binaries, floors, os_release), warnings

    async def _push(self, line: Line, facts: NodeFacts, bundle: Bundle) -> str:
        self._enter(Phase.PUSHING)
        sending = Sending()
        return await line.run(
            lambda transport: push_bundle(
                transport,
                facts,
                archive=bundle.path,
                archive_sha256=bundle.archive_sha256,
                digest=bundle.digest,
                sending=sending,
            ),
            progress=lambda: sending.written_bytes,
        )

    def _spec(self, facts: NodeFacts, bundle: Bundle | None, folder: str | None) -> JobSpec:
        node, project = self._node, self._plan.inventory.project
        source = f"{folder}/source/{bundle.subdirectory}".rstrip("/") if bundle else None
        command = fill_command(self._task, source=source, jobs=node.jobs or facts.cpus or 1)
        target_dir = f"{facts.workdir}/target/{node.name}" if self._task.is_kept_warm else None
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
            ),
        )
        names = self._binary_names
        paths = self._task.binary_paths or (None,) * len(names)
        return JobSpec(
            id=id_,
            command=command,
            binaries=tuple(zip(names, paths, strict=True)),
            lock=node.group or "host",
            slots=node.slots,
            timeout=node.timeout,
            env=node.env,
            source=folder,
            target_dir=target_dir,
        )

    async def _follow(self, line: Line, job: Job) -> None:
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
            )
            end = await line.run(
                lambda transport: follow_job(transport, job, follower),
                progress=lambda: follower.cursor.offset,
            )
        require_success(end)

    def _note_state(self, state: JobState) -> None:
        match state:
            case Queued():
                self._enter(Phase.QUEUED)
            case Running():
                self._enter(Phase.BUILDING)
            case _:
                pass

    async def _gate(
        self, builder: _Place, binaries: tuple[CollectedBinary, ...]
    ) -> tuple[tuple[Floor, ...], str | None]:
        """Check and run the binaries on the node named for it, else where they were built."""
        if not self._task.gate_nodes:
            self._enter(Phase.GATING)
            return await self._check_on(builder, binaries)
        reasons = []
        for gate_node in self._task.gate_nodes:
            self._enter(Phase.GATING, f"on {gate_node.name}")
            try:
                waiting = self._reach.line(
                    self._world.connect, gate_node, has_spare=True, on_lost=self._note_trouble
                )
                async with waiting as line:
                    facts = await line.run(partial(probe, workdir=gate_node.workdir))
                    place = _Place(line=line, facts=facts, out=None)
                    return await self._check_on(place, binaries)
            except NodeError as error:
                reasons.append(f"{gate_node.name}: {error.message}")
        raise NodeError(
            "the build is there, but no node for its gate: " + "; ".join(reasons),
            hint="run the same command when one is up: only the gate is missing",
        )

    async def _check_on(
        self, place: _Place, binaries: tuple[CollectedBinary, ...]
    ) -> tuple[tuple[Floor, ...], str | None]:
        target = self._node.target
        os_release = _os_release(self._node, place.facts)
        floors = await asyncio.to_thread(_measure, binaries, target, os_release)
        _require_system(target, place.facts)
        project = self._plan.inventory.project
        gated = tuple(
            GateBinary(
                name=binary.name,
                path=binary.path,
                sha256=binary.sha256,
                remote_path=f"{place.out}/{binary.name}" if place.out else None,
            )
            for binary in binaries
        )
        gate = Gate(
            version=str(self._plan.version),
            target=target.triple,
            name=project.name,
            version_command=project.version_command,
            commands=project.gate,
            timeout=_GATE_TIMEOUT,
        )
        await place.line.run(
            lambda transport: run_gate(transport, place.facts, binaries=gated, gate=gate)
        )
        return floors, os_release

    def _scan(self, facts: NodeFacts, binaries: tuple[CollectedBinary, ...]) -> tuple[str, ...]:
        needles = {"home path": facts.home, "user name": facts.user}
        if facts.hostname:
            needles["host name"] = facts.hostname
        leaks = tuple(
            f"{binary.name} holds the {leak}"
            for binary in binaries
            for leak in find_leaks(_read(binary), needles)
        )
        if leaks and self._plan.inventory.project.leaks is LeakPolicy.REFUSE:
            hint = "build with --remap-path-prefix, or set `leaks: warn` to publish it all the same"
            raise BuildError("; ".join(leaks), hint=hint)
        return leaks

    def _pack(
        self,
        binaries: tuple[CollectedBinary, ...],
        floors: tuple[Floor, ...],
        os_release: str | None,
    ) -> Artifact:
        project, version = self._plan.inventory.project.name, str(self._plan.version)
        key = f"{self._node.target}{os_release or ''}"
        data = pack_archive(
            f"{project}-{version}-{key}",
            [
                ArchiveEntry(name=binary.name, data=_read(binary), is_executable=True)
                for binary in binaries
            ],
        )
        path = self._folder / archive_name(project, version, key)
        _replace(path, data)
        return Artifact(
            version=version,
            target=self._node.target,
            os_release=os_release,
            path=path,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            floors=floors,
            binaries=binaries,
        )

    def _record(self, job: Job) -> None:
        """Leave word of the job for `logs` and `status`; losing it loses nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = {"id": job.id, "workdir": job.workdir, "attempt": job.attempt}
        _replace(self._folder / JOB_RECORD, json.dumps(record).encode())

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

    def _enter(self, phase: Phase, detail: str = "") -> None:
        self._world.observe(PhaseChanged(node=self._node.name, phase=phase, detail=detail))


_SYSTEMS: Final = {
    OS.LINUX: "Linux",
    OS.ANDROID: "Linux",
    OS.MACOS: "Darwin",
    OS.FREEBSD: "FreeBSD",
    OS.OPENBSD: "OpenBSD",
    OS.NETBSD: "NetBSD",
    OS.DRAGONFLY: "DragonFly",
    OS.ILLUMOS: "SunOS",
}


def _os_release(node: Node, facts: NodeFacts) -> str | None:
    """Return the release that the binaries are bound to, as the machine of the gate says it.

    Raise NodeError if the inventory says another one.
    """
    if not node.target.is_bound_to_os_release:
        return None
    if node.os_release and facts.release and node.os_release != facts.release:
        raise NodeError(
            f"the inventory says `os_release: {node.os_release}`, and the machine of the gate "
            f"runs {facts.release}",
            hint="correct it: binaries for one release do not run on another",
        )
    return facts.release or node.os_release


def _require_system(target: Target, facts: NodeFacts) -> None:
    """Raise NodeError if the machine of the gate does not run the target's OS.

    What runs there by emulation may not run where it is installed.
    """
    if facts.system != _SYSTEMS.get(target.os, facts.system):
        raise NodeError(
            f"the gate of {target} would run on {facts.system}",
            hint="name a node that runs its OS with `gate_on`",
        )


def _measure(
    binaries: tuple[CollectedBinary, ...], target: Target, os_release: str | None
) -> tuple[Floor, ...]:
    return join_floors(
        floor
        for binary in binaries
        for floor in check_binary(_read(binary), target, os_release=os_release)
    )


def _replace(path: Path, data: bytes) -> None:
    # Under a name of its own first: another coordinator may be at the same version.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    part.write_bytes(data)
    part.replace(path)


def _unwritable(folder: Path, error: OSError) -> NodeError:
    return NodeError(
        f"cannot write to {folder}: {error.strerror}",
        hint="make room there, or make it writable, and run the same command again",
    )


def _read(binary: CollectedBinary) -> bytes:
    """Return the bytes that were collected; raise NodeError if the file is another one by now."""
    data = binary.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != binary.sha256:
        raise NodeError(
            f"{binary.path} on this machine was changed after it was collected",
            hint="does another release write there? run the same command again",
        )
    return data


def _last_lines(log: Path) -> tuple[str, ...]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return tuple(lines[-_LOG_TAIL_LINES:])
