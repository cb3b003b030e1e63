"""How many files this process may have open: a connection to a node is one, its log another."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

# Enough for ten thousand nodes. macOS takes no more than the second.
_WANTED: Final = (65536, 10240)


def allow_many_open_files() -> None:
    """Raise the soft limit, 256 or 1024 as shells set it, as far as the hard one lets us.

    Programs that are started inherit it. A limit that is higher already stays.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _WANTED:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= limit:
            return
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return
