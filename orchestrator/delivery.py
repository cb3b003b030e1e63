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
from typing import TYPE_CHECKING, Final

from orchestrator.core.archive import ArchiveEntry, archive_name, pack_archive
from orchestrator.core.binary import check_binary
from orchestrator.core.errors import BuildError, NodeError
from orchestrator.core.events import LogAppended, Phase, PhaseChanged
from orchestrator.core.floors import join_floors
from orchestrator.core.inventory import LeakPolicy
from orchestrator.core.leaks import find_leaks
from orchestrator.core.plan import fill_command
from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Skipped
from orchestrator.core.target import OS
from orchestrator.nodes.bundle import push_bundle
from orchestrator.nodes.collect import collect
from orchestrator.nodes.follow import Follower, follow_through, require_success
from orchestrator.nodes.gate import Gate, GateBinary, run_gate
from orchestrator.nodes.job import JobSpec, Queued, Running, job_id, start_job
from orchestrator.nodes.probe import probe

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
    from orchestrator.nodes.probe import NodeFacts
    from orchestrator.nodes.transport import Transport
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the nodes of one release share; the bundle may still be in the making."""

    plan: BuildPlan
    bundle: Awaitable[Bundle | None]
    world: World

    turns: dict[str, asyncio.Semaphore] = field(default_factory=dict)

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
        never for a compile error: that would only fail again.
        """
        candidates = (task.first, *task.standby)
        for number, candidate in enumerate(candidates, start=1):
            result = await _NodeDelivery(self, candidate).run()
            yield result
            if not (isinstance(result, Failed) and result.failure_class is FailureClass.MACHINE):
                for spare in candidates[number:]:
                    reason = f"stands by for {candidate.node.name}"
                    yield Skipped(node=spare.node.name, target=spare.node.target, reason=reason)
                return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A machine that can run the binaries; `out` is where they lie there already, if they do."""

    transport: Transport
    facts: NodeFacts
    out: str | None


class _NodeDelivery:
    """One node, from its task to its result."""

    def __init__(self, delivery: Delivery, task: NodeTask) -> None:
        self._plan = delivery.plan
        self._bundle = delivery.bundle
        self._world = delivery.world
        self._task = task
        self._node = task.node
        self._turn = delivery.turn_of(task.node)
        self._folder = delivery.world.dist / str(delivery.plan.version) / task.node.name
        self._log_path = self._folder / BUILD_LOG
        self._has_log = False
        self._is_built = False

    async def run(self) -> Built | Failed:
        begun = self._world.monotonic()
        try:
            return await self._build(begun)
        except NodeError as error:
            return self._failed(FailureClass.MACHINE, error)
        except BuildError as error:
            return self._failed(FailureClass.BUILD, error)
        except OSError as error:
            # A node's own troubles are NodeErrors: this is the disk here, which all of them need.
            if error.errno not in _DISK_ERRORS:
                raise
            raise _unwritable(self._folder, error) from error

    async def _build(self, begun: float) -> Built:
        self._enter(Phase.CONNECTING)
        async with self._world.connect(self._node) as transport:
            facts = await probe(transport, workdir=self._node.workdir)
            bundle = await asyncio.shield(asyncio.ensure_future(self._bundle))
            folder = await self._push(transport, facts, bundle) if bundle else None
            spec = self._spec(facts, bundle, folder)
            async with self._turn:
                job = await start_job(transport, facts, spec, rebuild=self._plan.request.rebuild)
                self._record(job)
                await self._follow(job)
            self._is_built = True
            artifact, warnings = await self._take_delivery(facts, job, spec)
        elapsed = timedelta(seconds=self._world.monotonic() - begun)
        return Built(
            node=self._node.name,
            artifact=artifact,
            elapsed=elapsed,
            was_attached=job.was_attached,
            warnings=warnings,
        )

    async def _take_delivery(
        self, facts: NodeFacts, job: Job, spec: JobSpec
    ) -> tuple[Artifact, tuple[str, ...]]:
        self._enter(Phase.COLLECTING)
        names = tuple(name for name, _ in spec.binaries)
        # Not the way that the job was started by: the link may have been lost and made anew.
        async with self._world.connect(self._node) as transport:
            binaries = await collect(transport, job, names=names, into=self._folder)
            place = _Place(transport=transport, facts=facts, out=f"{job.directory}/out")
            floors, os_release = await self._gate(place, binaries)
        self._enter(Phase.CHECKING)
        warnings = await asyncio.to_thread(self._scan, facts, binaries)
        return await asyncio.to_thread(self._pack, binaries, floors, os_release), warnings

    async def _push(self, transport: Transport, facts: NodeFacts, bundle: Bundle) -> str:
        self._enter(Phase.PUSHING)
        return await push_bundle(
            transport,
            facts,
            archive=bundle.path,
            archive_sha256=bundle.archive_sha256,
            digest=bundle.digest,
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
        names = tuple(f"{name}{node.target.exe_suffix}" for name in project.binaries)
        paths = self._task.binary_paths or (None,) * len(names)
        return JobSpec(
            id=id_,
            command=command,
            binaries=tuple(zip(names, paths, strict=True)),
            lock=node.group or "host",
            slots=node.slots,
            timeout=node.timeout,
            log_limit_bytes=node.log_limit,
            env=node.env,
            source=folder,
            target_dir=target_dir,
            label=(project.name, str(self._plan.version), node.target.triple, node.name),
        )

    async def _follow(self, job: Job) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb", buffering=0) as log:
            self._has_log = True

            def on_log(data: bytes) -> None:
                log.write(data)
                self._world.observe(LogAppended(node=self._node.name, data=data))

            follower = Follower(
                on_log=on_log,
                on_state=self._note_state,
                silence_timeout=self._node.silence_timeout,
            )
            end = await follow_through(
                lambda: self._world.connect(self._node),
                job,
                follower,
                # Out of reach for longer, it is a failed machine; its job runs on all the same.
                patience=self._node.connect_timeout,
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
                async with self._world.connect(gate_node) as transport:
                    facts = await probe(transport, workdir=gate_node.workdir)
                    place = _Place(transport=transport, facts=facts, out=None)
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
        await run_gate(
            place.transport,
            place.facts,
            binaries=tuple(
                GateBinary(
                    name=binary.name,
                    path=binary.path,
                    sha256=binary.sha256,
                    remote_path=f"{place.out}/{binary.name}" if place.out else None,
                )
                for binary in binaries
            ),
            gate=Gate(
                version=str(self._plan.version),
                target=target.triple,
                name=project.name,
                version_command=project.version_command,
                commands=project.gate,
                timeout=_GATE_TIMEOUT,
            ),
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
        )

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
