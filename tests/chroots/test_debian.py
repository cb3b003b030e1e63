"""The installer on Debian as it is: real systems, real programs, no simulation."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

import pytest

from tests.chroots.publisher import GNU, MUSL, NEW, OLD, PROJECT
from tests.chroots.roots import USER
from tests.installer_site import said

if TYPE_CHECKING:
    import subprocess

    from tests.chroots.conftest import Site, System
    from tests.chroots.roots import Root

pytestmark = pytest.mark.chroots

# What each system has: the target that suits it, and what can check a signature there.
SYSTEMS: Final = {
    "bookworm with curl": (GNU, "openssl"),
    "bookworm with wget": (GNU, None),
    "older with curl": (MUSL, None),  # its openssl is too old for Ed25519
    "older with wget": (MUSL, "ssh-keygen"),
    "trixie with curl": (GNU, "minisign"),
}
UNCHECKED: Final = (
    "warning: no ssh-keygen, minisign, signify or openssl here can check signatures: "
    "relying on TLS and SHA-256 alone"
)


def piped(system: str, site: Site, options: str = "") -> str:
    """Return what somebody types there."""
    if system.endswith("curl"):
        secure = "--proto '=https' --tlsv1.2 " if site.url.startswith("https") else ""
        fetch = f"curl {secure}-sSf"
    else:
        fetch = "wget -qO-"
    return f"{fetch} {site.url}/install.sh | sh{options and f' -s -- {options}'}"


@pytest.mark.parametrize("user", ["root", USER])
@pytest.mark.parametrize("name", SYSTEMS)
def test_its_life_on_a_real_system(system: System, site: Site, *, name: str, user: str) -> None:
    target, verifier = SYSTEMS[name]
    with system(name) as root:
        place = "/usr/local/bin" if user == "root" else f"/home/{USER}/.local/bin"
        before = root.tree()
        plan = root.run(piped(name, site, "--plan"), user=user)
        assert plan.returncode == 0, said(plan)
        assert f"  {NEW} {target}: taken\n" in plan.stdout
        assert f"would add: {place}/{PROJECT}\n" in plan.stdout
        assert root.tree() == before

        first = root.run(piped(name, site, f"--version {OLD}"), user=user)
        assert first.returncode == 0, said(first)
        assert f"installed {PROJECT} {OLD} to {place}/{PROJECT}\n" in first.stderr
        assert first.stdout == f"{place}/{PROJECT}\n"
        assert_checked(first, verifier)
        assert downloaded(first) == [target]
        assert_runs(root, place, OLD, user=user)

        upgrade = root.run(piped(name, site), user=user)
        assert upgrade.returncode == 0, said(upgrade)
        assert downloaded(upgrade) == [target]
        assert_runs(root, place, NEW, user=user)
        share = root.folder / place.removeprefix("/").replace("/bin", "/share")
        assert (share / f"man/man1/{PROJECT}.1").is_file()
        assert (share / f"bash-completion/completions/{PROJECT}").is_file()

        again = root.run(piped(name, site), user=user)
        assert f"already installed: {PROJECT} {NEW} in {place}/{PROJECT}\n" in again.stderr
        assert downloaded(again) == []

        gone = root.run(piped(name, site, "--uninstall"), user=user)
        assert gone.returncode == 0, said(gone)
        assert root.tree() == before


def assert_runs(root: Root, place: str, version: str, *, user: str) -> None:
    # A shell as a login or a terminal starts it, which has the new directory on PATH.
    start = "bash -ic" if user == USER else "sh -c"
    told = root.run(f"{start} '{PROJECT} --version && command -v {PROJECT}' </dev/null", user=user)
    assert told.stdout == f"{PROJECT} {version}\n{place}/{PROJECT}\n", said(told)
    flight = root.run(f"{place}/{PROJECT} --velocity 800 --bc 0.45 --range 300", user=user)
    assert flight.returncode == 0
    assert len(flight.stdout.splitlines()) > 3


def assert_checked(result: subprocess.CompletedProcess[str], verifier: str | None) -> None:
    if verifier is None:
        assert UNCHECKED in result.stderr
    else:
        assert f"the signature of the index is good (checked with {verifier})" in result.stderr


def downloaded(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the targets whose archives were downloaded."""
    return re.findall(rf"^downloading \S*/({GNU}|{MUSL})/\S+$", result.stderr, re.MULTILINE)


# The C library


def test_a_build_for_a_newer_glibc_is_refused_before_it_is_downloaded(
    system: System, site: Site
) -> None:
    with system("older with curl") as root:
        result = root.run(piped("older with curl", site))
        assert result.returncode == 0, said(result)
        assert re.search(
            rf"^{re.escape(NEW)} for {GNU} needs glibc 2\.[0-9]+ or newer, "
            rf"and this host has 2\.[0-9]+: installing {re.escape(NEW)} for {MUSL}$",
            result.stderr,
            re.MULTILINE,
        )
        assert downloaded(result) == [MUSL]
        forced = root.run(piped("older with curl", site, f"--target {GNU}"))
        assert forced.returncode == 1
        assert "for this host (Linux x86_64, glibc 2." in forced.stderr
        assert f"there is {MUSL}: choose one of these" in forced.stderr
        root.run(piped("older with curl", site, "--uninstall"))


@pytest.mark.parametrize("name", ["older with curl", "older with wget"])
def test_a_build_that_cannot_run_makes_way_for_the_next_one(
    system: System, untold: Site, name: str
) -> None:
    with system(name) as root:
        before = root.tree()
        result = root.run(piped(name, untold))
        assert result.returncode == 0, said(result)
        assert downloaded(result) == [GNU, GNU, MUSL]
        assert f"warning: {NEW} for {GNU} cannot run here (exit status 1: " in result.stderr
        assert "GLIBC_2." in result.stderr
        assert_runs(root, "/usr/local/bin", OLD, user="root")
        root.run(piped(name, untold, "--uninstall"))
        assert root.tree() == before


def test_where_nothing_can_run_nothing_is_left_behind(system: System, untold: Site) -> None:
    with system("older with curl") as root:
        before = root.tree()
        result = root.run(piped("older with curl", untold, f"--version {NEW}"))
        assert result.returncode == 1
        assert f"error: no build of {PROJECT} runs on this host (Linux x86_64, glibc 2." in (
            result.stderr
        )
        assert root.tree() == before


# Trust


@pytest.mark.parametrize("name", [name for name, (_, verifier) in SYSTEMS.items() if verifier])
def test_an_index_that_was_altered_is_refused(system: System, altered: Site, name: str) -> None:
    with system(name) as root:
        before = root.tree()
        result = root.run(piped(name, altered, f"--base-url {altered.url}"))
        assert result.returncode == 1
        assert "signature of http" in result.stderr
        assert "is bad: refusing, nothing was changed" in result.stderr
        assert root.tree() == before


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_signature_that_is_required_is_checked_or_the_install_refused(
    system: System, site: Site, name: str
) -> None:
    with system(name) as root:
        before = root.tree()
        result = root.run(piped(name, site, "--require-signature"))
        if SYSTEMS[name][1]:
            assert result.returncode == 0, said(result)
            root.run(piped(name, site, "--uninstall"))
        else:
            assert result.returncode == 1
            assert "and a signature is required: refusing" in result.stderr
        assert root.tree() == before


def test_https_counts_once_the_system_trusts_who_signed_the_certificate(
    system: System, secure: Site
) -> None:
    name = "bookworm with curl"
    with system(name, own=True) as root:
        before = root.tree()
        stranger = root.run(piped(name, secure))
        assert "SSL certificate problem" in stranger.stderr
        script = root.run("sh", stdin=secure.script)
        assert script.returncode == 1
        assert (
            f"warning: cannot get {secure.url}/stable.idx with curl: "
            "curl: (60) SSL certificate problem: "
        ) in script.stderr
        assert root.tree() == before

        assert secure.certificate is not None
        trust = root.folder / "usr/local/share/ca-certificates"
        trust.mkdir(exist_ok=True)
        shutil.copy(secure.certificate, trust / "loopback.crt")
        trusted = root.run("update-ca-certificates")
        assert trusted.returncode == 0, said(trusted)
        before = root.tree()
        result = root.run(piped(name, secure, "--require-signature"), user=USER)
        assert result.returncode == 0, said(result)
        assert f"downloading {secure.url}/releases/" in result.stderr
        assert_runs(root, f"/home/{USER}/.local/bin", NEW, user=USER)
        root.run(piped(name, secure, "--uninstall"), user=USER)
        assert root.tree() == before


# Tools


@pytest.mark.parametrize("user", ["root", USER])
def test_a_system_without_any_downloader_is_told_so(system: System, site: Site, user: str) -> None:
    with system("bookworm") as root:
        before = root.tree()
        result = root.run("sh", user=user, stdin=site.script)
        assert result.returncode == 1
        assert result.stderr == (
            "error: this needs curl, wget, fetch or ftp to download with, "
            "and none of them is here\n"
        )
        assert root.tree() == before


@pytest.mark.parametrize("user", ["root", USER])
def test_a_system_without_any_downloader_installs_from_a_folder(
    system: System, site: Site, user: str
) -> None:
    with system("bookworm", own=True) as root:
        shutil.copytree(site.store, root.folder / "srv/releases")
        before = root.tree()
        result = root.run("sh -s -- --from /srv/releases", user=user, stdin=site.script)
        assert result.returncode == 0, said(result)
        place = result.stdout.strip().removesuffix(f"/{PROJECT}")
        assert_runs(root, place, NEW, user=user)
        root.run("sh -s -- --uninstall", user=user, stdin=site.script)
        assert root.tree() == before
