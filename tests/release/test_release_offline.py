"""A release, carried away in a bundle, and installed where there is no network."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.installer_site import BASE_TOOLS
from tests.releases import VERSION, host_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk

# No downloader is among them.
TOOLS = (*BASE_TOOLS, "getconf", "id", "sha256sum", "ssh-keygen", "uname")


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A machine without a network: a home, and a folder with all the tools that there are."""
    home = tmp_path / "away"
    (home / "tools").mkdir(parents=True)
    for tool in TOOLS:
        if found := shutil.which(tool):
            (home / "tools" / tool).symlink_to(found)
    return home


def run(away: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env={"HOME": str(away), "PATH": str(away / "tools"), "XDG_BIN_HOME": str(away / "bin")},
        cwd=away,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [(), (VERSION, "--target", host_target())])
def test_the_command_that_bundle_says_installs_without_a_network(
    desk: Desk, away: Path, words: tuple[str, ...]
) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    output = away / "carried here.tar"
    made = desk.run("bundle", *words, "--json", "--output", str(output))
    assert made.code == 0, made
    installed = run(away, f"{made.data['command']} --require-signature")
    assert installed.returncode == 0, installed
    assert installed.stdout == f"{away}/bin/tool\n"
    assert run(away, "bin/tool --version").stdout == f"tool {VERSION}\n"


def test_what_was_changed_in_a_bundle_is_not_installed(desk: Desk, away: Path) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    made = desk.run("bundle", "--json", "--output", str(away / "here"))
    assert made.code == 0, made
    (archive,) = (away / "here").rglob("*.tar.gz")
    archive.write_bytes(archive.read_bytes() + b"x")
    refused = run(away, made.data["command"])
    assert refused.returncode == 1
    assert not (away / "bin/tool").exists()


def test_a_release_leaves_a_script_of_its_own_with_a_signature(desk: Desk, away: Path) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    folder = desk.store / "releases" / VERSION
    script = folder / "install.sh"
    assert f"VERSION='{VERSION}'" in script.read_text()
    key = (desk.folder / "key.pub").read_text()
    (away / "allowed_signers").write_text(f'tool namespaces="installer@tool" {key}')
    for place in (desk.store, folder):
        verified = run(
            away,
            "ssh-keygen -Y verify -f allowed_signers -I tool -n installer@tool "
            f"-s {place}/install.sh.sig < {place}/install.sh",
        )
        assert verified.returncode == 0, verified
    # From the folder of a mirror, and with the version that it is for.
    installed = run(away, f"sh {script} --from {desk.store}")
    assert installed.returncode == 0, installed
    assert run(away, "bin/tool --version").stdout == f"tool {VERSION}\n"


def test_a_prerelease_has_no_script_of_its_own(desk: Desk) -> None:
    version = f"{VERSION}-rc.1"
    desk.write(desk.node(build=desk.copy(version)))
    assert desk.release(version=version).code == 0
    assert (desk.store / "prerelease.idx").exists()
    assert not (desk.store / "releases" / version / "install.sh").exists()
