"""Start-up files: the line works in real shells, and every byte is as before when it goes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.installer_site import Host, Server, Site, said, serve
from tests.life.homes import HOMES, READABLE, USERS, User, paths_seen
from tests.shells import needs_shell

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = needs_shell("curl")

_TAG = b"# added by the tool installer"
_OF_NOBODY = 65534


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture
def site(server: Server) -> Site:
    site = server.site()
    for version in ("1.2.0", "1.1.0", "1.0.0"):
        site.add(version)
    site.publish()
    return site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "host")


def users() -> list[object]:
    return [pytest.param(name, marks=needs_shell(user.program)) for name, user in USERS.items()]


def move_in(host: Host, user: User, home: str) -> Path:
    """Make the file that the shell reads as it is in such a home; return its path."""
    file = host.home / user.file
    file.parent.mkdir(parents=True, exist_ok=True)
    HOMES[home](file, user.mine)
    return file


def run(host: Host, site: Site, user: User, *arguments: str) -> subprocess.CompletedProcess[str]:
    result = host.run(site.script, *arguments, env={"SHELL": user.shell, "XDG_BIN_HOME": ""})
    assert result.returncode == 0, said(result)
    return result


def upgrade(host: Host, site: Site, user: User) -> None:
    """Upgrade twice, and go back."""
    for version in ("1.1.0", "1.2.0", "1.0.0"):
        run(host, site, user, f"--version={version}")


@pytest.mark.parametrize("shell", users())
@pytest.mark.thorough
def test_uninstall_restores_every_byte(site: Site, tmp_path: Path, shell: str) -> None:
    user = USERS[shell]
    for number, home in enumerate(HOMES):
        host = Host(root=tmp_path / str(number))
        move_in(host, user, home)
        before = host.tree()
        run(host, site, user, "--version=1.0.0")
        upgrade(host, site, user)
        file = user.read_in(host.home)
        content = file.read_bytes() if file.exists() else b""
        # tcsh goes on to the file of csh, and so does the line.
        is_edited = home != "a link to nothing" or shell == "tcsh"
        assert content.count(_TAG) == is_edited, home
        run(host, site, user, "--uninstall")
        assert host.tree() == before, home


def test_uninstall_restores_every_byte_for_a_user_of_bash(site: Site, host: Host) -> None:
    user = USERS["bash"]
    move_in(host, user, "no line break at its end")
    before = host.tree()
    run(host, site, user)
    assert host.tree() != before
    run(host, site, user, "--uninstall")
    assert host.tree() == before


@pytest.mark.parametrize("shell", users())
@pytest.mark.thorough
def test_the_line_works_in_a_new_shell_until_it_is_taken_out(
    site: Site, tmp_path: Path, shell: str
) -> None:
    user = USERS[shell]
    for number, home in enumerate(READABLE):
        host = Host(root=tmp_path / str(number))
        move_in(host, user, home)
        assert {*map(str, paths_seen(user, host))} == {"None"}
        run(host, site, user, "--version=1.0.0")
        for path in paths_seen(user, host):
            assert path is not None, home
            assert path.count(str(host.bin)) == 1, home
        run(host, site, user, "--uninstall")
        # Whatever it is, it is no longer ours.
        host.bin.mkdir(parents=True, exist_ok=True)
        host.binary.write_text("#!/bin/sh\necho tool 1.0.0\n")
        host.binary.chmod(0o755)
        assert {*map(str, paths_seen(user, host))} == {"None"}, home


@pytest.mark.parametrize("home", ["no file", "a file", "a link to dotfiles", "line ends of DOS"])
@pytest.mark.thorough
def test_what_the_user_adds_stays_and_only_our_line_goes(
    site: Site, tmp_path: Path, home: str
) -> None:
    for place in ("before", "behind", "both"):
        add_lines(site, Host(root=tmp_path / place), home, place=place)


@pytest.mark.parametrize(
    "case",
    [
        ({}, {".bashrc", ".profile"}),
        ({".profile": "# mine"}, {".bashrc", ".profile"}),
        ({".profile": ". ~/.bashrc\n"}, {".bashrc"}),
        ({".profile": ". ~/.bashrc\n", ".bash_login": "# mine\n"}, {".bashrc", ".bash_login"}),
        ({".bash_profile": ". ~/.bashrc\n", ".bash_login": "# mine\n"}, {".bashrc"}),
    ],
)
@pytest.mark.thorough
def test_bash_is_led_there_also_when_somebody_logs_in(
    site: Site, host: Host, case: tuple[dict[str, str], set[str]]
) -> None:
    login, edited = case
    user = USERS["bash"]
    for name, text in login.items():
        (host.home / name).write_text(text)
    before = host.tree()
    plan = host.run(site.script, "--plan", env={"SHELL": user.shell, "XDG_BIN_HOME": ""})
    told = {line for line in plan.stdout.splitlines() if line.startswith("would edit: ")}
    assert told == {f"would edit: {host.home / name}" for name in edited}
    run(host, site, user, "--version=1.0.0")
    found = {
        path.name for path in host.home.iterdir() if path.is_file() and _TAG in path.read_bytes()
    }
    assert found == edited
    for path in paths_seen(user, host):
        assert path is not None
        assert path.count(str(host.bin)) == 1
    run(host, site, user, "--uninstall")
    assert host.tree() == before


def add_lines(site: Site, host: Host, home: str, *, place: str) -> None:
    user = USERS["zsh"]
    file = move_in(host, user, home)
    mine = file.read_bytes() if file.exists() else b""
    run(host, site, user)
    edited = file.read_bytes()
    [ours] = [line for line in edited.splitlines(keepends=True) if _TAG in line]
    above = b"# above\n" if place != "behind" else b""
    below = b"# below" if place != "before" else b""
    file.write_bytes(edited.replace(ours, above + ours + below))
    upgrade(host, site, user)
    run(host, site, user, "--uninstall")
    assert file.read_bytes() == mine + above + below


@pytest.mark.thorough
def test_what_is_added_to_a_file_without_a_last_line_break_stays(site: Site, host: Host) -> None:
    user = USERS["zsh"]
    file = move_in(host, user, "no line break at its end")
    run(host, site, user)
    with file.open("ab") as opened:
        opened.write(b"# below\n")
    run(host, site, user, "--uninstall")
    # The line break was ours, and holds two lines of the user apart now.
    assert file.read_bytes() == user.mine + b"# below\n"


@needs_shell("bsd-csh")
@pytest.mark.thorough
def test_csh_that_is_no_tcsh_reads_its_own_file(site: Site, host: Host) -> None:
    user = USERS["csh"]
    (host.home / ".tcshrc").write_bytes(user.mine)
    before = host.tree()
    run(host, site, user, "--version=1.0.0")
    assert None not in paths_seen(user, host)
    run(host, site, user, "--uninstall")
    assert host.tree() == before


@pytest.fixture
def unprivileged() -> Iterator[Host]:
    """A host whose user is not root, to whom every file is writable."""
    with tempfile.TemporaryDirectory(prefix="unprivileged-") as folder:
        Path(folder).chmod(0o755)
        host = Host(root=Path(folder) / "host")
        if os.geteuid() == 0:
            shell = host.root / "sh"
            drop = f"{shutil.which('setpriv')} --reuid={_OF_NOBODY} --regid={_OF_NOBODY}"
            shell.write_text(f'#!/bin/sh\nexec {drop} --clear-groups /bin/sh "$@"\n')
            shell.chmod(0o755)
            host.shell = shell
        yield host


def give_away(host: Host) -> None:
    if os.geteuid() == 0:
        for path in (host.root, *host.root.rglob("*")):
            os.chown(path, _OF_NOBODY, _OF_NOBODY, follow_symlinks=False)


@needs_shell("setpriv")
@pytest.mark.thorough
def test_a_file_that_may_not_be_written_is_left_alone_and_hinders_no_uninstall(
    site: Site, unprivileged: Host
) -> None:
    host = unprivileged
    for shell in ("bash", "zsh", "tcsh"):
        move_in(host, USERS[shell], "a file for reading only")
    give_away(host)
    before = host.tree()
    for shell in ("bash", "zsh", "tcsh"):
        user = USERS[shell]
        result = run(host, site, user)
        assert f"warning: cannot write to {host.home / user.file}\n" in result.stderr
        # bash has another file, of which nobody has forbidden anything.
        how = " of this shell yet: open a new one, or run: " if shell == "bash" else ": run: "
        assert f"is not on PATH{how}" in result.stderr
    upgrade(host, site, USERS["bash"])
    run(host, site, USERS["bash"], "--uninstall")
    assert host.tree() == before
