"""The installer where there is no C library at all, and nothing but BusyBox; and less than that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.chroots.publisher import GNU, MUSL, NEW, OLD, PROJECT
from tests.chroots.roots import USER, busybox
from tests.chroots.test_debian import UNCHECKED, downloaded
from tests.installer_site import said
from tests.servers import bytes_of, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chroots.conftest import Site

pytestmark = pytest.mark.chroots

# A static shell that has nothing of its own but what POSIX builds into a shell.
SHELL: Final = "mksh-static"


@pytest.mark.parametrize("user", ["root", USER])
def test_its_life_on_nothing_but_busybox(site: Site, tmp_path: Path, user: str) -> None:
    line = f"wget -qO- {site.url}/install.sh | sh"
    with busybox(tmp_path / "root") as root:
        place = "/usr/local/bin" if user == "root" else f"/home/{USER}/.local/bin"
        before = root.tree()
        plan = root.run(f"{line} -s -- --plan", user=user)
        assert plan.returncode == 0, said(plan)
        assert "host: Linux x86_64, no glibc\n" in plan.stdout
        assert root.tree() == before

        first = root.run(f"{line} -s -- --version {OLD}", user=user)
        assert first.returncode == 0, said(first)
        assert UNCHECKED in first.stderr
        assert downloaded(first) == [MUSL]
        assert first.stdout == f"{place}/{PROJECT}\n"
        assert first.stderr.count(f"installed {PROJECT} {OLD} to {place}/{PROJECT}\n") == 1

        upgrade = root.run(line, user=user)
        assert upgrade.returncode == 0, said(upgrade)
        told = root.run(f"{place}/{PROJECT} --version", user=user)
        assert told.stdout == f"{PROJECT} {NEW}\n"
        flight = root.run(f"{place}/{PROJECT} --velocity 800 --bc 0.45 --range 300", user=user)
        assert flight.returncode == 0

        again = root.run(line, user=user)
        assert f"already installed: {PROJECT} {NEW} in {place}/{PROJECT}\n" in again.stderr

        gone = root.run(f"{line} -s -- --uninstall", user=user)
        assert gone.returncode == 0, said(gone)
        assert root.tree() == before


def test_a_signature_cannot_be_required_where_nothing_checks_it(site: Site, tmp_path: Path) -> None:
    with busybox(tmp_path / "root") as root:
        before = root.tree()
        result = root.run("sh -s -- --require-signature", stdin=site.script)
        assert result.returncode == 1
        assert "and a signature is required: refusing" in result.stderr
        assert root.tree() == before


# Each of these is used without asking whether it is there, or is asked for.
TOOLS: Final = tuple(
    """
    awk cat chmod date dd grep id mkdir mktemp mv od rm rmdir sed sha256sum tail tar timeout tr
    uname wc wget
    """.split()  # noqa: SIM905 -- a list of names
)


@pytest.mark.parametrize("tool", TOOLS)
def test_without_one_tool_it_installs_or_says_which_one(
    site: Site, tmp_path: Path, tool: str
) -> None:
    with busybox(tmp_path / "root", shell=SHELL, without=(tool,)) as root:
        before = root.tree()
        result = root.run("sh", stdin=site.script)
        if result.returncode == 0:
            told = root.run(f"/usr/local/bin/{PROJECT} --version")
            assert told.stdout == f"{PROJECT} {NEW}\n"
        else:
            assert result.returncode == 1
            assert result.stderr.startswith("error: this needs ")
            assert result.stderr.count("\n") == 1
            assert f" {tool}," in result.stderr
            assert root.tree() == before


def test_with_nothing_but_a_shell_it_refuses_in_one_sentence(site: Site, tmp_path: Path) -> None:
    with busybox(tmp_path / "root", shell=SHELL, bare=True) as root:
        before = root.tree()
        result = root.run("sh", stdin=site.script)
        assert result.returncode == 1
        assert result.stderr.startswith("error: this needs ")
        assert result.stderr.count("\n") == 1
        assert root.tree() == before


def test_a_login_page_is_seen_for_what_it_is(tmp_path: Path, site: Site) -> None:
    page = b"<!DOCTYPE HTML>\n<title>Welcome to our hotel</title>\n"
    with serving(bytes_of(page)) as url, busybox(tmp_path / "root") as root:
        before = root.tree()
        result = root.run(f"sh -s -- --base-url {url}", stdin=site.script)
        assert result.returncode == 1
        assert "is there a login page between here and the network?" in result.stderr
        assert root.tree() == before


def test_the_reason_why_a_build_cannot_run_is_readable(site: Site, tmp_path: Path) -> None:
    with busybox(tmp_path / "root") as root:
        result = root.run(f"sh -s -- --target {GNU}", stdin=site.script)
        assert result.returncode == 1
        # Of a program whose loader is missing, the system says that it is missing itself.
        assert re.search(
            rf"warning: {NEW} for {GNU} cannot run here "
            r"\(exit status 12[67]: .*: No such file or directory\): trying the next build",
            result.stderr,
        )
