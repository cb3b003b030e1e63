"""Each command: wire the real world, do it, show it, return the exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from orchestrator.commands.bench import bench
from orchestrator.commands.bundle import bundle
from orchestrator.commands.index import fsck, history, promote, renew, unyank, yank
from orchestrator.commands.jobs import cancel, logs, shell, status
from orchestrator.commands.keys import keygen, keys
from orchestrator.commands.nodes import nodes
from orchestrator.commands.release import check, release
from orchestrator.commands.serve import serve
from orchestrator.commands.site import render, schema
from orchestrator.commands.verify import verify
from orchestrator.commands.vm import vm
from orchestrator.core.errors import OrchestratorError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping


def explain(error: Exception) -> int | None:
    """Show an error that a person can act on and return its exit code; None for a bug of ours."""
    if not isinstance(error, OrchestratorError):
        return None
    from orchestrator.console import show_error

    show_error(error.message, error.hint, sys.stderr)
    return error.exit_code


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "release": release,
    "check": check,
    "nodes": nodes,
    "bench": bench,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "shell": shell,
    "yank": yank,
    "unyank": unyank,
    "promote": promote,
    "renew": renew,
    "history": history,
    "fsck": fsck,
    "verify": verify,
    "bundle": bundle,
    "keygen": keygen,
    "keys": keys,
    "render": render,
    "serve": serve,
    "vm": vm,
    "schema": schema,
}
