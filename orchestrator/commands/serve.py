"""Run the service, or only serve a store."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import GCS_SCHEME, Operator

if TYPE_CHECKING:
    import argparse

_DEFAULT_PORT: Final = 8000


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until it is stopped; without one in the inventory, serve the store."""
    operator = None if arguments.store else Operator.at(arguments.inventory)
    if operator and arguments.units:
        return _write_units(operator, arguments)
    if operator is None or operator.inventory.service.repository is None:
        if arguments.check:
            raise ConfigError(
                "the inventory has no `service.repository`, so only its store would be served",
                hint="docs/operating.md: name the repository whose releases are to be made",
            )
        return _serve_store(arguments)
    if arguments.check:
        return asyncio.run(_check(operator))
    # Nobody is there to be asked for a passphrase, also where somebody has started it.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return asyncio.run(_run(operator, arguments))


def _write_units(operator: Operator, arguments: argparse.Namespace) -> int:
    from orchestrator.service.units import write_units

    is_folder = not operator.inventory.publication.store.startswith(GCS_SCHEME)
    for path in write_units(
        Path(arguments.units),
        # Beside the interpreter of this very environment.
        program=Path(sys.executable).parent / "orchestrator",
        inventory=Path(arguments.inventory),
        user=arguments.user,
        writable=(operator.store_folder(),) if is_folder else (),
        has_guests=any(node.vm for node in operator.inventory.nodes),
    ):
        print(path)
    return 0


async def _check(operator: Operator) -> int:
    from orchestrator.core.check import findings_as_data
    from orchestrator.listing.service import show_readiness
    from orchestrator.service.readiness import check_service

    findings = await check_service(operator, os.environ)
    show_readiness(findings_as_data(findings), sys.stdout)
    return min((each.exit_code for each in findings if each.is_problem), default=0)


async def _run(operator: Operator, arguments: argparse.Namespace) -> int:
    from orchestrator.github.api import Api
    from orchestrator.github.token import api_url
    from orchestrator.service.journal import set_up_log
    from orchestrator.service.readiness import database_url, no_secret
    from orchestrator.service.secrets import read_secrets
    from orchestrator.service.server import Setup, run_service

    settings = operator.inventory.service
    secrets = read_secrets(settings, os.environ)
    if secrets.webhook is None:
        raise no_secret()
    repository = str(settings.repository)
    host, _, port = settings.listen.rpartition(":")
    setup = Setup(
        inventory_file=arguments.inventory,
        repository=repository,
        host=host.strip("[]"),
        port=_port(arguments, int(port)),
        database=database_url(operator, secrets),
        secrets=secrets,
        api=Api(repository=repository, token=secrets.github_token, url=api_url(os.environ)),
    )
    set_up_log(sys.stderr, secrets.redact, is_terminal=sys.stderr.isatty())
    await run_service(setup, lambda url: print(f"the service answers at {url}", flush=True))
    return 0


def _port(arguments: argparse.Namespace, usual: int) -> int:
    return usual if arguments.port is None else int(arguments.port)


def _serve_store(arguments: argparse.Namespace) -> int:
    from orchestrator.service.directory import serve_directory

    folder = (
        _named_folder(arguments.store)
        if arguments.store
        else Operator.at(arguments.inventory).store_folder()
    )
    # The inventory's own store is made by the first release, and then it is served.
    state = "" if folder.is_dir() else " (nothing is there yet)"
    with serve_directory(folder, port=_port(arguments, _DEFAULT_PORT)) as url:
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
