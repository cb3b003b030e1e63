"""What `orchestrator check` found on the coordinator and the nodes, and what that means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.core.inventory import Policy
from orchestrator.core.preflight import GATE_ONLY, needs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.core.finding import Finding
    from orchestrator.core.inventory import Inventory, Node
    from orchestrator.core.preflight import Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNode:
    """A node and what was found; a best-effort one that nobody named does not count."""

    node: Node
    findings: tuple[Finding, ...]
    needs: Needs
    counts: bool = True

    @property
    def is_fit(self) -> bool:
        """Whether a release can use it."""
        return not any(finding.is_problem for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What `orchestrator check` found, on the coordinator and on the nodes."""

    project: str
    coordinator: tuple[Finding, ...]
    nodes: tuple[CheckedNode, ...]

    @property
    def exit_code(self) -> int:
        """The lowest code of those who must act, 0 if nobody must."""
        counted = (finding for each in self.nodes if each.counts for finding in each.findings)
        return min(
            (each.exit_code for each in (*self.coordinator, *counted) if each.is_problem), default=0
        )

    @property
    def can_start(self) -> bool:
        """Whether a release would build something."""
        return bool(self._ready()) and not any(each.is_problem for each in self.coordinator)

    @property
    def verdict(self) -> str:
        """One line: whether a release can start, and without whom."""
        if any(each.is_problem for each in self.coordinator):
            return "a release cannot start: see what is wrong on this machine"
        ready = self._ready()
        if not ready:
            return "a release cannot start: no node can build"
        missing = [each.node for each in self.nodes if each.needs.builds and each.node not in ready]
        if not missing:
            return "a release can start"
        required = [node.name for node in missing if node.policy is Policy.REQUIRED]
        if required:
            return f"a release can start, but publishes nothing without {', '.join(required)}"
        return f"a release can start, without {', '.join(node.name for node in missing)}"

    def _ready(self) -> list[Node]:
        """Return the nodes that can build and have a gate for it."""
        fit = {each.node.name for each in self.nodes if each.is_fit}
        return [
            each.node
            for each in self.nodes
            if each.needs.builds
            and each.is_fit
            and (not each.node.gate_on or not fit.isdisjoint(each.node.gate_on))
        ]


def nodes_to_check(inventory: Inventory, names: Sequence[str]) -> tuple[CheckedNode, ...]:
    """Return the nodes of those names, or all enabled ones, and their gates; nothing is found yet.

    Raise ConfigError for a name that no node has.
    """
    by_name = {node.name: node for node in inventory.nodes}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ConfigError(
            f"no node is named `{unknown[0][:80]}`", hint=f"the nodes are: {', '.join(by_name)}"
        )
    chosen = [node for node in inventory.nodes if (node.name in names if names else node.enabled)]
    counted = [node for node in chosen if names or node.policy is not Policy.BEST_EFFORT]
    needed = {node.name for node in counted} | {name for node in counted for name in node.gate_on}
    gates = {name for node in chosen for name in node.gate_on}
    return tuple(
        CheckedNode(
            node=node,
            findings=(),
            needs=needs_of(inventory.project, node) if node in chosen else GATE_ONLY,
            counts=node.name in needed,
        )
        for node in inventory.nodes
        if node in chosen or node.name in gates
    )


def check_as_data(check: Check) -> Mapping[str, object]:
    """Return what `check --json` prints."""
    return {
        "project": check.project,
        "exit_code": check.exit_code,
        "can_start": check.can_start,
        "verdict": check.verdict,
        "coordinator": findings_as_data(check.coordinator),
        "nodes": [
            {
                "node": each.node.name,
                "target": each.node.target.triple,
                "host": each.node.host,
                "policy": str(each.node.policy),
                "builds": each.needs.builds,
                "findings": findings_as_data(each.findings),
            }
            for each in check.nodes
        ],
    }


def findings_as_data(findings: Iterable[Finding]) -> list[Mapping[str, object]]:
    """Return what was found on one machine, as `check --json` prints it."""
    return [
        {
            "check": finding.subject,
            "state": str(finding.severity),
            "message": finding.message,
            "hint": finding.hint,
        }
        for finding in findings
    ]
