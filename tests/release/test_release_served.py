"""From a signed release to a user's machine: the real commands, and the line that is advertised."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.gcs.server import serving
from tests.installer_site import needs
from tests.releases import VERSION, Desk
from tests.servers import orchestrator_serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Programs


def install(url: str, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    home.mkdir()
    # On loopback it is http, which has no TLS to ask for.
    line = f"curl --proto '=http' -sSf {url}/install.sh | sh -s -- {' '.join(options)}"
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_BIN_HOME": f"{home}/bin"}
    return subprocess.run(
        ["sh", "-c", line],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_installed(result: subprocess.CompletedProcess[str], home: Path) -> None:
    assert result.returncode == 0, result
    assert result.stdout == f"{home}/bin/tool\n"
    assert "the signature of the index is good (checked with " in result.stderr
    told = subprocess.run([f"{home}/bin/tool", "--version"], capture_output=True, check=True)
    assert told.stdout.decode() == f"tool {VERSION}\n"


@needs("curl")
@needs("ssh-keygen")
@pytest.mark.thorough
def test_a_release_is_installed_through_the_serve_command_and_then_through_a_bucket(
    tmp_path: Path, programs: Programs
) -> None:
    desk = Desk(folder=tmp_path / "desk", programs=programs)
    desk.store.mkdir()
    with orchestrator_serve(desk.store) as url:
        desk.publication["url"] = url
        desk.write(desk.node())
        outcome = desk.release()
        assert outcome.code == 0, outcome
        home = tmp_path / "served"
        assert_installed(install(url, home, "--require-signature"), home)

    with serving("bucket") as service:
        desk.environment["STORAGE_EMULATOR_HOST"] = service.url
        url = f"{service.url}/bucket/tool"
        desk.publication |= {"store": "gs://bucket/tool", "url": url}
        desk.write(desk.node())
        outcome = desk.release()
        assert outcome.code == 0, outcome
        assert [result["was_attached"] for result in outcome.data["results"]] == [True]
        home = tmp_path / "from the bucket"
        assert_installed(install(url, home, "--require-signature"), home)
    assert desk.builds("here") == [VERSION], "built exactly once"
