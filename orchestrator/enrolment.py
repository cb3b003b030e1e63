"""A machine becomes a node: its key seen and accepted, looked at, tried with a small program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orchestrator
from orchestrator.coordinator import make_release
from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.inventory import PathSource, Policy, Project, Publication
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.version import parse_version
from orchestrator.nodes.address import place_of, user_of
from orchestrator.nodes.probe import probe_with_push

if TYPE_CHECKING:
    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Inventory, Node
    from orchestrator.core.report import Report
    from orchestrator.nodes.host_keys import ShownKey
    from orchestrator.nodes.transport import Connect
    from orchestrator.world import World

_EXAMPLE: Final = "examples/trajectory"
_EXAMPLE_VERSION: Final = "0.1.0"


async def meet(node: Node) -> ShownKey:
    """Return the host key that a node shows; the caller has to accept one that is not known.

    Raise NodeError when there is no way to it, with what to do about it.
    """
    from orchestrator.nodes.ssh_dial import show_host_key  # noqa: PLC0415 -- 0.2 s of imports

    return await show_host_key(node)


def require_key(shown: ShownKey, node: Node, fingerprint: str) -> None:
    """Raise NodeError if the key is not the one that the person named."""
    if shown.fingerprint != fingerprint:
        raise NodeError(
            f"{place_of(node)} shows the host key {shown.fingerprint}, and not {fingerprint}",
            hint="somebody may be pretending to be this machine: compare with what "
            f"`{shown.check}` prints on the machine itself",
        )


def refuse_key(shown: ShownKey, node: Node) -> NodeError:
    """Return the error of a key that nobody has accepted."""
    if shown.has_changed:
        known = " or ".join(shown.expected)
        return NodeError(
            f"THE HOST KEY OF {place_of(node)} HAS CHANGED: it shows {shown.fingerprint}, "
            f"and what is known of it is {known}",
            hint="somebody may be pretending to be this machine. If it was reinstalled: compare "
            f"with what `{shown.check}` prints on the machine itself, then say "
            f"--fingerprint {shown.fingerprint}",
        )
    return NodeError(
        f"the host key of {place_of(node)} is not known: it shows {shown.fingerprint}",
        hint=f"compare with what `{shown.check}` prints on the machine itself, then say "
        f"--fingerprint {shown.fingerprint}",
    )


async def look_at(connect: Connect, node: Node) -> NodeFacts:
    """Return what a machine is and has; raise NodeError if nobody can log in there."""
    try:
        async with connect(node) as transport:
            return await probe_with_push(transport, workdir=node.workdir)
    except NodeError as error:
        if "refuses the login" not in error.message:
            raise
        options = "" if node.port == 22 else f"-p {node.port} "  # noqa: PLR2004 -- ssh's own
        options += f"-i {node.identity} " if node.identity else ""
        name = f"{user_of(node)}@" if user_of(node) else ""
        host = node.host.rpartition("@")[2]
        raise NodeError(
            error.message,
            hint=f"{error.hint}; with its password: ssh-copy-id {options}{name}{host}",
        ) from error


def trial_inventory(inventory: Inventory, node: Node) -> Inventory:
    """Return the inventory of the trial: the example program, the node, and who runs its gate.

    Raise ConfigError where the example program is not at hand.
    """
    folder = Path(orchestrator.__file__).resolve().parent.parent / _EXAMPLE
    if not (folder / "Cargo.toml").is_file():
        raise ConfigError(
            f"there is no {_EXAMPLE} beside this program, which a trial would build",
            hint="add the node with --no-trial, and try it with your own program: "
            "orchestrator release --version V --node NAME --no-publish",
        )
    gates = tuple(each for each in inventory.nodes if each.name in node.gate_on)
    tried = replace(
        node, build_command=None, binary_path=None, enabled=True, policy=Policy.EXPECTED
    )
    return replace(
        inventory,
        project=Project(
            name="trajectory",
            binaries=("trajectory",),
            source=PathSource(path=str(folder), allow_dirty=True),
        ),
        publication=Publication(),
        nodes=(tried, *(replace(gate, enabled=False) for gate in gates)),
    )


async def try_build(inventory: Inventory, world: World) -> Report:
    """Build the example program on the first node of `trial_inventory`, and say how it went.

    It is a whole release, up to the packed archive.
    """
    request = ReleaseRequest(
        version=parse_version(_EXAMPLE_VERSION),
        nodes=(inventory.nodes[0].name,),
        rebuild=True,
        publish=False,
    )
    plan = plan_release(inventory, request)
    return await make_release(plan, world)
