"""The first user's crate, from the registry to a computed trajectory, on two real nodes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli import main
from orchestrator.workspace import host_triple
from tests.conftest import HOME
from tests.gcs.server import serving
from tests.nodes import sshd
from tests.servers import orchestrator_serve

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


def inventory(folder: Path, node: sshd.Sshd, *, store: str, url: str) -> Path:
    """Two nodes on this machine: they build at the same time, for glibc and without a libc.

    Inventories of two stores have the same nodes, so the second one's release builds nothing.
    """
    host = host_triple()
    assert host is not None
    assert host.endswith("-linux-gnu"), (
        "the two targets of this test are Linux with and without glibc"
    )
    shipped = (REPOSITORY / "build-nodes.yaml").read_text()
    project = shipped[shipped.index("project:") : shipped.index("publication:")]
    path = folder / f"{store.partition(':')[0]}.yaml"
    path.write_text(f"""{project}
publication:
  store: {store}
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


def release(path: Path, version: str, **environment: str) -> dict[str, Any]:
    """Release with the command as an operator runs it, and return its report."""
    command = [sys.executable, "-m", "orchestrator", "release", "--inventory", str(path)]
    ended = subprocess.run(
        [*command, "--version", version, "--json"],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    assert len(report["published"]) == 2
    assert {result["result"] for result in report["results"]} == {"built"}
    return report


def check_installs(folder: Path, url: str, version: str, *, static: str) -> None:
    """Run the piped command as two users do, and compute with what they get."""
    for name, options in (("native", ()), ("static", ("--target", static))):
        home = folder / name
        home.mkdir(parents=True)
        bin_dir = home / "bin"
        words = " ".join(("--require-signature", *options))
        # On loopback it is http, which has no TLS to ask for.
        line = f"curl --proto '=http' -sSf {url}/install.sh | sh -s -- {words}"
        environment = {
            "HOME": str(home),
            "XDG_BIN_HOME": str(bin_dir),
            "PATH": os.environ["PATH"],
        }
        told = run("sh", "-c", line, env=environment)
        assert told == f"{bin_dir}/ballistics\n"
        assert run(bin_dir / "ballistics", "--version").split() == ["ballistics", version]
        check_trajectory(bin_dir / "ballistics")


def test_the_real_crate_reaches_a_users_machine(tmp_path: Path) -> None:
    version = newest_version()
    store = tmp_path / "store"
    store.mkdir()
    with real_node(tmp_path) as node:
        with orchestrator_serve(store) as url:
            path = inventory(tmp_path, node, store="store", url=url)
            assert main(["keygen", "--inventory", str(path)]) == 0
            report = release(path, version)
            static = report["results"][1]["target"]
            check_installs(tmp_path / "from serve", url, version, static=static)
        for result in report["results"]:
            checksum = store / "releases" / version / result["target"]
            run("sha256sum", "-c", f"{result['file']}.sha256", cwd=checksum)
            names = run("tar", "-tzf", checksum / result["file"]).split()
            assert [name.rpartition("/")[2] for name in names] == FILES
        run("sh", "-c", "sha256sum -c *.sha256", cwd=store / version)

        with serving("bucket") as service:
            url = f"{service.url}/bucket/ballistics"
            path = inventory(tmp_path, node, store="gs://bucket/ballistics", url=url)
            again = release(path, version, STORAGE_EMULATOR_HOST=service.url)
            assert [result["was_attached"] for result in again["results"]] == [True, True]
            assert [result["sha256"] for result in again["results"]] == [
                result["sha256"] for result in report["results"]
            ]
            check_installs(tmp_path / "from the bucket", url, version, static=static)
            assert service.ops("public", r"ballistics/releases/.*\.tar\.gz")
