"""What the tests do to this machine: nothing that stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.chroots.roots import USER, busybox
from tests.releases import wait_for

pytestmark = pytest.mark.chroots


def inhabitants(folder: Path) -> list[str]:
    """Return the processes that live in a folder as their root."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            root = os.readlink(process / "root")  # noqa: PTH115 -- of a process that may be gone
        except OSError:
            continue
        if root == str(folder):
            found.append(process.name)
    return found


@pytest.mark.parametrize("user", ["root", USER])
def test_what_a_system_left_running_ends_with_its_command(tmp_path: Path, user: str) -> None:
    folder = tmp_path / "root"
    with busybox(folder) as root:
        assert root.run("sleep 600 >/dev/null 2>&1 & echo begun", user=user).stdout == "begun\n"
        assert inhabitants(folder) == []
        assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert not folder.exists()


@pytest.mark.parametrize("user", ["root", USER])
def test_a_command_that_is_killed_takes_everything_along(tmp_path: Path, user: str) -> None:
    folder = tmp_path / "root"
    with busybox(folder) as root:
        with pytest.raises(subprocess.TimeoutExpired):
            root.run("sleep 600; true", user=user, patience=1)
        wait_for(lambda: inhabitants(folder) == [])
        assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert not folder.exists()
