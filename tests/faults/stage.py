"""What all labs of a suite share: the program, its source, the wires."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults.calibration import Traffic
from tests.faults.wire import Wires, wires
from tests.releases import VERSION, Programs, host_target, other_target
from tests.systems import SYSTEMS, mark_as

if TYPE_CHECKING:
    from collections.abc import Iterator

# Released beside the usual one, of nodes that have no source to push.
OTHER_VERSION: Final = "1.0.1"
# Large enough for a fault in the middle of a push, and incompressible.
SOURCE_BYTES: Final = 1_500_000

_LOCK: Final = f"""\
version = 4

[[package]]
name = "tool"
version = "{VERSION}"
"""
_MANIFEST: Final = f"""\
[package]
name = "tool"
version = "{VERSION}"
edition = "2021"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The folder of a suite; `source` is a repository there that every node gets pushed."""

    folder: Path
    programs: Programs
    source: Path
    wires: Wires
    # What was measured of a release without faults.
    traffic: Traffic = field(default_factory=lambda: Traffic(spans={}, seconds=0))

    def program(self, triple: str | None, version: str = VERSION) -> Path:
        """Return what a node of that target delivers."""
        if triple in SYSTEMS:
            return self.folder / "programs" / triple
        return self.programs.program(version, triple)

    @property
    def bundle_bytes(self) -> int:
        """The size of the source bundle, once it was made."""
        return sum(path.stat().st_size for path in (self.folder / "cache").rglob("*.tar.gz"))

    @property
    def environment(self) -> dict[str, str]:
        """What every coordinator has: one cache of bundles, this toolchain, no agent."""
        home = Path.home()
        return {
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "SSH_AUTH_SOCK": "",
            "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home / ".rustup")),
            "CARGO_HOME": os.environ.get("CARGO_HOME", str(home / ".cargo")),
        }


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Yield a stage with its programs compiled and its source committed; nothing is measured."""
    programs = Programs(folder=folder / "programs")
    programs.folder.mkdir(parents=True)
    for version in (VERSION, OTHER_VERSION):
        programs.program(version, host_target())
        programs.program(version, other_target())
    static = programs.program(VERSION, other_target()).read_bytes()
    for triple, system in SYSTEMS.items():
        marked = programs.folder / triple
        marked.write_bytes(mark_as(static, system))
        marked.chmod(0o755)
    with wires() as made:
        source = _repository(folder / "source")
        yield Stage(folder=folder, programs=programs, source=source, wires=made)


def _repository(folder: Path) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.rs").write_text("fn main() {}\n")
    (folder / "Cargo.toml").write_text(_MANIFEST)
    (folder / "Cargo.lock").write_text(_LOCK)
    (folder / "data").write_bytes(random.Random(VERSION).randbytes(SOURCE_BYTES))
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "Release"),
    ):
        _git(folder, *arguments)
    return folder


def _git(folder: Path, *arguments: str) -> None:
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Test"), ("EMAIL", "test@localhost"), ("DATE", "@0 +0000"))
    }
    environment = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=environment)
