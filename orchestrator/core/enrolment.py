"""What a machine that is to become a node says of itself → what the inventory should say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.target import OS, TARGETS, Arch, Libc, Target
from orchestrator.core.wording import human_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Inventory, Node
    from orchestrator.core.inventory_edit import Value
    from orchestrator.core.record import Record

_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
# What `uname -m` says; on NetBSD and macOS `uname -p` is the one that names the CPU.
_ARCHES: Final = {
    "x86_64": Arch.X86_64,
    "amd64": Arch.X86_64,
    "aarch64": Arch.AARCH64,
    "arm64": Arch.AARCH64,
    "evbarm": Arch.AARCH64,
    "riscv64": Arch.RISCV64,
    "riscv": Arch.RISCV64,
    "armv7l": Arch.ARMV7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a node builds: its own command and where that leaves the binary.

    `origin` says whose it is, as a person reads it.
    """

    origin: str
    build_command: str | None = None
    binary_path: str | None = None


def guess_target(facts: NodeFacts) -> Target | None:
    """Return the target that a machine builds for by itself; None for one that is not known here.

    That is rustc's own where there is one, by whatever name the OS's packages call it.
    """
    if facts.host_triple in TARGETS:
        return TARGETS[facts.host_triple]
    if facts.host_triple:
        arch, _, rest = facts.host_triple.partition("-")
        usual = f"{arch}-unknown-{rest.partition('-')[2]}"
        if usual in TARGETS:
            return TARGETS[usual]
    arch_of_cpu = _ARCHES.get(facts.machine)
    for target in TARGETS.values():
        is_it = target.system_name == facts.system and target.arch is arch_of_cpu
        if is_it and target.os is not OS.ANDROID and target.libc is _libc(facts, target):
            return target
    return None


def _libc(facts: NodeFacts, target: Target) -> Libc:
    if target.os is not OS.LINUX:
        return Libc.SYSTEM
    return Libc.MUSL if facts.musl and not facts.glibc else Libc.GNU


def propose_name(target: Target, hostname: str | None, taken: Iterable[str]) -> str:
    """Return a name that no other node has: `openbsd-aarch64`, or with its host's own behind it."""
    names = set(taken)
    host = re.sub(r"[^a-z0-9-]+", "-", (hostname or "").partition(".")[0].lower()).strip("-")
    candidates = [target.flat_name, *([f"{target.flat_name}-{host}"] if host else [])]
    candidates += [f"{target.flat_name}-{number}" for number in range(2, len(names) + 3)]
    return next(name for name in candidates if name not in names)


def propose_recipe(inventory: Inventory, *, is_local: bool) -> Recipe:
    """Return how a new node would best build: from the project's source, or as another node does.

    Raise ConfigError if nobody in the inventory says how.
    """
    if inventory.project.source is not None:
        return Recipe(origin="the project's source, pushed there")
    own = [node for node in inventory.nodes if node.build_command and node.binary_path]
    own.sort(key=lambda node: node.is_local is not is_local)
    if own:
        return Recipe(
            origin=f"as {own[0].name} does",
            build_command=own[0].build_command,
            binary_path=own[0].binary_path,
        )
    if inventory.project.build_command and (
        paths := [node.binary_path for node in inventory.nodes if node.binary_path]
    ):
        return Recipe(origin="the project's own command", binary_path=paths[0])
    raise ConfigError(
        "nothing says how the new node builds: the project has no source, and no node a command",
        hint="say it with --build-command and --binary-path, or give the project a `source:`",
    )


def require_fingerprint(text: str) -> str:
    """Return a fingerprint as ssh-keygen prints it; raise ConfigError for anything else."""
    if not _FINGERPRINT.fullmatch(text):
        raise ConfigError(
            f"{text[:80]!r} is not the fingerprint of a host key",
            hint="it is `SHA256:` and 43 characters, as in the output of "
            "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine itself",
        )
    return text


def entry_of(values: Mapping[str, Value | None]) -> tuple[tuple[str, Value], ...]:
    """Return a node's entry: what is said of it, in the order in which entries are written."""
    return tuple((key, value) for key in _ORDER if (value := values.get(key)) is not None)


_ORDER: Final = (
    "name",
    "host",
    "port",
    "identity",
    "host_key",
    "vm",
    "target",
    "build_command",
    "binary_path",
    "workdir",
    "gate_on",
    "policy",
    "group",
    "enabled",
)


def node_as_data(node: Node, record: Record | None = None) -> Mapping[str, object]:
    """Return what `nodes --json` prints of a node, and of how its builds went, if that is known."""
    took = record.expected(node) if record else None
    success = record.success_rate(node) if record else None
    return {
        "node": node.name,
        "host": node.host,
        "port": node.port,
        "target": node.target.triple,
        "enabled": node.enabled,
        "policy": str(node.policy),
        "key": _who_vouches(node),
        "builds": "its own command" if node.build_command else "the source",
        "gate_on": list(node.gate_on),
        "vm": node.vm,
        "group": node.group,
        "took_seconds": took.total_seconds() if took else None,
        "took": human_time(took) if took else None,
        "success_rate": None if success is None else round(success, 3),
    }


def _who_vouches(node: Node) -> str:
    if node.is_local:
        return "-"
    if node.is_guest:
        return "its machine's"
    return "pinned" if node.host_key else "known_hosts"


def facts_as_data(facts: NodeFacts) -> Mapping[str, object]:
    """Return what `nodes add --json` prints of a machine."""
    return {name: getattr(facts, name) for name in _TOLD}


_TOLD: Final = (
    "system",
    "release",
    "kernel",
    "machine",
    "cpu",
    "cpus",
    "memory_bytes",
    "disk_free_bytes",
    "glibc",
    "musl",
    "login_shell",
    "workdir",
    "cargo",
    "cargo_path",
    "rustc",
    "host_triple",
    "linker",
    "tar",
    "hash_tool",
    "downloader",
)


def is_foreign(target: Target, facts: NodeFacts) -> bool:
    """Return whether a machine cannot run what it would build for the target."""
    own = guess_target(facts)
    return own is None or (own.os, own.arch) != (target.os, target.arch)


def gates_for(target: Target, nodes: Iterable[Node]) -> tuple[str, ...]:
    """Return the nodes that run the OS and CPU of a target, by their own one."""
    return tuple(
        node.name
        for node in nodes
        if not node.gate_on and (node.target.os, node.target.arch) == (target.os, target.arch)
    )


def describe_host(node: Node) -> str:
    """Return where a node is, as a sentence names it."""
    if node.is_local:
        return "this machine"
    return f"the virtual machine {node.vm}" if node.is_guest else node.host
