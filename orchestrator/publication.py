"""When each target of a release is published: policies decide here, `stores.publish` does it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.core.edits import passed_on
from orchestrator.core.errors import StoreError
from orchestrator.core.events import Phase, PhaseChanged, Published, Warned
from orchestrator.core.index import RowKey, Status
from orchestrator.core.inventory import Policy
from orchestrator.core.merge import row_of, why_not_offered
from orchestrator.core.plan import node_cpu
from orchestrator.core.result import Built, Failed, FailureClass, cpu_level, edition_of
from orchestrator.site import leads_to, renew_copy, renew_derived
from orchestrator.stores.channel import (
    Origin,
    keys_ever,
    pass_rows,
    pause_briefly,
    publish_index,
    read_index,
)
from orchestrator.stores.evidence import Notary, publish_evidence
from orchestrator.stores.publish import pending_rows, publish_artifact, publish_reissue
from orchestrator.stores.store import TakenError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.core.events import Observer
    from orchestrator.core.index import Index, Row
    from orchestrator.core.plan import BuildPlan
    from orchestrator.core.result import Artifact, Result
    from orchestrator.core.version import Version
    from orchestrator.stores.channel import Channel, Pause
    from orchestrator.world import Outlet


class Publication:
    """One release on its way into a store.

    Nothing is published before every required node has delivered; then each target is, as soon as
    it is ready. Targets of enabled nodes that are late get `pending` rows once the version exists.
    """

    def __init__(self, plan: BuildPlan, outlet: Outlet | None, observe: Observer) -> None:
        self._plan = plan
        self._outlet = outlet
        self._observe = observe
        self._awaited = _required_nodes(plan)
        self._held: list[Built] = []
        self._failures: dict[str, Failed] = {}
        self._index: Index | None = None
        # One index writer: rows that get ready while it writes go into its next turn.
        self._index_lock = asyncio.Lock()
        self._rows: list[Row] = []

    async def add(self, built: Built, stands_for: str) -> None:
        """Publish what a node delivered, now or when the required nodes have delivered too.

        `stands_for` is the first node of its task. A store that refuses this artifact makes this
        node's result a failure; an index that cannot be written or trusted raises StoreError.
        """
        self._held.append(built)
        await self.pass_over(stands_for)

    async def pass_over(self, node: str) -> None:
        """Wait no longer for the node, first of its task; publish what waited for it."""
        self._awaited.discard(node)
        if self._outlet is not None and not self._awaited:
            await self._publish_held(self._outlet)

    async def _publish_held(self, outlet: Outlet) -> None:
        if self._index is None and any(self._is_variant(built) for built in self._held):
            self._index = await read_index(outlet.store, outlet.channel)
        while ready := [built for built in self._held if not self._waits(built)]:
            self._held = [built for built in self._held if self._waits(built)]
            await asyncio.gather(*(self._publish(item, outlet) for item in ready))
            await self._move_index(outlet)

    def _is_variant(self, built: Built) -> bool:
        nodes = self._plan.inventory.nodes
        return any(node.variant_of for node in nodes if node.name == built.node)

    def _waits(self, built: Built) -> bool:
        """Return whether a faster build would be published before the one that runs everywhere."""
        artifact = built.artifact
        bound = tuple(floor for floor in artifact.floors if floor.name != "cpu")
        base = RowKey(artifact.target.triple, artifact.version, edition_of(bound))
        row = row_of(self._index.rows if self._index else (), base)
        return self._is_variant(built) and (row is None or row.status is not Status.OK)

    async def finish(self) -> None:
        """Announce the late targets, bring the installer up to date, pass the version on."""
        if self._outlet is not None:
            await self._move_index(self._outlet, is_last=True)
        if self._outlet is not None and self._index is not None:
            await pass_on(self._outlet, self._index, self._plan.version)

    def settle(self, result: Result) -> Result:
        """Return the result, or the failure to publish it."""
        return self._failures.get(result.node, result) if isinstance(result, Built) else result

    @property
    def index(self) -> Index | None:
        """The index that stands in the store, None if there is none."""
        return self._index

    @property
    def serial(self) -> int | None:
        """The serial of the index that stands in the store, None if there is none."""
        return self._index.serial if self._index else None

    @property
    def url(self) -> str | None:
        """Where people get the installer that leads to this version, None if there is none."""
        outlet = self._outlet
        return outlet.url if outlet and leads_to(self._plan.inventory, outlet.channel) else None

    @property
    def published(self) -> tuple[str, ...]:
        """The targets that this version can be installed on."""
        return self._targets_of(Status.OK)

    @property
    def pending(self) -> tuple[str, ...]:
        """The targets that the index says are late."""
        return self._targets_of(Status.PENDING)

    @property
    def held_back(self) -> tuple[str, ...]:
        """The targets that are built and wait for a required node."""
        if self._outlet is None:
            return ()
        return tuple(
            f"{built.artifact.target}{built.artifact.edition or ''}" for built in self._held
        )

    def _targets_of(self, status: Status) -> tuple[str, ...]:
        rows = self._index.rows if self._index else ()
        version = str(self._plan.version)
        found = (row for row in rows if str(row.version) == version and row.status is status)
        return tuple(dict.fromkeys(row.target for row in found))

    async def _publish(self, built: Built, outlet: Outlet) -> None:
        self._observe(PhaseChanged(node=built.node, phase=Phase.PUBLISHING))
        try:
            row = await self._publish_files(built, outlet)
        except StoreError as error:
            self._failures[built.node] = Failed(
                node=built.node,
                target=built.artifact.target,
                failure_class=FailureClass.STORE,
                message=error.message,
                hint=error.hint,
            )
        else:
            self._rows.append(row)

    async def _publish_files(self, built: Built, outlet: Outlet) -> Row:
        believed = await _believed(built.artifact, outlet)
        row = await self._publish_archive(built, outlet, believed)
        notary = Notary(signer=outlet.signer, keys=believed.keys, verify=outlet.verify_raw)
        await publish_evidence(outlet.store, built.artifact, str(row.path), notary=notary)
        return row

    async def _publish_archive(self, built: Built, outlet: Outlet, believed: Channel) -> Row:
        publish = partial(
            publish_artifact,
            outlet.store,
            built.artifact,
            channel=believed,
            signer=outlet.signer,
        )
        flat = _has_flat_name(self._plan, built.artifact)
        if self._plan.request.rebuild:
            stands = await self._standing(built.artifact, outlet)
            if stands is not None and stands.sha256 == built.artifact.sha256:
                if self._plan.request.reissue:
                    message = "nothing to re-issue: the new build has the same bytes"
                    self._observe(Warned(node=built.node, message=message))
                publish = partial(publish, revision=stands.revision)
            elif self._plan.request.reissue:
                return await publish_reissue(
                    outlet.store,
                    built.artifact,
                    channel=believed,
                    signer=outlet.signer,
                    flat=flat,
                    above=stands.revision if stands else 0,
                )
        if not flat:
            return await publish(flat=False)
        try:
            return await publish(flat=True)
        except TakenError as error:
            # The flat name may be another build's by now; only users of that name are touched.
            row = await publish(flat=False)
            self._observe(Warned(node=built.node, message=f"no bare binary: {error.message}"))
            return row

    async def _standing(self, artifact: Artifact, outlet: Outlet) -> Row | None:
        """Return the row that has the place of this artifact, None if there is no build yet."""
        index = await read_index(outlet.store, outlet.channel)
        key = RowKey(artifact.target.triple, artifact.version, artifact.edition)
        row = row_of(index.rows, key) if index else None
        return row if row and row.status is not Status.PENDING else None

    async def _move_index(self, outlet: Outlet, *, is_last: bool = False) -> None:
        async with self._index_lock:
            rows, self._rows = self._rows, []
            if not rows and not is_last:
                return
            if self._index is None:
                self._index = await read_index(outlet.store, outlet.channel)
            if not rows and self._index is None:
                return
            before = self._index
            index = await publish_index(
                outlet.store,
                outlet.channel,
                (*rows, *self._late(rows)),
                signer=outlet.signer,
                today=outlet.today(),
            )
            self._index = index
            await renew_derived(self._plan.inventory, outlet, index)
            await renew_copy(self._plan.inventory, outlet, index, version=self._plan.version)
        offered = []
        for row in rows:
            if why := why_not_offered(index.rows, row):
                self._observe(Warned(message=why))
            else:
                offered.append(row.target)
        if offered and index != before:
            targets = tuple(dict.fromkeys(offered))
            self._observe(Published(targets=targets, serial=index.serial))

    def _late(self, rows: Iterable[Row]) -> Iterable[Row]:
        # A version that nobody can install is not announced to anybody.
        if not (any(row.status is Status.OK for row in rows) or self.published):
            return
        for node in self._plan.inventory.nodes:
            if node.enabled:
                yield from pending_rows(
                    self._plan.version, (node.target,), os_release=node.os_release
                )


async def pass_on(
    outlet: Outlet, index: Index, version: Version, *, pause: Pause = pause_briefly
) -> None:
    """Give a version of this index to those who follow it with another channel.

    As it stands in the store by then: it may be taken back meanwhile. A channel that has no index
    yet stays without one.
    """
    if not passed_on(index.rows, version):
        return
    origin = Origin(channel=outlet.channel, choose=lambda now: passed_on(now.rows, version))
    for channel in outlet.followers:
        if await read_index(outlet.store, channel) is not None:
            await pass_rows(
                outlet.store,
                channel,
                origin,
                signer=outlet.signer,
                today=outlet.today(),
                pause=pause,
            )


async def _believed(artifact: Artifact, outlet: Outlet) -> Channel:
    """Return the channel with the keys whose signatures may lie beside this archive already.

    An archive that the index names may be signed by a key that is revoked by now.
    """
    channel = outlet.channel
    if channel.rotation is None:
        return channel
    index = await read_index(outlet.store, channel)
    is_named = index and any(row.sha256 == artifact.sha256 for row in index.rows)
    return replace(channel, keys=await keys_ever(outlet.store, channel)) if is_named else channel


def _required_nodes(plan: BuildPlan) -> set[str]:
    return {
        task.node.name
        for task in plan.tasks
        if any(
            candidate.node.policy is Policy.REQUIRED for candidate in (task.first, *task.standby)
        )
    }


def _has_flat_name(plan: BuildPlan, artifact: Artifact) -> bool:
    """Return whether this artifact is the one that has its flat name.

    Two OpenBSD releases or two Windows ABIs share a flat name: the first enabled node has it.
    """
    inventory = plan.inventory
    if not inventory.publication.flat:
        return False
    flat_name = artifact.target.flat_name
    first = next(
        (node for node in inventory.nodes if node.enabled and node.target.flat_name == flat_name),
        None,
    )
    if first is None or first.target != artifact.target:
        return first is None
    if cpu_level(artifact.floors) != node_cpu(inventory.project, first):
        return False
    return artifact.os_release is None or first.os_release in {None, artifact.os_release}
