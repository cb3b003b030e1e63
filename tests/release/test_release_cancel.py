"""A person ends jobs: `cancel`, Ctrl-C once and twice; and looks into one: `shell`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.nodes import sshd
from tests.releases import (
    VERSION,
    needs_two_targets,
    other_target,
    wait_for,
)
from tests.terminal import CTRL_C, at_terminal

if TYPE_CHECKING:
    from tests.releases import Desk, NodeEntry, SshNode

# A tree that means to survive: deaf to TERM, and a grandchild in a session of its own.
STUBBORN = (
    "trap '' TERM\n"
    "(setsid sh -c 'trap \"\" TERM; echo $$ >{0}/grandchild; while :; do sleep 1; done' &)\n"
    "while :; do sleep 1; done\n"
)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def number_in(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


@needs_two_targets
@pytest.mark.thorough
def test_cancel_ends_whole_trees_on_every_node(desk: Desk, ssh_node: SshNode) -> None:
    there = other_target()
    build = STUBBORN.format(desk.folder)
    far = desk.node("far", build=desk.wait_then_copy(), target=there, **ssh_node.entry)
    # A host has one lock for all of its nodes, and this machine is both.
    desk.write(desk.node(build=build), far | {"group": "elsewhere"})
    with desk.started("release", "--version", VERSION, "--json") as running:
        wait_for(lambda: number_in(desk.folder / "grandchild") and desk.builds("far"))
        cancelled = desk.run("cancel", VERSION, "--json")
        outcome = running.end()
    assert cancelled.code == 0, cancelled
    assert [(job["node"], job["was"], job["outcome"]) for job in cancelled.data["jobs"]] == [
        ("here", "running", "ended"),
        ("far", "running", "ended"),
    ]
    assert not is_alive(number_in(desk.folder / "grandchild"))
    for pid in desk.folder.glob("*-work/jobs/*/pid"):
        assert not is_alive(number_in(pid))
    assert outcome.code == 3
    assert {result["message"] for result in outcome.results.values()} == {"the job was cancelled"}
    again = desk.run("cancel", VERSION)
    assert (again.code, again.out) == (0, f"no job of {VERSION} is at work\n")


@pytest.mark.thorough
def test_cancel_of_one_node_leaves_the_others_alone(desk: Desk) -> None:
    desk.write(
        desk.node("a", build=desk.wait_then_copy(), group="a"),
        desk.node("b", build=desk.wait_then_copy(), group="b", target=other_target()),
    )
    with desk.started("release", "--version", VERSION, "--json") as running:
        wait_for(lambda: desk.builds("a") and desk.builds("b"))
        cancelled = desk.run("cancel", VERSION, "b")
        desk.let_go()
        outcome = running.end()
    assert cancelled.code == 0
    assert cancelled.out.split()[-4:] == ["b", other_target(), "running", "ended"]
    assert outcome.results["a"]["result"] == "built"
    assert outcome.results["b"]["message"] == "the job was cancelled"


@needs_two_targets
@pytest.mark.thorough
def test_cancel_says_which_node_it_could_not_ask(desk: Desk, ssh_node: SshNode) -> None:
    desk.write(desk.node(), desk.node("far", target=other_target(), **ssh_node.entry))
    ssh_node.stop()
    cancelled = desk.run("cancel", VERSION, "--json")
    assert cancelled.code == 3
    assert [(job["node"], job["outcome"]) for job in cancelled.data["jobs"]] == [
        ("far", "unreachable")
    ]


# --- at a terminal -------------------------------------------------------------------------------


def test_ctrl_c_leaves_jobs_running_and_says_how_to_go_on(desk: Desk) -> None:
    desk.write(desk.node(build=desk.wait_then_copy()))
    with desk.started("release", "--version", VERSION) as running:
        wait_for(lambda: desk.builds("here"))
        running.signal(signal.SIGINT)
        outcome = running.end()
    assert outcome.code == 130
    assert f"`orchestrator cancel {VERSION}` ends it there" in outcome.err
    assert "another Ctrl-C" not in outcome.err, "nobody is there to press it"
    desk.let_go()
    assert desk.release().results["here"]["was_attached"]


def test_a_second_ctrl_c_after_the_warning_ends_the_jobs(desk: Desk) -> None:
    desk.write(desk.node(build=desk.wait_then_copy()))
    with at_terminal(desk.inventory, "release", "--version", VERSION) as terminal:
        wait_for(lambda: desk.builds("here"))
        terminal.type(CTRL_C)
        terminal.wait_for("another Ctrl-C within")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
    assert b"ended" in terminal.said
    (pid,) = desk.folder.glob("here-work/jobs/*/pid")
    assert not is_alive(number_in(pid))
    desk.let_go()
    assert not desk.release().results["here"]["was_attached"]


@pytest.mark.thorough
def test_a_shell_opens_in_the_folder_of_a_failed_job(desk: Desk) -> None:
    desk.write(desk.node(build="echo evidence >left-behind\nexit 1\n"))
    assert desk.release().code == 4
    with at_terminal(desk.inventory, "shell", VERSION, "here") as terminal:
        terminal.wait_for("what the build left here")
        terminal.type("cat left-behind; exit 7\n")
        assert terminal.end() == 7
    assert b"evidence" in terminal.said


@sshd.needs_sshd
@pytest.mark.thorough
def test_a_shell_opens_on_a_node_behind_ssh(desk: Desk, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "sshd") as server:
        entry: NodeEntry = {
            "host": server.host,
            "port": server.port,
            "host_key": server.host_key,
            "identity": str(server.identity),
        }
        desk.write(desk.node("far", build="echo evidence >left-behind\nexit 1\n", **entry))
        assert desk.release().code == 4
        with at_terminal(desk.inventory, "shell", VERSION, "far") as terminal:
            terminal.wait_for("what the build left here")
            terminal.type("cat left-behind; exit 7\n")
            assert terminal.end() == 7
        assert b"evidence" in terminal.said
        other = sshd._key(tmp_path / "other")
        desk.write(
            desk.node("far", **entry | {"host_key": Path(f"{other}.pub").read_text().strip()})
        )
        refused = desk.run("logs", VERSION, "far", "--follow")
        assert refused.code == 3
        assert "HOST KEY" in refused.err


@pytest.mark.thorough
def test_a_shell_needs_a_terminal(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    with desk.started("shell", VERSION, "here") as refused:
        outcome = refused.end()
    assert outcome.code == 2
    assert "a shell needs a terminal" in outcome.err
