"""Variants against their base, timed where they can run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.gains import cpu_seconds, gain_of, repeats_for, timed_command
from orchestrator.core.result import Built
from orchestrator.nodes.gate import Gate, GateBinary, run_gate
from orchestrator.nodes.probe import probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.gains import Gain
    from orchestrator.core.inventory import Inventory, Node, Project
    from orchestrator.core.report import Report
    from orchestrator.core.result import Artifact
    from orchestrator.nodes.transport import Connect, Transport

_ROUNDS: Final = 5
_TIMEOUT: Final = timedelta(minutes=10)


async def measure_gains(
    inventory: Inventory, family: Sequence[Node], report: Report, *, connect: Connect
) -> tuple[Gain, ...]:
    """Return what each variant of a node gains over it, of those that were built.

    The benchmark runs on the node, or on the first one that runs its gate: base and variant in
    turn, five times. Raise NodeError if that cannot be reached, BuildError if the benchmark fails.
    """
    built = {result.node: result for result in report.results if isinstance(result, Built)}
    base, *variants = family
    variants = [node for node in variants if node.name in built]
    if base.name not in built or not variants:
        return ()
    place = next((node for node in inventory.nodes if node.name in base.gate_on), base)
    async with connect(place) as transport:
        facts = await probe(transport, workdir=place.workdir)
        watch = _Stopwatch(project=inventory.project, transport=transport, facts=facts)
        repeats = repeats_for(await watch.time(built[base.name].artifact, 1))
        rounds: dict[str, list[tuple[float, float]]] = {node.name: [] for node in variants}
        for _ in range(_ROUNDS):
            for name, timed in rounds.items():
                before = await watch.time(built[base.name].artifact, repeats)
                timed.append((before, await watch.time(built[name].artifact, repeats)))
    return tuple(gain_of(name, base.name, rounds=timed) for name, timed in rounds.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopwatch:
    """Where the project's benchmark is timed."""

    project: Project
    transport: Transport
    facts: NodeFacts

    async def time(self, artifact: Artifact, repeats: int) -> float:
        """Return the CPU seconds of one run of the benchmark, with these binaries."""
        gate = Gate(
            version=artifact.version,
            target=artifact.target.triple,
            name=self.project.name,
            version_command=self.project.version_command,
            commands=(timed_command(str(self.project.benchmark), repeats),),
            timeout=_TIMEOUT,
        )
        binaries = tuple(
            GateBinary(name=file.name, path=file.path, sha256=file.sha256)
            for file in artifact.binaries
        )
        ran = await run_gate(self.transport, self.facts, binaries=binaries, gate=gate)
        return cpu_seconds(ran.runs[-1].stdout) / repeats
