"""The releases that run in this process, as they are now, and those who follow them."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.board import time_text
from orchestrator.core.board_view import LiveRelease, row_view
from orchestrator.core.events import LogAppended, NodeFinished, PhaseChanged
from orchestrator.core.log_tail import LogTail

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from orchestrator.core.board import Board
    from orchestrator.core.events import Event
    from orchestrator.core.log_tail import Lines
    from orchestrator.core.order import Order
    from orchestrator.service.maker import Watcher

MAX_FOLLOWERS: Final = 200
_PAUSE_SECONDS: Final = 0.25
# A follower that went away is noticed when it is written to.
_SILENCE_SECONDS: Final = 15.0
STILL_HERE: Final = b": still here\n\n"


@dataclass(slots=True, kw_only=True)
class _Running:
    order: Order
    board: Board
    tails: dict[str, LogTail] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    # In which version of all of it a node changed last, and what was new in its log then.
    versions: dict[str, int] = field(default_factory=dict)
    news: dict[str, Lines] = field(default_factory=dict)

    def lines(self, node: str, start: int = 0) -> Lines:
        tail = self.tails.setdefault(node, LogTail())
        return tail.lines(start, is_over=node in self.over)


class Live:
    """Who watches the releases of this process, for the pages.

    Followers get at most four updates in a second each, made once for all of them; one that is slow
    gets the newest state when it can take it, and no memory is spent on what it missed.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause_seconds: float = _PAUSE_SECONDS,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        self.now = now
        self._pause = pause_seconds
        self._silence = silence_seconds
        self._running: dict[str, _Running] = {}
        self._process = secrets.token_hex(4)
        self._pages = 0
        self._version = 0
        self._frames: dict[int, bytes] = {}
        self._followers = 0
        self._clock: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._news = asyncio.Event()

    def begin(self, order: Order, board: Board) -> None:
        """Show a release from now on; its board changes as it goes on."""
        self._running[order.key] = _Running(order=order, board=board)
        self.touch()

    def observe(self, order: Order, event: Event, at: datetime) -> None:  # noqa: ARG002 -- the board knows when
        """Take note of an event, which the board knows already."""
        running = self._running.get(order.key)
        if running is None:
            return
        node = getattr(event, "node", None)
        is_new = node not in running.known
        if node is not None:
            running.known.add(node)
            running.changed.add(node)
        if isinstance(event, NodeFinished):
            running.over.add(event.node)
        if isinstance(event, LogAppended):
            running.tails.setdefault(event.node, LogTail()).add(event.data)
        elif is_new or not isinstance(event, PhaseChanged):
            self._pages += 1
        self._wind()

    def end(self, order: Order, outcome: dict[str, Any]) -> None:  # noqa: ARG002 -- it is in the queue's history
        """Show it no more."""
        self._running.pop(order.key, None)
        self.touch()

    def forget(self, keys: Iterable[str]) -> None:
        """Show these orders no more, that are over although nobody has told it here."""
        for key in keys:
            if self._running.pop(key, None):
                self.touch()

    def touch(self) -> None:
        """Take note that the queue or the store is another: followers look at the pages again."""
        self._pages += 1
        self._wind()

    @property
    def mark(self) -> str:
        """What changes whenever a page has to be made again; also when the process is another."""
        return f"{self._process}-{self._pages}"

    @property
    def followers(self) -> int:
        """How many follow now."""
        return self._followers

    def releases(self) -> Sequence[LiveRelease]:
        """Return what runs here now, in the order of the begin."""
        return [
            LiveRelease(
                order=running.order,
                data=running.board.as_data(),
                logs={node: running.lines(node) for node in tuple(running.tails)},
            )
            for running in self._running.values()
        ]

    def close(self) -> None:
        """Let all followers go; nobody else can follow."""
        self._is_closed = True
        if self._clock:
            self._clock.cancel()
        self._news.set()

    async def follow(self) -> AsyncGenerator[bytes]:
        """Yield server-sent events: what is there now, then what changed; each is JSON.

        A comment comes when nothing else did for a while.
        """
        self._followers += 1
        try:
            if self._followers == 1:
                self._tick()  # nobody has wound the clock
            seen = None
            while not self._is_closed:
                news, version = self._news, self._version
                yield STILL_HERE if version == seen else self._frame(seen or 0)
                seen = version
                try:
                    async with asyncio.timeout(self._silence):
                        await news.wait()
                except TimeoutError:
                    continue
        finally:
            self._followers -= 1

    def _wind(self) -> None:
        """See to it that those who follow, if there are any, are told of this in a moment."""
        if self._followers and self._clock is None and not self._is_closed:
            self._clock = asyncio.get_running_loop().call_later(self._pause, self._tick)

    def _tick(self) -> None:
        """Make what changed the newest version, and wake up those who follow."""
        self._clock = None
        self._version += 1
        for running in self._running.values():
            for node in running.changed:
                running.versions[node] = self._version
                last = running.news.get(node)
                running.news[node] = running.lines(node, last.next if last else 0)
            running.changed.clear()
        self._frames.clear()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _frame(self, seen: int) -> bytes:
        """Return what changed after a version, the same bytes for all who have seen that one."""
        frame = self._frames.get(seen)
        if frame is None:
            releases = [self._changes(each, seen) for each in self._running.values()]
            told = {"mark": self.mark, "now": time_text(self.now()), "releases": releases}
            frame = self._frames[seen] = f"data: {json.dumps(told)}\n\n".encode()
        return frame

    def _changes(self, running: _Running, seen: int) -> dict[str, Any]:
        return {
            "release": running.order.key,
            "rows": [
                row_view(row) | self._log(running, row["node"], seen)
                for row in running.board.as_data()["rows"]
                if running.versions.get(row["node"], 0) > seen
            ],
        }

    def _log(self, running: _Running, node: str, seen: int) -> dict[str, Any]:
        # Who has missed something gets all that is still there, and knows the lines by number.
        lines = running.news[node] if seen == self._version - 1 else running.lines(node)
        return {"first": lines.first, "lines": lines.lines}


if TYPE_CHECKING:
    _watcher: Watcher = Live()
