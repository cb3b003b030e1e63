"""`orchestrator vm`, as a person uses it: made, looked at, joined, removed."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import termios
import threading
from contextlib import suppress
from getpass import getuser
from typing import TYPE_CHECKING

import pytest
import yaml

from orchestrator.cli import main
from orchestrator.core.errors import NodeError
from orchestrator.nodes.vm.folder import VmFolder, image_home, state_home
from orchestrator.nodes.vm.terminal import attach
from orchestrator.nodes.vm.tools import free_port
from tests.nodes import sshd
from tests.vms import fake_qemu
from tests.vms.definitions import data_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = sshd.needs_sshd

NAME = "box"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VmFolder]:
    """A folder with a definition, whose golden image is there; commands run in it."""
    fake_qemu.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    golden = tmp_path / "golden.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", golden, "1M"], check=True)
    more = {"accelerators": ["tcg"], "user": getuser(), "ssh_port": free_port()}
    data = data_of("freebsd", "amd64", image={"file": str(golden)}, **more)
    define(tmp_path, data)
    made = VmFolder(state_home(os.environ) / NAME)
    yield made
    if made.is_running and made.pid:
        os.kill(made.pid, signal.SIGKILL)


def define(folder: Path, data: dict[str, object], name: str = NAME) -> None:
    place = folder / "vms" / name
    place.mkdir(parents=True)
    (place / "vm.yaml").write_text(yaml.safe_dump(data))


def vm(*words: str) -> int:
    return main(["vm", *words])


def test_a_machine_from_its_making_to_its_removal(
    folder: VmFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vm("create", NAME) == 0
    told = capsys.readouterr().out
    assert f"  - name: {NAME}\n    vm: {NAME}\n    target: x86_64-unknown-freebsd\n" in told
    assert "its host key is ssh-ed25519 AAAA" in told

    assert vm("start", NAME) == 0
    assert vm("start", NAME) == 0
    told = capsys.readouterr().out
    assert told == f"{NAME} is up\n{NAME} was up already\n"

    assert vm("status", "--json") == 0
    machine = json.loads(capsys.readouterr().out)["machines"][0]
    assert (machine["state"], machine["started"]) == ("running", "by hand")
    assert machine["pid"] == folder.pid
    assert vm("doctor", NAME) == 0
    told = capsys.readouterr().out
    assert "its own" in told
    assert "ok    boot: somebody could log in" in told

    assert vm("stop", NAME) == 0
    assert vm("stop", NAME) == 0
    assert capsys.readouterr().out == f"{NAME}: switched off\n{NAME}: was not running\n"

    assert vm("destroy", NAME) == 0
    assert not folder.path.exists()
    assert vm("status") == 0
    assert "not created" in capsys.readouterr().out


def test_a_machine_of_the_same_name_of_another_inventory_is_not_taken_for_its_own(
    folder: VmFolder,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert vm("create", NAME) == 0
    shutil.copytree(tmp_path / "vms", tmp_path / "other/vms")
    monkeypatch.chdir(tmp_path / "other")
    for action in ("start", "stop", "destroy", "ssh"):
        assert vm(action, NAME) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"of another inventory, the one in {tmp_path}" in said
    assert folder.is_created

    assert vm("create", NAME) == 0
    assert vm("stop", NAME) == 0
    monkeypatch.chdir(tmp_path)
    assert vm("stop", NAME) == 2


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("start",), "needs the name of a virtual machine"),
        (("destroy",), "these are defined: box"),
        (("start", "bix"), "did you mean `box`?"),
        (("start", NAME), "orchestrator vm create box"),
        (("ssh", NAME), "is not made yet"),
        (("ssh", f"Root;@{NAME}"), "is not a user's name"),
        (("console", NAME), "a console needs a terminal"),
    ],
)
def test_what_cannot_be_done_is_told_with_a_remedy(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vm(*words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_machine_that_is_off_cannot_be_logged_into(capsys: pytest.CaptureFixture[str]) -> None:
    assert vm("create", NAME) == 0
    assert vm("ssh", NAME) == 3
    assert "orchestrator vm start box" in capsys.readouterr().err


def test_a_machine_of_another_host_is_that_hosts_business(
    folder: VmFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"host": "alex@10.1.1.27", "unit": "far.service"}
    define(tmp_path, data_of("netbsd", "amd64", **more), "far")

    assert vm("start", "far") == 2
    assert "systemctl status far.service" in capsys.readouterr().err
    assert vm("status", "far", "--json") == 0
    machine = json.loads(capsys.readouterr().out)["machines"][0]
    assert machine["state"] == "far.service on alex@10.1.1.27"
    assert not folder.path.exists()


@pytest.mark.usefixtures("folder")
def test_doctor_says_what_is_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert vm("doctor", NAME) == 3
    told = capsys.readouterr().out
    assert "look  state: not created yet; make it, once: orchestrator vm create box" in told


def test_doctor_says_why_the_last_start_came_to_nothing(
    folder: VmFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vm("create", NAME) == 0
    assert vm("doctor", NAME) == 0
    assert "boot" not in capsys.readouterr().out
    monkeypatch.setenv("FAKE_QEMU", "dies")
    assert vm("start", NAME) == 3
    capsys.readouterr()

    assert vm("doctor", NAME) == 3
    (told,) = (line for line in capsys.readouterr().out.splitlines() if "boot:" in line)
    assert told.startswith("look  boot:")
    assert "host forwarding rule" in told
    assert folder.is_created


def test_without_a_definition_there_is_nothing_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert vm("status") == 0
    assert "no virtual machine is defined" in capsys.readouterr().out


def test_state_and_images_are_where_the_user_keeps_such_things(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / "s"), "XDG_CACHE_HOME": str(tmp_path / "c")}

    assert state_home(environment) == tmp_path / "s/orchestrator/vms"
    assert image_home(environment) == tmp_path / "c/orchestrator/images"
    assert str(state_home({})).endswith("/.local/state/orchestrator/vms")
    assert str(image_home({})).endswith("/.cache/orchestrator/images")


def test_a_terminal_joins_the_serial_line_and_is_as_before(folder: VmFolder) -> None:
    assert vm("create", NAME) == 0
    assert vm("start", NAME) == 0
    here, there = pty.openpty()
    before = termios.tcgetattr(there)

    joined = threading.Thread(target=attach, args=(folder.file("console.sock"), there))
    joined.start()
    assert read_until(here, b"login: ")
    os.write(here, b"root")
    assert read_until(here, b"ROOT")
    joined.join(timeout=30)

    assert not joined.is_alive(), "the guest has closed the line"
    assert termios.tcgetattr(there) == before
    os.close(here)
    os.close(there)


def test_a_terminal_is_left_with_its_key(folder: VmFolder) -> None:
    assert vm("create", NAME) == 0
    assert vm("start", NAME) == 0
    here, there = pty.openpty()

    joined = threading.Thread(target=attach, args=(folder.file("console.sock"), there))
    joined.start()
    assert read_until(here, b"login: ")
    os.write(here, b"\x1d")
    joined.join(timeout=30)

    assert not joined.is_alive()
    assert vm("stop", NAME) == 0
    with pytest.raises(NodeError, match="cannot be reached"):
        attach(folder.file("console.sock"), there)
    os.close(here)
    os.close(there)


def read_until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, seen
        with suppress(OSError):
            seen += os.read(terminal, 100)
    return seen


def test_ssh_takes_over_with_the_pinned_keys(
    folder: VmFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vm("create", NAME) == 0
    assert vm("start", NAME) == 0
    # Another program in the place of ssh says what it was given; it takes over a child of ours.
    (tmp_path / "bin/ssh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin/ssh").chmod(0o755)
    child = os.fork()
    if child == 0:
        vm("ssh", f"root@{NAME}", "--", "uname", "-m")
        os._exit(1)
    _, status = os.waitpid(child, 0)

    told = capfd.readouterr().out
    assert status == 0, told
    assert told.splitlines()[-3:] == ["root@127.0.0.1", "uname", "-m"]
    assert f'UserKnownHostsFile="{folder.file("known-hosts")}"' in told
    assert "StrictHostKeyChecking=yes" in told
    assert shutil.which("ssh")
