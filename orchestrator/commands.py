"""Each command: wire the real world, do it, show it, return the exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError, OrchestratorError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.core.inventory import Node
    from orchestrator.core.plan import ReleaseRequest
    from orchestrator.core.version import Version
    from orchestrator.wiring import Operator

INTERRUPTED: Final = 130


def explain(error: Exception) -> int | None:
    """Show an error that a person can act on and return its exit code; None for a bug of ours."""
    if not isinstance(error, OrchestratorError):
        return None
    from orchestrator.console import show_error

    show_error(error.message, error.hint, sys.stderr)
    return error.exit_code


def _operator(inventory_file: str) -> Operator:
    from orchestrator.wiring import Operator

    return Operator.at(inventory_file)


def release(arguments: argparse.Namespace) -> int:
    """Make a release, or say what it would do."""
    from orchestrator.core.plan import ReleaseRequest
    from orchestrator.core.version import parse_version

    request = ReleaseRequest(
        version=parse_version(arguments.version),
        nodes=tuple(arguments.node),
        skip=tuple(arguments.skip),
        rebuild=arguments.rebuild,
        clean=arguments.clean,
        publish=not arguments.no_publish,
    )
    operator = _operator(arguments.inventory)
    if arguments.dry_run:
        return asyncio.run(_show_plan(operator, request, as_json=arguments.json))
    try:
        return asyncio.run(_release(operator, request, arguments))
    except KeyboardInterrupt:
        return _interrupted(operator, request)


async def _release(
    operator: Operator, request: ReleaseRequest, arguments: argparse.Namespace
) -> int:
    from orchestrator.console import Console, show_report
    from orchestrator.coordinator import make_release
    from orchestrator.core.events import Warned
    from orchestrator.core.preflight import Severity
    from orchestrator.core.report import report_as_data
    from orchestrator.preflight import check_operator
    from orchestrator.world import World

    outlet = operator.outlet(request.version) if request.publish else None
    console = Console(sys.stderr, is_quiet=arguments.quiet or arguments.json)
    # Before an hour is spent, and not at its end.
    for finding in await check_operator(operator, request.version, publishes=request.publish):
        if finding.severity is Severity.WARNING:
            console.observe(Warned(message=finding.message))
        finding.require()
    plan = await operator.plan(request, outlet.channel if outlet else None)
    async with operator.connections() as connect:
        world = World(
            connect=connect,
            make_bundle=operator.make_bundle,
            outlet=outlet,
            dist=operator.dist,
            observe=console.observe,
            remember=operator.remember,
            monotonic=time.monotonic,
        )
        with console:
            report = await make_release(plan, world, expected=operator.expected())
    if arguments.json:
        print(json.dumps(report_as_data(report), indent=2))
    else:
        show_report(report, sys.stdout)
    return report.exit_code


# Long enough to read what it would do.
_SECOND_THOUGHTS_SECONDS: Final = 5


def _interrupted(operator: Operator, request: ReleaseRequest) -> int:
    """Say how to go on; a second Ctrl-C in a terminal, after this was read, cancels the jobs."""
    from orchestrator.console import show_error
    from orchestrator.core.plan import chosen_nodes

    version = request.version
    hint = (
        f"run the same command to go on; `orchestrator logs {version} NODE -f` follows a build, "
        f"`orchestrator cancel {version}` ends it there"
    )
    is_asked = sys.stderr.isatty() and sys.stdin.isatty()
    if is_asked:
        hint += f"; so does another Ctrl-C within {_SECOND_THOUGHTS_SECONDS} s"
    try:
        show_error("interrupted: what was started on the nodes goes on there", hint, sys.stderr)
        time.sleep(_SECOND_THOUGHTS_SECONDS if is_asked else 0)
    except KeyboardInterrupt:
        if is_asked:
            nodes = chosen_nodes(operator.inventory, request)
            asyncio.run(_cancel(operator, version, nodes, as_json=False))
    return INTERRUPTED


async def _show_plan(operator: Operator, request: ReleaseRequest, *, as_json: bool) -> int:
    from orchestrator.core.dry_run import plan_as_data
    from orchestrator.listing import show_plan

    channel = operator.channel(request.version, operator.public_keys())
    # Before `keygen` nothing can be published, so there is nothing to read either.
    index = await operator.index(channel) if channel.keys else None
    plan = await operator.plan(request, channel if channel.keys else None)
    data = plan_as_data(
        plan,
        store=operator.store().describe(),
        channel=channel.name,
        rows=index.rows if index else (),
    )
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        show_plan(data, sys.stdout)
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Look at everything that a release needs, before an hour is spent."""
    from orchestrator.core.check import check_as_data
    from orchestrator.listing import show_check
    from orchestrator.preflight import check_release

    operator = _operator(arguments.inventory)
    found = asyncio.run(check_release(operator, arguments.nodes))
    data = check_as_data(found)
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_check(data, sys.stdout)
    return found.exit_code


def status(arguments: argparse.Namespace) -> int:
    """Show what is published and what the nodes know about a version's jobs."""
    from orchestrator.core.version import parse_version

    version = parse_version(arguments.version) if arguments.version else None
    operator = _operator(arguments.inventory)
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
    async with operator.connections() as connect:
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
    operator = _operator(arguments.inventory)
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
    async with operator.connections() as connect:
        job = known[0] if known else await find_job(connect, node, operator.search(version))
        await (follow_log if follow else read_rest)(connect, job, write_log)
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    """End a version's jobs on the nodes, and say what became of them."""
    from orchestrator.core.version import parse_version

    version = parse_version(arguments.version)
    operator = _operator(arguments.inventory)
    names = [operator.node(name) for name in arguments.nodes]
    nodes = names or operator.nodes_at_work()
    return asyncio.run(_cancel(operator, version, nodes, as_json=arguments.json))


async def _cancel(
    operator: Operator, version: Version, nodes: Sequence[Node], *, as_json: bool
) -> int:
    from orchestrator.jobs import cancel_jobs, cancelled_as_data
    from orchestrator.listing import show_cancelled

    async with operator.connections() as connect:
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
    operator = _operator(arguments.inventory)
    node = operator.node(arguments.node)
    if not sys.stdin.isatty():
        raise ConfigError(
            "a shell needs a terminal", hint="run it in one; `orchestrator logs` needs none"
        )
    entry, job = asyncio.run(_entry(operator, version, node))
    if node.is_local:
        return _in_terminal(["/bin/sh", entry, job])
    from orchestrator.nodes.ssh import interactive_command, known_hosts_line

    with TemporaryDirectory(prefix="orchestrator-") as folder:
        known_hosts = Path(folder) / "known_hosts"
        known_hosts.write_text(known_hosts_line(node), encoding="utf-8")
        return _in_terminal(interactive_command(node, known_hosts, ["/bin/sh", entry, job]))


async def _entry(operator: Operator, version: Version, node: Node) -> tuple[str, str]:
    from orchestrator.jobs import find_job
    from orchestrator.nodes.workdir import place_entry

    async with operator.connections() as connect:
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


def _new_passphrase() -> bytes:
    from getpass import getpass

    first = getpass("passphrase for the new key: ")
    if first != getpass("the same again: "):
        raise ConfigError("the two passphrases differ", hint="run keygen again")
    return first.encode()


def keygen(arguments: argparse.Namespace) -> int:
    """Make the signing key where the inventory says, and print its public half."""
    from orchestrator.signing import generate_key

    operator = _operator(arguments.inventory)
    passphrase = _new_passphrase() if arguments.passphrase else None
    path = operator.key_path()
    public = generate_key(path, passphrase=passphrase)
    print(f"made {path}: keep a copy of it in a safe place")
    print(f"fingerprint: {public.fingerprint}")
    print(f"ssh:         {public.ssh}")
    print(f"minisign:    {public.minisign}")
    return 0


def render(arguments: argparse.Namespace) -> int:
    """Print install.sh."""
    from orchestrator.core.installer import render_installer
    from orchestrator.publication import installer_values

    operator = _operator(arguments.inventory)
    url = operator.inventory.publication.url
    if url is None:
        raise ConfigError(
            "an installer needs `publication.url`, the address that it downloads from",
            hint="for example `url: https://example.org/releases`",
        )
    keys = operator.public_keys()
    if not keys:
        raise operator.no_key()
    values = installer_values(operator.inventory.project, url, operator.channel(None, keys))
    print(render_installer(operator.template(), values), end="")
    return 0


def serve(arguments: argparse.Namespace) -> int:
    """Serve a directory store until interrupted."""
    from orchestrator.service.static import serve_directory

    folder = (
        _named_folder(arguments.store)
        if arguments.store
        else _operator(arguments.inventory).store_folder()
    )
    # The inventory's own store is made by the first release, and then it is served.
    state = "" if folder.is_dir() else " (nothing is there yet)"
    with serve_directory(folder, port=arguments.port) as url:
        print(f"serving {folder}{state} at {url}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


def _named_folder(name: str) -> Path:
    folder = Path(name)
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {name} to serve",
            hint="check the path; without --store the inventory's own store is served",
        )
    return folder


def schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema of the inventory."""
    from orchestrator.core.schema import inventory_schema

    print(json.dumps(inventory_schema(), indent=2))
    return 0


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "release": release,
    "check": check,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "shell": shell,
    "keygen": keygen,
    "render": render,
    "serve": serve,
    "schema": schema,
}
