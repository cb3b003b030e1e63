"""What a server may do to its clients on purpose, and whom it lets do what."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final


class Kind(Enum):
    """A way to go wrong."""

    REFUSE = "answers an error and does nothing"
    RESET = "closes the connection and does nothing"
    LOSE = "does it, and closes the connection without a word"
    SILENT = "does nothing and says nothing, until the server stops"
    TRUNCATE = "announces the whole body and sends a part of it"
    STALL = "sends a part of the body, then nothing more until the server stops"
    DRIP = "sends the body in small pieces"
    ALTER = "answers other JSON than is true"
    FORGET = "keeps only a part of a chunk"


@dataclass(slots=True, kw_only=True)
class Trouble:
    """One kind of trouble, for some requests, for a number of times."""

    kind: Kind
    op: str = ".*"
    name: str = ".*"
    skip: int = 0
    times: int = 1
    status: int = 503
    bytes: int = 10
    alter: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def takes(self, op: str, name: str) -> bool:
        """Return whether it is this request's turn to go wrong."""
        if self.times == 0 or not re.fullmatch(self.op, op) or not re.fullmatch(self.name, name):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class KilledError(Exception):
    """Raised by a hook that has killed the one who asked: there is nobody to answer."""


Allowed = Callable[[str, str], bool]


def everything(permission: str, name: str) -> bool:
    """Let do everything."""
    del permission, name
    return True


def publisher(permission: str, name: str) -> bool:
    """Let only what docs/gcs.md grants a publisher: it adds, and replaces only what has to be."""
    if permission in {"storage.objects.get", "storage.objects.list"}:
        return True
    if re.match(r"releases/|index/|[0-9]", name):
        return permission == "storage.objects.create"
    return permission in {"storage.objects.create", "storage.objects.delete"}


def reader(permission: str, name: str) -> bool:
    """Let read."""
    del name
    return permission in {"storage.objects.get", "storage.objects.list"}


def nobody(permission: str, name: str) -> bool:
    """Let nothing."""
    del permission, name
    return False


@dataclass(slots=True)
class Troubles:
    """All that is planned; the first that takes a request has it."""

    planned: list[Trouble] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, op: str, name: str) -> Trouble | None:
        """Return what goes wrong with this request."""
        with self.lock:
            return next((each for each in self.planned if each.takes(op, name)), None)


ANY_WRITE: Final = "upload|begin|chunk"
