"""Run the service, or only serve a store."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse

    from orchestrator.service.server import Setup

_DEFAULT_PORT: Final = 8000


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until it is stopped; without one in the inventory, serve the store."""
    if arguments.store or Operator.at(arguments.inventory).inventory.service.repository is None:
        return _serve_store(arguments)
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from orchestrator.service.server import run_service

    setup = _setup(arguments)

    def ready(url: str) -> None:
        print(f"the service answers at {url}", flush=True)

    await run_service(setup, ready)
    return 0


def _setup(arguments: argparse.Namespace) -> Setup:
    from orchestrator.github.api import Api
    from orchestrator.github.token import api_url
    from orchestrator.service.server import Setup

    operator = Operator.at(arguments.inventory)
    settings = operator.inventory.service
    host, _, port = settings.listen.rpartition(":")
    return Setup(
        inventory_file=arguments.inventory,
        repository=settings.repository or "",
        host=host.strip("[]"),
        port=_port(arguments, int(port)),
        database=settings.database
        or os.environ.get("ORCHESTRATOR_DATABASE")
        or f"sqlite:///{operator.dist / 'service' / 'queue.sqlite'}",
        webhook_secret=os.environ["ORCHESTRATOR_WEBHOOK_SECRET"].encode(),
        action_token=None,
        api=Api(
            repository=settings.repository or "",
            token=os.environ.get("GITHUB_TOKEN"),
            url=api_url(os.environ),
        ),
    )


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
