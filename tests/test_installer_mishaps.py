"""What must not go wrong when something else does: closed outputs, full folders, other users."""

from __future__ import annotations

import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.installer_site import Host, Server, Site, assert_untouched, needs, said, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture
def site(server: Server) -> Site:
    site = server.site()
    site.add("2.0.0")
    site.add("1.0.0")
    site.publish()
    return site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "host")


def with_outputs(host: Host, redirection: str) -> None:
    """Let the host's shell run with outputs of another kind."""
    wrapper = host.root / "outputs"
    wrapper.write_text(f'#!/bin/sh\nexec /bin/sh "$@" {redirection}\n')
    wrapper.chmod(0o755)
    host.shell = wrapper


@pytest.mark.parametrize(
    "redirection", [">&-", ">/dev/full", "2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"]
)
def test_an_output_that_cannot_be_written_changes_nothing_else(
    site: Site, host: Host, redirection: str
) -> None:
    with_outputs(host, redirection)
    for _ in range(2):
        result = host.run(site.script)
        assert result.returncode == 0, said(result)
        assert subprocess.check_output([host.binary], text=True) == "tool 2.0.0\n"
    assert [path.name for path in host.bin.iterdir()] == ["tool"]
    assert not list(host.temporary.iterdir())


def test_a_reader_that_goes_away_leaves_no_temporary_files(site: Site, host: Host) -> None:
    with_outputs(host, "2>&1 | true")
    host.run(site.script)
    assert not list(host.temporary.iterdir())
    assert not list(host.home.rglob(".tool.*"))


def test_a_relative_temporary_folder_is_one_too(site: Site, host: Host) -> None:
    result = host.run(site.script, env={"TMPDIR": host.temporary.name})
    assert result.returncode == 0, said(result)
    assert not list(host.temporary.iterdir())


def test_a_slash_at_the_end_of_an_entry_of_path_is_no_other_place(site: Site, host: Host) -> None:
    host.path.append(f"{host.bin}/")
    result = host.run(site.script)
    assert "is not on PATH" not in result.stderr
    assert not (host.home / ".profile").exists()


def test_a_file_that_two_runs_edited_is_as_it_was_before_the_first(site: Site, host: Host) -> None:
    (host.home / ".profile").write_text("alias x=y")
    before = host.tree()
    assert host.run(site.script).returncode == 0
    assert host.run(site.script, "--prefix", f"{host.home}/opt").returncode == 0
    assert host.run(site.script, "--uninstall").returncode == 0
    assert host.tree() == before


@needs("unshare")
@needs("busybox")
def test_a_full_temporary_folder_costs_no_start_up_file(site: Site, host: Host) -> None:
    assert host.run(site.script).returncode == 0
    file = host.home / ".profile"
    long = f"{file.read_text()}# {'x' * 60_000}\n"
    file.write_text(long)
    # Its awk ends with 0 when the disk is full.
    (host.shims / "awk").unlink()
    (host.shims / "awk").symlink_to(shutil.which("busybox") or "")
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    wrapper = host.root / "mounted"
    step = f'{mount} -t tmpfs -o size=24k tmpfs "{host.temporary}" && exec /bin/sh "$@"'
    wrapper.write_text(f"#!/bin/sh\nexec {unshare} -rm /bin/sh -c '{step}' sh \"$@\"\n")
    wrapper.chmod(0o755)
    host.shell = wrapper
    result = host.run(site.script, "--uninstall")
    assert result.returncode == 1, said(result)
    assert f"cannot take our line out of {file}, which is as it was" in result.stderr
    assert file.read_text() == long
    assert host.receipt.exists()


def as_root(host: Host, own: Path) -> None:
    own.mkdir()
    host.simulate(
        {
            "id": "echo 0",
            "getent": f"echo 'root:x:0:0:root:{own}:/bin/sh'",
            "ls": f"case $2 in '{host.home}'*) owner=1000 ;; *) owner=0 ;; esac; "
            'echo "drwx------ 5 $owner $owner 4096 May 1 10:00 x"',
        }
    )


def test_root_keeps_out_of_everything_of_another_user(
    site: Site, host: Host, tmp_path: Path
) -> None:
    as_root(host, tmp_path / "root")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    config = host.home / ".config"
    (config / "tool").mkdir(parents=True)
    (config / "tool/receipt").write_text(f"#orchestrator-receipt 1\nfile {precious}\n")
    (host.home / ".zshrc").write_text("# mine\n")
    before = host.tree()
    env = {"XDG_CONFIG_HOME": str(config), "ZDOTDIR": str(host.home), "SHELL": "/bin/zsh"}
    refused = host.run(site.script, "--uninstall", env=env)
    assert "nothing to uninstall" in refused.stderr
    result = host.run(site.script, "--prefix", str(tmp_path / "opt"), env=env)
    assert result.returncode == 0, said(result)
    assert host.tree() == before
    assert precious.exists()
    assert (tmp_path / "root/.config/tool/receipt").exists()


def test_root_follows_no_receipt_of_another_user(site: Site, host: Host, tmp_path: Path) -> None:
    as_root(host, tmp_path / "root")
    config = host.home / "config"
    (config / "tool").mkdir(parents=True)
    (config / "tool/receipt").write_text("#orchestrator-receipt 1\nfile /nonexistent\n")
    env = {"HOME": str(tmp_path / "root"), "XDG_CONFIG_HOME": str(config)}
    refused = assert_untouched(host, lambda: host.run(site.script, "--uninstall", env=env))
    assert "is not of root" in refused


def test_a_signal_while_another_installer_is_waited_for_changes_nothing(
    site: Site, host: Host
) -> None:
    lock = host.receipt.with_name("receipt.lock")
    lock.mkdir(parents=True)
    host.simulate({"sleep": f"kill -{signal.SIGINT} $PPID"})
    before = host.tree()
    result = host.run(site.script)
    assert result.returncode == 130, said(result)
    assert host.tree() == before


def test_a_lock_that_nobody_holds_any_more_is_passed_over(site: Site, host: Host) -> None:
    host.receipt.with_name("receipt.lock").mkdir(parents=True)
    host.simulate({"sleep": "exit 0"})
    assert host.run(site.script).returncode == 0
    assert host.receipt.exists()
    assert not host.receipt.with_name("receipt.lock").exists()
