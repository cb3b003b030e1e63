"""What lies on a node: its jobs are listed, and what is not needed any more is removed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.nodes.housekeeping import ListedJob, list_jobs
from orchestrator.nodes.job import Finished, NeverStarted, Queued, Running
from tests.nodes.bench import Bench, bench, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def node(scratch_home: Path) -> AsyncIterator[Bench]:
    node = bench(scratch_home)
    yield node
    await node.cancel_all()


# --- listing ------------------------------------------------------------------------------------


async def test_every_job_is_listed_with_its_label_and_state(node: Bench) -> None:
    label = ("demo", "1.0.0+b.7", "x86_64-unknown-linux-gnu", "linux-a")
    done = await node.start(node.spec("true", label=label))
    await node.follow(done)
    running = await node.start(node.spec("sleep 60"))
    await until((node.folder_of(running) / "started").exists)
    queued = await node.start(node.spec("echo waits"))
    (node.folder / "jobs" / ("f" * 33)).mkdir()

    listed = await list_jobs(node.transport, str(node.folder))
    by_id = {job.id: job for job in listed}
    assert [job.id for job in listed] == sorted(by_id)
    project, version, target, name = label
    assert by_id[done.id] == ListedJob(
        id=done.id,
        project=project,
        version=version,
        target=target,
        node=name,
        state=Finished(attempt=1, exit_status=0, evidence="the command exited with status 0"),
    )
    assert isinstance(by_id[running.id].state, Running)
    assert isinstance(by_id[queued.id].state, Queued)
    assert isinstance(by_id["f" * 33].state, NeverStarted)
    assert by_id["f" * 33].project == by_id["f" * 33].node == ""


async def test_a_node_without_jobs_lists_none(node: Bench) -> None:
    assert await list_jobs(node.transport, str(node.folder)) == ()
    assert await list_jobs(node.transport, "/nowhere/at/all") == ()


async def test_an_answer_that_is_none_is_the_nodes_fault(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, message in (
        ("echo job=1; echo hi", "exit status 0"),
        ("echo no >&2; exit 3", "no"),
    ):
        monkeypatch.setattr("orchestrator.nodes.housekeeping.JOB_SH", script)
        with pytest.raises(NodeError, match=f"the node could not list its jobs: {message}"):
            await list_jobs(node.transport, str(node.folder))


async def test_a_label_is_made_of_safe_words(node: Bench) -> None:
    with pytest.raises(ConfigError, match="the label 'a b'"):
        await node.start(replace(node.spec("true"), label=("a b",)))
