"""Deliveries that the service accepts in a second, while a release runs and pages follow it.

    .venv/bin/python -m benchmarks.webhooks [--seconds 10] [--rate 1000] [--followers 50]

The service has one core, whoever delivers has another one. Deliveries come at a fixed rate, whether
or not those before were answered, so that a slow answer is not hidden by a late question; each is
of one of twenty releases, which are queued once and known afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

from tests.github_server import serving_github
from tests.releases import Desk, Programs, wait_for
from tests.service.running import Service, Works, payload, signed

RELEASES = 20
CONNECTIONS = 64
LIMIT_SECONDS = 0.1


@dataclass(slots=True)
class Tally:
    """What came of the deliveries."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    frames: int = 0


def main() -> int:
    """Print rate and latencies; 1 if the rate was not kept, or the 99th percentile is too late."""
    parser = argparse.ArgumentParser(description="deliveries in a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--followers", type=int, default=50)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        serving_github() as github,
    ):
        programs = Programs(folder=Path(folder))
        desk = Desk(folder=Path(folder) / "desk", programs=programs)
        works = Works(desk=desk, github=github)
        github.tags |= {f"v1.{number}.0" for number in range(RELEASES)}
        talk = (
            "i=0; while [ ! -e {go} ]; do i=$((i+1)); echo compiling crate $i; sleep 0.01; done\n"
        )
        works.write(desk.node(build=talk.format(go=desk.folder / "go")))
        with works.started() as service:
            os.sched_setaffinity(service.process.pid, {cores[0]})
            for thread in Path(f"/proc/{service.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {cores[0]})
            os.sched_setaffinity(0, set(cores[1:]) or set(cores))
            service.deliver("v1.0.0")
            wait_for(lambda: desk.builds("here"))
            before = _cpu_seconds(service.process.pid)
            tally, elapsed = asyncio.run(_load(service, options))
            used = _cpu_seconds(service.process.pid) - before
            desk.let_go()
            wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
        orders = len(works.orders())
    return _report(tally, elapsed, used=used, orders=orders, options=options)


async def _load(service: Service, options: argparse.Namespace) -> tuple[Tally, float]:
    tally = Tally()
    followers = [asyncio.create_task(_follow(service, tally)) for _ in range(options.followers)]
    await asyncio.sleep(1)
    bodies = [payload(f"v1.{number}.0", body="x" * 7000) for number in range(RELEASES)]
    requests = [_request(service, body) for body in bodies]
    waiting: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    workers = [asyncio.create_task(_deliver(service, waiting, tally)) for _ in range(CONNECTIONS)]
    begun = time.perf_counter()
    count = int(options.seconds * options.rate)
    for number in range(count):
        due = begun + number / options.rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        waiting.put_nowait((due, requests[number % RELEASES]))
    for _ in workers:
        waiting.put_nowait(None)
    await asyncio.gather(*workers)
    elapsed = time.perf_counter() - begun
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    return tally, elapsed


async def _deliver(
    service: Service, waiting: asyncio.Queue[tuple[float, bytes] | None], tally: Tally
) -> None:
    reader, writer = await _connect(service)
    while (item := await waiting.get()) is not None:
        due, request = item
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(length)
        status = int(head.split(None, 2)[1])
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        tally.latencies.append(time.perf_counter() - due)
    writer.close()


async def _follow(service: Service, tally: Tally) -> None:
    reader, writer = await _connect(service)
    writer.write(b"GET /status/events HTTP/1.1\r\nHost: x\r\n\r\n")
    while await reader.readline():
        tally.frames += 1


async def _connect(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(service.url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)


def _request(service: Service, body: bytes) -> bytes:
    headers = {"Host": urlsplit(service.url).netloc, "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | signed(body)).items())
    return f"POST /webhook HTTP/1.1\r\n{lines}\r\n".encode() + body


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _report(
    tally: Tally, elapsed: float, *, used: float, orders: int, options: argparse.Namespace
) -> int:
    answered = len(tally.latencies)
    cuts = quantiles(tally.latencies, n=100)
    print(f"answered   {answered} in {elapsed:.1f} s: {answered / elapsed:.0f} in a second")
    print(f"statuses   {tally.statuses}, orders {orders}")
    print(
        f"latency    p50 {cuts[49] * 1000:.1f} ms, p90 {cuts[89] * 1000:.1f} ms, "
        f"p99 {cuts[98] * 1000:.1f} ms, max {max(tally.latencies) * 1000:.1f} ms"
    )
    print(f"followers  {options.followers}, {tally.frames} lines of events")
    print(f"service    {used / elapsed * 100:.0f} % of one core")
    is_fast = answered / elapsed >= 0.98 * options.rate and cuts[98] < LIMIT_SECONDS
    is_right = set(tally.statuses) == {202} and orders == RELEASES
    return 0 if is_fast and is_right else 1


if __name__ == "__main__":
    sys.exit(main())
