"""What the service does by the clock: try again, see who is late, watch how long an index lasts."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.retrying import due

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.freshness import Freshness
    from orchestrator.service.desk import ReleaseDesk
    from orchestrator.service.intake import Orders

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 15.0
# An index is renewed when half of its lifetime is over; with less than this, nobody does that.
_LEAST_LIFETIME: Final = 1 / 3


class Teller(Protocol):
    """Tells people how things stand, each thing once."""

    def look(self, platforms: Sequence[Freshness]) -> None:
        """Tell of platforms that are late, and of those that are well again."""
        ...

    def alarm(self, subject: str, *, title: str, text: str) -> None:
        """Tell of something that a person has to look at."""
        ...

    def quiet(self, subject: str) -> None:
        """Say that what an alarm was about is in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """Who looks, every few seconds."""

    queue: Orders
    desk: ReleaseDesk
    notices: Teller

    async def run(self) -> None:
        """Look for ever; what goes wrong is logged."""
        while True:
            try:
                await self.look()
            except OrchestratorError as error:
                _log.warning("cannot see how things stand: %s", error.message)
            except Exception:  # noqa: BLE001 -- the next look may be luckier
                _log.exception("a bug of ours in the upkeep")
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Do what there is to be done now; StoreError if queue or store do not answer."""
        await self._retry()
        self.notices.look(await self.desk.freshness())
        await self._watch_indexes()

    async def _retry(self) -> None:
        for order in due(await self.queue.entries(), datetime.now(UTC)):
            submitted = await self.queue.submit(order)
            if submitted.is_new:
                _log.info("tries %s again: attempt %d", order.version, order.attempt)

    async def _watch_indexes(self) -> None:
        today = datetime.now(UTC).date()
        for index in await self.desk.indexes():
            subject = f"{index.channel} expires"
            left = (index.expires - today).days
            if left >= (index.expires - index.issued).days * _LEAST_LIFETIME:
                self.notices.quiet(subject)
                continue
            self.notices.alarm(
                subject,
                title=f"the index of {index.channel} is valid for {left} more days",
                text="Installers refuse it after that. `orchestrator renew` signs it again: is the "
                "timer for it running?",
            )
