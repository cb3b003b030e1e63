"""Releases as a test wants them, platforms that wait, a past; and a server for all of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from orchestrator.core.board import Board
from orchestrator.core.events import (
    LogAppended,
    NodeFinished,
    Phase,
    PhaseChanged,
    Published,
    ReleaseStarted,
    SourceReady,
    Warned,
)
from orchestrator.core.freshness import Freshness
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.order import Entry, Order, Origin, State
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.record import PastBuild, Record
from orchestrator.core.report import Report
from orchestrator.core.result import Artifact, Built, Failed, FailureClass
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.service.live import Live
from orchestrator.service.pages import add_pages
from tests.fakes import FakeDesk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.core.events import Event
    from orchestrator.core.plan import BuildPlan
    from orchestrator.core.result import Result

TOKEN = "correct-horse-battery"
START = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
TARGETS = {
    "linux": "x86_64-unknown-linux-musl",
    "netbsd": "x86_64-unknown-netbsd",
    "openbsd": "aarch64-unknown-openbsd",
    "windows": "x86_64-pc-windows-msvc",
}
HOSTILE = (
    b"\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 \x1b[2J</pre></script><script>document.title='owned'"
    b"</script><img src=x onerror=document.title='owned'> \xe2\x80\xaeevil \xff &amp; \x00\n"
)


@dataclass(slots=True)
class Clock:
    """A clock that stands still until it is moved."""

    at: datetime = START

    def __call__(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def plan(version: str = "1.2.3", names: tuple[str, ...] = tuple(TARGETS)) -> BuildPlan:
    """A node for each target, and a spare one for NetBSD; two of them share a machine."""
    entries: list[dict[str, Any]] = [
        {"name": name, "host": f"b@192.0.2.{number}", "target": TARGETS[name]}
        for number, name in enumerate(names)
    ]
    for entry in entries:
        if entry["name"] == "openbsd":
            entry |= {"os_release": "7.8", "group": "big"}
        if entry["name"] == "netbsd":
            entry |= {"group": "big"}
    if "netbsd" in names:
        entries.append({"name": "netbsd-2", "host": "b@192.0.2.99", "target": TARGETS["netbsd"]})
    data = {"project": {"name": "tool", "source": {"path": "."}}, "nodes": entries}
    builds = tuple(
        PastBuild(node=name, took=timedelta(seconds=90 + 30 * number))
        for number, name in enumerate(names)
    )
    return plan_release(
        parse_inventory(data, place="x"),
        ReleaseRequest(version=parse_version(version)),
        record=Record(builds=builds),
        begun=set(names),
    )


def order(version: str = "1.2.3", attempt: int = 1, **more: Any) -> Order:
    values: dict[str, Any] = {"asked": START, "origin": Origin.WEBHOOK} | more
    return Order(version=version, channel="stable", attempt=attempt, **values)


def entry(state: State, version: str = "1.2.3", **more: Any) -> Entry:
    names = ("began", "ended", "outcome", "coordinator")
    own = {name: more.pop(name) for name in names if name in more}
    return Entry(order=order(version, **more), state=state, **own)


def built(node: str, version: str = "1.2.3", seconds: float = 80) -> Built:
    artifact = Artifact(
        version=version,
        target=parse_target(TARGETS[node.removesuffix("-2")]),
        os_release=None,
        path=Path("/dist/tool.tar.gz"),
        size_bytes=1_834_022,
        sha256="ab" * 32,
        floors=(),
        binaries=(),
    )
    return Built(
        node=node, artifact=artifact, elapsed=timedelta(seconds=seconds), was_attached=False
    )


def failed(node: str, message: str = "error[E0308]: mismatched types", **more: Any) -> Failed:
    values: dict[str, Any] = {"failure_class": FailureClass.BUILD} | more
    target = parse_target(TARGETS[node.removesuffix("-2")])
    return Failed(node=node, target=target, message=message, **values)


def report(*results: Result, **more: Any) -> Report:
    values: dict[str, Any] = {
        "version": "1.2.3",
        "published": (),
        "pending": (),
        "held_back": (),
        "serial": 8,
        "url": "https://example.org/tool",
        "exit_code": 0,
        "elapsed": timedelta(seconds=100),
    }
    return Report(results=results, **values | more)


def phase(node: str, name: Phase, detail: str = "") -> PhaseChanged:
    return PhaseChanged(node=node, phase=name, detail=detail)


def platform(name: str, version: str | None, **more: Any) -> Freshness:
    values: dict[str, Any] = {
        "title": parse_target(TARGETS[name]).title(),
        "target": TARGETS[name],
        "newest": "1.2.2",
        "released": START - timedelta(days=3) if version else None,
        "behind": 0,
        "awaited": None,
        "since": None,
        "is_late": False,
    }
    return Freshness(name=TARGETS[name], version=version, **values | more)


@dataclass(slots=True)
class Scene:
    """A desk, what is live, and the clock of both."""

    desk: FakeDesk = field(default_factory=FakeDesk)
    clock: Clock = field(default_factory=Clock)
    pause_seconds: float = 0.01
    live: Live = field(init=False)

    def __post_init__(self) -> None:
        self.live = Live(now=self.clock, pause_seconds=self.pause_seconds, silence_seconds=0.05)

    def begin(self, version: str = "1.2.3", attempt: int = 1) -> Running:
        """Let a release begin, as the service does."""
        new = order(version, attempt)
        self.desk.orders.insert(0, Entry(order=new, state=State.RUNNING, began=self.clock()))
        return Running(self, new)


class Running:
    """A release that runs, and that a test tells what happens."""

    def __init__(self, scene: Scene, new: Order) -> None:
        self.scene, self.order = scene, new
        self.board = Board(new, scene.clock())
        scene.live.begin(new, self.board)

    def tell(self, event: Event) -> None:
        """Let an event happen now."""
        self.board.observe(event, self.scene.clock())
        self.scene.live.observe(self.order, event, self.scene.clock())

    def at(self, seconds: float, *events: Event) -> None:
        """Let events happen so many seconds after the begin of all."""
        self.scene.clock.at = START + timedelta(seconds=seconds)
        for event in events:
            self.tell(event)

    def end(
        self, seconds: float, ended: Report | None = None, error: str | None = None
    ) -> dict[str, Any]:
        """Let it end, and keep what became of it."""
        self.scene.clock.at = START + timedelta(seconds=seconds)
        self.board.finish(self.scene.clock(), ended, error)
        data = self.board.as_data()
        self.scene.live.end(self.order, data)
        state = State.DONE if data["exit_code"] == 0 else State.FAILED
        orders = self.scene.desk.orders
        [place] = [i for i, each in enumerate(orders) if each.order.key == self.order.key]
        orders[place] = Entry(
            order=self.order,
            state=state,
            began=START,
            ended=self.scene.clock(),
            outcome=data,
            coordinator="here",
        )
        return data


def busy_release(running: Running) -> None:
    """Two minutes of a release: one published, one building, one waiting, one that took over."""
    running.at(0, ReleaseStarted(plan=plan()))
    running.at(1, *(phase(name, Phase.CONNECTING) for name in TARGETS))
    running.at(
        2, SourceReady(description="git tool at v1.2.3", digest="ab" * 32, size_bytes=1_200_000)
    )
    running.at(3, *(phase(name, Phase.PUSHING) for name in ("linux", "netbsd", "openbsd")))
    running.at(4, phase("windows", Phase.BOOTING, "booting"))
    running.at(
        6,
        phase("linux", Phase.BUILDING),
        phase("netbsd", Phase.BUILDING),
        phase("openbsd", Phase.QUEUED),
        LogAppended(node="linux", data=b"   Compiling serde v1.0\n   Compiling tool v1.2.3\n"),
        LogAppended(node="netbsd", data=HOSTILE),
    )
    gone = failed(
        "netbsd",
        "cannot reach b@192.0.2.1: no route to host",
        failure_class=FailureClass.MACHINE,
        hint="is it on?",
    )
    running.at(40, NodeFinished(node="netbsd", result=gone))
    running.at(41, phase("netbsd-2", Phase.CONNECTING), phase("openbsd", Phase.BUILDING))
    running.at(43, phase("netbsd-2", Phase.BUILDING), Warned(node="netbsd-2", message="disk 91 %"))
    running.at(85, phase("linux", Phase.COLLECTING))
    running.at(87, phase("linux", Phase.GATING))
    running.at(90, NodeFinished(node="linux", result=built("linux")))
    running.at(91, phase("linux", Phase.PUBLISHING))
    running.at(93, Published(targets=(TARGETS["linux"],), serial=8))
    running.at(100, phase("windows", Phase.BUILDING))
    running.at(120)


def end_release(running: Running) -> dict[str, Any]:
    """How the busy release ends: the compiler fails on Windows."""
    running.at(130, phase("openbsd", Phase.CHECKING))
    running.at(131, NodeFinished(node="openbsd", result=built("openbsd")))
    running.at(132, phase("openbsd", Phase.PUBLISHING))
    running.at(133, Published(targets=(TARGETS["openbsd"],), serial=9))
    running.at(140, phase("netbsd-2", Phase.GATING))
    running.at(141, NodeFinished(node="netbsd-2", result=built("netbsd-2")))
    running.at(142, phase("netbsd-2", Phase.PUBLISHING))
    running.at(144, Published(targets=(TARGETS["netbsd"],), serial=10))
    broken = failed(
        "windows",
        hint="fix the code, then release again",
        log_tail=("error[E0308]: mismatched types", " --> src/main.rs:7:5"),
    )
    running.at(200, NodeFinished(node="windows", result=broken))
    published = tuple(TARGETS[name] for name in ("linux", "openbsd", "netbsd"))
    results = (built("linux"), built("netbsd-2"), built("openbsd"), broken)
    return running.end(
        203,
        report(
            *results, published=published, pending=(TARGETS["windows"],), serial=10, exit_code=4
        ),
    )


def past(scene: Scene) -> None:
    """Earlier releases, and what the platforms get of them."""
    for number, (state, outcome) in enumerate(
        (
            (State.DONE, {"exit_code": 0, "published": list(TARGETS.values()), "pending": []}),
            (State.FAILED, {"error": "the tag v1.2.1 moved", "exit_code": 2}),
            (State.CANCELLED, {"error": "cancelled by a person"}),
        )
    ):
        began = START - timedelta(days=3 * number + 3)
        scene.desk.orders.append(
            entry(
                state,
                f"1.2.{2 - number}",
                asked=began,
                began=began,
                ended=began + timedelta(seconds=240),
                outcome=outcome,
                coordinator="here",
            )
        )
    scene.desk.platforms += [
        platform("linux", "1.2.2"),
        platform(
            "netbsd",
            "1.2.0",
            behind=1,
            awaited="1.2.2",
            since=START - timedelta(days=3),
            is_late=True,
        ),
        platform("openbsd", "1.2.0", behind=1),
        platform("windows", None, behind=2, awaited="1.2.2", since=START - timedelta(hours=3)),
    ]


@asynccontextmanager
async def serving(
    scene: Scene, *, actions: str | None = TOKEN, port: int = 0
) -> AsyncIterator[str]:
    """Yield the URL of a real server with the pages of a scene."""
    app = web.Application()
    add_pages(app, scene.desk, scene.live, project="tool", actions=actions)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, taken = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{taken}"
    finally:
        await runner.cleanup()
