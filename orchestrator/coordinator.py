"""THE STORY: one release, from plan to installer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from orchestrator.attachment import attach_release
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.events import NodeFinished, ReleaseStarted, SourceReady, Warned
from orchestrator.core.record import drift
from orchestrator.core.recording import built_with, record_of
from orchestrator.core.report import Report, exit_code
from orchestrator.core.result import Built, Skipped
from orchestrator.delivery import Delivery
from orchestrator.publication import Publication
from orchestrator.verification.last_step import verify_release

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.core.plan import BuildPlan, BuildTask
    from orchestrator.core.report import Verified
    from orchestrator.core.result import Result
    from orchestrator.source import Bundle
    from orchestrator.world import World


async def make_release(plan: BuildPlan, world: World) -> Report:
    """Build every task of the plan in parallel, publish what passed, and say how it ended.

    A node that fails is a result in the report. What stops everything (no source, a store that
    cannot be trusted) raises. Cancelling it leaves the jobs running on their nodes: the same
    release attaches to them.
    """
    begun = world.monotonic()
    world.observe(ReleaseStarted(plan=plan))
    publication = Publication(plan, world.outlet, world.observe)
    try:
        async with asyncio.TaskGroup() as tasks_of_nodes:
            bundle = tasks_of_nodes.create_task(_make_bundle(plan, world))
            delivery = Delivery(plan=plan, bundle=bundle, world=world)
            tasks = [
                tasks_of_nodes.create_task(_complete(task, delivery, publication))
                for task in plan.tasks
            ]
    except BaseExceptionGroup as group:
        # Not `except*`: what is raised there is a group again on Python 3.11.2, Debian 12's own.
        known, unknown = group.split(OrchestratorError)
        if known is None or unknown is not None:
            raise
        # One error speaks for all: they stop the run for the same reason.
        raise _first(known) from None
    await publication.finish()
    attachment = await attach_release(plan, world.outlet, publication.index)
    verified = await _verify(plan, world, publication)
    outcomes = [tuple(map(publication.settle, task.result())) for task in tasks]
    drifts = _drifts(plan, chain.from_iterable(outcomes))
    # Not before it is published: until then the same command must choose the same nodes.
    _remember(plan, world, chain.from_iterable(outcomes))
    return Report(
        version=str(plan.version),
        results=(*plan.skipped, *chain.from_iterable(outcomes)),
        published=publication.published,
        pending=publication.pending,
        held_back=publication.held_back,
        serial=publication.serial,
        url=publication.url,
        attachment=attachment,
        exit_code=exit_code(outcomes, plan.inventory.nodes, attachment)
        or (StoreError.exit_code if verified and verified.problems else 0),
        elapsed=timedelta(seconds=world.monotonic() - begun),
        verified=verified,
        drifts=drifts,
    )


def _drifts(plan: BuildPlan, results: Iterable[Result]) -> tuple[str, ...]:
    """Return where another compiler has built than built the last release of the target."""
    last = {
        each.node.name: each.last for task in plan.tasks for each in (task.first, *task.standby)
    }
    found = (
        (result.node, drift(last.get(result.node), node=result.node, rustc=built_with(result)))
        for result in results
        if isinstance(result, Built)
    )
    return tuple(f"{node}: {what}" for node, what in found if what)


def _remember(plan: BuildPlan, world: World, results: Iterable[Result]) -> None:
    at = world.now()
    is_clean = plan.request.clean
    try:
        for result in results:
            if build := record_of(result, version=str(plan.version), at=at, is_clean=is_clean):
                world.remember(build)
    except OSError as error:
        # What is published is published, and has to be reported.
        world.observe(Warned(message=f"how the builds went cannot be recorded: {error}"))


async def _verify(plan: BuildPlan, world: World, publication: Publication) -> Verified | None:
    if world.outlet is None or not publication.published:
        return None
    return await verify_release(
        plan.inventory,
        str(plan.version),
        outlet=world.outlet,
        expected=publication.published,
        observe=world.observe,
    )


async def _make_bundle(plan: BuildPlan, world: World) -> Bundle | None:
    source = plan.inventory.project.source
    if source is None or not plan.tasks:
        return None
    bundle = await world.make_bundle(source, plan.version, plan.inventory.project.binaries)
    world.observe(
        SourceReady(
            description=bundle.description,
            digest=bundle.digest,
            size_bytes=bundle.size_bytes,
            notes=bundle.notes,
        )
    )
    return bundle


async def _complete(
    task: BuildTask, delivery: Delivery, publication: Publication
) -> tuple[Result, ...]:
    results = []
    async for result in delivery.deliver(task):
        delivery.world.observe(NodeFinished(node=result.node, result=result))
        if isinstance(result, Built):
            await publication.add(result, stands_for=task.node.name)
        elif isinstance(result, Skipped) and result.node == task.node.name:
            # It is published already, as only the node could tell.
            await publication.pass_over(task.node.name)
        results.append(result)
    return tuple(results)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
