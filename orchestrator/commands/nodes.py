"""The nodes of the inventory: shown, added, changed, taken out."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.commands.enrol import add
from orchestrator.commands.questions import Questions
from orchestrator.core.enrolment import describe_host, node_as_data, require_fingerprint
from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.roster import remove_nodes, require_entries, set_in_node
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse

    from orchestrator.core.inventory import Node


def nodes(arguments: argparse.Namespace) -> int:
    """Do what the action says; without one, list the nodes."""
    actions = {
        "list": _list,
        "add": add,
        "enable": _set_enabled,
        "disable": _set_enabled,
        "remove": _remove,
        "rekey": _rekey,
    }
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from orchestrator.listing.nodes import show_nodes

    operator = Operator.at(arguments.inventory)
    record = operator.record()
    data = [node_as_data(node, record) for node in operator.inventory.nodes]
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_nodes(data, sys.stdout)
    return 0


def _set_enabled(arguments: argparse.Namespace) -> int:
    operator, path = Operator.at(arguments.inventory), Path(arguments.inventory)
    enabled = arguments.action == "enable"
    # Every name first, so that a mistake in one changes nothing.
    chosen = [operator.node(name) for name in arguments.names]
    require_entries(path, arguments.names)
    changed = [
        set_in_node(path, node.name, {"enabled": enabled})
        for node in chosen
        if node.enabled is not enabled
    ]
    if arguments.json:
        print(json.dumps([node_as_data(operator_node) for operator_node in changed], indent=2))
        return 0
    for node in chosen:
        was = "" if node.name in {each.name for each in changed} else " already"
        print(f"{node.name} is{was} {arguments.action}d in {path}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    operator, path = Operator.at(arguments.inventory), Path(arguments.inventory)
    chosen = [operator.node(name) for name in dict.fromkeys(arguments.names)]
    remove_nodes(path, [node.name for node in chosen])
    if arguments.json:
        print(json.dumps([node_as_data(node) for node in chosen], indent=2))
        return 0
    for node in chosen:
        print(f"removed {node.name} ({node.target}, {describe_host(node)}) from {path}")
    it = "it" if len(chosen) == 1 else "them"
    print(f"what is published of {it} stays; jobs and caches stay on {it} until they are deleted")
    return 0


def _rekey(arguments: argparse.Namespace) -> int:
    """Pin the key that a node shows now, if a person vouches for it."""
    from orchestrator.enrolment import meet, refuse_key, require_key

    if arguments.fingerprint:
        require_fingerprint(arguments.fingerprint)
    path = Path(arguments.inventory)
    node = Operator.at(arguments.inventory).node(arguments.name)
    _require_own_key(node)
    shown = asyncio.run(meet(node))
    questions = Questions(is_interactive=sys.stdin.isatty())
    if arguments.fingerprint:
        require_key(shown, node, arguments.fingerprint)
    elif not shown.is_known:
        refusal = refuse_key(shown, node)
        if not questions.is_interactive:
            raise refusal
        print(refusal.message, file=sys.stderr)
        print(
            f"compare with what this prints on the machine itself: {shown.check}", file=sys.stderr
        )
        if not questions.yes("is that its own new key?", proposal=False):
            raise NodeError(
                f"nothing was changed: nobody vouches for the new key of {node.name}",
                hint=refusal.hint,
            )
    known = (node.host_key or "").split()[:2] == shown.line.split()
    if not known:
        node = set_in_node(path, node.name, {"host_key": shown.line})
    if arguments.json:
        print(json.dumps({**node_as_data(node), "fingerprint": shown.fingerprint}, indent=2))
        return 0
    print(f"{node.name} shows {shown.fingerprint}: {'as pinned' if known else 'pinned'} in {path}")
    return 0


def _require_own_key(node: Node) -> None:
    if node.is_local:
        raise ConfigError(f"{node.name} is this machine: it has no host key", hint="nothing to do")
    if node.is_guest:
        raise ConfigError(
            f"{node.name} is {describe_host(node)}, which was made with a key that is known",
            hint=f"for new keys: orchestrator vm destroy {node.vm}, and vm create {node.vm}",
        )
