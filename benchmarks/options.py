"""How much a benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`runs` rounds of each case; `is_quick` leaves out the cases that take minutes.

    Without `has_peers`, those that would have to be installed first are left out.
    """

    runs: int = 5
    is_quick: bool = False
    has_peers: bool = True
