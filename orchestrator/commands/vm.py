"""The virtual machines of this host: make, start, stop, look at, log into, remove them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.workspace import VMS, inventory_folder, list_vms, load_vm

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from orchestrator.core.vm import Vm
    from orchestrator.nodes.vm.machine import Machine
    from orchestrator.nodes.vm.remote import RemoteMachine


def vm(arguments: argparse.Namespace) -> int:
    """Do one thing with a virtual machine."""
    # The inventory itself need not be there yet, or be right.
    folder = inventory_folder(Path(arguments.inventory))
    if arguments.action == "status":
        return _status(folder, arguments)
    if arguments.name is None:
        raise ConfigError(
            f"`orchestrator vm {arguments.action}` needs the name of a virtual machine",
            hint=_known(folder),
        )
    if arguments.action == "render":
        return _render(load_vm(folder, arguments.name), arguments)
    machine = _local_machine(folder, arguments.name.rpartition("@")[2])
    return _ACTIONS[arguments.action](machine, arguments)


def _known(folder: Path) -> str:
    names = list_vms(folder)
    if not names:
        return f"there is none in {folder / VMS}; docs/vms.md says how one is defined"
    return f"these are defined: {', '.join(names)}"


def _local_machine(folder: Path, name: str) -> Machine:
    from orchestrator.nodes.vm.remote import RemoteMachine

    machine = _machine(folder, name)
    if isinstance(machine, RemoteMachine):
        raise ConfigError(
            f"{name} is a machine of {machine.vm.host}, where systemd runs it",
            hint=f"there: systemctl status {machine.vm.unit}",
        )
    return machine


def _machine(folder: Path, name: str) -> Machine | RemoteMachine:
    from orchestrator.machines import machine_of

    return machine_of(folder, name, lambda text: print(text, file=sys.stderr, flush=True))


def _create(machine: Machine, arguments: argparse.Namespace) -> int:
    from orchestrator.nodes.vm.creation import create
    from orchestrator.nodes.vm.folder import image_home

    create(
        machine.vm,
        machine.folder,
        images=image_home(os.environ),
        say=machine.say,
        sha256=_digest(arguments.sha256),
        defined_in=machine.defined_in,
    )
    way = machine.way_in()
    print(
        f"{machine.vm.name} is made. A node of the inventory:\n"
        f"  - name: {machine.vm.name}\n"
        f"    vm: {machine.vm.name}\n"
        f"    target: {machine.vm.target}\n"
        f"which this writes, and tries: orchestrator nodes add --vm {machine.vm.name}\n"
        f"It is reached as {way.host} on port {way.port}, with the key {way.identity};\n"
        f"its host key is {way.host_key}"
    )
    return 0


def _digest(said: str | None) -> str | None:
    if said is not None and not _SHA256.fullmatch(said):
        raise ConfigError("--sha256 is not a SHA-256 digest: 64 digits of 0-9 and a-f")
    return said


_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def _start(machine: Machine, _: argparse.Namespace) -> int:
    is_new = asyncio.run(machine.start())
    print(f"{machine.vm.name} is up" if is_new else f"{machine.vm.name} was up already")
    return 0


def _stop(machine: Machine, _: argparse.Namespace) -> int:
    how = asyncio.run(machine.stop())
    print(f"{machine.vm.name}: {how or 'was not running'}")
    return 0


def _destroy(machine: Machine, _: argparse.Namespace) -> int:
    asyncio.run(machine.remove())
    print(f"{machine.vm.name} is removed, with its keys; the image that it was made from is kept")
    return 0


def _console(machine: Machine, _: argparse.Namespace) -> int:
    from orchestrator.nodes.vm.folder import PATHS
    from orchestrator.nodes.vm.terminal import attach

    if not sys.stdin.isatty():
        raise ConfigError(
            "a console needs a terminal",
            hint=f"the serial log needs none: {machine.folder.file(PATHS.serial_log)}",
        )
    _require_running(machine)
    print("Ctrl-] leaves the console", file=sys.stderr)
    attach(machine.folder.file(PATHS.console), sys.stdin.fileno())
    return 0


def _ssh(machine: Machine, arguments: argparse.Namespace) -> int:
    from orchestrator.nodes.address import option_of
    from orchestrator.nodes.vm.folder import CLIENT_KEY, KNOWN_HOSTS
    from orchestrator.nodes.vm.tools import require_tools

    require_tools("ssh")
    way = machine.way_in(user=_user(arguments.name))
    _require_running(machine)
    words = [
        *("ssh", "-F", "none", "-p", str(way.port)),
        *("-i", str(machine.folder.file(CLIENT_KEY)), "-o", "IdentitiesOnly=yes"),
        *("-o", option_of("UserKnownHostsFile", machine.folder.file(KNOWN_HOSTS))),
        *("-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes"),
        *("-o", "ForwardAgent=no", way.host, *arguments.words),
    ]
    # It takes over this process: its terminal, its signals, its exit status.
    sys.stdout.flush()
    os.execvp(words[0], words)  # noqa: S606 -- no shell


def _user(name: str) -> str:
    """Return who logs in with `USER@NAME`, "" without one."""
    user = name.rpartition("@")[0]
    if user and not _USER.fullmatch(user):
        raise ConfigError(f"{user[:80]!r} is not a user's name")
    return user


_USER: Final = re.compile(r"[a-z_][a-z0-9_-]*")


def _render(vm: Vm, arguments: argparse.Namespace) -> int:
    from orchestrator.core.vm_script import boot_script
    from orchestrator.nodes.vm.kit import write_kit

    if arguments.out is None:
        print(boot_script(vm), end="")
        return 0
    for path in write_kit(vm, Path(arguments.out).absolute()):
        print(path)
    return 0


def _doctor(machine: Machine, _: argparse.Namespace) -> int:
    from orchestrator.nodes.vm.examination import examine

    findings = asyncio.run(examine(machine))
    for finding in findings:
        print(finding)
    return 0 if all(finding.is_fine for finding in findings) else NodeError.exit_code


def _status(folder: Path, arguments: argparse.Namespace) -> int:
    from orchestrator.listing import show_machines

    names = [arguments.name] if arguments.name else list_vms(folder)
    machines = [_machine(folder, name) for name in names]
    data = [_as_data(machine) for machine in machines]
    if arguments.json:
        print(json.dumps({"machines": data}, indent=2))
    else:
        show_machines(data, sys.stdout)
    return 0


def _as_data(machine: Machine | RemoteMachine) -> Mapping[str, object]:
    is_running = machine.folder.is_running
    return {
        "name": machine.vm.name,
        "system": machine.vm.title,
        "target": machine.vm.target.triple,
        "state": asyncio.run(machine.status()),
        "port": machine.vm.ssh_port,
        "pid": machine.folder.pid if is_running else None,
        "started": (
            None
            if not is_running
            else "for a job"
            if machine.folder.on_demand.exists()
            else "by hand"
        ),
        "folder": str(machine.folder.path),
    }


def _require_running(machine: Machine) -> None:
    if not machine.folder.is_running:
        raise NodeError(
            f"the virtual machine {machine.vm.name} is not running",
            hint=f"start it: orchestrator vm start {machine.vm.name}",
        )


_ACTIONS: Final[Mapping[str, Callable[[Machine, argparse.Namespace], int]]] = {
    "create": _create,
    "start": _start,
    "stop": _stop,
    "console": _console,
    "ssh": _ssh,
    "destroy": _destroy,
    "doctor": _doctor,
}
