"""The documents say what the program does: commands, options, exit codes, links, examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from orchestrator.cli import COMMANDS, INTERRUPTED, READER_GONE, command_parser
from orchestrator.core import errors
from orchestrator.core.inventory_parser import parse_inventory

if TYPE_CHECKING:
    from argparse import ArgumentParser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
ALL = "\n".join(path.read_text() for path in DOCUMENTS)


def options_of(parser: ArgumentParser) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z-]+", parser.format_help())) - {"--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_its_options_are_in_the_readme(name: str) -> None:
    rows = [line for line in README.splitlines() if line.startswith(f"| `orchestrator {name}")]

    assert len(rows) == 1, f"README's table of commands has {len(rows)} rows for `{name}`"
    missing = {
        option
        for option in options_of(command_parser(name))
        if option not in rows[0] and f"`{option}" not in README
    }
    assert not missing, f"README does not mention {missing} of `{name}`"


def test_every_command_that_the_documents_name_exists() -> None:
    named = re.findall(r"(?:`|bin/)orchestrator ([a-z]+)((?: [^`\n]*)?)", ALL)

    assert {name for name, _ in named} <= set(COMMANDS)
    for name, rest in named:
        known = options_of(command_parser(name)) | {"--help"}
        assert set(re.findall(r"(?<![\w-])--[a-z-]+", rest)) <= known


def test_every_exit_code_is_in_the_table_and_no_other() -> None:
    base = errors.OrchestratorError
    classes = [base, *(kind for kind in vars(errors).values() if _is_a(kind, base))]
    codes = {0, INTERRUPTED, READER_GONE, *(kind.exit_code for kind in classes)}

    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == codes


def _is_a(kind: object, base: type[errors.OrchestratorError]) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_repository_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), f"{path.name}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {_anchor(title) for title in titles}, f"{path.name}: {link}"


def _anchor(title: str) -> str:
    """The name that a heading gets on the code forges."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def whole_inventories() -> list[tuple[str, str]]:
    blocks = [
        (path.name, block)
        for path in DOCUMENTS
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    ]
    blocks.append(("build-nodes.yaml", (ROOT / "build-nodes.yaml").read_text()))
    # An excerpt shows one section; only what has nodes is an inventory.
    has_nodes = re.compile(r"^nodes:|^- name:", re.MULTILINE)
    return [(name, block) for name, block in blocks if has_nodes.search(block)]


@pytest.mark.parametrize(("name", "block"), whole_inventories())
def test_every_inventory_in_the_documents_is_a_good_one(name: str, block: str) -> None:
    data = yaml.safe_load(block)

    assert parse_inventory(data, place=name, host_triple="x86_64-unknown-linux-gnu").nodes


def test_the_documents_show_an_inventory() -> None:
    assert {name for name, _ in whole_inventories()} >= {"inventory.md", "build-nodes.yaml"}
