"""The first user's crate, from the registry to a computed trajectory, on two real nodes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli import main
from orchestrator.service.static import serve_directory
from orchestrator.workspace import host_triple
from tests.conftest import HOME
from tests.nodes import sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

CRATE = "ballistics-engine"
FILES = ["LICENSE", "LICENSE-APACHE", "README.md", "ballistics"]
REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.real, sshd.needs_sshd]


def newest_version() -> str:
    """The newest version of the crate in the registry that cargo is configured for."""
    answer = subprocess.run(
        ["cargo", "info", "--quiet", CRATE], check=True, capture_output=True, text=True, cwd="/"
    )
    found = re.search(r"^version: (\S+)", answer.stdout, re.MULTILINE)
    assert found is not None, answer.stdout
    return found[1]


def inventory(folder: Path, url: str, node: sshd.Sshd) -> Path:
    """Two nodes on this machine: they build at the same time, for glibc and without a libc."""
    host = host_triple()
    assert host is not None
    assert host.endswith("-linux-gnu"), (
        "the two targets of this test are Linux with and without glibc"
    )
    shipped = (REPOSITORY / "build-nodes.yaml").read_text()
    project = shipped[shipped.index("project:") : shipped.index("publication:")]
    path = folder / "build-nodes.yaml"
    path.write_text(f"""{project}
publication:
  store: store
  url: {url}
  flat: true
  signing: {{ key: signing-key }}
nodes:
  - name: local
    host: local
    target: {host}
    workdir: {folder}/local
    policy: required
  - name: behind-sshd
    host: {node.host}
    port: {node.port}
    host_key: {node.host_key}
    identity: {node.identity}
    target: {host.removesuffix("gnu")}musl
    workdir: {folder}/ssh
    policy: required
    env: {{ RUSTFLAGS: -C target-feature=+crt-static }}
    build_command: |
      cd {{source}}
      cargo build --release --locked --offline --target {host} --jobs {{jobs}} --bin ballistics
      cp "$CARGO_TARGET_DIR/{host}/release/ballistics" "$ORCHESTRATOR_OUT/"
""")
    return path


@contextmanager
def real_node(folder: Path) -> Iterator[sshd.Sshd]:
    """A node behind OpenSSH whose login has a toolchain and nothing else of this user's."""
    home = folder / "ssh-home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path(HOME, ".rustup"))),
    }
    with sshd.running(folder / "sshd", environment=environment) as node:
        yield node


def run(*arguments: object, **more: Any) -> str:
    words = [str(argument) for argument in arguments]
    ended: subprocess.CompletedProcess[str] = subprocess.run(
        words, check=True, capture_output=True, text=True, timeout=120, **more
    )
    return ended.stdout


def check_trajectory(program: Path) -> None:
    """Solve a .308 zeroed at 200 yd, and compare with what physics allows."""
    solved = run(
        program,
        *("trajectory", "-v", "2700", "-b", "0.475", "-m", "168", "-d", "0.308"),
        *("--auto-zero", "200", "--max-range", "500", "-o", "csv", "--full"),
    )
    rows = [[float(cell) for cell in row] for row in list(csv.reader(io.StringIO(solved)))[1:]]
    times, velocities = ([row[column] for row in rows] for column in (0, 4))
    assert len(rows) > 20
    assert times == sorted(times)
    assert velocities == sorted(velocities, reverse=True)
    assert velocities[0] == pytest.approx(2700)
    assert rows[-1][3] == pytest.approx(500, abs=5)
    assert 1600 < velocities[-1] < 2100
    assert 0.5 < times[-1] < 0.9


def test_the_real_crate_reaches_a_users_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = newest_version()
    (tmp_path / "store").mkdir()
    with real_node(tmp_path) as node, serve_directory(tmp_path / "store") as url:
        path = inventory(tmp_path, url, node)
        assert main(["keygen", "--inventory", str(path)]) == 0
        capsys.readouterr()

        code = main(["release", "--version", version, "--inventory", str(path), "--json"])
        report = json.loads(capsys.readouterr().out)
        assert code == 0, report
        assert len(report["published"]) == 2
        assert {result["result"] for result in report["results"]} == {"built"}

        for name, options in (
            ("native", ()),
            ("static", ("--target", report["results"][1]["target"])),
        ):
            home = tmp_path / name
            home.mkdir()
            folder = home / "bin"
            words = " ".join(("--require-signature", *options))
            run(
                *("sh", "-c", f"curl -sSf {url}/install.sh | sh -s -- {words}"),
                env={
                    "HOME": str(home),
                    "XDG_BIN_HOME": str(folder),
                    "PATH": os.environ["PATH"],
                },
            )
            assert run(folder / "ballistics", "--version").split() == ["ballistics", version]
            check_trajectory(folder / "ballistics")
        for result in report["results"]:
            checksum = tmp_path / "store" / "releases" / version / result["target"]
            run("sha256sum", "-c", f"{result['file']}.sha256", cwd=checksum)
            names = run("tar", "-tzf", checksum / result["file"]).split()
            assert [name.rpartition("/")[2] for name in names] == FILES
        run("sh", "-c", "sha256sum -c *.sha256", cwd=tmp_path / "store" / version)
