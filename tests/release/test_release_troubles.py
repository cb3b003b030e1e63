"""Troubles that pass: lost links, killed jobs, dead hosts; and those that a person makes."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import pytest

from orchestrator.core.errors import PassingError
from orchestrator.nodes import collect
from tests.releases import VERSION, needs_two_targets, other_target, wait_for

if TYPE_CHECKING:
    from orchestrator.core.result import CollectedFile
    from tests.releases import Desk, SshNode


# The group of the job: its wrapper and everything that it started.
KILL: Final = 'kill -KILL "-$(cat ../pid)"\n'


def kill_once(desk: Desk, name: str = "here") -> str:
    """Return the line that kills the job the first time, as a machine out of memory would."""
    mark = desk.folder / f"killed-{name}"
    return f"if [ ! -e {mark} ]; then : >{mark}; {KILL}fi\n"


@needs_two_targets
def test_a_link_that_is_lost_in_a_build_is_made_anew(desk: Desk, ssh_node: SshNode) -> None:
    there = other_target()
    build = desk.wait_then_copy(target=there)
    desk.write(desk.node(), desk.node("far", build=build, target=there, **ssh_node.entry))
    with desk.started("release", "--version", VERSION) as running:
        wait_for(lambda: desk.builds("far"))
        ssh_node.stop()
        desk.let_go()
        wait_for(lambda: list(desk.folder.glob("far-work/jobs/*/exit")))
        ssh_node.start()
        outcome = running.end()
    assert outcome.code == 0, outcome.err
    assert desk.builds("far") == [VERSION]
    assert "lost the link" in outcome.err
    assert "trying again in" in outcome.err


def test_a_killed_job_gets_one_more_chance(desk: Desk) -> None:
    desk.write(desk.node(build=kill_once(desk) + desk.copy()))
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 0, outcome
    assert desk.builds("here") == [VERSION, VERSION]
    assert "the job was lost" in outcome.err
    assert "trying again in" in outcome.err


@pytest.mark.thorough
def test_a_machine_that_kills_every_job_is_followed_by_the_next(desk: Desk) -> None:
    desk.write(desk.node("first", build=KILL), desk.node("spare"))
    outcome = desk.release()
    assert outcome.code == 0
    assert desk.builds("first") == [VERSION, VERSION]
    assert desk.builds("spare") == [VERSION]
    assert "the job was lost" in outcome.results["first"]["message"]


def test_a_compile_error_is_never_tried_again(desk: Desk) -> None:
    desk.write(desk.node("first", build="exit 1\n"), desk.node("spare"))
    outcome = desk.release()
    assert outcome.code == 4
    assert desk.builds("first") == [VERSION]
    assert desk.builds("spare") == []


def test_nobody_takes_over_what_a_person_cancelled(desk: Desk) -> None:
    desk.write(desk.node("first", build=desk.wait_then_copy()), desk.node("spare"))
    with desk.started("release", "--version", VERSION, "--json") as running:
        wait_for(lambda: desk.builds("first"))
        (job,) = desk.folder.glob("first-work/jobs/*")
        (job / "cancelled").touch()
        os.killpg(int((job / "pid").read_text()), signal.SIGTERM)
        outcome = running.end()
    assert outcome.code == 3, outcome
    assert outcome.results["first"]["message"] == "the job was cancelled"
    assert outcome.results["spare"]["result"] == "skipped"
    assert desk.builds("first") == [VERSION]
    assert desk.builds("spare") == []


@needs_two_targets
@pytest.mark.thorough
def test_a_dead_host_is_named_by_everybody_who_needed_it(desk: Desk, ssh_node: SshNode) -> None:
    gate = desk.node("gate", enabled=False, **ssh_node.entry)
    far = desk.node("far", target=other_target(), **ssh_node.entry)
    desk.write(far, desk.node(gate_on="gate", build="sleep 1\n" + desk.copy()), gate)
    ssh_node.stop()
    outcome = desk.release()
    assert outcome.code == 3
    assert "refused" in outcome.results["far"]["message"]
    assert "as found earlier in this run" in outcome.results["here"]["message"]


@pytest.mark.thorough
def test_what_went_wrong_after_a_rebuild_does_not_build_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    settle = collect._Arrival.settle
    damaged: list[str] = []

    def damage_once(self: collect._Arrival) -> CollectedFile:
        if not damaged:
            damaged.append(self.name)
            raise PassingError("arrived with other bytes")
        return settle(self)

    monkeypatch.setattr(collect._Arrival, "settle", damage_once)
    assert desk.release("--rebuild").code == 0
    assert damaged == ["tool"]
    assert desk.builds("here") == [VERSION, VERSION]
