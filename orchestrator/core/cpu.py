"""The CPU that a build is for, when its flags ask for more than every CPU of its target has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from orchestrator.core.result import Floor
from orchestrator.core.target import Arch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.core.target import Target

_TARGET_CPU: Final = re.compile(r"target-cpu[= ][\"']?([A-Za-z0-9._-]+)")
# The levels of the x86-64 psABI; every x86_64 CPU has the first.
_LEVELS: Final = {"x86-64": 1, "x86-64-v2": 2, "x86-64-v3": 3, "x86-64-v4": 4}
# Those that are worth a build of their own, and what its node's name ends in.
VARIANTS: Final = {"x86-64-v2": "v2", "x86-64-v3": "v3", "x86-64-v4": "v4"}


def variant_name(node_name: str, cpu: str) -> str:
    """Return the name of the node that builds a node's variant: `linux-v3`."""
    return f"{node_name}-{VARIANTS[cpu]}"


def with_cpu(env: tuple[tuple[str, str], ...], cpu: str) -> tuple[tuple[str, str], ...]:
    """Return an environment in which rustc compiles for that CPU."""
    flags = f"{dict(env).get('RUSTFLAGS', '')} -C target-cpu={cpu}".strip()
    return (*((name, value) for name, value in env if name != "RUSTFLAGS"), ("RUSTFLAGS", flags))


def cpu_floors(texts: Iterable[str], target: Target) -> tuple[Floor, ...]:
    """Return `cpu>=N` for a build whose command or flags say `target-cpu=x86-64-vN`.

    Empty for level 1, for other architectures, and for a CPU that is not one of the levels.
    """
    if target.arch is not Arch.X86_64:
        return ()
    level = max((_LEVELS.get(cpu, 1) for cpu in target_cpus(texts)), default=1)
    return (Floor(name="cpu", operator=">=", release=str(level)),) if level > 1 else ()


def target_cpus(texts: Iterable[str]) -> tuple[str, ...]:
    """Return what the texts say after `target-cpu=`, such as `native`, each once."""
    return tuple(dict.fromkeys(cpu for text in texts for cpu in _TARGET_CPU.findall(text)))


def unknown_cpus(texts: Iterable[str], target: Target) -> tuple[str, ...]:
    """Return the CPUs of a build of which no installer can tell whether a host is one."""
    known = _LEVELS if target.arch is Arch.X86_64 else {"generic": 1}
    return tuple(cpu for cpu in target_cpus(texts) if cpu not in known)
