"""Plain data as YAML gives it → a Vm, or every problem in it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.kinds import INVALID, Bytes, Place, written
from orchestrator.core.vm import RECIPES, Accelerator, Guest, PackagesImage, Vm
from orchestrator.core.vm_facts import Case, Setting, find_row
from orchestrator.core.vm_schema import VM

if TYPE_CHECKING:
    from collections.abc import Mapping

_HINT: Final = "docs/vms.md explains every key"


def parse_vm(data: object, *, name: str, place: str) -> Vm:
    """Return the virtual machine in the data of a YAML file; `place` names that file in messages.

    Raises ConfigError that lists every problem.
    """
    problems: list[Problem] = []
    root = Place(file=place, problems=problems)
    values = VM.read({} if data is None else data, root)
    if values is not INVALID:
        _check_recipe(values, root)
        _check_memory(values, root)
        _check_image(values, root)
        _check_host(values, root)
    if problems:
        raise ConfigError.of(problems, hint=_HINT)
    variant, image = values.pop("image")
    sizes = {"memory_bytes": values.pop("memory"), "disk_bytes": values.pop("disk")}
    return Vm(name=name, image=variant(**image), **sizes, **values)


def _check_recipe(values: Mapping[str, Any], root: Place) -> None:
    guest, arch = values.get("guest", INVALID), values.get("arch", INVALID)
    if INVALID not in (guest, arch) and (guest, arch) not in RECIPES:
        known = ", ".join(f"`{each}`" for system, each in RECIPES if system is guest)
        root.key("arch").refuse(f"{guest.proper_name} has no recipe for it, only for {known}")


def _check_memory(values: Mapping[str, Any], root: Place) -> None:
    keys = ("guest", "arch", "release", "memory")
    guest, arch, release, memory = (values.get(key, INVALID) for key in keys)
    accelerators = values.get("accelerators", tuple(Accelerator))
    if INVALID in (guest, arch, release, memory, accelerators) or INVALID in accelerators:
        return
    rows = [
        find_row(
            Setting.MEMORY_LIMIT,
            Case(guest=guest, arch=arch, release=release, accelerator=accelerator),
        )
        for accelerator in accelerators
    ]
    least = min(rows, key=lambda row: int(row.value))
    if memory > int(least.value):
        limit = written(Bytes(least.value))
        root.key("memory").refuse(f"must be at most {limit}: {least.because}")


def _check_image(values: Mapping[str, Any], root: Place) -> None:
    guest, image = values.get("guest", INVALID), values.get("image", INVALID)
    if INVALID in (guest, image):
        return
    is_made = image[0] is PackagesImage
    if is_made and guest is not Guest.DEBIAN:
        root.key("image").refuse(f"`suite` is for Debian, not for {guest.proper_name}")
    if not is_made and guest is Guest.DEBIAN:
        root.key("image").refuse("Debian's is made from packages: it needs a `suite`")


def _check_host(values: Mapping[str, Any], root: Place) -> None:
    if "host" in values and "unit" not in values:
        root.refuse("`host` needs a `unit`: what is started there")
    for key in ("unit", "host_key"):
        if key in values and "host" not in values:
            root.refuse(f"`{key}` needs a `host`: where it is")
