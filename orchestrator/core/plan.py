"""What a release will do, decided before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.core.inventory import Inventory, Node
    from orchestrator.core.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What a person or a webhook asked for."""

    version: Version
    nodes: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    rebuild: bool = False
    clean: bool = False
    publish: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTask:
    """A node's part of the plan."""

    node: Node
    build_command: str
    binary_paths: tuple[str, ...]
    gate: tuple[str, ...]
    gate_nodes: tuple[Node, ...]
    standby: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """The tasks of one release, in the order of the inventory."""

    version: Version
    inventory: Inventory
    tasks: tuple[BuildTask, ...]
