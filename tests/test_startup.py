"""What must not be imported before anybody asked for it: `--help` answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGET = "x86_64-unknown-netbsd"
# Without `site` there is no library in reach, and nothing that a test run adds to the interpreter.
_PROGRAM = """\
import sys
root, *words = sys.argv[1:]
sys.path.insert(0, root)
before = set(sys.modules)
from orchestrator.cli import main
try:
    main(words)
except SystemExit:
    pass
print("loaded:", *sorted(set(sys.modules) - before))
"""


def modules_loaded_by(*words: str) -> set[str]:
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(ROOT), *words],
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stderr == ""
    last_line = answer.stdout.splitlines()[-1]
    assert last_line.startswith("loaded: ")
    return set(last_line.split()[1:])


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_short_answer_imports_next_to_nothing(option: str) -> None:
    assert modules_loaded_by(option) <= {"__future__", "orchestrator", "orchestrator.cli"}


def test_the_help_of_a_command_imports_nothing_but_its_parser() -> None:
    loaded = modules_loaded_by("release", "--help")

    heavy = {"asyncio", "subprocess", "json", "pathlib", "logging", "shutil", "ssl", "typing"}
    assert not loaded & heavy
    assert {name for name in loaded if name.startswith("orchestrator")} == {
        "orchestrator",
        "orchestrator.cli",
        "orchestrator.options",
    }


@pytest.mark.parametrize("command", ["check", "release"])
def test_a_store_in_a_folder_costs_no_library_of_a_cloud(command: str, tmp_path: Path) -> None:
    inventory = tmp_path / "nodes.yaml"
    inventory.write_text(
        "project: { name: tool }\n"
        "publication: { store: store, signing: { key: key } }\n"
        f"nodes: [{{ name: here, host: local, target: {TARGET}, workdir: {tmp_path}/work,\n"
        "  build_command: make, binary_path: /tool }]\n"
    )
    options = ["--version", "1.0.0", "--dry-run"] if command == "release" else []
    options += ["--json", "--inventory", str(inventory)]
    program = _PROGRAM.replace("root, *words", "_, *words").replace(
        "sys.path.insert(0, root)\n", ""
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, "", command, *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    loaded = set(answer.stdout.splitlines()[-1].split()[1:])
    assert str(tmp_path / "store") in answer.stdout, answer
    assert not loaded & {"google.cloud.storage", "google.auth", "google_crc32c", "requests"}
