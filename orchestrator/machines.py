"""The virtual machines of an inventory's folder, and the nodes that are some of them."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.core.events import Phase, PhaseChanged, Warned
from orchestrator.nodes.vm import guests
from orchestrator.nodes.vm.folder import VmFolder, state_home
from orchestrator.nodes.vm.guests import Guests
from orchestrator.nodes.vm.machine import Machine
from orchestrator.nodes.vm.remote import RemoteMachine
from orchestrator.workspace import load_vm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.core.events import Observer
    from orchestrator.core.inventory import Node
    from orchestrator.nodes.transport import Connect


def machine_of(folder: Path, name: str, say: Callable[[str], None]) -> Machine | RemoteMachine:
    """Return the virtual machine that an inventory's folder defines; raise ConfigError if none.

    `say` is told what takes long.
    """
    home = state_home(os.environ)
    vm = load_vm(folder, name)
    if vm.host is not None:
        return RemoteMachine(vm=vm, folder=VmFolder(home / name), say=say)
    return Machine(
        vm=vm,
        folder=VmFolder(home / name),
        accelerators=home / "accelerators.json",
        say=say,
        defined_in=folder.absolute(),
    )


def as_reached(folder: Path, node: Node) -> Node:
    """Return a node as `ssh` reaches it: the address and keys of a guest are its machine's."""
    if not node.is_guest:
        return node
    return guests.as_reached(node, machine_of(folder, str(node.vm), lambda _: None))


def guests_of(folder: Path, connect: Connect, observe: Observer | None, *, starts: bool) -> Guests:
    """Return what connects to nodes, and starts those that are machines of that folder."""

    def on_boot(node: Node, text: str) -> None:
        if observe:
            phase = Phase.BOOTING if text else Phase.CONNECTING
            observe(PhaseChanged(node=node.name, phase=phase, detail=text))

    def warn(message: str) -> None:
        if observe:
            observe(Warned(message=message))

    return Guests(
        connect=connect,
        machine_of=partial(machine_of, folder),
        on_boot=on_boot,
        warn=warn,
        starts=starts,
    )
