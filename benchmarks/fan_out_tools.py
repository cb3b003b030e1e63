"""The tools that run one command on every node of a fleet, each as one whole program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks import peers
from benchmarks.measuring import run_measured
from benchmarks.report import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.fleet import Fleet
    from benchmarks.measuring import Usage

COMMAND: Final = "sleep 2; echo ok"
_ANSWER: Final = "ok"
_ROOT: Final = Path(__file__).parent.parent
_DRIVERS: Final = _ROOT / "benchmarks" / "drivers"
# A tool that loses nodes is no failure of the benchmark: what it lost is counted.
_ANY_STATUS: Final = frozenset(range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One run of a tool: what it cost, how many nodes answered, and what it told of itself."""

    usage: Usage
    answered: int
    told: Mapping[str, float]


Tools: TypeAlias = "dict[str, Callable[[], Shot]]"


def write_fleet(file: Path, nodes: Iterable[tuple[str, str, int]], fleet: Fleet) -> None:
    """Write the nodes (name, address, port) as our own driver reads them."""
    entries = [
        {
            "name": name,
            "host": f"{fleet.user}@{address}",
            "port": port,
            "host_key": fleet.host_key,
            "identity": str(fleet.identity),
        }
        for name, address, port in nodes
    ]
    file.write_text(json.dumps(entries))


def run_ours(fleet_file: Path, *flags: str) -> Shot:
    """Run it with our own connections, in a process of its own."""
    driver = [sys.executable, "-m", "benchmarks.drivers.fan_out", str(fleet_file), COMMAND]
    usage = run_measured([*driver, *flags], cwd=_ROOT)
    *lines, told = usage.output.decode().splitlines()
    return Shot(usage=usage, answered=_count(lines), told=json.loads(told))


def run_ssh(fleet: Fleet, *options: str, names: Sequence[str] = ()) -> Shot:
    """Run it with a process of `ssh` for every node, all at once."""
    names = names or fleet.names
    every = ["xargs", "-a", _file_of(names, fleet), "-P", str(len(names)), "-I{}"]
    # For ssh's own status, 255, xargs would start no more of them.
    ssh = ["sh", "-c", '"$@" || exit 1', "sh", "ssh", "-n", "-F", str(fleet.config)]
    return _shot([*every, *ssh, *options, "{}", COMMAND])


def _file_of(names: Sequence[str], fleet: Fleet) -> str:
    file = fleet.config.parent / "names"
    file.write_text("".join(f"{name}\n" for name in names))
    return str(file)


def multiplexed(fleet: Fleet) -> AbstractContextManager[tuple[str, ...]]:
    """Keep a connection to every node open in the block; yield the options that use it."""
    return _Masters(fleet)


class _Masters:
    """Connections that are open while the block runs."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        # The path of a socket is short.
        self._options = ("-S", f"{fleet.config.parent}/%n.mux")

    def __enter__(self) -> tuple[str, ...]:
        self._each("16", "-fMN", "-o", "KexAlgorithms=curve25519-sha256")
        return self._options

    def __exit__(self, *_: object) -> None:
        self._each("16", "-O", "exit")

    def _each(self, at_once: str, *options: str) -> None:
        ssh = ["ssh", "-n", "-F", str(self._fleet.config), *self._options, *options, "{}"]
        subprocess.run(
            ["xargs", "-a", _file_of(self._fleet.names, self._fleet), "-P", at_once, "-I{}", *ssh],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def ansible_environment(fleet: Fleet, *, pipelining: bool) -> dict[str, str]:
    """Return the environment of ansible, with a fork for every node, and nothing of the user's."""
    folder = _ansible_folder(fleet)
    folder.mkdir(exist_ok=True)
    settings = folder / "ansible.cfg"
    settings.touch()
    return {
        **os.environ,
        "ANSIBLE_HOME": str(folder),
        "ANSIBLE_CONFIG": str(settings),
        "ANSIBLE_FORKS": str(len(fleet.nodes)),
        "ANSIBLE_PIPELINING": str(int(pipelining)),
        # Else it looks for an interpreter on every node first.
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "ANSIBLE_SSH_ARGS": f"-F {fleet.config} -o ControlMaster=auto -o ControlPersist=5s",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


def _ansible_folder(fleet: Fleet) -> Path:
    return fleet.config.parent / "ansible"


def run_ansible(fleet: Fleet, *, pipelining: bool) -> Shot:
    """Run ansible's shell module with a fork for every node, its connections new."""
    env = ansible_environment(fleet, pipelining=pipelining)
    inventory = _ansible_folder(fleet) / "inventory.ini"
    inventory.write_text("".join(f"{name}\n" for name in fleet.names))
    command = [
        str(peers.program("ansible")),
        "all",
        "-i",
        str(inventory),
        "-o",
        "-m",
        "shell",
        "-a",
        COMMAND,
    ]
    shot = _shot(command, env=env, count=lambda text: text.count("| rc=0 | (stdout) ok"))
    end_masters(fleet)
    return shot


def end_masters(fleet: Fleet) -> None:
    """Close the connections that ansible left open."""
    for socket in (_ansible_folder(fleet) / "cp").glob("*"):
        subprocess.run(
            ["ssh", "-F", str(fleet.config), "-S", str(socket), "-O", "exit", "any"],
            check=False,
            capture_output=True,
        )


def run_pyinfra(fleet: Fleet) -> Shot:
    """Run pyinfra's `exec`, all nodes at once."""
    inventory = fleet.config.parent / "pyinfra_inventory.py"
    data = {
        "ssh_config_file": str(fleet.config),
        "ssh_known_hosts_file": str(fleet.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_look_for_keys": False,
        "ssh_allow_agent": False,
    }
    hosts = [(name, data) for name in fleet.names]
    inventory.write_text(f"nodes = {hosts!r}\n")
    command = [
        str(peers.program("pyinfra")),
        "-y",
        "--parallel",
        str(len(fleet.nodes)),
        str(inventory),
        "exec",
        "--",
        COMMAND,
    ]
    # It pads the names.
    return _shot(command, count=lambda text: len(re.findall(r"\] +ok$", text, re.MULTILINE)))


def run_parallel_ssh(fleet: Fleet) -> Shot:
    """Run parallel-ssh with a pool of the size of the fleet."""
    driver = [str(peers.python()), str(_DRIVERS / "parallel_ssh.py")]
    port = str(fleet.nodes[0].port)
    words = [
        fleet.user,
        port,
        str(fleet.identity),
        COMMAND,
        *(node.address for node in fleet.nodes),
    ]
    return _shot([*driver, *words])


def run_fabric(fleet: Fleet) -> Shot:
    """Run a fabric ThreadingGroup."""
    driver = [str(peers.python()), str(_DRIVERS / "fabric_group.py")]
    return _shot([*driver, str(fleet.config), COMMAND, *fleet.names])


def tools(fleet: Fleet, fleet_file: Path, warm: tuple[str, ...]) -> Tools:
    """Return every tool by its name, ours first; `warm` are the options for open connections."""
    curve = ("-o", "KexAlgorithms=curve25519-sha256")
    return {
        OURS: lambda: run_ours(fleet_file),
        "ssh processes": lambda: run_ssh(fleet),
        "ssh processes, curve25519": lambda: run_ssh(fleet, *curve),
        "ssh processes, warm connections": lambda: run_ssh(fleet, *warm),
        "ansible shell, pipelining": lambda: run_ansible(fleet, pipelining=True),
        "ansible shell": lambda: run_ansible(fleet, pipelining=False),
        "pyinfra": lambda: run_pyinfra(fleet),
        "parallel-ssh": lambda: run_parallel_ssh(fleet),
        "fabric": lambda: run_fabric(fleet),
    }


def _shot(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    count: Callable[[str], int] | None = None,
) -> Shot:
    usage = run_measured(command, env=env, accepts=_ANY_STATUS)
    text = usage.output.decode(errors="replace")
    return Shot(usage=usage, answered=count(text) if count else _count(text.splitlines()), told={})


def _count(lines: Iterable[str]) -> int:
    return sum(line.rpartition(": ")[2].strip() == _ANSWER for line in lines)
