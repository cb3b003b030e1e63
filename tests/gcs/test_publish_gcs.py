"""Whole releases over HTTP: raced, killed at every step, overlapped, and installed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import pytest
import requests

from orchestrator import signing
from orchestrator.core.target import TARGETS
from orchestrator.stores.gcs import GcsStore
from tests.gcs.objects import Bucket
from tests.gcs.publisher import Publishers, channel_of
from tests.gcs.server import client_of
from tests.gcs.trouble import ANY_WRITE, KilledError, Kind, publisher
from tests.gcs.whole import assert_complete, assert_signed, whole_index
from tests.releases import (
    VERSION,
    host_target,
    needs_two_targets,
    other_target,
    wait_for,
)

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.index import Index
    from orchestrator.core.signature import PublicKey
    from orchestrator.stores.channel import Channel
    from tests.gcs.server import Service
    from tests.releases import Desk

FOURTEEN: Final = tuple(TARGETS)[:14]
NETBSD: Final = "x86_64-unknown-netbsd"


@pytest.fixture
def key(tmp_path: Path) -> PublicKey:
    return signing.generate_key(tmp_path / "key", passphrase=None)


def store_at(service: Service, url: str) -> GcsStore:
    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    return GcsStore(bucket, prefix, client=lambda: client_of(service))


# Fourteen at once


@pytest.mark.thorough
def test_fourteen_publishers_of_one_version_lose_nothing(
    service: Service, tmp_path: Path, key: PublicKey
) -> None:
    with Publishers.at_work(tmp_path, service.url) as publishers:
        assert publishers.run(bucket="gs://bucket", version="0.9.0", triple=NETBSD, seed=0) == 0
        index = race(service, publishers, key, seed=1)
    assert index.serial <= 1 + 14


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2, 12))
def test_fourteen_publishers_lose_nothing_when_answers_are_lost_too(
    service: Service, tmp_path: Path, key: PublicKey, *, seed: int
) -> None:
    chance = random.Random(seed)
    for kind in (Kind.LOSE, Kind.RESET, Kind.REFUSE) * 8:
        service.plan(kind, op=ANY_WRITE, skip=chance.randrange(60), status=429)
    with Publishers.at_work(tmp_path, service.url) as publishers:
        assert publishers.run(bucket="gs://bucket", version="0.9.0", triple=NETBSD, seed=0) == 0
        index = race(service, publishers, key, seed=seed)
    # Who did not hear that it was done, and was overtaken then, finds its rows there.
    assert index.serial <= 1 + 14


@pytest.mark.thorough
def test_fourteen_publishers_keep_to_one_write_a_second(
    service: Service, tmp_path: Path, key: PublicKey
) -> None:
    service.seconds_between_writes = 0.2
    with Publishers.at_work(tmp_path, service.url) as publishers:
        assert publishers.run(bucket="gs://bucket", version="0.9.0", triple=NETBSD, seed=0) == 0
        index = race(service, publishers, key, seed=1)
    assert index.serial <= 1 + 14
    assert {each.status for each in service.ops("upload", r"stable\.idx")} >= {200, 429}


def race(service: Service, publishers: Publishers, key: PublicKey, *, seed: int) -> Index:
    pids = [
        publishers.fork(bucket="gs://bucket", version="1.0.0", triple=triple, seed=seed + number)
        for number, triple in enumerate(FOURTEEN)
    ]
    for pid in pids:
        publishers.go(pid)
    assert [publishers.end(pid) for pid in pids] == [0] * 14
    store = store_at(service, "gs://bucket")
    index = asyncio.run(assert_complete(store, channel_of(key)))
    new = [row.target for row in index.rows if str(row.version) == "1.0.0"]
    assert sorted(new) == sorted(FOURTEEN)
    script = service.bucket("bucket").find("install.sh").data
    assert script == f"serial {index.serial}\n".encode()
    return index


# Kill -9


@dataclass(slots=True)
class Killer:
    """Kills one process from within the service, at one of the moments that it is told of."""

    pid: int
    moment: int
    is_done: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    has_killed: bool = False

    def pass_by(self) -> None:
        """Let a moment pass, or kill; what was not done by then is not done any more."""
        with self.lock:
            self.moment -= 1
            if self.moment == 0:
                self.has_killed = True
                os.kill(self.pid, signal.SIGKILL)
        if self.has_killed and not self.is_done:
            raise KilledError


# A sample; all 200 of the list: KILLS=200
KILLS = int(os.environ.get("KILLS", "40"))


@pytest.mark.thorough
def test_kills_at_random_leave_nothing_broken(
    service: Service, tmp_path: Path, key: PublicKey
) -> None:
    chance = random.Random(200)
    with Publishers.at_work(tmp_path, service.url) as publishers:
        assert publishers.run(bucket="gs://bucket", version="1.0.0", triple=NETBSD, seed=0) == 0
        old = dict(service.bucket("bucket").live)
        before = len(service.log)
        assert publishers.run(bucket="gs://bucket", version="2.0.0", triple=NETBSD, seed=0) == 0
        moments = len(service.log) - before
        kills = 0
        for _ in range(KILLS):
            bucket = service.add_bucket()
            bucket.live.update(old)
            order = {"bucket": f"gs://{bucket.name}", "version": "2.0.0", "triple": NETBSD}
            pid = publishers.fork(**order, seed=chance.randrange(1000))
            killer = Killer(pid, chance.randint(1, moments), is_done=chance.random() < 0.5)
            kills += let_die(service, publishers, killer)
            asyncio.run(assert_old_or_new(store_at(service, order["bucket"]), key))
            assert publishers.run(**order, seed=0) == 0
            index = asyncio.run(assert_new(store_at(service, order["bucket"]), key))
            assert bucket.find("install.sh").data == b"serial %d\n" % index.serial
    assert kills > 0.9 * KILLS


def let_die(service: Service, publishers: Publishers, killer: Killer) -> bool:
    if killer.is_done:
        service.on_reply = killer.pass_by
    else:
        service.on_request = killer.pass_by
    publishers.go(killer.pid)
    status = publishers.end(killer.pid)
    service.on_request = service.on_reply = None
    assert status == (-signal.SIGKILL if killer.has_killed else 0)
    return killer.has_killed


async def assert_old_or_new(store: GcsStore, key: PublicKey) -> None:
    index = await whole_index(store, channel_of(key))
    assert index
    assert [str(row.version) for row in index.rows] in (["1.0.0"], ["2.0.0", "1.0.0"])


async def assert_new(store: GcsStore, key: PublicKey) -> Index:
    index = await assert_complete(store, channel_of(key))
    assert [str(row.version) for row in index.rows] == ["2.0.0", "1.0.0"]
    assert index.serial == 2
    return index


def test_a_release_that_is_killed_twice_at_its_index_is_completed_by_the_same_command(
    service: Service, desk: Desk
) -> None:
    desk.write(desk.node())

    for is_done in (False, True):
        assert kill_release(service, desk, name="tool/stable.idx", is_done=is_done)

    names = {*service.bucket("bucket").live}
    assert "tool/stable.idx" in names
    assert "tool/install.sh" not in names
    complete_release(service, desk)


@pytest.mark.thorough
def test_a_release_that_is_killed_at_any_write_is_completed_by_the_same_command(
    service: Service, desk: Desk
) -> None:
    desk.publication["flat"] = True
    desk.write(desk.node())
    assert desk.release().code == 0
    writes = service.writes
    assert writes >= 10
    for moment in range(1, writes + 1):
        for is_done in (False, True):
            service.buckets["bucket"] = Bucket(name="bucket")
            assert kill_release(service, desk, moment=moment, is_done=is_done)
            complete_release(service, desk)
    assert desk.builds("here") == [VERSION], "built exactly once"


def kill_release(
    service: Service, desk: Desk, *, name: str | None = None, moment: int = 1, is_done: bool
) -> bool:
    """Kill the command before or after a write; without a name, any of them counts."""
    with desk.started("release", "--version", VERSION) as first:
        killer = Killer(first.process.pid, moment, is_done=is_done)

        def hook(about: str, _: int) -> None:
            if name in {None, about}:
                killer.pass_by()

        if is_done:
            service.after_write = hook
        else:
            service.before_write = hook
        assert first.end().code == -signal.SIGKILL
    service.after_write = service.before_write = None
    return killer.has_killed


def complete_release(service: Service, desk: Desk) -> None:
    """Run the same command, and look at everything that is there then."""
    outcome = desk.release()
    assert outcome.code == 0, outcome
    store = store_at(service, "gs://bucket/tool")
    index = asyncio.run(assert_complete(store, desk_channel(desk)))
    for script in ("install.sh", f"releases/{VERSION}/install.sh"):
        asyncio.run(assert_signed(store, script, desk_channel(desk)))
    assert [row.target for row in index.rows] == [host_target()]
    assert index.serial == 1
    names = {name.removeprefix("tool/") for name in service.bucket("bucket").live}
    assert {"install.sh", "index.html", "stable.idx"} <= names
    assert not names & {"releases/check.tar.gz"}


def desk_channel(desk: Desk) -> Channel:
    key = signing.parse_public_key((desk.folder / "key.pub").read_text())
    return replace(channel_of(key), project="tool")


# Overlap, and what users do


@needs_two_targets
def test_a_node_s_files_are_uploaded_while_another_still_builds(
    service: Service, desk: Desk
) -> None:
    there = other_target()
    late = desk.node("late", target=there, slots=2, build=desk.wait_then_copy(target=there))
    desk.write(desk.node(slots=2), late)
    with desk.started("release", "--version", VERSION, "--json") as release:
        wait_for(lambda: desk.builds("late"))
        wait_for(lambda: service.ops("upload", r"tool/index/stable/1\.idx"))
        assert not (desk.folder / "go").exists(), "the other build waits for this file"
        assert [each.name for each in service.ops("upload", rf".*{there}.*")] == []
        early = asyncio.run(whole_index(store_at(service, "gs://bucket/tool"), desk_channel(desk)))
        assert early
        assert [row.status.value for row in early.rows if row.target == host_target()] == ["ok"]
        desk.let_go()
        outcome = release.end()
    assert outcome.code == 0, outcome
    assert outcome.data["published"] == [host_target(), there]


def test_a_release_can_be_installed_from_the_public_url(
    service: Service, desk: Desk, tmp_path: Path
) -> None:
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 0, outcome
    assert outcome.data["url"] == f"{service.url}/bucket/tool"
    service.accounts["publisher"] = publisher

    script = requests.get(f"{service.url}/bucket/tool/install.sh", timeout=30)
    assert script.headers["Content-Type"] == "text/plain; charset=utf-8"
    installed = install(script.text, tmp_path / "home")

    assert installed.returncode == 0, installed
    said = subprocess.run(
        [tmp_path / "home/bin/tool", "--version"], check=True, capture_output=True, text=True
    )
    assert said.stdout == f"tool {VERSION}\n"
    assert service.ops("public", r"tool/releases/.*\.tar\.gz")


def test_a_bundle_of_a_bucket_has_what_the_bucket_has(
    service: Service, desk: Desk, tmp_path: Path
) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    base = f"{service.url}/bucket/tool"
    for name, lifetime in (
        ("install.sh.sig", "no-cache, no-transform"),
        (f"releases/{VERSION}/install.sh", "public, max-age=31536000, immutable"),
        (f"releases/{VERSION}/install.sh.sig", "public, max-age=31536000, immutable"),
    ):
        answer = requests.get(f"{base}/{name}", timeout=30)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == lifetime
    assert desk.run("verify", VERSION, "--public").code == 0
    assert desk.run("fsck", "--deep").code == 0

    made = desk.run("bundle", "--json", "--output", str(tmp_path / "here"))
    assert made.code == 0, made
    folder = tmp_path / "here" / made.data["folder"]
    for name in made.data["files"]:
        held = service.bucket("bucket").find(f"tool/{name}")
        assert (folder / name).read_bytes() == held.data
    assert {"install.sh", "install.sh.sig", "stable.idx"} < set(made.data["files"])


def install(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    home.mkdir()
    return subprocess.run(
        ["sh"],
        input=script,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "XDG_BIN_HOME": str(home / "bin")},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
