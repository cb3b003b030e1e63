"""A release with extra files: licence, man page and completions lie in the archive."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.releases import VERSION, host_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk, NodeEntry, Outcome, SshNode

MANIFEST = '[package]\nname = "tool"\nversion = "1.0.0"\nedition = "2021"\n'
LOCK = 'version = 3\n\n[[package]]\nname = "tool"\nversion = "1.0.0"\n'


@pytest.fixture
def sourced(desk: Desk) -> Desk:
    """A desk whose project has a source, with a licence above its crate."""
    source = desk.folder / "source"
    crate = source / "cli"
    (crate / "src").mkdir(parents=True)
    (crate / "src/main.rs").write_text("fn main() {}\n")
    (crate / "Cargo.toml").write_text(MANIFEST)
    (crate / "Cargo.lock").write_text(LOCK)
    (source / "LICENSE").write_text("do as you please\n")
    (crate / "LICENSE").symlink_to("../LICENSE")
    (crate / "man").mkdir()
    (crate / "man/tool.1").write_text(".TH TOOL 1\n")
    desk.project["source"] = {"path": "source", "allow_dirty": True, "subdirectory": "cli"}
    desk.project["extras"] = ["LICENSE", "man/{name}.1", "completions/_{name}"]
    return desk


def building(desk: Desk, command: str = "") -> NodeEntry:
    """Return a node that delivers the finished program and completions, and what else is asked."""
    build = (
        f"{desk.count('here')}cp {desk.programs.program()} $ORCHESTRATOR_OUT/tool\n"
        f"echo '#compdef {{name}}' >$ORCHESTRATOR_OUT/_tool\n{command}"
    )
    node = desk.node(build_command=build)
    del node["binary_path"]
    return node


def archive(desk: Desk) -> Path:
    (found,) = (desk.store / "releases" / VERSION).rglob("*.tar.gz")
    return found


def members(path: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and the bytes of each file of an archive."""
    found = {}
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.removeprefix(f"tool-{VERSION}-{host_target()}/")] = (
                member.mode,
                file.read(),
            )
    return found


def failure(outcome: Outcome) -> str:
    assert outcome.code == 4, outcome
    return str(outcome.results["here"]["message"])


def test_extra_files_lie_flat_in_the_archive_and_a_second_build_gives_the_same_bytes(
    sourced: Desk,
) -> None:
    sourced.write(building(sourced))
    outcome = sourced.release()
    assert outcome.code == 0, outcome
    assert members(archive(sourced)) == {
        "LICENSE": (0o644, b"do as you please\n"),
        "_tool": (0o644, b"#compdef tool\n"),
        "tool": (0o755, sourced.programs.program().read_bytes()),
        "tool.1": (0o644, b".TH TOOL 1\n"),
    }
    published = archive(sourced).read_bytes()
    again = sourced.release("--rebuild", "--no-publish")
    assert again.code == 0, again
    staged = sourced.dist / VERSION / "here" / archive(sourced).name
    assert staged.read_bytes() == published
    assert sourced.builds("here") == [VERSION] * 2


def test_what_lies_at_an_absolute_path_is_had_without_a_source_and_over_ssh(
    desk: Desk, ssh_node: SshNode
) -> None:
    out = f"{desk.folder}/far-out"
    desk.project["extras"] = [f"{out}/{{version}}/tool.fish", "tool.bash"]
    make = "mkdir -p $out/{version}\necho fish >$out/{version}/tool.fish\necho bash >tool.bash\n"
    desk.write(desk.node("far", build=make + desk.copy(), **ssh_node.entry))
    outcome = desk.release()
    assert outcome.code == 0, outcome
    found = members(archive(desk))
    assert found.keys() == {"tool", "tool.bash", "tool.fish"}
    assert (found["tool.fish"], found["tool.bash"]) == ((0o644, b"fish\n"), (0o644, b"bash\n"))


def test_a_missing_extra_file_fails_its_node_and_names_the_key(sourced: Desk) -> None:
    sourced.project["extras"] = ["LICENSE", "man/{name}.8"]
    sourced.write(building(sourced))
    message = failure(sourced.release())
    assert "/source/cli/man/tool.8, nor as tool.8 in $ORCHESTRATOR_OUT" in message
    assert "`project.extras`" in message
    assert sourced.objects() == set()


@pytest.mark.thorough
def test_other_extra_files_are_another_build_and_the_same_ones_are_not(sourced: Desk) -> None:
    del sourced.project["extras"]
    sourced.write(building(sourced))
    assert sourced.release("--no-publish").code == 0
    sourced.project["extras"] = ["LICENSE"]
    sourced.write(building(sourced))
    outcome = sourced.release("--no-publish")
    assert not outcome.results["here"]["was_attached"]
    outcome = sourced.release()
    assert outcome.results["here"]["was_attached"]
    assert members(archive(sourced)).keys() == {"tool", "LICENSE"}
    assert sourced.builds("here") == [VERSION] * 2


def test_too_large_an_extra_file_is_the_builds_fault(sourced: Desk) -> None:
    with (sourced.folder / "source/cli/man/tool.1").open("wb") as page:
        page.truncate(5 << 20)
    sourced.write(building(sourced))
    message = failure(sourced.release())
    assert message == f"the extra file tool.1 has {5 << 20} bytes, and the limit is {4 << 20}"
    assert sourced.objects() == set()


def test_a_man_page_with_the_builders_home_is_a_leak_and_an_authors_name_is_none(
    sourced: Desk,
) -> None:
    sourced.project["extras"] = ["LICENSE", "tool.1"]
    command = 'echo "see $HOME/.config, says $USER" >$ORCHESTRATOR_OUT/tool.1\n'
    sourced.write(building(sourced, command))
    outcome = sourced.release("--no-publish")
    assert outcome.code == 0, outcome
    warnings = [each for each in outcome.results["here"]["warnings"] if "tool.1" in each]
    assert len(warnings) == 1
    assert warnings[0].startswith("tool.1 holds the home path")
    sourced.project["leaks"] = "refuse"
    sourced.write(building(sourced, command))
    outcome = sourced.release()
    assert failure(outcome).startswith("tool.1 holds the home path")
    assert "make it without that path" in outcome.results["here"]["hint"]
    assert sourced.objects() == set()


def test_a_plan_says_which_extra_files_are_taken_along(sourced: Desk) -> None:
    sourced.write(building(sourced))
    outcome = sourced.run("release", "--version", VERSION, "--json", "--dry-run")
    [task] = outcome.data["tasks"]
    assert task["extras"] == [
        "{source}/LICENSE",
        "{source}/man/tool.1",
        "{source}/completions/_tool",
    ]
