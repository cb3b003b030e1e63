"""Whether a variant is worth being published: the CPU time that it needs, and the base one's."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError, NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.core.inventory import Inventory, Node

# Below this, two runs of one binary differ as much.
LEAST_GAIN: Final = 0.03
_LONG_ENOUGH_SECONDS: Final = 1.0
_MOST_REPEATS: Final = 1000
_TIMES: Final = re.compile(r"(\d+)m(\d+(?:[.,]\d+)?)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What was measured of a variant: CPU seconds of one run, of it and of its base."""

    node: str
    base: str
    base_seconds: float
    seconds: float

    @property
    def share(self) -> float:
        """The share of the base's time that it saves; below 0 it is slower."""
        return 1 - self.seconds / self.base_seconds if self.base_seconds else 0.0

    @property
    def is_worth_it(self) -> bool:
        """Whether releases should have it."""
        return self.share >= LEAST_GAIN

    def as_data(self) -> Mapping[str, object]:
        """Return what is recorded of it, and what `--json` prints."""
        return {
            "node": self.node,
            "base": self.base,
            "base_seconds": round(self.base_seconds, 6),
            "seconds": round(self.seconds, 6),
            "gain": round(self.share, 4),
            "is_worth_it": self.is_worth_it,
        }


def timed_command(benchmark: str, repeats: int) -> str:
    """Return a POSIX script that runs a benchmark so often, and says how much CPU that took.

    `times` is a part of every POSIX shell, and the CPU's time does not count what else runs there.
    """
    return (
        f"i=0\nwhile [ $i -lt {repeats} ]; do\n{benchmark.rstrip()} >/dev/null\ni=$((i + 1))\n"
        "done\ntimes\n"
    )


def cpu_seconds(output: bytes) -> float:
    """Return what the programs took, of the last lines of a `timed_command`."""
    # First the shell's own time, then that of what it has run: user and system of each.
    found = _TIMES.findall(output.decode(errors="replace"))[-4:]
    if len(found) != 4:  # noqa: PLR2004 -- see above
        raise NodeError("the node's shell did not say how long the benchmark took")
    user, system = (int(minutes) * 60 + float(s.replace(",", ".")) for minutes, s in found[2:])
    return user + system


def repeats_for(seconds: float) -> int:
    """Return how often to run what takes so long once, to time it well."""
    if seconds <= 0:
        return _MOST_REPEATS
    return min(_MOST_REPEATS, max(1, round(_LONG_ENOUGH_SECONDS / seconds)))


def gain_of(node: str, base: str, *, rounds: Sequence[tuple[float, float]]) -> Gain:
    """Return the gain of rounds, in each of which the base and the variant were timed in turn."""
    return Gain(
        node=node,
        base=base,
        base_seconds=median(before for before, _ in rounds),
        seconds=median(after for _, after in rounds),
    )


def families(inventory: Inventory, names: Sequence[str]) -> tuple[tuple[Node, ...], ...]:
    """Return the nodes of those names, or all enabled ones, each with its variants behind it.

    Raise ConfigError if none of them has any, or if nothing says what is to be timed.
    """
    bases = [
        node
        for node in inventory.nodes
        if node.variants and (node.name in names if names else node.enabled)
    ]
    if not bases:
        raise ConfigError(
            "no node has `variants:` to be timed",
            hint="give one to a node, such as `variants: x86-64-v3` (docs/placement.md)",
        )
    if inventory.project.benchmark is None:
        raise ConfigError(
            "nothing says what is to be timed",
            hint="give the project a `benchmark:`, a command with {binary} that works hard",
        )
    return tuple(
        (base, *(node for node in inventory.nodes if node.variant_of == base.name))
        for base in bases
    )


def write_gains(gains: Iterable[Gain], *, version: str) -> str:
    """Return the record of what was measured."""
    data = {"version": version, "gains": [gain.as_data() for gain in gains]}
    return json.dumps(data, indent=1) + "\n"


def read_gains(text: str) -> tuple[str, ...]:
    """Return the names of the nodes that are worth it; a damaged record tells of none."""
    try:
        gains: Any = json.loads(text)["gains"]
        return tuple(str(gain["node"]) for gain in gains if gain["is_worth_it"] is True)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
