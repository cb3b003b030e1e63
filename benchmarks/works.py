"""A project with seven nodes, to be released again and again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.fleet import Fleet, FleetNode, loopback_address, serving
from benchmarks.link import far_address
from benchmarks.measuring import Usage, run_measured
from benchmarks.systems import KINDS, disguise, make_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.link import Link

ORCHESTRATOR: Final = Path(sys.executable).parent / "orchestrator"
PROJECT: Final = "trajectory"
EXAMPLE: Final = Path(__file__).parent.parent / "examples" / PROJECT


@dataclass(slots=True, kw_only=True)
class Works:
    """A project with its repository, its seven nodes, a store and a key; versions count up.

    `near` goes before the commands of the maintainer's machine, if the nodes are behind a link.
    """

    folder: Path
    fleet: Fleet
    seconds: float
    near: Sequence[str] = ()
    made: int = 0

    @property
    def inventory(self) -> Path:
        """The inventory file."""
        return self.folder / "build-nodes.yaml"

    @property
    def repository(self) -> Path:
        """Where the source of all versions is."""
        return self.folder / "source"

    @property
    def store(self) -> Path:
        """Where our own releases are published."""
        return self.folder / "store"

    def next_version(self) -> str:
        """Make another version: its tag, and the program that each node's build will deliver."""
        self.made += 1
        version = f"1.{self.made}.0"
        manifest = self.repository / "Cargo.toml"
        lines = manifest.read_text().splitlines(keepends=True)
        manifest.write_text(
            "".join(f'version = "{version}"\n' if "version =" in line else line for line in lines)
        )
        lock = self.repository / "Cargo.lock"
        lock.write_text(f'version = 4\n\n[[package]]\nname = "{PROJECT}"\nversion = "{version}"\n')
        _git(self.repository, "commit", "-qam", version)
        _git(self.repository, "tag", f"v{version}")
        for node, kind in zip(self.fleet.nodes, KINDS, strict=True):
            make_program(kind, version, node.folder / "programs")
        return version

    def seconds_of(self, node: FleetNode) -> float:
        """Return how long a node builds: the last one longest, the others end one by one."""
        number = self.fleet.nodes.index(node) + 1
        return self.seconds * (1 - 0.05 * (len(self.fleet.nodes) - number))

    def build_script(self, version: str, node: FleetNode) -> str:
        """Return what a build does on a node."""
        program = node.folder / "programs" / f"{PROJECT}-{version}"
        copy = f'cp {program} "$ORCHESTRATOR_OUT/{PROJECT}"'
        return f"sleep {self.seconds_of(node):g}\n{copy}\n"

    def release(self, version: str, *more: str) -> Usage:
        """Release a version with our own tool."""
        return run_measured(
            [
                *self.near,
                *(str(ORCHESTRATOR), "release", "--version", version),
                *("--inventory", str(self.inventory), *more),
            ],
            cwd=self.folder,
        )

    def write_inventory(self) -> None:
        """Write the inventory: everything a user would have, a signed store included."""
        nodes = [
            {
                "name": node.name,
                "host": f"{self.fleet.user}@{node.address}",
                "port": node.port,
                "identity": str(self.fleet.identity),
                "host_key": self.fleet.host_key,
                "target": kind.target,
                # They share a machine, whose builds would else wait for one another.
                "group": node.name,
                "workdir": str(node.folder / "work"),
                "build_command": self.build_script("{version}", node),
            }
            for node, kind in zip(self.fleet.nodes, KINDS, strict=True)
        ]
        inventory: dict[str, Any] = {
            "project": {
                "name": PROJECT,
                "binaries": [PROJECT],
                "source": {"git": str(self.repository)},
            },
            "publication": {
                "store": str(self.store),
                "url": "https://releases.example.org",
                "signing": {"key": str(self.folder / "signing_key")},
            },
            "nodes": nodes,
        }
        # YAML is a superset of JSON.
        self.inventory.write_text(json.dumps(inventory, indent=1))


@contextmanager
def works(folder: Path, *, seconds: float, ends: Link | None = None) -> Iterator[Works]:
    """Yield a project whose builds take so many seconds, with its nodes serving.

    With a link, the nodes are at its far end, and our own tool at its near one.
    """
    far = ends.far if ends else ()
    address = far_address if ends else loopback_address
    with serving(
        folder / "fleet", len(KINDS), prefix=far, address=address, has_homes=True
    ) as fleet:
        for node, kind in zip(fleet.nodes, KINDS, strict=True):
            node.home.mkdir()
            disguise(kind, node.home)
        near = ends.near if ends else ()
        made = Works(folder=folder, fleet=fleet, seconds=seconds, near=near)
        shutil.copytree(EXAMPLE, made.repository)
        _git(made.repository, "init", "-q")
        _git(made.repository, "add", ".")
        _git(made.repository, "commit", "-qm", "the example")
        made.write_inventory()
        run_measured([ORCHESTRATOR, "keygen", "--inventory", made.inventory], cwd=folder)
        yield made


def _git(repository: Path, *words: str) -> None:
    who = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    subprocess.run(
        ["git", *who, "-c", "commit.gpgsign=false", *words],
        cwd=repository,
        check=True,
        stdout=subprocess.DEVNULL,
    )
