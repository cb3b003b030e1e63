"""Make a release, or say what it would do; look at what it needs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from orchestrator.commands.jobs import INTERRUPTED, cancel_on
from orchestrator.wiring import Operator

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from orchestrator.core.comparison import Comparison
    from orchestrator.core.events import Event, Observer
    from orchestrator.core.plan import BuildPlan, ReleaseRequest
    from orchestrator.core.report import Report


def release(arguments: argparse.Namespace) -> int:
    """Make a release, or say what it would do."""
    from orchestrator.core.plan import ReleaseRequest
    from orchestrator.core.version import parse_version

    request = ReleaseRequest(
        version=parse_version(arguments.version),
        nodes=tuple(arguments.node),
        skip=tuple(arguments.skip),
        rebuild=arguments.rebuild or arguments.reissue,
        clean=arguments.clean,
        publish=not (arguments.no_publish or arguments.compare),
        reissue=arguments.reissue,
        compare=arguments.compare,
    )
    operator = Operator.at(arguments.inventory)
    if arguments.dry_run:
        return asyncio.run(_show_plan(operator, request, arguments))
    try:
        return asyncio.run(_release(operator, request, arguments))
    except KeyboardInterrupt:
        return _interrupted(operator, request)


async def _release(
    operator: Operator, request: ReleaseRequest, arguments: argparse.Namespace
) -> int:
    from orchestrator.console import Console, show_report
    from orchestrator.core.errors import BuildError
    from orchestrator.core.report import report_as_data
    from orchestrator.release import release_for

    console = Console(sys.stderr, is_quiet=arguments.quiet or arguments.json)
    clock = _Clock(request) if arguments.timings else None
    plan, report = await release_for(
        operator,
        request,
        clock.beside(console.observe) if clock else console.observe,
        channel=arguments.channel,
        shown=console,
    )
    compared = _compared(plan, report) if request.compare else ()
    timings = clock.timings(report) if clock else None
    if arguments.json:
        data = dict(report_as_data(report))
        if request.compare:
            data["comparisons"] = [each.as_data() for each in compared]
        if timings:
            data["timings"] = timings
        print(json.dumps(data, indent=2))
    else:
        show_report(report, sys.stdout)
        if compared:
            from orchestrator.listing.comparison import show_comparisons

            show_comparisons([each.as_data() for each in compared], sys.stdout)
        if timings:
            from orchestrator.listing.timings import show_timings

            show_timings(timings, sys.stdout)
    is_different = any(each.differences for each in compared)
    return report.exit_code or (BuildError.exit_code if is_different else 0)


def _compared(plan: BuildPlan, report: Report) -> Sequence[Comparison]:
    from orchestrator.commands.compare import compare_builds

    return compare_builds(plan, report)


class _Clock:
    """What happened when, for `--timings`."""

    def __init__(self, request: ReleaseRequest) -> None:
        from orchestrator.core.board import Board
        from orchestrator.core.order import Order, Origin

        self._began = datetime.now(UTC)
        order = Order(
            version=str(request.version), channel="", asked=self._began, origin=Origin.PERSON
        )
        self._board = Board(order, self._began)

    def beside(self, observe: Observer) -> Observer:
        """Return who is told beside another observer."""

        def both(event: Event) -> None:
            self._board.observe(event, datetime.now(UTC))
            observe(event)

        return both

    def timings(self, report: Report) -> dict[str, object]:
        """Return where the time went, up to now."""
        from orchestrator.core.waiting import timings_as_data

        self._board.finish(datetime.now(UTC), report)
        return timings_as_data(self._board.as_data(), began=self._began)


# Long enough to read what it would do.
_SECOND_THOUGHTS_SECONDS: Final = 5


def _interrupted(operator: Operator, request: ReleaseRequest) -> int:
    """Say how to go on; a second Ctrl-C in a terminal, after this was read, cancels the jobs."""
    from orchestrator.console import show_error
    from orchestrator.core.plan import chosen_nodes

    version = request.version
    hint = (
        f"run the same command to go on; `orchestrator logs {version} NODE -f` follows a build, "
        f"`orchestrator cancel {version}` ends it there"
    )
    is_asked = sys.stderr.isatty() and sys.stdin.isatty()
    if is_asked:
        hint += f"; so does another Ctrl-C within {_SECOND_THOUGHTS_SECONDS} s"
    try:
        show_error("interrupted: what was started on the nodes goes on there", hint, sys.stderr)
        time.sleep(_SECOND_THOUGHTS_SECONDS if is_asked else 0)
    except KeyboardInterrupt:
        if is_asked:
            nodes = chosen_nodes(operator.inventory, request)
            asyncio.run(cancel_on(operator, version, nodes, as_json=False))
    return INTERRUPTED


async def _show_plan(
    operator: Operator, request: ReleaseRequest, arguments: argparse.Namespace
) -> int:
    from orchestrator.core.dry_run import plan_as_data
    from orchestrator.listing import show_plan

    keys = operator.public_keys()
    channel = (
        operator.channel_named(arguments.channel, keys)
        if arguments.channel
        else operator.channel(request.version, keys)
    )
    # Before `keygen` nothing can be published, so there is nothing to read either.
    index = await operator.index(channel) if channel.keys else None
    plan = await operator.plan(request, channel if channel.keys else None)
    data = plan_as_data(
        plan,
        store=operator.store().describe(),
        channel=channel.name,
        rows=index.rows if index else (),
    )
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_plan(data, sys.stdout)
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Look at everything that a release needs, before an hour is spent."""
    from orchestrator.core.check import check_as_data
    from orchestrator.listing import show_check
    from orchestrator.preflight import check_release

    operator = Operator.at(arguments.inventory)
    found = asyncio.run(check_release(operator, arguments.nodes))
    data = check_as_data(found)
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        show_check(data, sys.stdout)
    return found.exit_code
