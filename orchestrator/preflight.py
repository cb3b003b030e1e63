"""Whether a release can start: what its nodes say, and what it needs on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.check import Check, nodes_to_check
from orchestrator.core.errors import ConfigError, OrchestratorError
from orchestrator.core.finding import Finding, fine, warning
from orchestrator.core.installer import render_installer
from orchestrator.core.inventory import GitSource, PathSource
from orchestrator.core.keys import says_the_same
from orchestrator.core.preflight import judge, judge_local_disk
from orchestrator.core.record import drift
from orchestrator.core.wording import human_time
from orchestrator.nodes.probe import probe_with_push
from orchestrator.site import installer_values
from orchestrator.source.command import run
from orchestrator.stores.keyring import read_keys, refuse_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    from orchestrator.core.inventory import Node
    from orchestrator.core.preflight import Needs
    from orchestrator.core.record import PastBuild
    from orchestrator.core.signature import PublicKey
    from orchestrator.core.version import Version
    from orchestrator.nodes.transport import Connect
    from orchestrator.signing import KnownKey
    from orchestrator.wiring import Operator

# A proxy of rustup may want to fetch a toolchain first; that is not worth waiting for.
_TOOL_DEADLINE: Final = timedelta(seconds=30)


async def check_release(operator: Operator, names: Sequence[str] = ()) -> Check:
    """Return what stands in the way of a release on this machine and on the nodes of those names.

    Without names that is every enabled node. All are asked at once, each within its own connect
    timeout. Raise ConfigError for a name that no node has.
    """
    chosen = nodes_to_check(operator.inventory, names)
    record = operator.record()
    async with operator.connections() as connect:
        coordinator, *nodes = await asyncio.gather(
            check_operator(operator),
            *(
                check_node(
                    connect, each.node, each.needs, last=record.last_delivery(str(each.node.target))
                )
                for each in chosen
            ),
        )
    if not chosen:
        coordinator = (*coordinator, Finding.of("nodes", _no_node()))
    return Check(
        project=operator.inventory.project.name,
        coordinator=coordinator,
        nodes=tuple(
            replace(each, findings=findings) for each, findings in zip(chosen, nodes, strict=True)
        ),
    )


async def check_node(
    connect: Connect, node: Node, needs: Needs, *, last: PastBuild | None = None
) -> tuple[Finding, ...]:
    """Return what was found on a node, or the one problem that kept it from answering.

    `last` is what was built last for its target: another compiler than that is told.
    """
    subject = "connection"
    begun = time.monotonic()
    try:
        async with connect(node) as transport:
            took = timedelta(seconds=time.monotonic() - begun)
            subject = "probe"
            facts = await probe_with_push(transport, workdir=node.workdir)
    except OrchestratorError as error:
        return (Finding.of(subject, error),)
    findings = (fine("connection", _connected(node, took)), *judge(facts, node, needs))
    # Where the project chooses the compiler, the node's own one says nothing.
    known = last if needs.builds and last and not last.is_pinned else None
    if said := drift(known, node=node.name, rustc=facts.rustc):
        findings += (warning("drift", said, _SAME_COMPILER),)
    return findings


_SAME_COMPILER: Final = (
    "nothing to do if that is meant: `rust-toolchain.toml` in the project pins one for all nodes"
)


def _connected(node: Node, took: timedelta) -> str:
    if node.is_local:
        return "this machine"
    if node.is_guest:
        return f"{node.host} in {human_time(took)}, with the host key that it was made with"
    where = "the inventory" if node.host_key else "known_hosts"
    return f"{node.host} in {human_time(took)}, with its host key from {where}"


def _no_node() -> ConfigError:
    return ConfigError(
        "no node is enabled", hint="set `enabled: true` on one, or name the nodes to be checked"
    )


async def check_operator(
    operator: Operator, version: Version | None = None, *, publishes: bool = True
) -> tuple[Finding, ...]:
    """Return what a release of the version finds on this machine; nobody is asked for a passphrase.

    Without a version it is about the inventory's own channel, without `publishes` only about what
    builds need. Nothing is left behind.
    """
    looks: list[Awaitable[Sequence[Finding]]] = [_source_tools(operator)]
    if publishes:
        looks += _publishing(operator, version)
    tools, *rest = await asyncio.gather(*looks)
    return tuple(chain(tools, _disks(operator), *rest))


def _publishing(
    operator: Operator, version: Version | None
) -> Iterator[Awaitable[Sequence[Finding]]]:
    """Yield what is looked at for a publication, in the order in which it is told."""
    key, keys = _key(operator)
    yield _told(key)
    yield _tried("store", _store(operator))
    if keys:
        yield _keys(operator, version, keys)
        yield _tried("index", _index(operator, version, keys))
    yield _tried("installer", _installer(operator, keys))
    if operator.inventory.publication.github:
        yield _tried("github", _github(operator))


async def _told(*findings: Finding) -> Sequence[Finding]:
    return findings


async def _tried(subject: str, looking: Awaitable[str]) -> Sequence[Finding]:
    try:
        return [fine(subject, await looking)]
    except OrchestratorError as error:
        return [Finding.of(subject, error)]


async def _source_tools(operator: Operator) -> Sequence[Finding]:
    source = operator.inventory.project.source
    if source is None:
        return []
    tools = ("git", "cargo") if isinstance(source, GitSource | PathSource) else ("cargo",)
    tried = await asyncio.gather(*(_tried(tool, _version_of(tool)) for tool in tools))
    return list(chain.from_iterable(tried))


async def _version_of(tool: str) -> str:
    # Not in the inventory's folder: a rust-toolchain.toml there would choose another cargo.
    finished = await run([tool, "--version"], cwd=Path("/"), deadline=_TOOL_DEADLINE)
    if not finished.is_ok:
        said = finished.tail.partition("\n")[0]
        raise ConfigError(
            f"`{tool} --version` fails: {said}", hint=f"mend {tool}: the source is fetched with it"
        )
    return finished.output.decode(errors="replace").strip()


def _disks(operator: Operator) -> Iterator[Finding]:
    places = [operator.dist, operator.cache]
    # That a store is no folder is said where it is opened.
    with suppress(ConfigError):
        places.append(operator.store_folder())
    seen = set()
    for place in places:
        # Unlike Path.exists, this is no error where one may not look.
        there = next(path for path in (place, *place.parents) if os.access(path, os.F_OK))
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield judge_local_disk(str(place), shutil.disk_usage(there).free)


def _key(operator: Operator) -> tuple[Finding, tuple[PublicKey, ...]]:
    """Return what is to be said of the signing key, and who may have signed the index."""
    try:
        key = operator.known_key()
        keys = operator.trusted(key.public)
        beside = operator.public_keys()
    except ConfigError as error:
        return Finding.of("key", error), ()
    path = operator.key_path()
    anew = f"make it anew: ssh-keygen -y -f {path} >{path}.pub"
    if beside and beside[0] != key.public:
        other = ConfigError(f"{path}.pub is not the public half of the key beside it", hint=anew)
        return Finding.of("key", other), keys
    if not beside:
        message = f"there is no {path}.pub, which `render` and `status` read"
        return warning("key", message, anew), keys
    return _readiness(key), keys


def _readiness(key: KnownKey) -> Finding:
    fingerprint = key.public.fingerprint
    if key.is_in_agent:
        return fine("key", f"{fingerprint}, in the ssh-agent")
    if not key.has_passphrase:
        return fine("key", fingerprint)
    if sys.stdin.isatty():
        return fine("key", f"{fingerprint}, has a passphrase: will be asked")
    message = "the signing key has a passphrase, and there is nobody here to ask for it"
    return warning("key", message, "make the release in a terminal, or load the key into ssh-agent")


async def _store(operator: Operator) -> str:
    store = operator.store()
    await store.check_writable()
    return f"{store.describe()} can be written"


async def _keys(
    operator: Operator, version: Version | None, keys: tuple[PublicKey, ...]
) -> list[Finding]:
    """Return what the store says of the keys; nothing, where no rotation key vouches for them."""
    channel = operator.channel(version, keys)
    if channel.authority is None:
        return []
    try:
        stored = await read_keys(operator.store(), channel.authority)
        if stored:
            refuse_keys(stored.statement, keys[0], keys)
    except OrchestratorError as error:
        return [Finding.of("keys", error)]
    rotate = "with the rotation key: orchestrator keys rotate --rotation-key FILE"
    if stored is None:
        message = "the store has no keys.txt yet: who has an old installer cannot follow new keys"
        return [warning("keys", message, rotate)]
    serial = f"keys.txt has serial {stored.statement.serial}"
    if not says_the_same(stored.statement, keys):
        message = f"the store does not say what the inventory says of trusted keys; {serial}"
        return [warning("keys", message, rotate)]
    return [fine("keys", f"{serial}, and names the same keys")]


async def _index(operator: Operator, version: Version | None, keys: tuple[PublicKey, ...]) -> str:
    channel = operator.channel(version, keys)
    index = await operator.index(channel)
    if index is None:
        return f"{channel.name}: nothing is published yet"
    return f"{channel.name}: serial {index.serial}, signed by a trusted key"


async def _github(operator: Operator) -> str:
    releases = operator.releases()
    where = releases.api.repository if releases else "none"
    return f"archives are attached to releases of {where}, with a token that is not tried here"


async def _installer(operator: Operator, keys: tuple[PublicKey, ...]) -> str:
    publication, project = operator.inventory.publication, operator.inventory.project
    template = operator.template()
    if publication.url is None:
        return "without `publication.url` none is made"
    # Any serial fits: what the store says of keys has a finding of its own.
    channel = operator.channel(None, keys)
    values = installer_values(project, publication.url, channel, keys_serial=0)
    await asyncio.to_thread(render_installer, template, values)
    return f"for {publication.url}"
