"""What a machine says of itself, and what the inventory should say of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.enrolment import (
    Recipe,
    describe_host,
    entry_of,
    facts_as_data,
    gates_for,
    guess_target,
    is_foreign,
    node_as_data,
    propose_name,
    propose_recipe,
    require_fingerprint,
)
from orchestrator.core.errors import ConfigError
from orchestrator.core.facts import NodeFacts
from orchestrator.core.inventory import (
    GUEST,
    CrateSource,
    Inventory,
    Node,
    Project,
    Publication,
)
from orchestrator.core.record import Outcome, PastBuild, Record
from orchestrator.core.target import parse_target

if TYPE_CHECKING:
    from orchestrator.core.inventory_edit import Value

NOTHING = NodeFacts(**dict.fromkeys(NodeFacts.__slots__))  # type: ignore[arg-type]  # unknown all
LINUX = parse_target("x86_64-unknown-linux-gnu")
FREEBSD = parse_target("aarch64-unknown-freebsd")


@pytest.mark.parametrize(
    ("system", "machine", "host_triple", "triple"),
    [
        ("Linux", "x86_64", "x86_64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"),
        # A package of the OS names itself after it.
        ("Linux", "x86_64", "x86_64-alpine-linux-musl", "x86_64-unknown-linux-musl"),
        # A 32-bit toolchain on a 64-bit kernel is what builds.
        ("Linux", "x86_64", "armv7-unknown-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"),
        ("Linux", "aarch64", None, "aarch64-unknown-linux-gnu"),
        ("Linux", "riscv64", None, "riscv64gc-unknown-linux-gnu"),
        ("FreeBSD", "amd64", None, "x86_64-unknown-freebsd"),
        ("FreeBSD", "arm64", None, "aarch64-unknown-freebsd"),
        ("OpenBSD", "arm64", None, "aarch64-unknown-openbsd"),
        ("NetBSD", "evbarm", None, "aarch64-unknown-netbsd"),
        ("NetBSD", "amd64", "x86_64--netbsd", "x86_64-unknown-netbsd"),
        ("Darwin", "arm64", None, "aarch64-apple-darwin"),
        ("Plan 9", "amd64", None, None),
        ("Linux", "s390x", "s390x-unknown-linux-gnu", None),
    ],
)
def test_the_target_is_rustcs_own_else_the_systems(
    system: str, machine: str, *, host_triple: str | None, triple: str | None
) -> None:
    facts = replace(NOTHING, system=system, machine=machine, host_triple=host_triple, glibc="2.36")
    guess = guess_target(facts)
    assert (guess.triple if guess else None) == triple


def test_a_linux_with_musl_alone_builds_for_musl() -> None:
    facts = replace(NOTHING, system="Linux", machine="x86_64", musl="1.2.5")
    assert str(guess_target(facts)) == "x86_64-unknown-linux-musl"
    assert str(guess_target(replace(facts, glibc="2.36"))) == "x86_64-unknown-linux-gnu"


def test_a_proposed_name_is_nobodys() -> None:
    taken = ["freebsd-aarch64", "freebsd-aarch64-pi-4", "freebsd-aarch64-2"]
    assert propose_name(FREEBSD, "Pi_4.localnet", []) == "freebsd-aarch64"
    assert propose_name(FREEBSD, "Pi_4.localnet", taken[:1]) == "freebsd-aarch64-pi-4"
    assert propose_name(FREEBSD, "Pi_4.localnet", taken) == "freebsd-aarch64-3"
    assert propose_name(FREEBSD, None, taken[:1]) == "freebsd-aarch64-2"


def inventory(*nodes: Node, **project: object) -> Inventory:
    return Inventory(
        project=Project(name="tool", binaries=("tool",), **project),  # type: ignore[arg-type]
        publication=Publication(),
        nodes=nodes,
    )


def node(name: str, **values: object) -> Node:
    given = {"host": "a.example", "target": LINUX, **values}
    return Node(name=name, **given)  # type: ignore[arg-type]


def test_a_new_node_builds_from_the_source_or_as_its_neighbours_do() -> None:
    here = node("here", host="local", build_command="make", binary_path="/here")
    there = node("there", build_command="gmake", binary_path="/there")
    assert propose_recipe(
        inventory(here, source=CrateSource(crate="tool")), is_local=True
    ) == Recipe(origin="the project's source, pushed there")
    found = propose_recipe(inventory(here, there), is_local=False)
    assert (found.build_command, found.binary_path) == ("gmake", "/there")
    assert found.origin == "as there does"
    assert propose_recipe(inventory(here, there), is_local=True).build_command == "make"
    own = propose_recipe(inventory(node("a", binary_path="/a"), build_command="b"), is_local=False)
    assert (own.build_command, own.binary_path) == (None, "/a")


def test_where_nobody_says_how_to_build_a_person_must() -> None:
    with pytest.raises(ConfigError, match="nothing says how") as refused:
        propose_recipe(inventory(node("a")), is_local=False)
    assert "--build-command" in (refused.value.hint or "")


@pytest.mark.parametrize("text", ["MD5:00", "SHA256:short", f"SHA256:{'a' * 44}", f"{'a' * 43}"])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not the fingerprint"):
        require_fingerprint(text)


def test_a_fingerprint_is_as_ssh_keygen_prints_it() -> None:
    text = "SHA256:E8G99JpRe04oqZfK1Y7q0sQMdUBWN+HeT7Ua3AXEuFg"
    assert require_fingerprint(text) == text


def test_an_entry_has_its_keys_in_their_order_and_no_unsaid_ones() -> None:
    values: dict[str, Value | None] = {
        "enabled": False,
        "target": "t",
        "port": None,
        "host": "h",
        "name": "n",
    }
    assert entry_of(values) == (("name", "n"), ("host", "h"), ("target", "t"), ("enabled", False))


def test_a_gate_is_a_node_of_the_same_system_and_cpu_that_gates_itself() -> None:
    pi = node("pi", target=FREEBSD)
    cross = node("cross", target=FREEBSD, gate_on=("pi",))
    assert gates_for(FREEBSD, (node("here"), cross, pi)) == ("pi",)
    facts = replace(NOTHING, system="Linux", machine="x86_64", glibc="2.36")
    assert is_foreign(FREEBSD, facts)
    assert not is_foreign(parse_target("x86_64-unknown-linux-musl"), facts)
    assert is_foreign(FREEBSD, replace(facts, system="Plan 9"))


def test_data_of_a_node_says_who_vouches_for_its_key() -> None:
    assert node_as_data(node("a"))["key"] == "known_hosts"
    assert node_as_data(node("a", host_key="ssh-ed25519 A"))["key"] == "pinned"
    assert node_as_data(node("a", host="local"))["key"] == "-"
    built = PastBuild(node="a", took=timedelta(seconds=90))
    lost = PastBuild(node="a", outcome=Outcome.MACHINE)
    told = node_as_data(node("a", build_command="make"), Record(builds=(built, lost)))
    assert (told["took_seconds"], told["builds"]) == (90, "its own command")
    assert told["success_rate"] == 0.5
    assert node_as_data(node("b"), Record())["success_rate"] is None
    assert facts_as_data(replace(NOTHING, cpus=4))["cpus"] == 4
    assert describe_host(node("a", host="local")) == "this machine"
    assert describe_host(node("a")) == "a.example"
    guest = node("a", host=f"{GUEST}debian-amd64", vm="debian-amd64")
    assert describe_host(guest) == "the virtual machine debian-amd64"
    assert node_as_data(guest)["key"] == "its machine's"
