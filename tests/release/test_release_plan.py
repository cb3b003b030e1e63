"""`--dry-run`: what a release would do, as data and as text, without touching anything."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.releases import ROOT, VERSION, contents, host_target, needs_two_targets, other_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk, SshNode


def test_the_articles_inventory_plans_nine_nodes_with_its_commands(desk: Desk) -> None:
    shutil.copy(ROOT / "examples" / "inventories" / "article.yaml", desk.inventory)
    entries = yaml.safe_load(desk.inventory.read_text())
    before = contents(desk.folder)
    plan = desk.release("--dry-run", version="0.13.4")
    assert plan.code == 0
    assert contents(desk.folder) == before
    tasks = {task["node"]: task for task in plan.data["tasks"]}
    assert len(tasks) == len(entries) == 9
    for entry in entries:
        task = tasks[entry["name"]]
        assert task["host"] == entry["host"]
        assert task["target"] == entry["target"]
        assert task["standby"] == []
        expected = entry["build_command"].replace("{version}", "0.13.4")
        assert task["command"] == expected.replace("{target}", entry["target"])
        path = entry["binary_path"].replace("{version}", "0.13.4")
        assert task["binaries"] == [path.replace("{target}", entry["target"])]


@needs_two_targets
def test_a_dry_run_touches_nothing_and_contacts_nobody(
    desk: Desk, ssh_node: SshNode, scratch_home: Path
) -> None:
    far = desk.node("far", target=other_target(), **ssh_node.entry)
    desk.write(desk.node(), far)
    assert desk.release("--node", "here").code == 0
    ssh_node.stop()
    before = contents(desk.folder), contents(scratch_home)
    plan = desk.release("--dry-run")
    text = desk.run("release", "--version", VERSION, "--dry-run")
    assert (contents(desk.folder), contents(scratch_home)) == before
    assert (plan.code, plan.err) == (text.code, text.err) == (0, "")
    assert [task["node"] for task in plan.data["tasks"]] == ["far"]
    assert plan.data["skipped"][0]["reason"] == f"{VERSION} is already published"
    assert {row["target"]: row["status"] for row in plan.data["already_published"]} == {
        host_target(): "ok",
        other_target(): "pending",
    }
    assert other_target() in text.out
    assert f"{VERSION} is already published" in text.out


def test_a_dry_run_before_keygen_plans_all_the_same(desk: Desk) -> None:
    desk.write(desk.node())
    for name in ("key", "key.pub"):
        (desk.folder / name).unlink()
    plan = desk.release("--dry-run")
    assert plan.code == 0
    key = host_target()
    (task,) = plan.data["tasks"]
    assert task["publishes"] == [f"releases/{VERSION}/{key}/tool-{VERSION}-{key}.tar.gz"]
    assert task["gate"] == ["{binary} --version"]
    assert task["gate_on"] == ["here"]
    assert plan.data["already_published"] == []


def test_a_dry_run_tells_who_stands_by_and_who_gates(desk: Desk) -> None:
    desk.publication["flat"] = True
    gate = desk.node("gate", enabled=False)
    bound = desk.node("bound", target="aarch64-unknown-openbsd", os_release="7.8")
    unbound = desk.node("unbound", target="x86_64-unknown-openbsd")
    desk.write(desk.node(gate_on="gate"), desk.node("spare"), gate, bound, unbound)
    plan = desk.release("--dry-run")
    tasks = {task["node"]: task for task in plan.data["tasks"]}
    assert [spare["node"] for spare in tasks["here"]["standby"]] == ["spare"]
    assert tasks["here"]["gate_on"] == ["gate"]
    openbsd = "aarch64-unknown-openbsd7.8"
    assert tasks["bound"]["publishes"] == [
        f"releases/{VERSION}/{openbsd}/tool-{VERSION}-{openbsd}.tar.gz",
        f"{VERSION}/tool-{VERSION}-openbsd-aarch64",
    ]
    assert "x86_64-unknown-openbsd<release>" in tasks["unbound"]["publishes"][0]
    shown = desk.run("release", "--version", VERSION, "--dry-run")
    assert "spare" in shown.out


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"crate": "tool"}, "crate tool 1.0.0"),
        ({"git": "https://example.org/tool.git", "tag": "v{version}"}, "at tag v1.0.0"),
        (
            {
                "archive": "https://example.org/{version}.tar.gz",
                "sha256": {VERSION: "0" * 64},
            },
            "archive https://example.org/1.0.0.tar.gz",
        ),
        ({"path": "tool"}, "at its HEAD commit"),
        ({"path": "tool", "allow_dirty": True}, "as it is"),
    ],
)
def test_a_dry_run_says_where_the_source_comes_from(
    desk: Desk, source: dict[str, object], said: str
) -> None:
    desk.project["source"] = source
    desk.write({"name": "here", "host": "local", "target": host_target()})
    plan = desk.release("--dry-run")
    assert plan.code == 0, plan
    assert said in plan.data["source"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--node", "her"), "did you mean `here`"),
        (("--skip", "nobody-at-all"), "no node is named `nobody-at-all`"),
        (("--skip", "here"), "--skip leaves out every enabled node"),
    ],
)
def test_a_wrong_choice_of_nodes_is_an_error_of_the_command_line(
    desk: Desk, arguments: tuple[str, ...], said: str
) -> None:
    desk.write(desk.node())
    outcome = desk.release(*arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_a_required_node_cannot_be_left_out_of_what_is_published(desk: Desk) -> None:
    desk.write(desk.node(policy="required"), desk.node("b"))
    outcome = desk.release("--node", "b")
    assert outcome.code == 2
    assert "`here` is required, and left out" in outcome.err
    assert desk.release("--node", "b", "--no-publish", "--dry-run").code == 0
