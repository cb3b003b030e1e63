"""The outside world as the story sees it: seams, a folder, a clock; `wiring` has the real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.core.inventory import Source
from orchestrator.core.version import Version
from orchestrator.source import Bundle

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from orchestrator.core.events import Observer
    from orchestrator.core.record import PastBuild
    from orchestrator.core.signature import RawVerifier, Signer, SshVerifier
    from orchestrator.github.releases import Releases
    from orchestrator.nodes.transport import Connect
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import ReleaseStore


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


MakeBundle = Callable[[Source, Version, tuple[str, ...]], Awaitable[Bundle]]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a release touches; without an outlet nothing is published.

    `dist` gets a folder for each version and node; `remember` records how a node's build went,
    and `now` is the time of day.
    """

    connect: Connect
    make_bundle: MakeBundle
    outlet: Outlet | None
    dist: Path
    observe: Observer
    remember: Callable[[PastBuild], None]
    monotonic: Callable[[], float]
    now: Callable[[], datetime] = utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """Where a release goes and who signs it; `url` is None when no installer can be rendered.

    Whoever follows one of the `followers` gets what is published on `channel` too.
    `releases` are those of a GitHub repository to which the archives are attached, too.
    """

    store: ReleaseStore
    channel: Channel
    signer: Signer
    verify_raw: RawVerifier
    verify_ssh: SshVerifier
    template: str
    url: str | None
    today: Callable[[], date]
    followers: tuple[Channel, ...] = ()
    releases: Releases | None = None

    def on(self, channel_name: str) -> Outlet:
        """Return the way to another channel of the same store, by the same signer."""
        channel = replace(self.channel, name=channel_name)
        return replace(self, channel=channel, followers=())
