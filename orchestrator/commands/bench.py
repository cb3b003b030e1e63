"""Time clean builds on the nodes, rank them, and keep what was measured."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse

    from orchestrator.core.bench import Benchmark
    from orchestrator.core.plan import BuildPlan
    from orchestrator.core.version import Version

_LIMIT_BYTES: Final = 16 << 20


def bench(arguments: argparse.Namespace) -> int:
    """Time clean builds on the chosen nodes, and show how they rank."""
    from orchestrator.core.bench import benchmark_as_data
    from orchestrator.core.chart import render_chart
    from orchestrator.listing.bench import show_benchmark
    from orchestrator.parts import write_whole

    operator = Operator.at(arguments.inventory)
    version = asyncio.run(_version(operator, arguments.version))
    if arguments.bench_variants:
        from orchestrator.commands.variants import bench_variants

        return bench_variants(operator, version, arguments)
    before = _read(arguments.compare_with) if arguments.compare_with else None
    plan = _plan(operator, version, arguments)
    if operator.inventory.project.source is None:
        print(
            "warning: the project has no `source`, so each node's own command runs as it is, and "
            "its time includes the network\n"
            "hint: with `source` every node builds the same vendored bundle, offline",
            file=sys.stderr,
        )
    benchmark = asyncio.run(_measure(operator, plan, arguments.runs))
    data = benchmark_as_data(benchmark, baseline=arguments.baseline, before=before)
    text = json.dumps(data, indent=2) + "\n"
    path = operator.dist / "bench" / f"{benchmark.at:%Y%m%dT%H%M%SZ}.json"
    write_whole(path, text.encode())
    print(f"saved as {path}", file=sys.stderr)
    if arguments.svg:
        write_whole(Path(arguments.svg), render_chart(data).encode())
    if arguments.json:
        print(text, end="")
    else:
        show_benchmark(data, sys.stdout)
    return benchmark.exit_code


async def _measure(operator: Operator, plan: BuildPlan, runs: int) -> Benchmark:
    from orchestrator.benchmark import Bench
    from orchestrator.console import Console

    def tell(text: str) -> None:
        from orchestrator.core.wording import visible

        print(visible(text), file=sys.stderr, flush=True)

    folder = operator.dist / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(sys.stderr)
    async with operator.connections(console.observe) as connect:
        world = operator.world(connect, console.observe)
        return await Bench(
            plan=plan,
            runs=runs,
            world=world,
            tell=tell,
            logs=folder / "logs" / secrets.token_hex(4),
        ).measure()


def _plan(operator: Operator, version: Version, arguments: argparse.Namespace) -> BuildPlan:
    from orchestrator.core.plan import ReleaseRequest, plan_release

    names = arguments.nodes or [
        node.name for node in operator.inventory.nodes if node.enabled and not node.variant_of
    ]
    if not names:
        raise ConfigError(
            "no node is left to measure: none is enabled",
            hint="set `enabled: true` on one, or name the nodes to be measured",
        )
    for name in arguments.nodes:
        # Here, because the plan would speak of the options of `release`.
        operator.node(name)
    request = ReleaseRequest(version=version, nodes=tuple(names), rebuild=True, publish=False)
    if arguments.baseline and arguments.baseline not in names:
        raise ConfigError(
            f"--baseline: the node `{arguments.baseline[:80]}` is not measured",
            hint=f"these are: {', '.join(names)}",
        )
    return plan_release(operator.inventory, request)


async def _version(operator: Operator, said: str | None) -> Version:
    from orchestrator.core.version import parse_version

    if said:
        return parse_version(said)
    keys = operator.public_keys()
    index = await operator.index(operator.channel(None, keys)) if keys else None
    rows = [row for row in index.rows if row.sha256] if index else []
    if not rows:
        raise ConfigError(
            "nothing is published yet, so there is no version to measure with",
            hint="name one: orchestrator bench --version V",
        )
    return max(row.version for row in rows)


def _read(name: str) -> Benchmark:
    from orchestrator.core.bench import read_benchmark

    try:
        with Path(name).open("rb") as file:
            data = file.read(_LIMIT_BYTES)
        return read_benchmark(data.decode(), name)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            f"--compare-with: cannot read {name}: {reason}",
            hint="name a file that `orchestrator bench` has saved, as it says at its end: "
            "dist/bench/*.json",
        ) from None
