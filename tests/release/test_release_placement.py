"""Who builds: measured on real nodes, sent to the faster one, and taken over when that one dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.nodes import sshd
from tests.nodes.sshd import needs_sshd
from tests.releases import ROOT, host_target, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.nodes.sshd import Sshd
    from tests.releases import Desk

VERSIONS = ("0.1.0", "0.2.0", "0.3.0")
# A compiler that is slower by so much, and one that stops in the middle of a build.
SLOW = "#!/bin/sh\nsleep 1.5\nexec {rustc}"
STOPPING = """\
#!/bin/sh
if [ -e {folder}/stop ]; then
    : >{folder}/stopped
    exec sleep 600
fi
exec {rustc}"""


BUILD_SCRIPT = """
fn main() {
    let place = std::path::Path::new(&std::env::var("OUT_DIR").unwrap()).join("place.rs");
    std::fs::write(place, "#[used]\\nstatic PLACE: &str = file!();\\n").unwrap();
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of its own as far as a node is one: sshd, home, locks, caches, compiler."""

    folder: Path
    server: Sshd

    def entry(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "host": self.server.host,
            "port": self.server.port,
            "host_key": self.server.host_key,
            "identity": str(self.server.identity),
            "connect_timeout": 3,
            "target": host_target(),
            "env": {"RUSTC_WRAPPER": str(self.folder / "rustc")},
            "timeout": 120,
        }

    def jobs(self, file: str) -> list[Path]:
        return list(self.folder.glob(f"home/.cache/orchestrator/jobs/*/{file}"))

    def die(self) -> None:
        """Lose everything at once, as by a power cut: sshd, its links, and what runs."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.disconnect()
        for pid in self.jobs("pid"):
            if not (pid.parent / "exit").exists():
                os.killpg(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    with ExitStack() as running:
        made = {}
        for name, compiler in (("quick", STOPPING), ("slow", SLOW)):
            folder = tmp_path / name
            (folder / "home").mkdir(parents=True)
            wrapper = folder / "rustc"
            wrapper.write_text(compiler.format(folder=folder, rustc='"$@"\n'))
            wrapper.chmod(0o755)
            environment = {
                "HOME": str(folder / "home"),
                "PATH": os.environ["PATH"],
                "RUSTUP_HOME": os.environ["RUSTUP_HOME"],
                "CARGO_HOME": os.environ["CARGO_HOME"],
            }
            server = running.enter_context(sshd.running(folder / "sshd", environment=environment))
            made[name] = Machine(folder=folder, server=server)
        yield made


def make_repository(folder: Path) -> None:
    ignore = shutil.ignore_patterns("target")
    shutil.copytree(ROOT / "examples" / "trajectory", folder, ignore=ignore)
    # What a build script generates lies below the node's own folders, and knows its path.
    (folder / "build.rs").write_text(BUILD_SCRIPT)
    with (folder / "src" / "main.rs").open("a") as main:
        main.write('include!(concat!(env!("OUT_DIR"), "/place.rs"));\n')
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    for before, version in zip((VERSIONS[0], *VERSIONS), VERSIONS, strict=False):
        for name in ("Cargo.toml", "Cargo.lock"):
            text = (folder / name).read_text()
            (folder / name).write_text(text.replace(f'"{before}"', f'"{version}"', 1))
        for words in (("add", "-A"), ("commit", "-qm", version), ("tag", f"v{version}")):
            subprocess.run([*git, *words], check=True)


def write(desk: Desk, *nodes: dict[str, Any]) -> None:
    make_repository(desk.folder / "trajectory")
    desk.project.update(
        name="trajectory",
        binaries=["trajectory"],
        source={"git": str(desk.folder / "trajectory")},
    )
    desk.write(*nodes)


@needs_sshd
@pytest.mark.thorough
def test_the_faster_node_builds_and_when_it_dies_in_the_middle_the_other_one_does(
    desk: Desk, machines: dict[str, Machine]
) -> None:
    # The slow one comes first in the file.
    write(desk, machines["slow"].entry("slow"), machines["quick"].entry("quick"))

    first = desk.run("bench", "--version", VERSIONS[0], "--runs", "2", "--baseline", "slow")
    assert first.code == 0, first
    heading, *rows = first.out.splitlines()[1:4]
    assert heading.split()[:7] == ["node", "target", "average", "min", "max", "std", "dev"]
    assert [row.split()[:2] for row in rows] == [["quick", host_target()], ["slow", host_target()]]
    (saved,) = (desk.dist / "bench").glob("*.json")
    measured = {node["node"]: node for node in json.loads(saved.read_text())["nodes"]}
    assert measured["slow"]["ratio"] == 1
    assert measured["slow"]["min_seconds"] >= 3  # a library and a program, 1.5 s for each
    assert measured["quick"]["max_seconds"] < measured["slow"]["min_seconds"]
    # Nothing of it is left to be built upon, nor is it anything of a release.
    for machine in machines.values():
        assert machine.jobs("work") == []
        assert not machine.folder.joinpath("home/.cache/orchestrator/target").exists()

    plan = desk.release("--dry-run", version=VERSIONS[0]).data
    assert [task["node"] for task in plan["tasks"]] == ["quick"]
    assert plan["forecast"]["finish_seconds"] < measured["slow"]["min_seconds"]
    built = desk.release(version=VERSIONS[0])
    assert built.code == 0, built
    assert built.results["quick"]["result"] == "built"
    assert not built.results["quick"]["was_attached"]
    assert built.results["slow"]["reason"] == "stands by for quick"

    (machines["quick"].folder / "stop").touch()
    with desk.started("release", "--version", VERSIONS[1], "--json") as running:
        wait_for((machines["quick"].folder / "stopped").exists)
        machines["quick"].die()
        moved = running.end()
    assert moved.code == 0, moved
    assert moved.results["quick"]["class"] == "machine"
    assert moved.results["slow"]["result"] == "built"

    # Until it has shown that it is well again, or a day is over, the other one goes first.
    plan = desk.release("--dry-run", version=VERSIONS[2]).data
    assert [task["node"] for task in plan["tasks"]] == ["slow"]


@needs_sshd
@pytest.mark.thorough
def test_two_nodes_of_one_target_are_compared_and_what_differs_is_explained(
    desk: Desk, machines: dict[str, Machine]
) -> None:
    first, second = machines["quick"].entry("first"), machines["slow"].entry("second")
    write(desk, {**first, "env": {}}, {**second, "env": {}})
    same = desk.release("--compare", version=VERSIONS[0])
    assert same.code == 0, same
    (compared,) = same.data["comparisons"]
    assert (compared["equal"], compared["differences"]) == (["first", "second"], [])
    assert same.data["published"] == []
    # The builds are there for the release, which makes none of them again.
    released = desk.release(version=VERSIONS[0])
    assert released.code == 0
    assert [each["was_attached"] for each in released.data["results"] if "file" in each] == [True]

    env = {"CARGO_PROFILE_RELEASE_STRIP": "false"}
    desk.write({**first, "env": {}}, {**second, "env": env})
    other = desk.release("--compare", version=VERSIONS[0])
    assert other.code == 4, other
    (compared,) = other.data["comparisons"]
    assert compared["equal"] == ["first"]
    (difference,) = compared["differences"]
    assert ".symtab" in {section["section"] for section in difference["sections"]}
    assert difference["reasons"] == [
        "their `env` in the inventory differs: CARGO_PROFILE_RELEASE_STRIP",
        "only second has .debug_abbrev: `strip` or `debug` of the profile is not the same",
    ]
    text = desk.run("release", "--version", VERSIONS[0], "--compare").out
    assert f"trajectory for {host_target()}: second differs from first\n  in " in text

    alone = desk.run("release", "--version", VERSIONS[0], "--compare", "--node", "first")
    assert alone.code == 2
    assert "nothing to compare" in alone.err
