"""A project with two releases, made by the product's own commands on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from examples import demo
from orchestrator import signing
from orchestrator.core.index import Status, join_signed, parse_index, render_index, split_signed
from orchestrator.core.signature import index_namespace
from tests.conftest import HOME
from tests.releases import host_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.core.index import Index, Row

PROJECT: Final = "trajectory"
OLD, NEW = demo.VERSIONS
GNU: Final = host_target()
MUSL: Final = GNU.replace("-gnu", "-musl")


@dataclass(frozen=True, slots=True)
class Publisher:
    """A folder with the program's repository, a key, and the nodes' finished builds."""

    folder: Path

    def release(self, name: str, url: str, *versions: str) -> Path:
        """Release into a store of that name, and return its folder; what was built is not again."""
        inventory = self.folder / f"{name}.yaml"
        inventory.write_text(_inventory(self.folder, name, url))
        if not (self.folder / "repository").exists():
            demo._make_repository(self.folder / "repository")
            self._run("keygen", "--inventory", str(inventory))
        for version in versions:
            self._run("release", "--version", version, "--inventory", str(inventory))
        return self.folder / name

    def _run(self, *words: str) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=demo.ROOT,
            env=_environment(self.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def rewrite(self, store: Path, rows: tuple[Row, ...]) -> None:
        """Sign and write the index of a store with other rows than the product gave it."""
        signer = signing.load_signer(self.folder / "signing-key", None)
        text = render_index(replace(index_of(store), rows=rows))
        namespace = index_namespace(PROJECT)
        pair = signer.sign(text.encode(), namespace=namespace, comment="index")
        (store / "stable.idx").write_text(join_signed(text, pair.sshsig, pair.minisig))


def index_of(store: Path) -> Index:
    return parse_index(split_signed((store / "stable.idx").read_text())[0])


def _inventory(folder: Path, store: str, url: str) -> str:
    target, flags = _static_build()
    build = f"""
      cd {{source}}
      cargo build --release --locked --offline --target {target} --jobs {{jobs}}
      cp "$CARGO_TARGET_DIR/{target}/release/{PROJECT}" "$ORCHESTRATOR_OUT/"
"""
    return f"""\
project:
  name: {PROJECT}
  binaries: [{PROJECT}]
  source: {{ git: {folder}/repository }}
  gate: '{{binary}} --velocity 800 --bc 0.45 --range 300'
  extras: [ 'man/{{name}}.1', 'completions/{{name}}.bash' ]
publication:
  store: {store}
  url: {url}
  verify: false
  signing: {{ key: signing-key }}
defaults:
  host: local
  policy: required
nodes:
  - name: glibc
    target: {GNU}
    workdir: {folder}/glibc-node
  - name: static
    target: {MUSL}
    workdir: {folder}/static-node
    env: {flags}
    build_command: |{build}"""


def _static_build() -> tuple[str, str]:
    """Return what cargo builds for a program that needs no libc, and the environment for it.

    Without the other libc's standard library here, it is glibc's static one that serves.
    """
    added = shutil.which("rustup") and subprocess.run(
        ["rustup", "target", "add", MUSL], capture_output=True, check=False, timeout=300
    )
    if added and added.returncode == 0:
        return MUSL, "{}"
    return GNU, "{ RUSTFLAGS: -C target-feature=+crt-static }"


def _environment(folder: Path) -> Mapping[str, str]:
    """Return an environment with a home of its own, where rustup still finds its toolchains."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    toolchain = os.environ.get("RUSTUP_HOME") or str(Path(HOME, ".rustup"))
    return os.environ | {"HOME": str(home), "RUSTUP_HOME": toolchain}


def without_floors(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return rows of which the newest version is for glibc alone, and does not say which one."""
    return tuple(replace(row, floors=()) if row.target == GNU else _late(row) for row in rows)


def _late(row: Row) -> Row:
    if str(row.version) != NEW:
        return row
    return replace(row, status=Status.PENDING, size_bytes=None, sha256=None, path=None)
