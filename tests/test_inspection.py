"""What the files of a task tell of the node that made them."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import BuildError
from orchestrator.core.inventory import Inventory, LeakPolicy, Node, Project, Publication
from orchestrator.core.plan import ReleaseRequest, plan_release
from orchestrator.core.result import CollectedFile
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.inspection import Inspection
from tests.nodes.bench import facts

if TYPE_CHECKING:
    from pathlib import Path


def inspection(leaks: LeakPolicy) -> Inspection:
    node = Node(name="a", host="local", target=parse_target("x86_64-unknown-linux-gnu"))
    project = Project(name="tool", binaries=("tool",), build_command="make", leaks=leaks)
    inventory = Inventory(project=project, publication=Publication(), nodes=(node,))
    request = ReleaseRequest(version=parse_version("1.0.0"))
    plan = plan_release(inventory, request)

    def open_line(node: Node, *, has_spare: bool) -> Any:
        return nullcontext((node, has_spare))

    return Inspection(
        plan=plan, task=plan.tasks[0].first, enter=lambda *_: None, open_line=open_line
    )


def collected(path: Path, text: str) -> CollectedFile:
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return CollectedFile(name=path.name, path=path, size_bytes=len(text), sha256=digest)


def test_a_name_leaks_from_a_program_and_not_from_a_text_that_names_its_author(
    tmp_path: Path,
) -> None:
    node = replace(
        facts(tmp_path, tmp_path), home="/home/ajokela", user="ajokela", hostname="rigel"
    )
    program = collected(tmp_path / "tool", "by ajokela on rigel")
    licence = collected(tmp_path / "LICENSE", "by ajokela on rigel")
    page = collected(tmp_path / "tool.1", "see /home/ajokela/.config")
    scan = inspection(LeakPolicy.WARN).scan
    assert [line.split(" `")[0] for line in scan(node, (program,), (licence, page))] == [
        "tool holds the user name",
        "tool holds the host name",
        "tool.1 holds the home path",
    ]
    refuse = inspection(LeakPolicy.REFUSE).scan
    assert refuse(node, (), (licence,)) == ()
    with pytest.raises(BuildError, match=r"tool\.1 holds the home path") as caught:
        refuse(node, (), (page,))
    assert "make it without that path" in str(caught.value.hint)
