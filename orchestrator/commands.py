"""Each command: wire the real world, do it, show it, return the exit code."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, OrchestratorError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

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
        _tell_interrupted(request.version)
        return INTERRUPTED


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


def _tell_interrupted(version: Version) -> None:
    from orchestrator.console import show_error

    show_error(
        "interrupted: what was started on the nodes goes on there",
        f"run the same command to go on; `orchestrator logs {version} NODE -f` follows a build",
        sys.stderr,
    )


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
    from orchestrator.jobs import describe_jobs, known_jobs
    from orchestrator.listing import show_status

    keys = operator.public_keys()
    index = await operator.index(operator.channel(version, keys)) if keys else None
    rows = (
        [row for row in index.rows if version is None or str(row.version) == str(version)]
        if index
        else []
    )
    known = known_jobs(operator.dist, operator.inventory.nodes, version)
    async with operator.connections() as connect:
        jobs = await describe_jobs(connect, known)
    data: Mapping[str, object] = {
        "project": operator.inventory.project.name,
        "version": str(version) if version else None,
        "store": operator.store().describe(),
        "serial": index.serial if index else None,
        "published": [row_as_data(row) for row in rows],
        "jobs": jobs,
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
    from orchestrator.jobs import follow_log, known_jobs, read_log

    known = known_jobs(operator.dist, (node,), version)
    if not (follow and known):
        write_log(read_log(operator.dist, version, node))
        return 0
    async with operator.connections() as connect:
        await follow_log(connect, known[0], write_log)
    return 0


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
    "keygen": keygen,
    "render": render,
    "serve": serve,
    "schema": schema,
}
