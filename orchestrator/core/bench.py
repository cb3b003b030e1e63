"""How long clean builds took on each node: statistics, ranks, and what is saved of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.core.result import FailureClass

_FORMAT: Final = 1
_LONGEST_SECONDS: Final = timedelta(days=30).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """A run that gave no time, and who was at fault; `number` 0 is for all of a node's runs."""

    number: int
    failure_class: FailureClass
    message: str
    log: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBench:
    """What was measured on one node; None is what it does not say of itself.

    With `is_own_command` the node's command has its own target folder, and decides whether a build
    is clean; with `is_fetching` the time includes the network.
    """

    node: str
    target: str
    took: tuple[timedelta, ...] = ()
    failures: tuple[FailedRun, ...] = ()
    rustc: str | None = None
    cpu: str | None = None
    cpus: int | None = None
    system: str | None = None
    is_own_command: bool = False
    is_fetching: bool = False

    @property
    def average(self) -> float | None:
        """Seconds, None if no run succeeded."""
        return fmean(_seconds(self.took)) if self.took else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the runs in seconds, None of less than two."""
        return stdev(_seconds(self.took)) if len(self.took) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark of one version on some nodes, in the order in which they were asked for."""

    project: str
    version: str
    source: str
    at: datetime
    runs: int
    nodes: tuple[NodeBench, ...]

    @property
    def exit_code(self) -> int:
        """0, or the lowest code of those who are at fault for a run that failed."""
        return min(
            (failed.failure_class.value for node in self.nodes for failed in node.failures),
            default=0,
        )

    @property
    def ranked(self) -> tuple[NodeBench, ...]:
        """The nodes, the fastest first; those without a time come last."""
        return tuple(
            sorted(self.nodes, key=lambda node: (node.average is None, node.average or 0.0))
        )


def benchmark_as_data(
    benchmark: Benchmark, *, baseline: str | None = None, before: Benchmark | None = None
) -> Mapping[str, Any]:
    """Return what is saved and what `--json` prints: the nodes ranked, the fastest first.

    Ratios are to the average of the node `baseline`, or else of the fastest. What the same node
    took for the same target in `before` is told beside it.
    """
    ranked = benchmark.ranked
    base = next((node for node in ranked if node.node == baseline), ranked[0] if ranked else None)
    earlier = {(node.node, node.target): node for node in before.nodes} if before else {}
    return {
        "format": _FORMAT,
        "project": benchmark.project,
        "version": benchmark.version,
        "source": benchmark.source,
        "at": f"{benchmark.at:%Y-%m-%dT%H:%M:%SZ}",
        "runs": benchmark.runs,
        "baseline": base.node if base else None,
        "compared_with": before and f"{before.version}, {before.at:%Y-%m-%d %H:%M} UTC",
        "exit_code": benchmark.exit_code,
        "nodes": [
            _node_as_data(node, base=base, before=earlier.get((node.node, node.target)))
            for node in ranked
        ],
    }


def _node_as_data(
    node: NodeBench, *, base: NodeBench | None, before: NodeBench | None
) -> Mapping[str, Any]:
    seconds = _seconds(node.took)
    average, earlier = node.average, before.average if before else None
    return {
        "node": node.node,
        "target": node.target,
        "average_seconds": _rounded(average),
        "min_seconds": min(seconds, default=None),
        "max_seconds": max(seconds, default=None),
        "deviation_seconds": _rounded(node.deviation),
        "ratio": _quotient(average, base.average if base else None),
        "before_seconds": _rounded(earlier),
        "change": _quotient(average, earlier),
        "took_seconds": seconds,
        "rustc": node.rustc,
        "cpu": node.cpu,
        "cpus": node.cpus,
        "system": node.system,
        "own_command": node.is_own_command,
        "includes_network": node.is_fetching,
        "failures": [
            {
                "run": failed.number,
                "class": failed.failure_class.name.lower(),
                "message": failed.message,
                "log": failed.log,
            }
            for failed in node.failures
        ],
    }


def read_benchmark(text: str, place: str) -> Benchmark:
    """Return a benchmark as it was saved; raise ConfigError if the text is none."""
    try:
        data = json.loads(text)
        if data["format"] != _FORMAT:
            raise ConfigError(
                f"{place} has the format {str(data['format'])[:20]!r}, and this program reads 1",
                hint="was it saved by a newer version?",
            )
        return Benchmark(
            project=str(data["project"]),
            version=str(data["version"]),
            source=str(data["source"]),
            at=datetime.fromisoformat(data["at"]),
            runs=int(data["runs"]),
            nodes=tuple(_read_node(node) for node in data["nodes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ConfigError(
            f"{place} is no benchmark", hint="name a file that `orchestrator bench` has saved"
        ) from None


def _read_node(data: Any) -> NodeBench:
    seconds = [float(number) for number in data["took_seconds"]]
    if not all(0 <= number <= _LONGEST_SECONDS for number in seconds):
        raise ValueError
    return NodeBench(
        node=str(data["node"]),
        target=str(data["target"]),
        took=tuple(timedelta(seconds=number) for number in seconds),
        rustc=data.get("rustc"),
        cpu=data.get("cpu"),
        cpus=data.get("cpus"),
        system=data.get("system"),
    )


def _seconds(durations: Sequence[timedelta]) -> list[float]:
    return [round(duration.total_seconds(), 3) for duration in durations]


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)


def _quotient(number: float | None, base: float | None) -> float | None:
    # A build that is over within a hundredth of a second is no measure for another.
    return None if number is None or not base else round(number / base, 4)
