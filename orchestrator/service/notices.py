"""Who tells people: what was decided is kept in a file until it was sent, whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.notice import Told
from orchestrator.parts import write_whole
from orchestrator.service.channels import SendError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from orchestrator.core.board import Board
    from orchestrator.core.events import Event
    from orchestrator.core.notice import Freshness, Message, Teller
    from orchestrator.core.order import Order
    from orchestrator.service.channels import Channel

_log = logging.getLogger(__name__)
# After that whoever takes it is down for longer than anybody waits for a message.
PAUSES_SECONDS: Final = (10.0, 60.0, 300.0, 1800.0)
_LIMIT_BYTES: Final = 4 << 20


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class Notices:
    """The notices of one service, as a watcher of its releases; `run` has to run beside them.

    `file` is what was told: if it is deleted, the next trouble is told again, and no more.
    Nothing here blocks or raises, and a notice that cannot be sent is only logged.
    """

    teller: Teller
    channels: tuple[Channel, ...]
    file: Path
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], datetime] = _now
    _told: Told = field(default_factory=Told)
    _changes: asyncio.Queue[Callable[[Told], Told]] = field(default_factory=asyncio.Queue)
    _sending: set[str] = field(default_factory=set)

    def begin(self, order: Order, board: Board) -> None:
        """Do nothing: that work begins is no news."""

    def observe(self, order: Order, event: Event, at: datetime) -> None:
        """Do nothing: a node that fails may be taken over from."""

    def end(self, order: Order, outcome: dict[str, Any]) -> None:  # noqa: ARG002 -- a watcher's
        """Tell how an attempt ended."""
        self._changes.put_nowait(lambda told: self.teller.of_attempt(told, outcome))

    def look(self, platforms: Sequence[Freshness]) -> None:
        """Tell of platforms that are late, and of those that are well again."""
        self._changes.put_nowait(lambda told: self.teller.of_look(told, platforms, self.clock()))

    def alarm(self, subject: str, *, title: str, text: str) -> None:
        """Tell of something that a person has to look at; of one subject once."""
        alarm = partial(self.teller.of_alarm, subject=subject, title=title, text=text)
        self._changes.put_nowait(alarm)

    def quiet(self, subject: str) -> None:
        """Say that what the alarm was about is in order: the next time it is told again."""
        self._changes.put_nowait(partial(self.teller.of_quiet, subject=subject))

    async def run(self) -> None:
        """Send what there is to be sent, until cancelled; what is left then is sent next time."""
        self._told = await asyncio.to_thread(_read, self.file)
        self._sending.clear()
        async with asyncio.TaskGroup() as tasks:
            while True:
                for message in self._told.waiting:
                    if message.key not in self._sending:
                        self._sending.add(message.key)
                        tasks.create_task(self._deliver(message))
                await self._change(await self._changes.get())

    async def _change(self, change: Callable[[Told], Told]) -> None:
        try:
            told = change(self._told)
        except Exception:  # noqa: BLE001 -- the next notice may be told all the same
            _log.exception("a bug of ours in what is told")
            return
        if told == self._told:
            return
        self._told = told
        try:
            await asyncio.to_thread(_write, self.file, told)
        except OSError as error:
            _log.warning("%s: cannot keep what was told: %s", self.file, error.strerror)

    async def _deliver(self, message: Message) -> None:
        ways = [each for each in self.channels if message.occasion in each.about]
        await asyncio.gather(*(self._send(message, channel) for channel in ways))

        def done(told: Told) -> Told:
            # In one step: between the two it would be sent again.
            self._sending.discard(message.key)
            return told.without(message.key)

        self._changes.put_nowait(done)

    async def _send(self, message: Message, channel: Channel) -> None:
        pauses = iter(PAUSES_SECONDS)
        while True:
            try:
                await asyncio.to_thread(channel.send, message, self.clock())
            except SendError as error:
                pause = None if error.is_final else next(pauses, None)
                _tell_failure(message, channel, error, pause=pause)
                if pause is None:
                    return
            except Exception:  # noqa: BLE001 -- one notice is lost with it, not the service
                _log.exception("a bug of ours in %s", channel.name)
                return
            else:
                _log.info("told: %s", message.title, extra={"fields": {"channel": channel.name}})
                return
            await self.pause(pause)


def _tell_failure(
    message: Message, channel: Channel, error: SendError, *, pause: float | None
) -> None:
    end = "it is given up" if pause is None else f"trying again in {pause:.0f} s"
    _log.warning(
        "a notice cannot be sent: %s; %s",
        error,
        end,
        extra={"fields": {"channel": channel.name, "notice": message.title}},
    )


def _read(file: Path) -> Told:
    try:
        with file.open("rb") as stream:
            return Told.from_data(json.loads(stream.read(_LIMIT_BYTES)))
    except (OSError, ValueError, RecursionError):
        return Told()


def _write(file: Path, told: Told) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(file, json.dumps(told.as_data()).encode())
