"""How an artifact was made, as its node tells of it: for its provenance and bill of materials.

It is best effort: what a node cannot say is left out, with a warning, and delays no release.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.core.errors import LinkError, NodeError
from orchestrator.core.evidence import BuildRecord, Evidence, Machine, build_level
from orchestrator.core.sbom import Materials, UnreadableError, render_sbom
from orchestrator.core.wording import redacted, visible
from orchestrator.nodes.bundle import source_folder
from orchestrator.nodes.project import BuiltProject, Lookup, read_project

if TYPE_CHECKING:
    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Node
    from orchestrator.core.plan import BuildPlan, NodeTask
    from orchestrator.inspection import Gated
    from orchestrator.nodes.job import Job
    from orchestrator.nodes.line import Line
    from orchestrator.source import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A job that has succeeded, and the node that can tell of it."""

    plan: BuildPlan
    task: NodeTask
    line: Line
    facts: NodeFacts
    job: Job
    bundle: Bundle | None

    async def tell(self, project: BuiltProject, gated: Gated) -> tuple[Evidence, tuple[str, ...]]:
        """Return what is known of the build, and warnings of what nobody can say."""
        try:
            sbom = await asyncio.to_thread(self._sbom, project)
            warnings: tuple[str, ...] = ()
        except UnreadableError as error:
            sbom, warnings = None, (visible(f"no bill of materials: {error}"),)
        record = self._record(project, gated)
        return Evidence(record=record, sbom=sbom), warnings

    async def project(self) -> BuiltProject:
        """Return what the node says of what it built; a lost link alone is an error."""
        step = partial(read_project, facts=self.facts, job=self.job, lookup=self._lookup())
        try:
            return await self.line.run(step)
        except LinkError:
            raise
        except NodeError as error:
            return BuiltProject(problem=error.message)

    def _lookup(self) -> Lookup:
        folder = f"{self.job.directory}/work"
        binaries = (
            path if path.startswith("/") else f"{folder}/{path}" for path in self.task.binary_paths
        )
        source: tuple[str, ...] = ()
        if self.bundle:
            place = f"{source_folder(self.facts, self.bundle.digest)}/source"
            source = (f"{place}/{self.bundle.subdirectory}".rstrip("/"),)
        return Lookup(
            places=(*source, *binaries),
            target=self.task.node.target.triple,
            env=self.task.node.env,
            may_fetch=self.bundle is None,
        )

    def _sbom(self, project: BuiltProject) -> bytes:
        if project.metadata is None:
            raise UnreadableError(project.problem or "cargo said nothing")
        return render_sbom(
            Materials(
                project=self.plan.inventory.project.name,
                version=str(self.plan.version),
                target=self.task.node.target.triple,
                binaries=self.plan.inventory.project.binaries,
                metadata=project.metadata,
                lockfile=project.lockfile,
            )
        )

    def _record(self, project: BuiltProject, gated: Gated) -> BuildRecord:
        node = self.task.node
        lockfile = project.lockfile
        return BuildRecord(
            project=self.plan.inventory.project.name,
            source=self.plan.inventory.project.source,
            bundle_sha256=self.bundle.digest if self.bundle else None,
            revision=self.bundle.revision if self.bundle else None,
            command=_anonymous(self.task.command, self.facts),
            environment=tuple(name for name, _ in node.env),
            builder=_machine(node, self.facts),
            gate=_machine(gated.node, gated.facts),
            level=build_level(is_dedicated=node.dedicated),
            job=self.job.id,
            started=project.started,
            ended=project.ended,
            rustc=project.rustc or (self.facts.rustc and f"rustc {self.facts.rustc}"),
            lockfile_sha256=hashlib.sha256(lockfile).hexdigest() if lockfile else None,
            orchestrator=__version__,
        )


def _machine(node: Node, facts: NodeFacts) -> Machine:
    return Machine(node=node.name, system=facts.system, release=facts.release, arch=facts.machine)


def _anonymous(command: str, facts: NodeFacts) -> str:
    """Return the command without a password in a URL, and without the home of the node's user."""
    told = redacted(command)
    for path, name in ((facts.workdir, "{workdir}"), (facts.home, "~")):
        if len(path) > 1:
            told = told.replace(path, name)
    return told
