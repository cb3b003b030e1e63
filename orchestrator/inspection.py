"""Before anything is published: what a node's binaries are, that they run, and their archive."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.archive import ArchiveEntry, archive_name, pack_archive
from orchestrator.core.binary import check_binary
from orchestrator.core.cpu import cpu_floors
from orchestrator.core.errors import BuildError, NodeError
from orchestrator.core.events import Phase
from orchestrator.core.floors import join_floors
from orchestrator.core.inventory import LeakPolicy
from orchestrator.core.leaks import find_leaks
from orchestrator.core.plan import build_texts
from orchestrator.core.result import Artifact, edition_of
from orchestrator.meanwhile import meanwhile
from orchestrator.nodes.gate import Gate, GateBinary, run_gate
from orchestrator.nodes.probe import probe
from orchestrator.parts import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.core.evidence import Evidence
    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Node
    from orchestrator.core.plan import BuildPlan, NodeTask
    from orchestrator.core.result import CollectedFile, Floor
    from orchestrator.core.target import Target
    from orchestrator.nodes.line import Line

_GATE_TIMEOUT: Final = timedelta(minutes=10)


class OpenLine(Protocol):
    """How a node is reached."""

    def __call__(self, node: Node, *, has_spare: bool) -> AbstractAsyncContextManager[Line]:
        """Open a line to it; `has_spare` says that another node can do the same."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A machine that can run the binaries; `out` is where they lie there already, if they do."""

    line: Line
    facts: NodeFacts
    out: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """Where the binaries passed their gate, what they need, and their archive.

    `os_release` is the OS release that they are bound to, None if they run on many.
    """

    node: Node
    facts: NodeFacts
    floors: tuple[Floor, ...]
    os_release: str | None
    archive: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """How the binaries of one task are checked; `enter` is told of each phase and where it is."""

    plan: BuildPlan
    task: NodeTask
    enter: Callable[[Phase, str], None]
    open_line: OpenLine

    async def gate(
        self,
        builder: Place,
        binaries: tuple[CollectedFile, ...],
        extras: tuple[CollectedFile, ...] = (),
    ) -> Gated:
        """Return what the gate found: the binaries' floors, and where they ran.

        They are packed, with the extra files, while the node runs them.

        They are checked and run on the node that the task names for it, else where they were built.
        Raise BuildError for binaries that may not be published, NodeError if there is no machine
        that can run them now.
        """
        check = partial(self._check_on, binaries=binaries, extras=extras)
        if not self.task.gate_nodes:
            self.enter(Phase.GATING, "")
            return await check(builder, self.task.node)
        reasons = []
        for number, gate_node in enumerate(self.task.gate_nodes, start=1):
            self.enter(Phase.GATING, f"on {gate_node.name}")
            try:
                has_spare = number < len(self.task.gate_nodes)
                async with self.open_line(gate_node, has_spare=has_spare) as line:
                    facts = await line.run(partial(probe, workdir=gate_node.workdir))
                    place = Place(line=line, facts=facts, out=None)
                    return await check(place, gate_node)
            except NodeError as error:
                reasons.append(f"{gate_node.name}: {error.message}")
        raise NodeError(
            "the build is there, but no node for its gate: " + "; ".join(reasons),
            hint="run the same command when one is up: only the gate is missing",
        )

    async def _check_on(
        self,
        place: Place,
        node: Node,
        *,
        binaries: tuple[CollectedFile, ...],
        extras: tuple[CollectedFile, ...],
    ) -> Gated:
        target, project = self.task.node.target, self.plan.inventory.project
        os_release = _os_release(self.task.node, place.facts)
        floors = await asyncio.to_thread(_measure, binaries, target, os_release)
        floors += cpu_floors(build_texts(project, self.task.node), target)
        _require_system(target, place.facts)
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
            version=str(self.plan.version),
            target=target.triple,
            name=project.name,
            version_command=project.version_command,
            commands=project.gate,
            timeout=_GATE_TIMEOUT,
        )
        key = f"{target}{edition_of(floors) or ''}"
        async with meanwhile(asyncio.to_thread(self._packed, key, binaries, extras)) as packing:
            await place.line.run(
                lambda transport: run_gate(transport, place.facts, binaries=gated, gate=gate)
            )
            archive = await packing
        return Gated(
            node=node,
            facts=place.facts,
            floors=floors,
            os_release=os_release,
            archive=archive,
        )

    def scan(
        self,
        facts: NodeFacts,
        binaries: tuple[CollectedFile, ...],
        extras: tuple[CollectedFile, ...],
    ) -> tuple[str, ...]:
        """Return what the files tell of the node that built them.

        Raise BuildError for it if the project refuses leaks.
        """
        needles = {"home path": facts.home, "user name": facts.user}
        if facts.hostname:
            needles["host name"] = facts.hostname
        # A licence may name its author, who may be the node's user: in text that is no leak.
        in_text = {"home path": facts.home}
        in_binaries, in_extras = _leaks(binaries, needles), _leaks(extras, in_text)
        if (in_binaries or in_extras) and self.plan.inventory.project.leaks is LeakPolicy.REFUSE:
            cure = "build with --remap-path-prefix" if in_binaries else "make it without that path"
            hint = f"{cure}, or set `leaks: warn` to publish it all the same"
            raise BuildError("; ".join((*in_binaries, *in_extras)), hint=hint)
        return (*in_binaries, *in_extras)

    def _packed(
        self,
        key: str,
        binaries: tuple[CollectedFile, ...],
        extras: tuple[CollectedFile, ...],
    ) -> bytes:
        return pack_archive(
            f"{self.plan.inventory.project.name}-{self.plan.version}-{key}",
            [
                ArchiveEntry(name=file.name, data=_read(file), is_executable=is_executable)
                for files, is_executable in ((binaries, True), (extras, False))
                for file in files
            ],
        )

    def settle(
        self,
        binaries: tuple[CollectedFile, ...],
        gated: Gated,
        evidence: Evidence,
        *,
        into: Path,
    ) -> Artifact:
        """Return the artifact, whose archive is in the folder `into`."""
        project, version = self.plan.inventory.project.name, str(self.plan.version)
        key = f"{self.task.node.target}{edition_of(gated.floors) or ''}"
        path = into / archive_name(project, version, key)
        write_whole(path, gated.archive)
        return Artifact(
            version=version,
            target=self.task.node.target,
            os_release=gated.os_release,
            path=path,
            size_bytes=len(gated.archive),
            sha256=hashlib.sha256(gated.archive).hexdigest(),
            floors=gated.floors,
            binaries=binaries,
            evidence=evidence,
        )


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
    if facts.system != (target.system_name or facts.system):
        raise NodeError(
            f"the gate of {target} would run on {facts.system}",
            hint="name a node that runs its OS with `gate_on`",
        )


def _measure(
    binaries: tuple[CollectedFile, ...], target: Target, os_release: str | None
) -> tuple[Floor, ...]:
    return join_floors(
        floor
        for binary in binaries
        for floor in check_binary(_read(binary), target, os_release=os_release)
    )


def _leaks(files: tuple[CollectedFile, ...], needles: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{file.name} holds the {leak}"
        for file in files
        for leak in find_leaks(_read(file), needles)
    )


def _read(file: CollectedFile) -> bytes:
    """Return the bytes that were collected; raise NodeError if the file is another one by now."""
    data = file.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise NodeError(
            f"{file.path} on this machine was changed after it was collected",
            hint="does another release write there? run the same command again",
        )
    return data
