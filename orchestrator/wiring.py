"""The real world of one operator: their inventory, and what it names, opened when it is needed."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.gains import read_gains
from orchestrator.core.index import parse_channel
from orchestrator.core.inventory import RECORD_FOLDER
from orchestrator.core.plan import plan_release
from orchestrator.stores.channel import Channel, read_index
from orchestrator.stores.directory import DirectoryStore
from orchestrator.timings import append_build, read_record
from orchestrator.workspace import (
    inventory_folder,
    load_inventory,
    read_installer_template,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import date

    from orchestrator.core.events import Observer
    from orchestrator.core.index import Index
    from orchestrator.core.inventory import Inventory, Node, Signing, Source
    from orchestrator.core.plan import BuildPlan, ReleaseRequest
    from orchestrator.core.record import PastBuild, Record
    from orchestrator.core.signature import PublicKey, Signer
    from orchestrator.core.version import Version
    from orchestrator.github.releases import Releases
    from orchestrator.jobs import Search
    from orchestrator.nodes.transport import Connect, Transport
    from orchestrator.signing import KnownKey
    from orchestrator.site import Beside
    from orchestrator.source import Bundle
    from orchestrator.stores.pointers import Pointer
    from orchestrator.stores.store import ReleaseStore
    from orchestrator.world import Outlet, World

STABLE: Final = "stable"
PRERELEASE: Final = "prerelease"
GCS_SCHEME: Final = "gs://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who runs a command: their inventory and the folder that it lies in."""

    inventory: Inventory
    folder: Path
    # It has connections: one for all that a command does.
    _opened: list[ReleaseStore] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def at(cls, inventory_file: str) -> Self:
        """Return the operator whose inventory is in that file; raise ConfigError if it is wrong."""
        path = Path(inventory_file)
        return cls(inventory=load_inventory(path), folder=inventory_folder(path))

    @property
    def dist(self) -> Path:
        """Where logs and archives go: a record that may be deleted."""
        return self.folder / RECORD_FOLDER

    @property
    def cache(self) -> Path:
        """Where source bundles are kept for all inventories of this user."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "orchestrator" / "bundles"

    def node(self, name: str) -> Node:
        """Return the node of that name, or raise ConfigError."""
        for node in self.inventory.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.inventory.nodes)
        raise ConfigError(f"no node is named `{name[:80]}`", hint=f"the nodes are: {names}")

    def nodes_at_work(self) -> tuple[Node, ...]:
        """Return the nodes that may have jobs: those enabled, and those with a job on record."""
        begun = self._begun(None)
        return tuple(node for node in self.inventory.nodes if node.enabled or node.name in begun)

    def _begun(self, version: Version | None) -> frozenset[str]:
        if version and not (self.dist / str(version)).is_dir():
            return frozenset()
        from orchestrator.jobs import known_jobs  # noqa: PLC0415 -- not for a new version

        known = known_jobs(self.dist, self.inventory.nodes, version)
        return frozenset(each.node.name for each in known)

    def search(self, version: Version | None) -> Search:
        """Return whose jobs to look for on the nodes."""
        from orchestrator.jobs import Search  # noqa: PLC0415 -- only who asks nodes needs it

        return Search(project=self.inventory.project.name, version=version)

    def record(self) -> Record:
        """Return how the builds of the past went."""
        return read_record(self._timings, now=datetime.now(tz=UTC))

    def remember(self, build: PastBuild) -> None:
        """Record how a build went."""
        append_build(self._timings, build)

    def world(self, connect: Connect, observe: Observer, *, outlet: Outlet | None = None) -> World:
        """Return what a release really touches; without an outlet nothing is published."""
        from orchestrator.world import World  # noqa: PLC0415 -- only a release needs it

        return World(
            connect=connect,
            make_bundle=self.make_bundle,
            outlet=outlet,
            dist=self.dist,
            observe=observe,
            remember=self.remember,
            monotonic=time.monotonic,
        )

    @property
    def gains_file(self) -> Path:
        """Where it is recorded which variants are worth it; without it, none is."""
        return self.dist / "bench" / "variants.json"

    def gains(self) -> tuple[str, ...]:
        """Return the variants that were measured to be worth it."""
        try:
            return read_gains(self.gains_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return ()

    @property
    def _timings(self) -> Path:
        return self.dist / "timings.jsonl"

    async def make_bundle(
        self, source: Source, version: Version, binaries: tuple[str, ...]
    ) -> Bundle:
        """Return the source bundle, from the user's cache if it was made before."""
        from orchestrator.source import make_bundle  # noqa: PLC0415 -- only a release needs it

        try:
            return await make_bundle(
                source,
                version=version,
                binaries=binaries,
                folder=self.folder,
                cache=self.cache,
                private=self._private_files(),
            )
        except OSError as error:
            raise NodeError(
                f"this machine cannot make the source bundle: {error}",
                hint=f"is the disk full, or the cache in {self.cache} another user's?",
            ) from error

    def _private_files(self) -> tuple[Path, ...]:
        publication = self.inventory.publication
        signing, github = publication.signing, publication.github
        files = [github.token_file] if github and github.token_file else []
        if signing:
            # With their other halves, as keygen leaves them: no change of the source either.
            named = (signing.key, *signing.trusted, *filter(None, (signing.rotation,)))
            keys = (said.removesuffix(".pub") for said in named if not said.startswith("ssh-"))
            files += [f"{key}{end}" for key in keys for end in ("", ".pub", ".minisign.pub")]
        return tuple(map(Path, files))

    async def plan(self, request: ReleaseRequest, channel: Channel | None) -> BuildPlan:
        """Return what the release will do, given what is published already."""
        index = await self.index(channel) if channel else None
        return plan_release(
            self.inventory,
            request,
            record=self.record(),
            rows=index.rows if index else (),
            begun=self._begun(request.version),
            gains=self.gains(),
        )

    async def index(self, channel: Channel) -> Index | None:
        """Return the verified index of a channel, None before its first release."""
        return await read_index(self.store(), channel)

    def store(self) -> ReleaseStore:
        """Return the store that the inventory names, the same one each time."""
        if not self._opened:
            self._opened.append(self._open_store())
        return self._opened[0]

    def _open_store(self) -> ReleaseStore:
        url = self.inventory.publication.store
        if not url.startswith(GCS_SCHEME):
            return DirectoryStore(self.store_folder())
        from orchestrator.stores.gcs import GcsStore  # noqa: PLC0415 -- not for a folder

        return GcsStore.at(url)

    def store_folder(self) -> Path:
        """Return the folder that the store is; raise ConfigError if it is none."""
        name = self.inventory.publication.store
        if name.startswith(GCS_SCHEME):
            raise ConfigError(
                f"{name} is no folder on this machine",
                hint="fetch what is there from `publication.url`, or name a folder with --store",
            )
        return Path(name)

    def channel(self, version: Version | None, keys: tuple[PublicKey, ...]) -> Channel:
        """Return the channel that a version is published on.

        Who follows the stable channel is never moved to a prerelease.
        """
        return self.channel_named(self.channel_name(version), keys)

    def channel_name(self, version: Version | None, *, is_prerelease: bool = False) -> str:
        """Return the name of the channel that a version is published on.

        `is_prerelease` says that it counts as one although its number does not tell.
        """
        own = self.inventory.publication.channel
        is_prerelease = is_prerelease or (version is not None and version.is_prerelease)
        return PRERELEASE if is_prerelease and own == STABLE else own

    def channel_names(self) -> tuple[str, ...]:
        """Return the channels that releases of this inventory go to."""
        own = self.inventory.publication.channel
        return (own, *_followers(own))

    def trusted_channel(self, name: str | None = None) -> Channel:
        """Return a channel to read from, the inventory's own without a name.

        Raise ConfigError if no key is known that could have signed it.
        """
        keys = self.public_keys()
        if not keys:
            raise self.no_key()
        return self.channel_named(name or self.inventory.publication.channel, keys)

    def channel_named(self, name: str, keys: tuple[PublicKey, ...]) -> Channel:
        """Return the channel of that name, whose indexes one of the keys has signed."""
        from orchestrator.signing import verify  # noqa: PLC0415 -- only what reads an index needs it

        return Channel(
            project=self.inventory.project.name,
            name=parse_channel(name),
            keys=keys,
            verify=verify,
            lifetime=self.inventory.publication.expires,
            rotation=self.rotation_key(),
        )

    def outlet(self, version: Version | None) -> Outlet:
        """Return where the version goes; raise ConfigError if nothing could be signed.

        Without a version, that is the inventory's own channel.
        """
        return self.outlet_of(self.channel_name(version))

    def outlet_of(self, channel_name: str, signer: Signer | None = None) -> Outlet:
        """Return the way to a channel; raise ConfigError if nothing could be signed."""
        from orchestrator.signing import (  # noqa: PLC0415 -- only a release needs it
            verify_raw,
            verify_sshsig,
        )
        from orchestrator.world import Outlet  # noqa: PLC0415 -- only a release needs it

        parse_channel(channel_name)
        signer = signer or self.signer()
        channel = self.channel_named(channel_name, self.trusted(signer.public))
        return Outlet(
            store=self.store(),
            channel=channel,
            signer=signer,
            verify_raw=verify_raw,
            verify_ssh=verify_sshsig,
            template=self.template(),
            url=self.inventory.publication.url,
            today=self.today,
            followers=tuple(replace(channel, name=name) for name in _followers(channel_name)),
            releases=self.releases(),
        )

    def releases(self) -> Releases | None:
        """Return the GitHub releases that get the archives too; ConfigError without a token."""
        keys = self.inventory.publication.github
        if keys is None:
            return None
        from orchestrator.github.api import Api  # noqa: PLC0415 -- only a release needs it
        from orchestrator.github.releases import Releases  # noqa: PLC0415 -- see above
        from orchestrator.github.token import api_url, read_token  # noqa: PLC0415 -- see above

        token = read_token(keys.token_file, os.environ)
        return Releases(api=Api(repository=keys.repository, token=token, url=api_url(os.environ)))

    def signer(self) -> Signer:
        """Return who signs what is published; raise ConfigError if nobody can.

        A passphrase is asked for where somebody can answer.
        """
        path = self.key_path()
        if not path.exists():
            raise self.no_key()
        return open_key(path, ask("passphrase of the signing key: "))

    def derive(self, channel: Channel, index: Index, beside: Beside) -> tuple[Pointer, ...]:
        """Return what follows from an index of a channel, as a release would publish it."""
        from orchestrator.site import derived_objects  # noqa: PLC0415 -- Jinja2

        return derived_objects(
            self.inventory,
            channel,
            index,
            template=self.template(),
            url=self.inventory.publication.url,
            beside=beside,
        )

    @staticmethod
    def today() -> date:
        """Return the day, in UTC."""
        return _today()

    def template(self) -> str:
        """Return the text of install.sh.j2."""
        return read_installer_template(self.folder)

    def key_path(self) -> Path:
        """Return where the key is, or raise ConfigError if the inventory does not say.

        `….pub` is the public half of a key that ssh-agent holds.
        """
        return Path(self._signing().key)

    def public_keys(self) -> tuple[PublicKey, ...]:
        """Return the public half of the signing key and the other trusted ones.

        None before `keygen`, and while its .pub file is missing.
        """
        from orchestrator.signing import public_half, read_public_key  # noqa: PLC0415 -- as above

        if self.inventory.publication.signing is None:
            return ()
        path = public_half(self.key_path())
        return self.trusted(read_public_key(str(path))) if path.exists() else ()

    def trusted(self, own: PublicKey) -> tuple[PublicKey, ...]:
        """Return this key and then the other ones that the inventory trusts."""
        from orchestrator.signing import trusted_keys  # noqa: PLC0415 -- as above

        return trusted_keys(self._signing(), own)

    def rotation_key(self) -> PublicKey | None:
        """Return the key that vouches for the signing keys, None if the inventory has none."""
        from orchestrator.signing import rotation_key  # noqa: PLC0415 -- as above

        signing = self.inventory.publication.signing
        return rotation_key(signing) if signing else None

    def known_key(self) -> KnownKey:
        """Return what is known of the signing key, without its passphrase; or raise ConfigError."""
        from orchestrator.signing import know_key  # noqa: PLC0415 -- as above

        path = self.key_path()
        if not path.exists():
            raise self.no_key()
        return know_key(path, agent=_agent())

    def no_key(self) -> ConfigError:
        """Return the error of a missing key."""
        return ConfigError(
            f"there is no signing key at {self.key_path()}",
            hint="make one, once: orchestrator keygen (or build only, with --no-publish)",
        )

    def _signing(self) -> Signing:
        signing = self.inventory.publication.signing
        if signing is None:
            raise ConfigError(
                "the inventory has no `publication.signing.key`, and nothing is published unsigned",
                hint="name a file for the key there, then run `orchestrator keygen`",
            )
        return signing

    @asynccontextmanager
    async def connections(
        self, observe: Observer | None = None, *, starts_guests: bool = True
    ) -> AsyncIterator[Connect]:
        """Yield the way to every node; leaving it drops the links, not the jobs.

        Nodes that are virtual machines are started when they are needed, and stopped at the end, if
        nobody else uses them; `observe` is told. Without `starts_guests` they are as they are.
        """
        from orchestrator.nodes.local import connect_local  # noqa: PLC0415 -- not for a dry run

        local = connect_local(os.environ)
        if all(node.is_local for node in self.inventory.nodes):
            yield local
            return
        from orchestrator.nodes.ssh import SshConnections  # noqa: PLC0415 -- 0.2 s of imports

        # It warns of each write to a link that was lost a moment ago; we say that in our own words.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        async with SshConnections() as ssh:

            def connect(node: Node) -> AbstractAsyncContextManager[Transport]:
                return local(node) if node.is_local else ssh.connect(node)

            if not any(node.vm for node in self.inventory.nodes):
                yield connect
                return
            from orchestrator.machines import guests_of  # noqa: PLC0415 -- few have one

            guests = guests_of(self.folder, connect, observe, starts=starts_guests)
            async with guests:
                yield guests.open


def _followers(channel_name: str) -> tuple[str, ...]:
    # Who tries prereleases gets the version that they lead to.
    return (PRERELEASE,) if channel_name == STABLE else ()


def _today() -> date:
    return datetime.now(tz=UTC).date()


def open_key(path: Path, passphrase: Callable[[], bytes] | None) -> Signer:
    """Return who signs with the key in that file, or with the one of that public key file.

    Raise ConfigError if nobody can; `passphrase` is called only if the key has one.
    """
    from orchestrator.signing import open_signer  # noqa: PLC0415 -- only who signs needs it

    return open_signer(path, passphrase, agent=_agent())


def ask(prompt: str) -> Callable[[], bytes] | None:
    """Return what asks for a passphrase, None where there is nobody to ask."""
    if not sys.stdin.isatty():
        return None
    from getpass import getpass  # noqa: PLC0415 -- only a key with a passphrase needs it

    return lambda: getpass(prompt).encode()


def _agent() -> str | None:
    return os.environ.get("SSH_AUTH_SOCK")
