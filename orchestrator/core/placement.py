"""Which node builds a target, and in which order those that share a machine begin.

Greedy list scheduling: the target that takes longest is placed first, each on the node where it is
expected to be finished first, given what was placed there before. docs/placement.md has the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from orchestrator.core.inventory import Node
    from orchestrator.core.record import Record

_Resource = tuple[str, str, int]
_NOW = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The nodes of one target: the one that builds, then those that stand by, in their order.

    `begins` is when its machine is free for it, after the begin of the release, and `takes` how
    long it is expected to take, None if the node was never measured. Of those that wait for the
    same machine, the lower `rank` goes first.
    """

    nodes: tuple[Node, ...]
    begins: timedelta
    takes: timedelta | None
    rank: int

    @property
    def finish(self) -> timedelta | None:
        """When it is expected to be built, after the begin of the release."""
        return None if self.takes is None else self.begins + self.takes


def place(
    targets: Sequence[Sequence[Node]],
    *,
    record: Record,
    begun: Collection[str] = (),
    is_cold: bool = False,
) -> tuple[Placement, ...]:
    """Return a placement for each target, in their order; each is given as its possible nodes.

    Nodes that have begun already go on, whatever is known of them.
    """
    desk = _Desk(
        expected={
            node.name: record.expected(node, is_cold=is_cold) for nodes in targets for node in nodes
        },
        troubled=frozenset(
            node.name for nodes in targets for node in nodes if record.is_in_trouble(node)
        ),
        begun=begun,
        free={},
        slots=_slots(targets),
    )
    order = sorted(range(len(targets)), key=lambda index: desk.urgency(targets[index]))
    placed = {
        index: desk.put(targets[index], rank=rank) for rank, index in enumerate(order, start=1)
    }
    return tuple(placed[index] for index in range(len(targets)))


def resource(node: Node) -> _Resource:
    """Return what it shares with others: the CPU of its group, else its host."""
    return ("group", node.group, 0) if node.group else ("host", node.host, node.port)


def _slots(targets: Sequence[Sequence[Node]]) -> Mapping[_Resource, int]:
    slots: dict[_Resource, int] = {}
    for nodes in targets:
        for node in nodes:
            key = resource(node)
            slots[key] = min(node.slots, slots.get(key, node.slots))
    return slots


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """What is known while targets are placed: `free` is when each slot of a machine is free."""

    expected: Mapping[str, timedelta | None]
    troubled: frozenset[str]
    begun: Collection[str]
    free: dict[_Resource, list[timedelta]]
    slots: Mapping[_Resource, int]

    def urgency(self, nodes: Sequence[Node]) -> tuple[bool, bool, bool, timedelta]:
        """Return what sorts targets: what runs already, then the longest, then the unmeasured.

        Variants come last: they are published only where the build for every CPU is.
        """
        measured = [took for node in nodes if (took := self.expected[node.name]) is not None]
        is_begun = any(node.name in self.begun for node in nodes)
        is_variant = all(node.variant_of for node in nodes)
        return not is_begun, is_variant, not measured, -min(measured, default=_NOW)

    def put(self, nodes: Sequence[Node], *, rank: int) -> Placement:
        ordered = sorted(nodes, key=self._preference)
        first = ordered[0]
        free = self._free(first)
        begins, takes = free[0], self.expected[first.name]
        free[0] = begins + (takes or _NOW)
        free.sort()
        return Placement(nodes=tuple(ordered), begins=begins, takes=takes, rank=rank)

    def _preference(self, node: Node) -> tuple[bool, bool, bool, timedelta]:
        takes = self.expected[node.name]
        return (
            node.name not in self.begun,
            node.name in self.troubled,
            takes is None,
            # Those that were never measured keep the order of the file.
            _NOW if takes is None else self._free(node)[0] + takes,
        )

    def _free(self, node: Node) -> list[timedelta]:
        key = resource(node)
        return self.free.setdefault(key, [_NOW] * self.slots[key])
