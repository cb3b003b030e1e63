"""Changes of the inventory's file: what is meant, and nothing else."""

from __future__ import annotations

import dataclasses
import difflib
import shutil
from pathlib import Path
from typing import Final

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.roster import add_node, remove_nodes, set_in_node
from orchestrator.workspace import load_inventory
from tests.installer_site import ROOT

FILES: Final = (
    "build-nodes.yaml",
    "examples/inventories/article.yaml",
    "examples/inventories/nodes-key.yaml",
    "examples/inventories/rich.yaml",
)
NEW: Final = (
    ("name", "pi"),
    ("host", "freebsd@10.1.1.7"),
    ("target", "aarch64-unknown-freebsd"),
    ("host_key", f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'P' * 43}"),
    ("build_command", "cd /tmp\nif a; then\n    b: c # d\nfi\n\ncargo build\n"),
    ("binary_path", "/tmp/out/{version}/tool"),
    ("port", 2222),
    ("enabled", False),
)


OPENBSD: Final = (("target", "x86_64-unknown-openbsd"),)


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / request.param, tmp_path / "nodes.yaml"))


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def test_a_new_node_is_what_was_said_and_every_other_line_stays(file: Path) -> None:
    before, inventory = lines(file), load_inventory(file)
    added = add_node(file, NEW)
    after = load_inventory(file)
    assert after.nodes == (*inventory.nodes, added)
    told = dataclasses.asdict(added)
    for key, value in NEW:
        assert (told[key] if key != "target" else str(added.target)) == value
    changes = list(difflib.ndiff(before, lines(file)))
    assert not [change for change in changes if change.startswith("- ")]


def test_each_node_can_be_switched_and_switched_back(file: Path) -> None:
    text, inventory = file.read_text(), load_inventory(file)
    for node in (each for each in inventory.nodes if each.variant_of is None):
        switched = set_in_node(file, node.name, {"enabled": not node.enabled})
        assert switched == dataclasses.replace(node, enabled=not node.enabled)
        assert set_in_node(file, node.name, {"enabled": node.enabled}) == node
    # Where the key had not been there, it says now what was the case before.
    new = [line for line in difflib.ndiff(text.splitlines(), lines(file)) if line[0] != " "]
    assert {line.split()[1] for line in new} <= {"enabled:"}
    assert all(line.startswith("+ ") for line in new)


def test_the_variants_of_a_node_change_with_it(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "examples/inventories/rich.yaml", tmp_path / "nodes.yaml"))
    assert not set_in_node(file, "linux-x86_64", {"enabled": False}).enabled
    faster = next(node for node in load_inventory(file).nodes if node.variant_of)
    assert not faster.enabled
    with pytest.raises(ConfigError, match="no node of the file is named") as refused:
        set_in_node(file, faster.name, {"enabled": True})
    assert "`variants:`" in (refused.value.hint or "")


def test_a_node_that_is_added_and_removed_leaves_nothing(file: Path) -> None:
    text = file.read_text()
    add_node(file, NEW)
    remove_nodes(file, ["pi"])
    assert file.read_text() == text


def test_each_node_but_the_last_one_can_be_removed(file: Path) -> None:
    comments = [line for line in lines(file) if line.lstrip().startswith("#")]
    nodes = [node for node in load_inventory(file).nodes if node.variant_of is None]
    for position, node in enumerate(nodes[:-1]):
        try:
            remove_nodes(file, [node.name])
        except ConfigError:
            # Others use its text, or its gate.
            assert f"- name: {node.name}\n" in file.read_text()
            continue
        left = load_inventory(file).nodes
        names = [other.name for other in left if other.variant_of is None]
        assert node.name not in names
        assert names[-1] == nodes[-1].name
        assert len(names) >= len(nodes) - position - 1
    outside = [line for line in comments if not line.startswith("      ")]
    assert [line for line in lines(file) if line in outside] == outside


def test_the_only_node_stays(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "examples/inventories/nodes-key.yaml", tmp_path / "nodes.yaml"))
    text = file.read_text()
    with pytest.raises(ConfigError, match="is the only node"):
        remove_nodes(file, ["netbsd-x86_64"])
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([("name", "local"), ("host", "local"), ("target", "host")], "local"),
        ([("name", "new"), ("host", "local"), ("target", "pdp11")], "target"),
        ([("name", "new"), ("host", "a b"), ("target", "aarch64-unknown-netbsd")], "host"),
    ],
)
def test_a_wrong_node_is_refused_and_nothing_written(
    tmp_path: Path, keys: list[tuple[str, str]], complaint: str
) -> None:
    file = Path(shutil.copy(ROOT / "build-nodes.yaml", tmp_path / "nodes.yaml"))
    text = file.read_text()
    with pytest.raises(ConfigError, match=complaint):
        add_node(file, keys)
    assert file.read_text() == text


def test_an_unknown_node_is_named_with_those_that_are_there(file: Path) -> None:
    with pytest.raises(ConfigError, match="no node of the file is named `nope`") as refused:
        set_in_node(file, "nope", {"enabled": True})
    assert refused.value.hint is not None
    assert load_inventory(file).nodes[0].name in refused.value.hint


def test_a_list_on_one_line_is_left_to_its_author(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    rest = (ROOT / "build-nodes.yaml").read_text()
    rest = rest[: rest.index("nodes:\n")]
    file.write_text(f"{rest}nodes: [{{name: a, host: local, target: x86_64-unknown-netbsd}}]\n")
    with pytest.raises(ConfigError, match="one key a line"):
        set_in_node(file, "a", {"enabled": False})


def test_mode_and_link_stay(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "build-nodes.yaml", tmp_path / "real.yaml"))
    file.chmod(0o640)
    link = tmp_path / "nodes.yaml"
    link.symlink_to("real.yaml")
    set_in_node(link, "local", {"enabled": False})
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert "enabled: false" in file.read_text().split("- name: macos")[0]
    assert {path.name for path in tmp_path.iterdir()} == {"real.yaml", "nodes.yaml"}


def test_a_removed_node_takes_one_of_the_empty_lines_around_it_with_it(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    entries = [
        f"- name: {name}\n  host: a.example\n  target: x86_64-unknown-netbsd\n"
        "  build_command: make\n  binary_path: /tool\n"
        for name in "abc"
    ]
    file.write_text("\n".join(entries))
    remove_nodes(file, ["b"])
    assert file.read_text() == "\n".join((entries[0], entries[2]))
    remove_nodes(file, ["c"])
    assert file.read_text() == entries[0]


def test_a_name_that_is_not_on_one_line_is_left_to_a_person(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    text = (
        "- name: >-\n    a\n  host: a.example\n  target: x86_64-unknown-netbsd\n"
        "  build_command: make\n  binary_path: /tool\n"
    )
    file.write_text(text)
    with pytest.raises(ConfigError, match="cannot find where the entry of a begins"):
        set_in_node(file, "a", {"enabled": False})
    assert file.read_text() == text


def test_a_list_is_written_in_one_line(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "build-nodes.yaml", tmp_path / "nodes.yaml"))
    gates = ("openbsd-x86_64", "local")
    with pytest.raises(ConfigError, match="local"):
        add_node(file, (*NEW[:1], ("host", "b.example"), *OPENBSD, ("gate_on", gates)))
    node = add_node(file, (*NEW[:1], ("host", "b.example"), *OPENBSD, ("gate_on", gates[:1])))
    assert node.gate_on == gates[:1]
    assert "gate_on: [openbsd-x86_64]" in file.read_text()


def test_a_file_from_windows_keeps_its_line_ends(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    added = add_node(file, NEW)
    set_in_node(file, added.name, {"group": "pis", "enabled": True})
    text = file.read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n")
    assert load_inventory(file).nodes[-1].build_command == dict(NEW)["build_command"]


def test_a_last_line_without_an_end_gets_one(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "build-nodes.yaml", tmp_path / "nodes.yaml"))
    text = file.read_text()
    file.write_text(text.rstrip("\n"))
    add_node(file, NEW)
    remove_nodes(file, ["pi"])
    assert file.read_text() == text
