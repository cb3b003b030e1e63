from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from orchestrator.core.version import parse_version
from orchestrator.source import Bundle, make_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.core.inventory import Source

MAIN = 'fn main() { println!("thing {}", env!("CARGO_PKG_VERSION")); }\n'


class Program(Protocol):
    """Writes a small Rust program called `thing` and returns its folder."""

    def __call__(
        self, name: str = "thing", *, version: str = "1.2.3", dependencies: str = ""
    ) -> Path: ...


class Git(Protocol):
    """Runs git in a folder, untouched by the configuration of whoever runs the tests."""

    def __call__(self, folder: Path, *words: str, stdin: bytes = b"") -> str: ...


class Publish(Protocol):
    """Puts a crate into the scratch registry; returns its checksum."""

    def __call__(
        self,
        name: str,
        version: str,
        *,
        dependencies: str = "",
        files: dict[str, str] | None = None,
    ) -> str: ...


class Make(Protocol):
    """Makes the bundle of a source at a version."""

    async def __call__(
        self,
        source: Source,
        *,
        version: str = "1.2.3",
        binaries: tuple[str, ...] = ("thing",),
        report: Callable[[str], None] | None = None,
    ) -> Bundle: ...


@pytest.fixture(autouse=True)
def cargo_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CARGO_HOME, and no network for cargo."""
    if shutil.which("rustup"):
        rustup = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))
        monkeypatch.setenv("RUSTUP_HOME", rustup)
    home = tmp_path / "cargo-home"
    home.mkdir()
    monkeypatch.setenv("CARGO_HOME", str(home))
    monkeypatch.setenv("CARGO_NET_OFFLINE", "true")
    return home


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def write(name: str = "thing", *, version: str = "1.2.3", dependencies: str = "") -> Path:
        folder = tmp_path / name
        (folder / "src").mkdir(parents=True)
        (folder / "src" / "main.rs").write_text(MAIN)
        (folder / "Cargo.toml").write_text(
            f'[package]\nname = "thing"\nversion = "{version}"\nedition = "2021"\n\n'
            f"[dependencies]\n{dependencies}\n"
        )
        (folder / "Cargo.lock").write_text(
            f'version = 4\n\n[[package]]\nname = "thing"\nversion = "{version}"\n'
        )
        return folder

    return write


@pytest.fixture
def git() -> Git:
    def run(folder: Path, *words: str, stdin: bytes = b"") -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        settings = ("user.name=a", "user.email=a@b", "init.defaultBranch=main")
        options = [word for setting in settings for word in ("-c", setting)]
        argv = ["git", *options, "-C", str(folder), *words]
        finished = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=True)
        return finished.stdout.decode().strip()

    return run


@pytest.fixture
def repository(program: Program, git: Git) -> Path:
    """The program in a git repository, tagged v1.2.3."""
    folder = program()
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")
    git(folder, "tag", "v1.2.3")
    return folder


@pytest.fixture
def publish(tmp_path: Path, cargo_home: Path) -> Publish:
    """A registry on disk that replaces the default one, as a mirror does."""
    registry = tmp_path / "registry"
    registry.mkdir()
    (cargo_home / "config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "mirror"\n[source.mirror]\ndirectory = "{registry}"\n'
    )

    def add(
        name: str, version: str, *, dependencies: str = "", files: dict[str, str] | None = None
    ) -> str:
        manifest = (
            f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n\n'
            f"[dependencies]\n{dependencies}\n"
        )
        lock = (files or {}).get("Cargo.lock", "")
        if "REGISTRY" in lock:
            files = {**(files or {}), "Cargo.lock": lock.replace("REGISTRY", registry_id(tmp_path))}
        content = {
            "Cargo.toml": manifest,
            **(files or {"src/lib.rs": "pub fn one() -> u8 { 1 }\n"}),
        }
        folder = registry / f"{name}-{version}"
        for path, text in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        sums = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in content.items()}
        package = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
        checksums = json.dumps({"files": sums, "package": package})
        (folder / ".cargo-checksum.json").write_text(checksums)
        return package

    return add


def registry_id(tmp_path: Path) -> str:
    """How cargo names its default registry in a lockfile."""
    probe = tmp_path / "probe"
    (probe / "src").mkdir(parents=True, exist_ok=True)
    (probe / "src" / "lib.rs").touch()
    manifest = '[package]\nname = "probe"\nversion = "0.0.0"\n[dependencies]\nleaf = "*"\n'
    (probe / "Cargo.toml").write_text(manifest)
    subprocess.run(["cargo", "generate-lockfile", "--quiet"], cwd=probe, check=True)
    lock = tomllib.loads((probe / "Cargo.lock").read_text())
    return str(next(package["source"] for package in lock["package"] if "source" in package))


@pytest.fixture
def registry_name(tmp_path: Path) -> Callable[[], str]:
    return lambda: registry_id(tmp_path)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    async def bundle(
        source: Source,
        *,
        version: str = "1.2.3",
        binaries: tuple[str, ...] = ("thing",),
        report: Callable[[str], None] | None = None,
    ) -> Bundle:
        return await make_bundle(
            source,
            version=parse_version(version),
            binaries=binaries,
            folder=tmp_path,
            cache=tmp_path / "cache",
            report=report,
        )

    return bundle


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[Bundle], Path]:
    """Unpacks a bundle as a node does: with the system's tar, somewhere else."""

    def unpack(bundle: Bundle) -> Path:
        folder = tmp_path / f"node-{bundle.archive_sha256[:8]}"
        folder.mkdir()
        subprocess.run(["tar", "-xzf", bundle.path], cwd=folder, check=True)
        return folder

    return unpack
