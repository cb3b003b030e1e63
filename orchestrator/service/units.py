"""Write the systemd units of the service into a folder."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.core.service_unit import DEFAULT_HOME, DEFAULT_USER, Place, service_units
from orchestrator.parts import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_units(
    folder: Path,
    *,
    program: Path,
    inventory: Path,
    user: str = DEFAULT_USER,
    writable: Sequence[Path] = (),
    has_guests: bool = False,
) -> tuple[Path, ...]:
    """Write the units and return their paths; ConfigError if the folder cannot be written to.

    `writable` are folders that it writes to beside its home and the inventory's folder: the store.
    The user need not exist yet: its home is /var/lib/orchestrator then.
    """
    place = Place(
        # Not resolved: a program in a virtual environment is a link that has to stay one.
        program=str(program.absolute()),
        inventory=str(inventory.resolve()),
        user=user,
        home=_home_of(user),
        writable=tuple(str(each.resolve()) for each in writable),
        has_guests=has_guests,
    )
    units = service_units(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            write_whole(folder / name, text.encode())
            (folder / name).chmod(0o644)
    except OSError as error:
        raise ConfigError(
            f"cannot write units into {folder}: {error.strerror}",
            hint="name a folder that can be written to",
        ) from error
    return tuple(folder / name for name in units)


def _home_of(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return DEFAULT_HOME
