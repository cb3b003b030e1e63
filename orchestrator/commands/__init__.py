"""Each command: wire the real world, do it, show it, return the exit code."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import OrchestratorError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping


def command(name: str) -> Callable[[argparse.Namespace], int]:
    """Return the function of a command; those of other modules are not even imported."""
    module = import_module(f"{__name__}.{COMMANDS[name]}")
    function: Callable[[argparse.Namespace], int] = getattr(module, name)
    return function


def explain(error: Exception) -> int | None:
    """Show an error that a person can act on and return its exit code; None for a bug of ours."""
    if not isinstance(error, OrchestratorError):
        return None
    from orchestrator.console import show_error

    show_error(error.message, error.hint, sys.stderr)
    return error.exit_code


# In which module each is, under its own name.
COMMANDS: Final[Mapping[str, str]] = {
    "release": "release",
    "check": "release",
    "nodes": "nodes",
    "bench": "bench",
    "status": "jobs",
    "logs": "jobs",
    "cancel": "jobs",
    "shell": "jobs",
    "yank": "index",
    "unyank": "index",
    "promote": "index",
    "renew": "index",
    "history": "index",
    "fsck": "index",
    "verify": "verify",
    "bundle": "bundle",
    "keygen": "keys",
    "keys": "keys",
    "render": "site",
    "serve": "serve",
    "vm": "vm",
    "schema": "site",
}
