"""A machine that systemd runs on another host: a real sshd is that host, with its own systemctl."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import NodeError
from orchestrator.core.inventory import Node
from orchestrator.nodes.ssh import SshConnections
from orchestrator.nodes.vm import remote
from orchestrator.nodes.vm.folder import VmFolder
from orchestrator.nodes.vm.guests import Guests
from orchestrator.nodes.vm.remote import RemoteMachine
from orchestrator.nodes.vm.tools import free_port
from tests.nodes import sshd
from tests.vms.definitions import made_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.nodes.transport import Transport

pytestmark = sshd.needs_sshd

# It keeps the state of the one unit that it knows in a file, and every word in another.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{folder}/asked
[ "$2" = vm.service ] || {{ echo "Unit $2 not found." >&2; exit 5; }}
case $1 in
is-active) cat {folder}/state ;;
start) echo active >{folder}/state ;;
stop) echo inactive >{folder}/state ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Host:
    """The other host; its sshd is the guest's, too."""

    folder: Path
    server: sshd.Sshd

    @property
    def state(self) -> str:
        return (self.folder / "state").read_text().strip()

    def machine(self, unit: str = "vm.service") -> RemoteMachine:
        vm = replace(
            made_up("netbsd", "arm64"),
            host=self.server.host,
            host_key=self.server.host_key,
            unit=unit,
            boot_timeout=timedelta(seconds=0),
        )
        return RemoteMachine(vm=vm, folder=VmFolder(self.folder / "vms/vm"), say=lambda _: None)

    def node(self, *, host: str = "", port: int = 0) -> Node:
        return Node(
            name="guest",
            host=host or self.server.host,
            port=port or self.server.port,
            host_key=self.server.host_key,
            identity=str(self.server.identity),
            target=self.machine().vm.target,
            vm="vm",
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL.format(folder=tmp_path))
    (programs / "systemctl").chmod(0o755)
    # Whoever is not root there asks sudo.
    (programs / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (programs / "sudo").chmod(0o755)
    (tmp_path / "state").write_text("inactive\n")
    path = f"{programs}:{os.environ['PATH']}"
    with sshd.running(tmp_path / "sshd", environment={"PATH": path}) as server:
        yield Host(tmp_path, server)


@pytest.fixture
async def ssh() -> AsyncIterator[SshConnections]:
    async with SshConnections() as connections:
        yield connections


def guests(
    host: Host, ssh: SshConnections, machine: RemoteMachine, *, starts: bool = True
) -> Guests:
    def connect(node: Node) -> AbstractAsyncContextManager[Transport]:
        # The definition names no port and no key of the host: those are in the user's ~/.ssh.
        identity = str(host.server.identity)
        is_host = node.name.startswith("host-of")
        return ssh.connect(
            replace(node, port=host.server.port, identity=identity) if is_host else node
        )

    return Guests(
        connect=connect,
        machine_of=lambda _name, _say: machine,
        on_boot=lambda _node, _text: None,
        warn=lambda _: None,
        starts=starts,
    )


async def test_a_unit_is_started_for_a_job_and_stopped_after_it(
    host: Host, ssh: SshConnections
) -> None:
    async with guests(host, ssh, host.machine()) as run:
        async with run.open(host.node()):
            assert host.state == "active"
        assert host.state == "active"

    assert host.state == "inactive"


async def test_a_unit_that_ran_before_is_left_running(host: Host, ssh: SshConnections) -> None:
    (host.folder / "state").write_text("active\n")

    async with guests(host, ssh, host.machine()) as run, run.open(host.node()):
        pass

    assert host.state == "active"


async def test_who_only_looks_asks_the_host_nothing(host: Host, ssh: SshConnections) -> None:
    async with guests(host, ssh, host.machine(), starts=False) as run, run.open(host.node()):
        pass

    assert not (host.folder / "asked").exists()


async def test_a_unit_that_is_not_there_is_told_in_the_words_of_the_host(
    host: Host, ssh: SshConnections
) -> None:
    async with guests(host, ssh, host.machine(unit="other.service")) as run:
        with pytest.raises(NodeError, match="not found") as failure:
            async with run.open(host.node()):
                pass

    assert failure.value.hint is not None
    assert "systemctl status other.service" in failure.value.hint


async def test_a_guest_that_does_not_come_up_is_the_machines_fault(
    host: Host, ssh: SshConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PROBE_EVERY_SECONDS", 0.05)

    async with guests(host, ssh, host.machine()) as run:
        with pytest.raises(NodeError, match="but cannot connect"):
            async with run.open(host.node(port=free_port())):
                pass

    # It was started for this run, so it does not stay either.
    assert host.state == "inactive"


async def test_a_guest_elsewhere_needs_an_address(host: Host, ssh: SshConnections) -> None:
    async with guests(host, ssh, host.machine()) as run:
        with pytest.raises(NodeError, match="the virtual machine of guest is on"):
            async with run.open(host.node(host="vm:vm")):
                pass

    assert host.state == "inactive"
