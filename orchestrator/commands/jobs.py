"""How the jobs on the nodes stand; their logs; end them; a shell in their folders."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from orchestrator.core.inventory import Node
    from orchestrator.core.version import Version


INTERRUPTED: Final = 130


def status(arguments: argparse.Namespace) -> int:
    """Show what is published and what the nodes know about a version's jobs."""
    from orchestrator.core.version import parse_version

    version = parse_version(arguments.version) if arguments.version else None
    operator = Operator.at(arguments.inventory)
    return asyncio.run(_status(operator, version, as_json=arguments.json))


async def _status(operator: Operator, version: Version | None, *, as_json: bool) -> int:
    from orchestrator.core.report import row_as_data
    from orchestrator.jobs import find_jobs, found_as_data
    from orchestrator.listing import show_status

    keys = operator.public_keys()
    index = await operator.index(operator.channel(version, keys)) if keys else None
    rows = (
        [row for row in index.rows if version is None or str(row.version) == str(version)]
        if index
        else []
    )
    async with operator.connections(starts_guests=False) as connect:
        found = await find_jobs(connect, operator.nodes_at_work(), operator.search(version))
    data: Mapping[str, object] = {
        "project": operator.inventory.project.name,
        "version": str(version) if version else None,
        "store": operator.store().describe(),
        "serial": index.serial if index else None,
        "published": [row_as_data(row) for row in rows],
        "jobs": [found_as_data(each, version) for each in found],
    }
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        show_status(data, sys.stdout)
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Print a node's build log; with --follow, to the end of its job."""
    from orchestrator.core.version import parse_version

    version = parse_version(arguments.version)
    operator = Operator.at(arguments.inventory)
    node = operator.node(arguments.node)
    try:
        return asyncio.run(_logs(operator, version, node, follow=arguments.follow))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _logs(operator: Operator, version: Version, node: Node, *, follow: bool) -> int:
    from orchestrator.console import write_log
    from orchestrator.jobs import find_job, follow_log, has_log, known_jobs, read_log, read_rest

    if not follow and has_log(operator.dist, version, node):
        write_log(read_log(operator.dist, version, node))
        return 0
    known = known_jobs(operator.dist, (node,), version)
    async with operator.connections(starts_guests=False) as connect:
        job = known[0] if known else await find_job(connect, node, operator.search(version))
        await (follow_log if follow else read_rest)(connect, job, write_log)
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    """End a version's jobs on the nodes, and say what became of them."""
    from orchestrator.core.version import parse_version

    version = parse_version(arguments.version)
    operator = Operator.at(arguments.inventory)
    names = [operator.node(name) for name in arguments.nodes]
    nodes = names or operator.nodes_at_work()
    return asyncio.run(cancel_on(operator, version, nodes, as_json=arguments.json))


async def cancel_on(
    operator: Operator, version: Version, nodes: Sequence[Node], *, as_json: bool
) -> int:
    """End a version's jobs on these nodes, show what became of them, and return the exit code."""
    from orchestrator.jobs import cancel_jobs, cancelled_as_data
    from orchestrator.listing import show_cancelled

    async with operator.connections(starts_guests=False) as connect:
        cancelled = await cancel_jobs(connect, nodes, operator.search(version))
    jobs = [cancelled_as_data(each) for each in cancelled]
    if as_json:
        print(json.dumps({"version": str(version), "jobs": jobs}, indent=2))
    else:
        show_cancelled(str(version), jobs, sys.stdout)
    return 0 if all(job["outcome"] == "ended" for job in jobs) else NodeError.exit_code


def shell(arguments: argparse.Namespace) -> int:
    """Open a shell in the folder of a job, on its node."""
    from orchestrator.core.version import parse_version

    version = parse_version(arguments.version)
    operator = Operator.at(arguments.inventory)
    node = operator.node(arguments.node)
    if not sys.stdin.isatty():
        raise ConfigError(
            "a shell needs a terminal", hint="run it in one; `orchestrator logs` needs none"
        )
    entry, job = asyncio.run(_entry(operator, version, node))
    if node.is_local:
        return _in_terminal(["/bin/sh", entry, job])
    from orchestrator.machines import as_reached
    from orchestrator.nodes.ssh import interactive_command, known_hosts_line

    node = as_reached(operator.folder, node)
    with TemporaryDirectory(prefix="orchestrator-") as folder:
        known_hosts = Path(folder) / "known_hosts"
        known_hosts.write_text(known_hosts_line(node), encoding="utf-8")
        return _in_terminal(interactive_command(node, known_hosts, ["/bin/sh", entry, job]))


async def _entry(operator: Operator, version: Version, node: Node) -> tuple[str, str]:
    from orchestrator.jobs import find_job
    from orchestrator.nodes.workdir import place_entry

    async with operator.connections(starts_guests=False) as connect:
        found = await find_job(connect, node, operator.search(version))
        async with connect(node) as transport:
            return await place_entry(transport, found.job.workdir), found.job.id


def _in_terminal(command: list[str]) -> int:
    try:
        # Ctrl-C is for what runs there.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return subprocess.run(
                command, check=False, preexec_fn=partial(signal.signal, signal.SIGINT, before)
            ).returncode
        finally:
            signal.signal(signal.SIGINT, before)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no `{command[0]}` on this machine", hint="install the OpenSSH client"
        ) from None
