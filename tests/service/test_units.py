"""The systemd units of the service: what systemd itself says of them."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.service_unit import SERVICE, TIMER, UPKEEP, Place, service_units
from orchestrator.service.units import write_units

PROGRAM = Path(sys.executable).parent / "orchestrator"
PLACE = Place(program=str(PROGRAM), inventory="/srv/tool/build-nodes.yaml")


def analyze(*words: str) -> str:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: apt-get install systemd"
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def write(folder: Path, place: Place) -> list[str]:
    paths = []
    for name, text in service_units(place).items():
        (folder / name).write_text(text)
        paths.append(str(folder / name))
    return paths


@pytest.mark.parametrize("folder", ["plain", "with space", "100%n sure", "$one ünd {two}"])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    program = tmp_path / folder / "orchestrator"
    shutil.copy("/bin/true", program)
    place = replace(PLACE, program=str(program), inventory=str(tmp_path / folder / "x.yaml"))
    assert not analyze("verify", *write(tmp_path, place))


def test_a_mistake_in_a_unit_would_be_found(tmp_path: Path) -> None:
    paths = write(tmp_path, replace(PLACE, program="/nowhere/orchestrator"))
    assert "is not executable" in analyze("verify", *paths)


@pytest.mark.parametrize("has_guests", [False, True])
def test_the_service_is_exposed_little(tmp_path: Path, *, has_guests: bool) -> None:
    for path in write(tmp_path, replace(PLACE, has_guests=has_guests))[:2]:
        told = analyze("security", "--offline=true", path)
        exposure = re.search(r"level for .*: ([0-9.]+) ", told)
        assert exposure, told
        assert float(exposure[1]) <= 2.0


def test_what_runs_and_as_whom() -> None:
    units = service_units(PLACE)
    service = units[SERVICE]
    assert "User=orchestrator\n" in service
    assert "WorkingDirectory=/srv/tool\n" in service
    assert f'ExecStart="{PROGRAM}" serve --inventory "/srv/tool/build-nodes.yaml"\n' in service
    assert 'ReadWritePaths="-/var/lib/orchestrator" "-/srv/tool"\n' in service
    assert 'Environment="PATH=/var/lib/orchestrator/.cargo/bin:/usr/local/bin:' in service
    assert "StateDirectory=orchestrator\n" in service
    assert "PrivateDevices=yes\n" in service
    assert "/dev/kvm" not in service
    assert [line for line in service.splitlines() if line.startswith("LoadCredential")] == []
    commands = [line for line in units[UPKEEP].splitlines() if line.startswith("ExecStart=")]
    assert [line.split('"')[2].strip() for line in commands] == [
        "renew --inventory",
        "fsck --inventory",
    ]
    assert "Persistent=true\n" in units[TIMER]


def test_guests_on_this_machine_need_kvm_and_nothing_else() -> None:
    units = service_units(replace(PLACE, has_guests=True))
    assert "DevicePolicy=closed\nDeviceAllow=/dev/kvm rw\n" in units[SERVICE]
    assert "/dev/kvm" not in units[UPKEEP]


@pytest.mark.parametrize(
    ("place", "homes", "state"),
    [
        (replace(PLACE, home="/home/alex", user="alex"), "read-only", False),
        (replace(PLACE, inventory="/root/x.yaml"), "read-only", True),
        (replace(PLACE, program="/home/alex/.venv/bin/orchestrator"), "read-only", True),
        (replace(PLACE, program="/opt/o/bin/orchestrator", home="/var/lib/a/b"), "yes", False),
        (replace(PLACE, program="/opt/o/bin/orchestrator", inventory="/x.yaml"), "yes", True),
    ],
)
def test_homes_are_hidden_unless_it_lives_in_one(place: Place, homes: str, *, state: bool) -> None:
    for text in list(service_units(place).values())[:2]:
        assert f"ProtectHome={homes}\n" in text
        assert ("StateDirectory=" in text) == state


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/sh", "a\x1b", "a\u2028b", "a\\", 'a"b', "a*"])
def test_no_name_begins_a_line_of_its_own(name: str) -> None:
    for place in (
        replace(PLACE, program=f"/{name}"),
        replace(PLACE, inventory=f"/{name}/x.yaml"),
        replace(PLACE, user=name),
        replace(PLACE, home=f"/{name}"),
        replace(PLACE, writable=(f"/{name}",)),
    ):
        with pytest.raises(ConfigError, match="a systemd unit cannot name"):
            service_units(place)


def test_they_are_written_for_the_user_who_is_there(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yaml"
    paths = write_units(
        tmp_path / "units",
        program=PROGRAM,
        inventory=inventory,
        user=pwd.getpwuid(os.getuid()).pw_name,
        writable=[tmp_path / "store"],
    )
    assert [path.name for path in paths] == [SERVICE, UPKEEP, TIMER]
    text = paths[0].read_text()
    folders = (pwd.getpwuid(os.getuid()).pw_dir, tmp_path, tmp_path / "store")
    words = " ".join(f'"-{folder}"' for folder in folders)
    assert f"ReadWritePaths={words}\n" in text
    assert f'serve --inventory "{inventory}"' in text
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}
    assert sorted(path.name for path in (tmp_path / "units").iterdir()) == sorted(
        path.name for path in paths
    )


def test_a_user_that_is_not_there_yet_lives_in_var_lib(tmp_path: Path) -> None:
    (service, *_) = write_units(
        tmp_path, program=PROGRAM, inventory=tmp_path / "x.yaml", user="nobody-of-this-name"
    )
    assert '"-/var/lib/orchestrator"' in service.read_text()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write units into"):
        write_units(tmp_path / "file" / "x", program=PROGRAM, inventory=tmp_path / "x.yaml")


def test_the_command_writes_them_for_its_inventory(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(
        "publication: {store: /srv/store}\n"
        "nodes: [{name: a, host: local, target: x86_64-unknown-netbsd, build_command: make, "
        "binary_path: /x}]\n"
    )
    words = ["serve", "--inventory", str(inventory), "--units", str(tmp_path / "units")]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written] == [SERVICE, UPKEEP, TIMER]
    service = written[0].read_text()
    assert f'ExecStart="{PROGRAM}" serve --inventory "{inventory}"\n' in service
    assert '"-/srv/store"' in service
