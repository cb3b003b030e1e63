"""Nodes that are virtual machines, as a command meets them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.events import Phase, PhaseChanged, Warned
from orchestrator.machines import as_reached, guests_of, machine_of
from orchestrator.nodes.vm.machine import Machine
from orchestrator.nodes.vm.remote import RemoteMachine
from orchestrator.wiring import Operator
from tests.vms.definitions import data_of

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.events import Event

INVENTORY = """
project: { name: tool, source: { crate: tool } }
nodes:
  - { name: guest, vm: box, target: x86_64-unknown-linux-gnu }
"""


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    define(tmp_path, "box", data_of("debian", "amd64"))
    (tmp_path / "nodes.yaml").write_text(INVENTORY)
    return Operator.at(str(tmp_path / "nodes.yaml"))


def define(folder: Path, name: str, data: dict[str, object]) -> None:
    import yaml  # noqa: PLC0415 -- only here

    (folder / "vms" / name).mkdir(parents=True)
    (folder / "vms" / name / "vm.yaml").write_text(yaml.safe_dump(data))


def test_a_machine_is_of_this_host_or_of_another_one(operator: Operator, tmp_path: Path) -> None:
    more = {"host": "alex@10.1.1.27", "unit": "far.service"}
    define(tmp_path, "far", data_of("netbsd", "arm64", **more))

    assert isinstance(machine_of(operator.folder, "box", print), Machine)
    assert isinstance(machine_of(operator.folder, "far", print), RemoteMachine)


def test_a_node_with_an_address_is_reached_there(operator: Operator) -> None:
    node = replace(operator.node("guest"), host="alex@10.1.1.27")

    assert as_reached(operator.folder, node) == node
    with pytest.raises(ConfigError, match="is not made yet"):
        as_reached(operator.folder, operator.node("guest"))


async def test_who_only_looks_is_told_that_a_guest_is_off(operator: Operator) -> None:
    async with operator.connections(starts_guests=False) as connect:
        with pytest.raises(NodeError, match="the virtual machine box is not running"):
            async with connect(operator.node("guest")):
                pass


async def test_a_guest_that_was_never_made_stops_nothing_but_its_node(operator: Operator) -> None:
    async with operator.connections() as connect:
        with pytest.raises(NodeError, match="is not made yet"):
            async with connect(operator.node("guest")):
                pass


def test_what_happens_to_a_guest_is_an_event(operator: Operator) -> None:
    seen: list[Event] = []
    guests = guests_of(operator.folder, operator.connections, seen.append, starts=True)  # type: ignore[arg-type]
    node = operator.node("guest")

    guests.on_boot(node, "starting box")
    guests.on_boot(node, "")
    guests.warn("box is not stopped")

    assert seen == [
        PhaseChanged(node="guest", phase=Phase.BOOTING, detail="starting box"),
        PhaseChanged(node="guest", phase=Phase.CONNECTING),
        Warned(message="box is not stopped"),
    ]
