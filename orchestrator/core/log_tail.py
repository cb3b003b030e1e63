"""The end of a log that grows: bytes that may be anything, as a few numbered lines of safe text."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from orchestrator.core.wording import visible

TAIL_LINES: Final = 200
TAIL_BYTES: Final = 16 * 1024
LINE_LIMIT: Final = 1000
LEFT_OUT: Final = "[some lines are left out here]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Consecutive lines of a log; `first` is the number of the first, counted from its begin."""

    first: int
    lines: tuple[str, ...]

    @property
    def next(self) -> int:
        """The number of the line that comes after these."""
        return self.first + len(self.lines)


class LogTail:
    """The last lines of one node's log.

    Taking bytes costs little, however many come: they become text when somebody looks. A carriage
    return ends a line, too: what draws progress over itself shows its newest state last.
    """

    def __init__(self) -> None:
        self._raw = bytearray()
        self._has_gap = False
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._count = 0

    def add(self, data: bytes) -> None:
        """Take what the node wrote; of very much at once, only the end."""
        self._raw += data[-TAIL_BYTES:]
        if len(data) > TAIL_BYTES or len(self._raw) > TAIL_BYTES:
            self._has_gap = True
            del self._raw[:-TAIL_BYTES]

    def lines(self, start: int = 0, *, is_over: bool = False) -> Lines:
        """Return the lines from that number on, as far as they are still there.

        `is_over` says that nothing more comes: a line without an end is one, too.
        """
        self._read(is_over=is_over)
        first = max(start, self._count - len(self._lines))
        kept = list(self._lines)
        return Lines(first=first, lines=tuple(kept[len(kept) - (self._count - first) :]))

    def _read(self, *, is_over: bool) -> None:
        # A carriage return at the end may be half of an end of line: its other half is to come.
        raw = bytes(self._raw)
        end = len(raw) if is_over else max(raw.rfind(b"\n"), raw.rfind(b"\r", 0, -1)) + 1
        if not end:
            return
        del self._raw[:end]
        parts = raw[:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if self._has_gap:
            self._has_gap = False
            parts = [LEFT_OUT.encode(), *parts[1:]]
        for part in parts[-TAIL_LINES - 1 :]:
            text = visible(part[: 4 * LINE_LIMIT].decode(errors="replace")).rstrip()
            if text:
                self._append(text if len(text) <= LINE_LIMIT else f"{text[: LINE_LIMIT - 1]}…")

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._count += 1
        while sum(map(len, self._lines)) > TAIL_BYTES:
            self._lines.popleft()
