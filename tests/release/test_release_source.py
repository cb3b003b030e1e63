"""A release of a real cargo project from git: the same bytes, wherever it is made."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.releases import ROOT, Desk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Programs

_VERSION = "0.1.0"
_BUILD_SCRIPT = """
fn main() {
    let place = std::path::Path::new(&std::env::var("OUT_DIR").unwrap()).join("place.rs");
    std::fs::write(place, "#[used]\\nstatic PLACE: &str = file!();\\n").unwrap();
}
"""


@pytest.mark.thorough
def test_two_clones_give_the_same_archive_on_the_same_node_and_elsewhere(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = _repository(tmp_path / "origin")
    releases = {}
    for place, workdir, arguments in (
        ("first", "node", ()),
        ("second", "node", ("--rebuild", "--clean")),
        ("third", "another-node", ()),
    ):
        desk = Desk(folder=tmp_path / place, programs=programs, capsys=capsys)
        _git(tmp_path, "clone", "--quiet", str(origin), str(desk.folder / "clone"))
        _write(desk, workdir=str(tmp_path / workdir))
        outcome = desk.release(*arguments, version=_VERSION)
        assert outcome.code == 0, outcome
        assert not outcome.results["here"]["was_attached"]
        assert "Compiling trajectory" in desk.run("logs", _VERSION, "here").out
        (archive,) = desk.store.rglob("*.tar.gz")
        releases[place] = (archive.name, archive.read_bytes())
        assert outcome.results["here"]["warnings"] == []
    assert releases["first"] == releases["second"]
    assert releases["first"] == releases["third"]


def _repository(folder: Path) -> Path:
    example = ROOT / "examples" / "trajectory"
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("target"))
    # What a build script generates lies below the node's own folders, and knows its path.
    (folder / "build.rs").write_text(_BUILD_SCRIPT)
    with (folder / "src" / "main.rs").open("a") as main:
        main.write('include!(concat!(env!("OUT_DIR"), "/place.rs"));\n')
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "Release")
    _git(folder, "tag", f"v{_VERSION}")
    return folder


def _git(folder: Path, *arguments: str) -> None:
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Test"), ("EMAIL", "test@localhost"))
    }
    environment = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=environment)


def _write(desk: Desk, *, workdir: str) -> None:
    desk.project.update(
        {
            "name": "trajectory",
            "binaries": ["trajectory"],
            "source": {"git": str(desk.folder / "clone")},
            "gate": "{binary} --velocity 800 --bc 0.45 --range 300",
            "extras": ["man/{name}.1", "completions/_{name}"],
        }
    )
    node: dict[str, Any] = {"name": "here", "host": "local", "target": "host", "workdir": workdir}
    desk.write(node)


@pytest.mark.parametrize("allow_dirty", [False, True])
@pytest.mark.thorough
def test_the_signing_key_beside_the_source_is_sent_to_no_node(
    desk: Desk, *, allow_dirty: bool
) -> None:
    _repository(desk.folder / "source")
    key = desk.folder / "source" / "signing" / "key"
    key.parent.mkdir()
    desk.publication["signing"] = {"key": str(key)}
    desk.project.update({"name": "trajectory", "binaries": ["trajectory"]})
    desk.project["source"] = {"path": str(desk.folder / "source"), "allow_dirty": allow_dirty}
    list_it = 'cd {source}; find . -name "key*"; exit 1'
    desk.write(desk.node(build=None, build_command=list_it, binary_path="/nowhere/trajectory"))
    if allow_dirty:
        (desk.folder / "source" / "keyboard.rs").touch()
    outcome = desk.release("--no-publish", version=_VERSION)
    assert outcome.results["here"]["class"] == "build", outcome
    said = (desk.dist / _VERSION / "here" / "build.log").read_text()
    assert said == ("./keyboard.rs\n" if allow_dirty else "")
