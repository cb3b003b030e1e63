"""Where a node is reached, and why it cannot be, in words."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.inventory import Node


def user_of(node: Node) -> str:
    """Return the user before the `@`, "" where ssh's own configuration decides."""
    return node.host.rpartition("@")[0]


def host_of(node: Node) -> str:
    """Return the name or address of the host."""
    return node.host.rpartition("@")[2]


def place_of(node: Node) -> str:
    """Return `host:port`, as messages name it."""
    host = host_of(node)
    return f"[{host}]:{node.port}" if ":" in host else f"{host}:{node.port}"


def option_of(name: str, path: Path) -> str:
    """Return an option of `ssh -o` that names a file; ssh splits it at spaces and fills in `%`."""
    return f'{name}="{str(path).replace("%", "%%")}"'


def reason_of(error: BaseException) -> str:
    """Return why something failed, in a few words."""
    match error:
        case socket.gaierror():
            return error.strerror or "its name cannot be resolved"
        case OSError(errno=int() as number):
            # asyncio's own text repeats the address as a tuple.
            return os.strerror(number)
        case _:
            return str(getattr(error, "reason", "")) or str(error) or type(error).__name__
