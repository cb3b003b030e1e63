"""How a wire can fail, and when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Way(StrEnum):
    """Which way bytes go: up to the node, or down from it."""

    UP = "up"
    DOWN = "down"


class Kind(StrEnum):
    """How a wire fails."""

    RESET = "connection reset"
    CLOSE = "connection closed"
    PAUSE = "black hole that heals"
    DEAD = "black hole that stays"
    SLOW = "50 kbit/s"
    REFUSE = "connections refused"
    SILENT = "accepted, never answered"


CUTTING: Final = frozenset((Kind.RESET, Kind.CLOSE, Kind.REFUSE, Kind.SILENT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What happens once `at_bytes` have gone that `way`, counted over all connections.

    Of a `DEAD` wire only the connections of that moment are dead; new ones work. `SLOW`, `PAUSE`,
    `REFUSE` and `SILENT` last for `seconds`. With `every_bytes` it happens again and again.
    """

    kind: Kind
    at_bytes: int = 0
    way: Way = Way.UP
    seconds: float = 0.0
    every_bytes: int = 0
