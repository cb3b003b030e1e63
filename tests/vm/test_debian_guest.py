"""A real guest: made of Debian's packages, booted without KVM, released on, stopped.

The image is kept in the cache folder of whoever runs this, so that it is made once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.nodes.vm.folder import CLIENT_KEY, HOST_KEY, VmFolder
from orchestrator.nodes.vm.seed import make_key
from orchestrator.nodes.vm.tools import free_port
from tests.conftest import HOME
from tests.releases import ROOT, host_target, other_target, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "debian-amd64"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path(HOME, ".cache"), "orchestrator-test-images")

pytestmark = pytest.mark.vm


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator's folder, with a home of its own."""

    folder: Path
    environment: dict[str, str]

    @property
    def vm(self) -> VmFolder:
        return VmFolder(self.folder / "state/orchestrator/vms" / NAME)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            said, complained = process.communicate(timeout=1200)
        return subprocess.CompletedProcess(words, process.returncode, said, complained)

    def do(self, *words: str) -> str:
        ended = self.run(*words)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def state(self) -> Any:
        return json.loads(self.do("vm", "status", NAME, "--json"))["machines"][0]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An inventory with this machine and a guest, which is made."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "examples/trajectory", folder / "trajectory")
    shutil.copytree(ROOT / "vms" / NAME, folder / "vms" / NAME)
    definition = folder / "vms" / NAME / "vm.yaml"
    lines = definition.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("ssh_port:")]
    definition.write_text("\n".join((*lines, f"ssh_port: {free_port()}", "")))
    (folder / "build-nodes.yaml").write_text(f"""
project:
  name: trajectory
  source: {{ path: trajectory, allow_dirty: true }}
publication:
  store: store
  signing: {{ key: key }}
nodes:
  - name: here
    host: local
    target: {other_target()}
    workdir: {folder}/here
    env: {{ RUSTFLAGS: -C target-feature=+crt-static }}
    build_command: |
      cd {{source}}
      cargo build --release --locked --offline --target {host_target()} --jobs {{jobs}}
      cp "$CARGO_TARGET_DIR/{host_target()}/release/trajectory" "$ORCHESTRATOR_OUT/"
  - name: guest
    vm: {NAME}
    target: x86_64-unknown-linux-gnu
""")
    environment = {
        **os.environ,
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "CARGO_HOME": os.environ.get("CARGO_HOME", str(Path(HOME, ".cargo"))),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path(HOME, ".rustup"))),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(CACHE),
    }
    made = Desk(folder, environment)
    made.do("keygen")
    made.do("vm", "create", NAME)
    yield made
    made.run("vm", "destroy", NAME)


def test_a_release_killed_while_its_guest_boots_is_gone_on_with_in_that_guest(desk: Desk) -> None:
    first = desk.start("release", "--version", "0.1.0", "--json")
    wait_for(lambda: desk.vm.is_running and desk.vm.pid is not None)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    booting = desk.vm.pid
    assert desk.state()["started"] == "for a job"

    with desk.start("release", "--version", "0.1.0") as second:
        said, log = second.communicate(timeout=600)

    assert second.returncode == 0, said + log
    assert desk.state()["state"] == "stopped"  # nobody else uses it
    # QEMU removes the file of its own number; there was no other one.
    assert desk.vm.pid in {booting, None}
    published = json.loads((desk.folder / "store/versions.json").read_text())
    assert "x86_64-unknown-linux-gnu" in json.dumps(published)
    assert other_target() in json.dumps(published)
    log_of_guest = (desk.folder / "dist/0.1.0/guest/build.log").read_text(errors="replace")
    assert "Compiling trajectory" in log_of_guest
    assert "/home/builder/" in log_of_guest


def test_a_guest_that_was_started_by_hand_is_nobodys_to_stop(desk: Desk) -> None:
    assert "is up" in desk.do("vm", "start", NAME)
    try:
        assert desk.state()["state"] == "running"
        pid = desk.state()["pid"]
        assert desk.do("vm", "ssh", NAME, "--", "id", "-un").strip() == "builder"
        assert desk.do("vm", "ssh", f"root@{NAME}", "--", "id", "-un").strip() == "root"

        desk.do("check", "guest", "--json")

        assert desk.state()["pid"] == pid
        assert desk.state()["started"] == "by hand"

        refuse_another_host_key(desk)
    finally:
        stopped = desk.do("vm", "stop", NAME)
    assert "switched off" in stopped
    assert desk.state()["state"] == "stopped"


def refuse_another_host_key(desk: Desk) -> None:
    """Expect the host key that was made for it, and show it another one."""
    made, kept = desk.vm.file(f"{HOST_KEY}.pub"), desk.vm.file("kept.pub")
    made.rename(kept)
    make_key(desk.folder / "other", "another machine's")
    shutil.copy(desk.folder / "other.pub", made)
    try:
        refused = desk.run("vm", "start", NAME)
        checked = desk.run("check", "guest")
    finally:
        kept.replace(made)
    assert refused.returncode == 3
    assert "HAS CHANGED" in refused.stderr
    assert checked.returncode == 3
    assert "HAS CHANGED" in checked.stdout


def test_nothing_of_a_guest_is_readable_for_others(desk: Desk) -> None:
    assert desk.vm.path.stat().st_mode & 0o777 == 0o700
    assert desk.vm.file(CLIENT_KEY).stat().st_mode & 0o777 == 0o600
    assert desk.vm.file(HOST_KEY).stat().st_mode & 0o777 == 0o600
    assert desk.vm.file("seed.img").stat().st_mode & 0o777 == 0o600


def test_the_golden_image_is_as_it_was_made(desk: Desk) -> None:
    golden = desk.vm.file("golden").resolve()
    record = json.loads(golden.with_name("image.json").read_text())
    told = subprocess.run(["sha256sum", golden], check=True, capture_output=True, text=True)
    assert told.stdout.split()[0] == record["sha256"]["golden.qcow2"]
