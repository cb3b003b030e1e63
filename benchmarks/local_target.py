"""From a tag to what people install, for one target of this machine: overhead beyond the build."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.machine import said_version
from benchmarks.measuring import RunFailedError, in_turn, run_measured
from benchmarks.report import OURS, Goal, Report, Row, Table
from benchmarks.shop import ORCHESTRATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import Usage
    from benchmarks.options import Options

_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
# `cargo install cargo-dist --locked --root cargo` and `GOBIN=go/bin go install …` in that folder.
_DIST: Final = _CACHE / "orchestrator-bench/cargo/bin/dist"
_GORELEASER: Final = _CACHE / "orchestrator-bench/go/bin/goreleaser"
_EXAMPLE: Final = Path(__file__).parent.parent / "examples/trajectory"
_PLAIN: Final = "cargo build --release"
_VERSION: Final = "0.1.0"
_ABOUT: Final = """
One local node, from the tag of a program without dependencies to its archive, checksum, signature
and installer. Every run is the first one in a new copy of the repository, so that each compiles the
same; the overhead is the wall time beyond the median of plain `cargo build --release`.
""".strip().replace("\n", " ")
_REMARK: Final = (
    "Ours also runs the program, reads what it needs of the system, writes provenance and an SBOM, "
    "signs the index, and reads all of it back. cargo-dist signs nothing on a machine of one's "
    "own, and packs the source besides; goreleaser has no installer, and signs the checksums "
    "with ssh-keygen."
)


def measure(options: Options) -> Report:
    """Return the overhead of each tool that is here."""
    runs = 1 if options.is_quick else options.runs
    tools: dict[str, Callable[[Path], tuple[Usage, bytes]]] = {_PLAIN: _plain, OURS: _ours}
    versions = {"cargo": said_version(["cargo", "--version"])}
    for name, program, run in (
        ("cargo-dist", _DIST, _dist),
        ("goreleaser", _GORELEASER, _goreleaser),
    ):
        if program.exists():
            tools[name] = run
            versions[name] = said_version([str(program), "--version"])
        else:
            print(f"left out: there is no {program}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = in_turn(
            {name: _Round(root, run) for name, run in tools.items()}, runs=runs, warm_up=1
        )
    plain = sorted(usage.seconds for usage in found[_PLAIN])[len(found[_PLAIN]) // 2]
    rows = tuple(
        Row(
            tool=tool,
            samples={
                "seconds": [usage.seconds for usage in usages],
                "overhead_seconds": [usage.seconds - plain for usage in usages],
                "cpu_seconds": [usage.cpu_seconds for usage in usages],
            },
        )
        for tool, usages in found.items()
    )
    table = Table(title="From a tag to an installer", rows=rows, charted="overhead_seconds")
    own = table.row(OURS).middle("overhead_seconds")
    goals = tuple(
        Goal(
            what=f"of the overhead of {row.tool}",
            value=own / row.middle("overhead_seconds"),
            limit=1,
        )
        for row in rows
        if row.tool not in {OURS, _PLAIN}
    )
    return Report(
        name="local-target",
        title="One local target",
        about=_ABOUT,
        tables=(table,),
        goals=goals,
        versions=versions,
        remarks=(_REMARK,),
        runs=runs,
    )


@dataclass(frozen=True, slots=True)
class _Round:
    """One tool, run each time in a new copy of the program's repository."""

    root: Path
    run: Callable[[Path], tuple[Usage, bytes]]

    def __call__(self) -> Usage:
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            home = Path(folder)
            shutil.copytree(_EXAMPLE, home / "trajectory", ignore=shutil.ignore_patterns("target"))
            usage, program = self.run(home)
            binary = home / "program"
            binary.write_bytes(program)
            binary.chmod(0o755)
            said = subprocess.run([binary, "--version"], check=True, capture_output=True)
            if said.stdout != f"trajectory {_VERSION}\n".encode():
                raise RunFailedError(f"the program says {said.stdout!r}")
        return usage


def _plain(home: Path) -> tuple[Usage, bytes]:
    repository = home / "trajectory"
    _commit(repository)
    words = ["cargo", "build", "--release", "--locked", "--offline"]
    usage = run_measured(words, cwd=repository, env=_environment(home))
    return usage, (repository / "target/release/trajectory").read_bytes()


def _ours(home: Path) -> tuple[Usage, bytes]:
    repository = home / "trajectory"
    _commit(repository)
    (home / "nodes.yaml").write_text(
        f"""\
project:
  name: trajectory
  binaries: [trajectory]
  source: {{ git: {repository} }}
publication:
  store: store
  url: https://example.org/trajectory
  signing: {{ key: key }}
nodes:
  - name: here
    host: local
    target: {_host()}
    workdir: {home}/work
    build_command: |
      cd {{source}}
      cargo build --release --locked --offline
      cp "$CARGO_TARGET_DIR/release/trajectory" "$ORCHESTRATOR_OUT/"
"""
    )
    ours, words = str(ORCHESTRATOR), ("--inventory", "nodes.yaml")
    run_measured([ours, "keygen", *words], cwd=home, env=_environment(home))
    release = [ours, "release", "--version", _VERSION, *words]
    usage = run_measured(release, cwd=home, env=_environment(home))
    folder = home / f"store/releases/{_VERSION}"
    if not (folder / "install.sh.sig").exists():
        raise RunFailedError("there is no signed installer")
    return usage, _program(folder / _host())


def _dist(home: Path) -> tuple[Usage, bytes]:
    repository = home / "trajectory"
    manifest = repository / "Cargo.toml"
    text = manifest.read_text()
    # It publishes nothing without an address; its own profile would optimise more, for longer.
    text = text.replace("publish = false", 'repository = "https://github.com/example/trajectory"')
    manifest.write_text(f'{text}\n[profile.dist]\ninherits = "release"\n')
    (repository / "dist-workspace.toml").write_text(
        f"""\
[workspace]
members = ["cargo:."]

[dist]
cargo-dist-version = "{said_version([str(_DIST), "--version"])}"
installers = ["shell"]
targets = ["{_host()}"]
hosting = "github"
ci = "github"
allow-dirty = ["ci"]
checksum = "sha256"
unix-archive = ".tar.gz"
"""
    )
    _commit(repository)
    words = [str(_DIST), "build", "--artifacts=all", "--tag", f"v{_VERSION}"]
    usage = run_measured(words, cwd=repository, env=_environment(home))
    folder = repository / "target/distrib"
    if not (folder / "trajectory-installer.sh").exists():
        raise RunFailedError("there is no installer")
    return usage, _program(folder, "trajectory-*")


def _goreleaser(home: Path) -> tuple[Usage, bytes]:
    repository = home / "trajectory"
    (repository / ".goreleaser.yaml").write_text(
        f"""\
version: 2
builds:
  - builder: rust
    tool: cargo
    command: build
    flags: [--release, --locked, --offline]
    targets: [{_host()}]
archives:
  - formats: [tar.gz]
signs:
  - cmd: ssh-keygen
    args: [-Y, sign, -q, -n, file, -f, {home}/key, "${{artifact}}"]
    signature: "${{artifact}}.sig"
    artifacts: checksum
"""
    )
    _commit(repository)
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "key")]
    subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
    words = [str(_GORELEASER), "release", "--clean", "--skip=publish,announce"]
    usage = run_measured(words, cwd=repository, env=_environment(home))
    if not list((repository / "dist").glob("*checksums.txt.sig")):
        raise RunFailedError("the checksums are not signed")
    return usage, _program(repository / "dist")


def _program(folder: Path, pattern: str = "*") -> bytes:
    """Return the program of the one archive in a folder that has a checksum."""
    (file,) = folder.glob(f"{pattern}.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as archive:
        for member in archive:
            if member.isfile() and Path(member.name).name == "trajectory":
                found = archive.extractfile(member)
                assert found is not None  # noqa: S101 -- it is a file
                return found.read()
    raise RunFailedError(f"{file.name} has no program in it")


def _commit(repository: Path) -> None:
    (repository / ".gitignore").write_text("/target\n/dist\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "-C", str(repository)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["tag", f"v{_VERSION}"]):
        subprocess.run([*git, *words], check=True)
    address = "https://github.com/example/trajectory.git"
    subprocess.run([*git, "remote", "add", "origin", address], check=True)


def _environment(home: Path) -> dict[str, str]:
    # Nothing of an earlier round, and cargo's own folders as ever.
    return {**os.environ, "XDG_CACHE_HOME": str(home / "cache"), "GIT_CONFIG_GLOBAL": os.devnull}


def _host() -> str:
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))
