"""Files that hold a secret: who may read them is checked before what is in them is believed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_private(
    path: Path, what: str, *, limit_bytes: int, hint: str, forbidden: int = _OTHERS
) -> bytes:
    """Return the bytes of a file that only its owner may open, `limit_bytes` of them at most.

    ConfigError if it cannot be read, or if its mode has one of the `forbidden` bits; `what` names
    the secret in that message, and `hint` says what to do about a file that is not there.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(limit_bytes)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no {what}", hint=hint) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {what}: {error.strerror}", hint=hint) from error
    if mode & forbidden:
        raise ConfigError(
            f"{path}: others than its owner may open the {what} (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    return data
