"""How a guest gets its keys and its toolchain without a person: each system's own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.core.schema_texts import NAME
from orchestrator.core.vm import Guest
from orchestrator.core.vm_freebsd import freebsd_seed
from orchestrator.core.vm_netbsd import netbsd_seed
from orchestrator.core.vm_openbsd import openbsd_lines, openbsd_seed

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm
    from orchestrator.core.vm_seed import GuestKeys, Line, Seed


def seed_for(vm: Vm, keys: GuestKeys) -> Seed | None:
    """Return the volume that the guest reads; None for Debian, whose image knows one of its own."""
    if not NAME.matches(vm.name):
        raise ConfigError(f"`{vm.name[:80]}` cannot be the name of a guest")
    match vm.guest:
        case Guest.FREEBSD:
            return freebsd_seed(vm, keys)
        case Guest.OPENBSD:
            return openbsd_seed(vm, keys)
        case Guest.NETBSD:
            return netbsd_seed(vm, keys)
        case _:
            return None


def lines_for(vm: Vm) -> tuple[Line, ...]:
    """Return what must be typed on the serial line to install the guest; mostly nothing."""
    return openbsd_lines(vm) if vm.guest is Guest.OPENBSD else ()
