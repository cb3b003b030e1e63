"""One release of an operator: look at what it needs, plan it, reach the nodes, make it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError
from orchestrator.core.events import Warned
from orchestrator.core.finding import Severity
from orchestrator.core.inventory import CrateSource
from orchestrator.meanwhile import meanwhile
from orchestrator.nodes.ssh_dial import load_ssh
from orchestrator.preflight import check_operator

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from orchestrator.core.events import Observer
    from orchestrator.core.inventory import Source
    from orchestrator.core.plan import BuildPlan, ReleaseRequest
    from orchestrator.core.report import Report
    from orchestrator.core.version import Version
    from orchestrator.source import Bundle
    from orchestrator.wiring import Operator
    from orchestrator.world import MakeBundle, Outlet


async def release_for(
    operator: Operator,
    request: ReleaseRequest,
    observe: Observer,
    *,
    channel: str | None = None,
    commit: str | None = None,
    shown: AbstractContextManager[object] | None = None,
) -> tuple[BuildPlan, Report]:
    """Return the plan of a release and how it ended; raises what stops all of it.

    `channel` is the index that it joins, by default the one that its version belongs to. A tag that
    names another `commit` by now stops it. The nodes are at work within `shown`.
    """
    version = request.version
    outlet = None
    if request.publish:
        outlet = operator.outlet_of(channel) if channel else operator.outlet(version)
    async with (
        meanwhile(_planned(operator, request, outlet)) as planning,
        meanwhile(_bundled(operator, planning)) as bundling,
    ):
        # Before an hour is spent, and not at its end.
        for finding in await check_operator(operator, version, publishes=request.publish):
            if finding.severity is Severity.WARNING:
                observe(Warned(message=finding.message))
            finding.require()
        plan = await planning
        from orchestrator.coordinator import make_release  # noqa: PLC0415 -- see _planned

        async with operator.connections(observe) as connect:
            world = operator.world(connect, observe, outlet=outlet)
            make_bundle: MakeBundle = partial(_made, bundling)
            if commit:
                make_bundle = pinned(make_bundle, commit, observe)
            with shown or nullcontext():
                return plan, await make_release(plan, replace(world, make_bundle=make_bundle))


async def _planned(operator: Operator, request: ReleaseRequest, outlet: Outlet | None) -> BuildPlan:
    plan = await operator.plan(request, outlet.channel if outlet else None)
    # What else a release needs is loaded while other programs are waited for.
    needs_ssh = any(not task.node.is_local for task in plan.tasks)
    await asyncio.to_thread(_load, needs_ssh=needs_ssh)
    return plan


def _load(*, needs_ssh: bool) -> None:
    import orchestrator.coordinator  # noqa: F401, PLC0415 -- that is all

    if needs_ssh:
        load_ssh()


async def _bundled(operator: Operator, planning: asyncio.Task[BuildPlan]) -> Bundle | None:
    plan = await asyncio.shield(planning)
    project = plan.inventory.project
    if project.source is None or not plan.tasks:
        return None
    return await operator.make_bundle(project.source, plan.version, project.binaries)


async def _made(bundling: asyncio.Task[Bundle | None], *_: object) -> Bundle:
    bundle = await asyncio.shield(bundling)
    assert bundle is not None  # noqa: S101 -- who asks has a source and a task
    return bundle


def pinned(make_bundle: MakeBundle, commit: str, observe: Observer) -> MakeBundle:
    """Return what makes bundles of that commit only; of a crate, another one is only told of."""

    async def make(source: Source, version: Version, binaries: tuple[str, ...]) -> Bundle:
        bundle = await make_bundle(source, version, binaries)
        if bundle.revision in {None, commit}:
            return bundle
        if isinstance(source, CrateSource):
            # A crate may be published from another commit than the one that is tagged.
            text = (
                f"{bundle.description} was made from {bundle.revision}, and the tag names {commit}"
            )
            observe(Warned(message=text))
        else:
            raise ConfigError(
                f"{bundle.description} names {bundle.revision} now, and named {commit} when the "
                "release was asked for",
                hint="a released version never changes: find out who moved the tag, and give new "
                "code a new version",
            )
        return bundle

    return make
