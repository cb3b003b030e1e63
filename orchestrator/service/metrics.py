"""What Prometheus is told: the one door to its client. Names as its own guide has them.

Labels are bounded: nodes and targets are the inventory's and the index's, the rest are our words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestrator.core.events import NodeFinished, Phase, PhaseChanged
from orchestrator.core.order import State
from orchestrator.core.result import Built, FailureClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from orchestrator.core.board import Board
    from orchestrator.core.events import Event
    from orchestrator.core.order import Entry, Order

OUTCOMES: Final = ("done", "failed")
DECISIONS: Final = ("accepted", "ignored", "refused")
FAILURES: Final = (*(each.name.lower() for each in FailureClass), "config", "bug")
_CODES: Final = {2: "config", **{each.value: each.name.lower() for each in FailureClass}}
_OTHER: Final = "other"
# From what a warm build takes to what an emulated one does.
_BUILD_BUCKETS: Final = (5, 15, 30, 60, 120, 300, 600, 1200, 2400, 4800, 9600, 19_200)
_PHASE_BUCKETS: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 1200, 4800, 19_200)


class Platform(NamedTuple):
    """What a platform gets: how old it is, None for nothing, and how many versions are newer."""

    target: str
    age_seconds: float | None
    behind: int


class Metrics:
    """The metrics of one service, as a watcher of its releases; ImportError without the client."""

    def __init__(self) -> None:
        from prometheus_client import (  # noqa: PLC0415 -- the extra `service` has it
            CollectorRegistry,
            Counter,
            Gauge,
            Histogram,
            ProcessCollector,
            disable_created_metrics,
        )

        # A second series for each counter and histogram, which nothing here needs.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry: Final = CollectorRegistry()
        ProcessCollector(registry=self._registry)

        def named(name: str, text: str, *labels: str, **more: Any) -> Mapping[str, Any]:
            return {
                "name": f"orchestrator_{name}",
                "documentation": text,
                "labelnames": labels,
                "registry": self._registry,
                **more,
            }

        self._releases = Counter(
            **named("releases_total", "Attempts that ended, by outcome.", "outcome")
        )
        self._failures = Counter(
            **named("failures_total", "What failed in them, by who is at fault.", "class")
        )
        self._webhooks = Counter(
            **named("webhooks_total", "Webhook deliveries, by decision.", "decision")
        )
        self._build = Histogram(
            **named(
                "build_seconds",
                "The build command's own time, by node.",
                "node",
                buckets=_BUILD_BUCKETS,
            )
        )
        self._phase = Histogram(
            **named(
                "phase_seconds",
                "Time in each phase of a release, by node.",
                "node",
                "phase",
                buckets=_PHASE_BUCKETS,
            )
        )
        self._queued = Gauge(**named("queue_depth", "Orders that wait for their turn."))
        self._running = Gauge(**named("releases_running", "Orders that are carried out now."))
        self._age = Gauge(**named("platform_age_seconds", "Age of what a platform gets.", "target"))
        self._behind = Gauge(
            **named("platform_behind", "How many versions are newer than it.", "target")
        )
        self._expires = Gauge(
            **named("index_expires_timestamp_seconds", "When an index expires.", "channel")
        )
        self._since: dict[str, tuple[Phase, datetime]] = {}
        self._prepare()

    def _prepare(self) -> None:
        # What was never counted is 0 and not missing: a rate over it is known from the start.
        for outcome in OUTCOMES:
            self._releases.labels(outcome)
        for word in FAILURES:
            self._failures.labels(word)
        for decision in DECISIONS:
            self._webhooks.labels(decision)

    def begin(self, order: Order, board: Board) -> None:  # noqa: ARG002 -- a watcher's
        """Take note that another release begins."""
        self._since.clear()

    def observe(self, order: Order, event: Event, at: datetime) -> None:  # noqa: ARG002
        """Take note of an event: how long phases and builds take."""
        match event:
            case PhaseChanged():
                self._leave(event.node, at)
                self._since[event.node] = (event.phase, at)
            case NodeFinished(result=result):
                self._leave(event.node, at)
                if isinstance(result, Built) and result.took is not None:
                    self._build.labels(result.node).observe(result.took.total_seconds())
            case _:
                pass

    def end(self, order: Order, outcome: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Take note of how it ended; `outcome` is what Board.as_data says."""
        self._since.clear()
        self._releases.labels("done" if outcome["exit_code"] == 0 else "failed").inc()
        failed = [row["failure_class"] for row in outcome["rows"] if row["failure_class"]]
        for word in failed:
            self._failures.labels(word if word in FAILURES else _OTHER).inc()
        if outcome["error"] is not None:
            self._failures.labels(_CODES.get(outcome["exit_code"], "bug")).inc()

    def webhook(self, decision: str) -> None:
        """Count a delivery by one of DECISIONS."""
        self._webhooks.labels(decision if decision in DECISIONS else _OTHER).inc()

    def queue(self, entries: Iterable[Entry]) -> None:
        """Take note of the orders that are not done."""
        states = [entry.state for entry in entries]
        self._queued.set(states.count(State.QUEUED))
        self._running.set(states.count(State.RUNNING))

    def freshness(self, platforms: Iterable[Platform]) -> None:
        """Take note of what each platform gets; one that is gone is told of no more."""
        self._age.clear()
        self._behind.clear()
        for platform in platforms:
            self._behind.labels(platform.target).set(platform.behind)
            if platform.age_seconds is not None:
                self._age.labels(platform.target).set(platform.age_seconds)

    def expires(self, moments: Mapping[str, datetime]) -> None:
        """Take note of when each channel's index expires."""
        self._expires.clear()
        for channel, moment in moments.items():
            self._expires.labels(channel).set(moment.timestamp())

    def render(self) -> tuple[bytes, str]:
        """Return all of them in Prometheus' own text, and the type of that content."""
        from prometheus_client import (  # noqa: PLC0415 -- see above
            CONTENT_TYPE_PLAIN_0_0_4,
            generate_latest,
        )

        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def _leave(self, node: str, at: datetime) -> None:
        phase, since = self._since.pop(node, (None, at))
        if phase is not None:
            seconds = max(0.0, (at - since).total_seconds())
            self._phase.labels(node, str(phase)).observe(seconds)
