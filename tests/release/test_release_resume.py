"""Nothing is lost: kill -9 at every moment, two at once, Ctrl-C; the same command goes on."""

from __future__ import annotations

import fcntl
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from orchestrator import parts
from orchestrator.core.index import parse_index, split_signed
from tests.releases import (
    VERSION,
    at_once,
    contents,
    host_target,
    needs_two_targets,
    other_target,
    wait_for,
)
from tests.systems import SYSTEMS, mark_as, pass_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk, NodeEntry, SshNode


@needs_two_targets
def test_a_coordinator_that_is_killed_while_both_nodes_build_is_replaced(
    desk: Desk, ssh_node: SshNode
) -> None:
    _write_two_nodes_that_wait(desk, ssh_node.entry)
    with desk.started("release", "--version", VERSION) as first:
        wait_for(lambda: desk.builds("here") and desk.builds("far"))
        first.signal(signal.SIGKILL)
        assert first.end().code == -signal.SIGKILL
    assert desk.objects() == set()
    desk.let_go()
    _assert_completed(desk, "here", "far")


def _write_two_nodes_that_wait(desk: Desk, far: NodeEntry) -> None:
    there = other_target()
    build = desk.wait_then_copy(target=there)
    desk.write(
        desk.node(build=desk.wait_then_copy()), desk.node("far", build=build, target=there, **far)
    )


def _assert_completed(desk: Desk, *names: str) -> None:
    outcome = desk.release()
    assert outcome.code == 0, outcome
    assert outcome.data["published"] == [host_target(), other_target()][: len(names)]
    assert outcome.data["pending"] == []
    for name in names:
        assert desk.builds(name) == [VERSION], "built exactly once"
        if outcome.results[name]["result"] == "built":
            assert outcome.results[name]["was_attached"]
    assert {"install.sh", "index.html", "stable.idx"} <= desk.objects()
    assert not list(desk.dist.rglob("*.part"))


@needs_two_targets
@pytest.mark.thorough
def test_a_kill_while_a_node_waits_for_its_host_loses_nothing(desk: Desk) -> None:
    _write_two_nodes_that_wait(desk, {})
    with desk.started("release", "--version", VERSION) as first:
        wait_for(lambda: len(list(desk.folder.glob("*-work/jobs/*/pid"))) == 2)
        wait_for(lambda: desk.builds("here") or desk.builds("far"))
        first.signal(signal.SIGKILL)
        first.end()
    assert len(desk.builds("here") + desk.builds("far")) == 1, "they take turns"
    desk.let_go()
    _assert_completed(desk, "here", "far")


@pytest.mark.thorough
def test_a_kill_after_the_build_and_before_its_collection_loses_nothing(desk: Desk) -> None:
    desk.write(desk.node(build=desk.wait_then_copy()))
    with desk.started("release", "--version", VERSION) as first:
        wait_for(lambda: desk.builds("here"))
        first.signal(signal.SIGSTOP)
        desk.let_go()
        wait_for(lambda: list(desk.folder.glob("here-work/jobs/*/exit")))
        first.signal(signal.SIGKILL)
        first.end()
    assert not list(desk.dist.rglob("tool"))
    _assert_completed(desk, "here")


@pytest.mark.thorough
def test_a_kill_while_the_gate_runs_publishes_nothing_ungated(desk: Desk) -> None:
    desk.project["gate"] = (
        f"touch {desk.folder}/gating; while [ ! -e {desk.folder}/go ]; do sleep 0.05; done"
    )
    desk.write(desk.node())
    with desk.started("release", "--version", VERSION) as first:
        wait_for((desk.folder / "gating").exists)
        first.signal(signal.SIGKILL)
        first.end()
    assert desk.objects() == set()
    desk.let_go()
    _assert_completed(desk, "here")


@pytest.mark.thorough
def test_a_kill_between_any_two_steps_of_publication_loses_nothing(desk: Desk) -> None:
    desk.write(desk.node())
    desk.store.mkdir()
    with (desk.store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the index cannot move, as on a disk that hangs
        with desk.started("release", "--version", VERSION) as first:
            wait_for(lambda: list(desk.store.rglob("*.sshsig")))
            first.signal(signal.SIGKILL)
            first.end()
    assert "stable.idx" not in desk.objects()
    _assert_completed(desk, "here")

    # Where a kill right after the index leaves the store.
    whole = contents(desk.store)
    for name in ("install.sh", "index.html", "index/stable/1.idx"):
        (desk.store / name).unlink()
    _assert_completed(desk, "here")
    assert contents(desk.store) == whole


@needs_two_targets
@pytest.mark.thorough
def test_two_coordinators_at_once_build_once_and_lose_nothing(
    desk: Desk, ssh_node: SshNode
) -> None:
    _write_two_nodes_that_wait(desk, ssh_node.entry)
    arguments = ("release", "--version", VERSION, "--json")
    with desk.started(*arguments) as first, desk.started(*arguments) as second:
        wait_for(lambda: desk.builds("here") and desk.builds("far"))
        # Each node was asked twice: the second one found a job that runs.
        wait_for(lambda: len(list(desk.folder.glob("*-work/jobs/*/start.lock/2"))) == 2)
        desk.let_go()
        outcomes = at_once(first.end, second.end)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert desk.builds("here") == desk.builds("far") == [VERSION]
    for outcome in outcomes:
        assert outcome.data["pending"] == []
        assert set(outcome.data["published"]) == {host_target(), other_target()}
    for node in ("here", "far"):
        assert {outcome.results[node]["was_attached"] for outcome in outcomes} == {True, False}
    index = parse_index(split_signed((desk.store / "stable.idx").read_text())[0])
    history = sorted(int(path.stem) for path in (desk.store / "index/stable").iterdir())
    assert history == list(range(1, index.serial + 1))
    assert {row.target for row in index.rows} == {host_target(), other_target()}


def test_records_that_many_write_at_once_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "record"
    texts = [str(number).encode() * 5000 for number in range(8)]

    def write_often(text: bytes) -> None:
        for _ in range(20):
            parts.write_whole(path, text)

    at_once(*(partial(write_often, text) for text in texts))
    assert path.read_bytes() in texts
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.thorough
def test_after_ctrl_c_the_job_goes_on_and_others_follow_it(desk: Desk) -> None:
    desk.write(desk.node(build=f"echo begun\n{desk.wait_then_copy()}echo ended\n"))
    with desk.started("release", "--version", VERSION) as first:
        wait_for(lambda: b"begun" in (_log(desk) or b""))
        first.signal(signal.SIGINT)
        interrupted = first.end()
    assert interrupted.code == 130
    assert "Traceback" not in interrupted.err
    assert "goes on" in interrupted.err
    assert f"orchestrator logs {VERSION} NODE -f" in interrupted.err
    assert _states(desk) == ["running"]

    with desk.started("logs", VERSION, "here", "-f") as watcher:
        assert watcher.process.stdout is not None
        assert watcher.process.stdout.readline() == "begun\n"
        desk.let_go()
        watched = watcher.end()
    assert (watched.code, watched.out) == (0, "ended\n")
    assert _states(desk) == ["finished"]
    _assert_completed(desk, "here")


def _log(desk: Desk) -> bytes | None:
    path = desk.dist / VERSION / "here" / "build.log"
    return path.read_bytes() if path.exists() else None


def _states(desk: Desk) -> list[str]:
    return [job["state"] for job in desk.run("status", VERSION, "--json").data["jobs"]]


@needs_two_targets
def test_what_only_the_node_can_tell_is_published_is_not_done_again(
    desk: Desk, ssh_node: SshNode, tmp_path: Path
) -> None:
    """A program for OpenBSD is one for a release of it, and the inventory need not name that."""
    openbsd = "x86_64-unknown-openbsd"
    pass_for(tmp_path / "ssh-node" / "home", SYSTEMS[openbsd])
    program = tmp_path / "tool"
    static = desk.programs.program(target=other_target()).read_bytes()
    program.write_bytes(mark_as(static, SYSTEMS[openbsd]))
    program.chmod(0o755)
    far = desk.node("far", target=openbsd, build=f"cp {program} $out/tool\n", **ssh_node.entry)
    desk.write(desk.node(policy="best-effort"), {**far, "policy": "required"})
    assert desk.release("--node", "far").results["far"]["result"] == "built"
    outcome = desk.release()
    assert outcome.code == 0, outcome.err
    assert outcome.results["far"]["reason"] == f"{VERSION} is already published for OpenBSD 7.8"
    # The required node is published, so that nobody waits for it.
    assert outcome.data["published"] == [host_target(), openbsd]
    assert outcome.data["held_back"] == []
    again = desk.release("--rebuild", "--node", "far").results["far"]
    assert again["result"] == "built"
    assert desk.builds("far") == [VERSION, VERSION]
