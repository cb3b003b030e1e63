"""The rendered installer, run by real shells against a real server."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.index import Status
from orchestrator.core.installer import UNKNOWN_WORDS, render_installer
from orchestrator.core.resolve import Host as ResolvingHost
from orchestrator.core.resolve import resolve
from orchestrator.core.version import parse_version
from orchestrator.signing import FileSigner
from tests.installer_hosts import HASH_SHIMS, HOSTS, on_bsd
from tests.installer_site import (
    GNU,
    MUSL,
    PROJECT,
    ROOT,
    TEMPLATE,
    VERIFIERS,
    Host,
    Server,
    Site,
    as_shell,
    assert_untouched,
    certificate,
    needs,
    needs_openssl_3,
    pack,
    said,
    serve,
    uname,
    verdicts,
    verifier_params,
)
from tests.shells import shell_params

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") or shutil.which("wget")), reason="needs curl or wget"
)


# Where `make` puts shellcheck and shfmt.
os.environ["PATH"] += f":{Path(sys.executable).parent}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture
def site(server: Server) -> Site:
    return server.site()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "host")


# Every shell


@pytest.mark.parametrize("shell", shell_params())
def test_it_installs_upgrades_and_uninstalls_in_every_shell(
    site: Site, host: Host, shell: str
) -> None:
    host.shell = as_shell(host.root / "shells", shell)
    host.provide(*VERIFIERS)
    before = host.tree()
    # busybox prefers its own uname to the simulated one.
    environment = {"XDG_BIN_HOME": str(host.bin)}
    script = site.script.replace("wanted_target=''", f"wanted_target='{GNU}'")
    site.add("1.0.0", floors="glibc>=2.17")
    site.publish()
    result = host.run(script, env=environment)
    assert result.returncode == 0, said(result)
    assert result.stderr.endswith(f"installed tool 1.0.0 to {host.binary}\n")
    assert result.stdout == f"{host.binary}\n"
    site.rows.clear()
    site.add("1.1.0")
    site.publish()
    assert host.run(script, env=environment).returncode == 0
    assert subprocess.check_output([host.binary], text=True) == "tool 1.1.0\n"
    result = host.run(script, env=environment)
    assert result.stderr.endswith(f"already installed: tool 1.1.0 in {host.binary}\n")
    assert "downloading" not in result.stderr
    other = script.replace("VERSION=''", "VERSION=1.0.0", 1)
    result = host.run(other, env=environment)
    assert f"for {GNU} there is 1.1.0: choose" in result.stderr
    assert not list(host.temporary.iterdir())
    # As a file: posh takes no arguments beside a script on standard input.
    result = host.run(script.replace("action=install", "action=uninstall"), env=environment)
    assert result.returncode == 0, said(result)
    assert host.tree() == before


@pytest.mark.parametrize(
    "shell", [pytest.param(name, marks=needs(name)) for name in ("zsh", "ksh93", "bash")]
)
@pytest.mark.thorough
def test_it_installs_in_a_shell_that_goes_by_its_own_name(
    site: Site, host: Host, shell: str
) -> None:
    found = shutil.which(shell)
    assert found is not None
    host.shell = Path(found)
    site.add("1.1.0", status=Status.PENDING)
    site.add("1.0.0", floors="glibc>=2.17")
    site.publish()
    result = host.run(site.script, f"--prefix={host.home}/a b")
    assert result.returncode == 0, said(result)
    assert result.stderr.endswith(f"installed tool 1.0.0 to {host.home}/a b/bin/tool\n")


def test_the_copy_of_one_version_installs_that_version(site: Site, host: Host) -> None:
    site.add("1.1.0")
    site.add("1.0.0")
    site.publish()
    script = render_installer(TEMPLATE, replace(site.values, version="1.0.0"))
    assert host.run(script).returncode == 0
    assert subprocess.check_output([host.binary], text=True) == "tool 1.0.0\n"
    assert host.run(script, "--version", "1.1.0").returncode == 0
    assert subprocess.check_output([host.binary], text=True) == "tool 1.1.0\n"


# Hosts


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_gets_its_targets_or_a_refusal(site: Site, host: Host, name: str) -> None:
    tools, candidates, facts = HOSTS[name]
    host.simulate(tools)
    # The functions of the script itself, up to where the network would be needed.
    definitions, call, _ = site.script.partition('    main "$@"\n')
    assert call
    steps = 'read_options; find_home; detect_host; choose_target; echo "$candidates|$facts"'
    script = f"{definitions}{steps}\n}}\n".replace("/proc/cpuinfo", "/dev/null")
    result = host.run(script)
    if candidates is None:
        assert result.returncode == 1
        assert result.stderr.startswith("error: this installer knows no target for this host (")
        assert "--target" in result.stderr
        assert "from source with cargo" in result.stderr
        assert result.stderr.count("\n") == 1
    else:
        assert result.stdout == f"{candidates}|{facts}\n", result.stderr


def test_who_has_no_build_is_told_the_command(site: Site, host: Host) -> None:
    site.add("1.0.0", "x86_64-unknown-haiku")
    site.publish()
    script = render_installer(
        TEMPLATE, replace(site.values, source_command="cargo install --locked tool-engine")
    )
    refused = assert_untouched(host, lambda: host.run(script))
    assert refused.endswith("or build tool from source with cargo install --locked tool-engine\n")


# Which version


def choose(host: Host, site: Site, *arguments: str) -> str:
    site.publish()
    result = host.run(site.script, "--no-modify-path", *arguments)
    assert result.returncode == 0, said(result)
    return result.stderr


def test_a_pending_version_is_explained_and_the_one_before_is_installed(
    site: Site, host: Host
) -> None:
    site.add("1.1.0", MUSL, status=Status.PENDING)
    site.rows.insert(0, site.add("1.1.0", GNU, status=Status.PENDING))
    site.rows = [site.rows[0]]
    site.add("1.0.0")
    text = choose(host, site)
    assert f"1.1.0 is not built for {GNU} yet: installing 1.0.0\n" in text
    assert subprocess.check_output([host.binary], text=True) == "tool 1.0.0\n"


def test_a_version_that_only_others_have_is_explained_too(site: Site, host: Host) -> None:
    site.add("1.1.0", "x86_64-apple-darwin")
    site.add("1.0.0", "x86_64-apple-darwin")
    site.add("1.0.0", GNU)
    assert f"1.1.0 is not built for {GNU}: installing 1.0.0\n" in choose(host, site)


def test_a_floor_is_compared_before_anything_is_downloaded(site: Site, host: Host) -> None:
    site.archive(site.add("1.1.0", floors="glibc>=2.100")).unlink()
    site.add("1.0.0", floors="glibc>=2.9")
    text = choose(host, site)
    assert f"1.1.0 for {GNU} needs glibc 2.100 or newer, and this host has 2.36" in text
    assert "installed tool 1.0.0" in text


def test_a_static_build_comes_before_an_older_version(site: Site, host: Host) -> None:
    site.add("1.1.0", GNU, floors="glibc>=2.39")
    site.add("1.0.0", GNU)
    site.add("1.1.0", MUSL)
    text = choose(host, site)
    assert f": installing 1.1.0 for {MUSL}\n" in text
    assert "installed tool 1.1.0" in text
    assert "installed tool 1.0.0" in choose(host, site, "--target", GNU)


def test_openbsd_gets_the_build_for_its_own_release(site: Site, host: Host) -> None:
    host.simulate(on_bsd("OpenBSD amd64 amd64 7.8"))
    target = "x86_64-unknown-openbsd"
    site.add("1.1.0", target, floors="openbsd==7.9")
    site.add("1.0.0", target, floors="openbsd==7.9")
    row = site.add("1.0.0", target, floors="openbsd==7.8")
    assert row.path is not None
    assert "/x86_64-unknown-openbsd7.8/" in row.path
    text = choose(host, site)
    assert (
        f"1.1.0 for {target} needs openbsd 7.9, and this host has 7.8: installing 1.0.0\n" in text
    )
    assert "1.0.0 for" not in text
    assert "installed tool 1.0.0" in text


def test_a_yanked_version_is_installed_only_when_asked_for(site: Site, host: Host) -> None:
    site.add("1.2.0", status=Status.REVOKED)
    site.add("1.1.0", status=Status.YANKED)
    site.add("1.0.0")
    assert "installed tool 1.0.0" in choose(host, site)
    withdrawn = choose(host, site, "--version", "v1.1.0")
    assert "warning: 1.1.0 was withdrawn by its publisher\n" in withdrawn
    assert "installed tool 1.1.0" in withdrawn
    text = assert_untouched(host, lambda: host.run(site.script, "--version=1.2.0"))
    assert f"1.2.0 for {GNU} was revoked" in text


def test_strict_refuses_an_older_version_but_not_another_target(site: Site, host: Host) -> None:
    site.add("1.1.0", GNU, status=Status.PENDING)
    site.add("1.0.0", GNU)
    site.publish()
    text = assert_untouched(host, lambda: host.run(site.script, "--strict"))
    assert "1.0.0 is older than 1.1.0, and --strict was given" in text
    site.add("1.1.0", MUSL)
    assert "installed tool 1.1.0" in choose(host, site, "--strict")


HERE: Final = "this host (Linux x86_64, glibc 2.36)"
ELSEWHERE: Final = "x86_64-apple-darwin"


def refused(host: Host, site: Site, *arguments: str) -> str:
    """Return the one line of a refusal."""
    site.publish()
    text = assert_untouched(host, lambda: host.run(site.script, *arguments))
    return text[text.index("error: ") :]


def test_a_version_that_is_not_there_is_refused_with_those_that_are(site: Site, host: Host) -> None:
    site.add("1.2.0", status=Status.REVOKED)
    site.add("1.1.0")
    site.add("1.0.0")
    site.add("1.1.0", MUSL)
    site.add("1.2.0", ELSEWHERE)
    there_is = "there is 1.1.0, 1.0.0: choose one of these, or leave --version out for the newest\n"
    assert refused(host, site, "--version", "3.0.0") == (
        f"error: --version 3.0.0: there is no 3.0.0 of tool for {GNU} or {MUSL}; "
        f"for {HERE} {there_is}"
    )
    assert refused(host, site, "--version", "1.2.0") == (
        f"error: --version 1.2.0: 1.2.0 for {GNU} was revoked; for {HERE} {there_is}"
    )
    assert refused(host, site, "--version=1.0.0", f"--target={MUSL}") == (
        f"error: --version 1.0.0: 1.0.0 is not built for {MUSL}; for {MUSL} there is 1.1.0: "
        "choose one of these, or leave --version out for the newest\n"
    )


def test_a_long_list_of_versions_is_cut(site: Site, host: Host) -> None:
    for minor in range(10, 0, -1):
        site.add(f"1.{minor}.0")
    assert "is 1.10.0, 1.9.0, 1.8.0, 1.7.0, 1.6.0, 1.5.0, 1.4.0, 1.3.0 and 2 more: choose" in (
        refused(host, site, "--version=2.0.0")
    )


def test_strict_is_refused_with_what_there_is_without_it(site: Site, host: Host) -> None:
    site.add("1.1.0", status=Status.PENDING)
    site.add("1.0.0")
    assert refused(host, site, "--strict") == (
        f"error: --strict: 1.1.0 is not built for {GNU} yet; 1.0.0 is older than 1.1.0, and "
        f"--strict was given; for {HERE} there is 1.0.0: leave --strict out for the newest of "
        "these, or try again later\n"
    )


def test_a_target_that_is_not_there_is_refused_with_those_for_this_host(
    site: Site, host: Host
) -> None:
    site.add("1.0.0", GNU)
    site.add("1.0.0", MUSL)
    site.add("1.0.0", ELSEWHERE)
    assert refused(host, site, "--target", "m68k-unknown-none") == (
        "error: --target m68k-unknown-none: 1.0.0 is not built for m68k-unknown-none; "
        f"for {HERE} there is {GNU}, {MUSL}: choose one of these, or leave --target out\n"
    )


def test_a_host_without_any_build_is_told_what_there_is(site: Site, host: Host) -> None:
    site.add("1.0.0", ELSEWHERE)
    site.add("1.1.0", "aarch64-unknown-freebsd", status=Status.PENDING)
    advice = (
        f"nothing to install on {HERE}, there are builds for {ELSEWHERE}: choose a build yourself "
        "with --target TRIPLE, or build tool from source with cargo\n"
    )
    site.publish()
    for arguments in ((), ("--strict",), ("--version=1.0.0",), (f"--target={MUSL}",)):
        text = refused(host, site, *arguments)
        assert text.startswith("error: 1.")
        assert text.endswith(f"; {advice}")
    host.simulate({"uname": uname("Haiku", "x86_64")})
    text = refused(host, site, "--target=x86_64-unknown-haiku")
    assert f"(Haiku x86_64), there are builds for {ELSEWHERE}: choose" in text
    site.rows = []
    text = refused(host, site, "--target=x86_64-unknown-haiku")
    assert text == (
        "error: there is no build of tool for x86_64-unknown-haiku; nothing to install on this "
        "host (Haiku x86_64): choose a build yourself with --target TRIPLE, or build tool from "
        "source with cargo\n"
    )


STATUSES: Final = (Status.OK, Status.OK, Status.OK, Status.PENDING, Status.YANKED, Status.REVOKED)
FLOORS: Final = ("", "glibc>=2.36", "glibc>=2.36.1", "glibc>=2.4", "glibc>=3", "openbsd==7.8")
VERSIONS: Final = ("2.0.0", "2.0.0-rc.1", "1.10.0", "1.9.0", "1.9.0-alpha")


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.thorough
def test_the_installer_and_the_coordinator_choose_the_same_row(
    site: Site, host: Host, seed: int
) -> None:
    chance = random.Random(seed)
    for target in (GNU, MUSL):
        for version in VERSIONS:
            if chance.random() < 0.7:
                status = chance.choice(STATUSES)
                floors = "" if status is Status.PENDING else chance.choice(FLOORS)
                site.add(version, target, status=status, floors=floors)
    wanted = chance.choice((*VERSIONS, None, None, None, None))
    is_strict = wanted is None and chance.random() < 0.3
    site.publish()
    definitions, _, _ = site.script.partition('    main "$@"\n')
    steps = (
        f"candidates='{GNU} {MUSL}' facts='glibc=2.36' wanted_version='{wanted or ''}'",
        f"strict={'yes' if is_strict else 'no'} work='{host.temporary}'",
        'cp "$work/../signed" "$work/signed"; resolve; cat "$work/choices"',
    )
    shutil.copy(site.index, host.root / "signed")
    host.provide("cp")
    script = "\n".join((definitions, *steps, "}\n"))
    rows = [line.split("\t") for line in host.run(script).stdout.splitlines()]
    resolution = resolve(
        site.rows,
        ResolvingHost(
            candidates=(GNU, MUSL),
            releases={"glibc": "2.36"},
            version=parse_version(wanted) if wanted else None,
            is_strict=is_strict,
        ),
    )
    verdicts_here = [verdict for verdict, *_ in rows]
    until = verdicts_here.index("take") if "take" in verdicts_here else len(rows)
    assert [tuple(row[1:3]) for row in rows[:until]] == [
        (str(each.row.version), each.row.target) for each in resolution.passed_over
    ]
    chosen = tuple(rows[until][1:3]) if until < len(rows) else None
    expected = resolution.chosen
    assert chosen == (expected and (str(expected.version), expected.target))


def test_a_plan_tells_everything_and_changes_nothing(site: Site, host: Host) -> None:
    site.add("1.1.0", status=Status.PENDING)
    site.add("1.0.0")
    site.publish()
    before = host.tree()
    result = host.run(site.script, "--plan")
    assert result.returncode == 0, said(result)
    assert host.tree() == before
    assert "host: Linux x86_64, glibc 2.36\n" in result.stdout
    assert verdicts(result.stdout) == [
        f"1.1.0 {GNU}: refused: 1.1.0 is not built for {GNU} yet",
        f"1.0.0 {GNU}: taken",
    ]
    for line in (
        f"would add: {host.binary}",
        f"would write: {host.receipt}",
        f"would edit: {host.home}/.profile",
    ):
        assert f"{line}\n" in result.stdout


def test_a_build_that_cannot_run_here_is_passed_over(site: Site, host: Host) -> None:
    site.add("1.1.0", GNU, program="#!/nonexistent/loader\n")
    site.add("1.1.0", MUSL, program="#!/bin/sh\necho 'no such symbol' >&2\nexit 1\n")
    site.publish()
    text = assert_untouched(host, lambda: host.run(site.script))
    assert "no build of tool runs on this host" in text
    site.add("1.0.0", GNU)
    site.publish()
    result = host.run(site.script)
    assert result.returncode == 0, said(result)
    assert f"1.1.0 for {GNU} cannot run here (exit status " in result.stderr
    assert f"1.1.0 for {MUSL} cannot run here (exit status 1: no such symbol)" in result.stderr
    assert "installed tool 1.0.0" in result.stderr


def test_the_trial_run_asks_as_the_project_does(site: Site, host: Host) -> None:
    program = '#!/bin/sh\n[ "$#,$1,$2" = "2,about,--short" ] || exit 2\n'
    site.add("1.0.0", program=program)
    site.publish()
    words = replace(site.values, version_words="about --short")
    assert "cannot run here (exit status 2)" in assert_untouched(
        host, lambda: host.run(site.script)
    )
    result = host.run(render_installer(TEMPLATE, words))
    assert result.returncode == 0, said(result)
    assert host.binary.exists()


@pytest.mark.parametrize(
    ("ending", "is_taken"),
    [
        ("echo 'unknown option: --version' >&2; exit 2", True),
        ("exit 0", True),
        ("kill -TERM $$", True),
        ("kill -SEGV $$", False),
        ("exit 127", False),
        ("echo \"tool: version 'GLIBC_2.99' not found\" >&2; exit 1", False),
        ("echo 'ld-elf.so.1: Shared object not found' >&2; exit 1", False),
    ],
)
def test_where_no_words_are_known_a_build_must_start(
    *, site: Site, host: Host, ending: str, is_taken: bool
) -> None:
    site.add("1.1.0", program=f"#!/bin/sh\n{ending}\n")
    site.add("1.0.0")
    site.publish()
    unknown = replace(site.values, version_words=UNKNOWN_WORDS)
    result = host.run(render_installer(TEMPLATE, unknown))
    assert result.returncode == 0, said(result)
    assert f"installed tool {'1.1.0' if is_taken else '1.0.0'} to" in result.stderr


@pytest.mark.thorough
def test_a_build_that_never_ends_is_stopped(site: Site, host: Host) -> None:
    site.add("1.1.0", program="#!/bin/sh\nexec sleep 60\n")
    site.add("1.0.0")
    site.publish()
    script = site.script.replace("TRIAL_SECONDS=20", "TRIAL_SECONDS=1")
    for tool in ("perl", "timeout"):
        host.provide_only("curl", "wget", "sha256sum", "shasum", tool)
        result = host.run(script, f"--prefix={host.home}/{tool}")
        assert result.returncode == 0, said(result)
        assert "1.1.0 for x86_64-unknown-linux-gnu cannot run here" in result.stderr
        assert "installed tool 1.0.0" in result.stderr


# Trust


@pytest.fixture
def published(site: Site) -> Site:
    site.add("1.0.0")
    site.publish()
    return site


def flip(file: Path, offset: int) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


def test_one_changed_byte_of_the_archive_is_refused(published: Site, host: Host) -> None:
    archive = published.archive(published.rows[0])
    flip(archive, archive.stat().st_size // 2)
    text = assert_untouched(host, lambda: host.run(published.script))
    assert "the SHA-256 of http" in text
    archive.write_bytes(archive.read_bytes()[:-1])
    assert " bytes instead of " in assert_untouched(host, lambda: host.run(published.script))


@pytest.mark.parametrize(
    "place",
    ["orchestrator-index 1", "serial 7", "ok\t", "U1NIU0lH", "RW", "trusted comment: index\n"],
)
@needs("ssh-keygen")
@needs("minisign")
def test_one_changed_byte_of_the_index_or_of_a_signature_is_refused(
    published: Site, host: Host, place: str
) -> None:
    host.provide(*VERIFIERS)
    flip(published.index, published.index.read_text().rindex(place) + len(place) - 1)
    assert_untouched(host, lambda: host.run(published.script))


def without_block(text: str, first: str, last: str) -> str:
    start = text.index(first)
    return text[:start] + text[text.index(last, start) + len(last) :]


def test_a_missing_signature_is_a_bad_one(published: Site, host: Host) -> None:
    text = published.index.read_text()
    published.index.write_text(
        without_block(text, "-----BEGIN SSH", "-----END SSH SIGNATURE-----\n")
    )
    assert "the SSH signature of http" in assert_untouched(host, lambda: host.run(published.script))
    published.index.write_text(text[: text.index("untrusted comment")])
    assert "the minisign signature of http" in assert_untouched(
        host, lambda: host.run(published.script)
    )


@needs("ssh-keygen")
def test_an_index_signed_by_another_key_is_refused(published: Site, host: Host) -> None:
    host.provide(*VERIFIERS)
    script = published.script
    published.signer = FileSigner(Ed25519PrivateKey.generate())
    published.publish()
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(script))


def test_bytes_after_the_signatures_are_ignored(published: Site, host: Host) -> None:
    text = published.index.read_text()
    row = next(line for line in text.splitlines() if line.startswith(GNU))
    published.index.write_text(f"{text}{row.replace('1.0.0', '9.9.9')}\n#end 2\n")
    result = host.run(published.script)
    assert "installed tool 1.0.0" in result.stderr
    published.index.write_text(f"{row.replace('1.0.0', '9.9.9')}\n{text}")
    assert_untouched(host, lambda: host.run(published.script))


def test_a_signed_index_that_is_not_meant_for_this_is_refused(site: Site, host: Host) -> None:
    site.add("1.0.0")
    site.publish()
    script = site.script
    signed = site.index.read_text()
    text = signed[: signed.index("-----BEGIN")]
    for old, new, reason in (
        ("#project tool", "#project other", "is the index of other, not of tool"),
        ("#channel stable", "#channel beta", "is of channel beta, not stable"),
        ("#end 1", "#end 2", "says that it has 2 rows and has 1"),
        ("-index 1", "-index 2", "is in a format newer than this installer"),
        ("\treleases/", "\t../releases/", "has a malformed row"),
        ("\treleases/", "\t/releases/", "has a malformed row"),
        ("\tok\t", "\tok;id\t", "has a malformed row"),
        ("#serial 7", "#serial 7\n#serial 8", "says #serial twice"),
        ("#serial 7\n", "", "has no serial"),
    ):
        site.publish_text(text.replace(old, new))
        refused = assert_untouched(host, lambda: host.run(script))
        assert reason in refused


def test_a_lower_serial_than_the_receipt_has_is_refused(published: Site, host: Host) -> None:
    assert host.run(published.script).returncode == 0
    published.serial = 6
    published.publish()
    text = assert_untouched(host, lambda: host.run(published.script))
    assert "is older (serial 6) than what was installed from before (serial 7)" in text
    published.serial = 10
    published.publish()
    assert host.run(published.script).returncode == 0


def test_an_expired_index_is_refused_unless_it_is_allowed(site: Site, host: Host) -> None:
    site.add("1.0.0")
    site.publish(expires_in=timedelta(days=-2))
    text = assert_untouched(host, lambda: host.run(site.script))
    assert "the index expired on" in text
    assert "--allow-expired" in text
    result = host.run(site.script, "--allow-expired")
    assert result.returncode == 0, said(result)


@pytest.mark.parametrize(
    "verifier",
    verifier_params(),
)
def test_each_verifier_alone_accepts_the_good_and_refuses_the_bad(
    published: Site, host: Host, verifier: str
) -> None:
    host.provide(verifier)
    plan = host.run(published.script, "--plan", "--require-signature")
    assert plan.returncode == 0, said(plan)
    assert f"signature: {verifier}\n" in plan.stdout
    flip(published.index, published.index.read_text().index("#serial 7") + 8)
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(published.script))


def test_a_tool_that_believes_or_knows_nothing_is_no_verifier(published: Site, host: Host) -> None:
    host.simulate({"ssh-keygen": "exit 0", "minisign": "exit 0"})
    host.simulate({"signify": "echo 'no such option' >&2; exit 2", "openssl": "exit 1"})
    assert "a signature is required: refusing" in assert_untouched(
        host, lambda: host.run(published.script, "--require-signature")
    )
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    assert "can check signatures: relying on TLS and SHA-256 alone" in result.stderr


@needs("ssh-keygen")
def test_a_required_signature_is_remembered(published: Site, host: Host) -> None:
    host.provide("ssh-keygen")
    assert host.run(published.script, "--require-signature").returncode == 0
    (host.shims / "ssh-keygen").unlink()
    assert "a signature is required" in assert_untouched(host, lambda: host.run(published.script))


def test_a_project_without_keys_says_so(published: Site, host: Host) -> None:
    keyed = published.values
    script = render_installer(
        TEMPLATE,
        type(keyed)(
            project=keyed.project,
            binaries=keyed.binaries,
            base_urls=keyed.base_urls,
            channel=keyed.channel,
        ),
    )
    assert "no key was pinned" in host.run(script).stderr
    assert host.binary.exists()


# Tools


@pytest.mark.parametrize("name", HASH_SHIMS)
@needs("sha256sum")
def test_each_hash_tool_alone_is_enough(published: Site, host: Host, name: str) -> None:
    real = shutil.which("sha256sum")
    tool, arguments, form = HASH_SHIMS[name]
    digits = f"$({real} | cut -c1-64)"
    host.simulate({tool: f'[ "$*" = "{arguments}" ] || exit 1; printf "{form}\\n" "{digits}"'})
    host.provide_only("curl")
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    assert host.binary.exists()


@pytest.mark.parametrize(
    "tool",
    [pytest.param(name, marks=needs(name)) for name in ("sha256sum", "shasum", "openssl", "perl")],
)
@pytest.mark.thorough
def test_each_real_hash_tool_alone_refuses_another_archive(
    published: Site, host: Host, tool: str
) -> None:
    # shasum is a perl program that asks env for perl.
    host.provide_only("curl", tool, *(["perl"] if tool == "shasum" else []))
    assert host.run(published.script).returncode == 0
    flip(published.archive(published.rows[0]), 40)
    text = assert_untouched(host, lambda: host.run(published.script, "--reinstall"))
    assert "the SHA-256 of http" in text


def test_without_a_hash_tool_nothing_is_installed(published: Site, host: Host) -> None:
    host.provide_only("curl", "ssh-keygen")
    text = assert_untouched(host, lambda: host.run(published.script))
    assert "none of them computes SHA-256 here: refusing to install" in text


@pytest.mark.parametrize(
    "tool", [pytest.param(name, marks=needs(name)) for name in ("curl", "wget", "tnftp", "busybox")]
)
def test_each_downloader_alone_is_enough(published: Site, host: Host, tool: str) -> None:
    found = shutil.which(tool)
    assert found is not None
    name = {"tnftp": "ftp", "busybox": "wget"}.get(tool, tool)
    host.provide_only("sha256sum")
    (host.shims / name).symlink_to(found)
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    published.archive(published.rows[0]).unlink()
    text = assert_untouched(host, lambda: host.run(published.script, "--reinstall"))
    assert "could not be downloaded" in text


@needs("curl")
def test_fetch_is_called_as_freebsd_has_it(published: Site, host: Host) -> None:
    curl = shutil.which("curl")
    host.simulate({"fetch": f'[ "$1 $2 $4" = "-q -T -o" ] && exec {curl} -sf -o "$5" "$6"'})
    host.provide_only("sha256sum")
    result = host.run(published.script)
    assert result.returncode == 0, said(result)


def test_without_a_downloader_it_says_what_it_needs(published: Site, host: Host) -> None:
    host.provide_only("sha256sum")
    text = assert_untouched(host, lambda: host.run(published.script))
    assert "this needs curl, wget, fetch or ftp" in text


@needs("curl")
def test_a_redirect_to_plain_http_is_refused(published: Site, host: Host, tmp_path: Path) -> None:
    file, tls = certificate(tmp_path)
    (tmp_path / "secure").mkdir()
    secure = serve(tmp_path / "secure", tls)
    server = next(secure)
    host.provide_only("curl", "sha256sum", "shasum", "perl")
    environment = {"CURL_CA_BUNDLE": str(file), "INSTALL_BASE_URL": server.url}
    server.redirects["/stable.idx"] = f"{published.url}/stable.idx"
    refused = assert_untouched(host, lambda: host.run(published.script, env=environment))
    assert "could not be downloaded" in refused
    server.redirects["/stable.idx"] = f"{server.url}/moved.idx"
    shutil.copy(published.index, tmp_path / "secure" / "moved.idx")
    accepted = host.run(published.script, "--plan", env=environment)
    assert accepted.returncode == 0, said(accepted)
    del environment["CURL_CA_BUNDLE"]
    assert_untouched(host, lambda: host.run(published.script, env=environment))
    secure.close()


def test_a_redirect_from_this_machine_is_refused_too(published: Site, host: Host) -> None:
    path = published.url.removeprefix("http://")
    path = path[path.index("/") :]
    published.redirects[f"{path}/stable.idx"] = f"{published.url}/moved.idx"
    published.index.rename(published.root / "moved.idx")
    for tool in ("curl", "wget"):
        if shutil.which(tool):
            host.provide_only(tool, "sha256sum", "shasum", "perl")
            assert_untouched(host, lambda: host.run(published.script))


def test_a_login_page_is_named_and_the_next_base_url_is_tried(published: Site, host: Host) -> None:
    portal = published.root / "portal"
    portal.mkdir()
    (portal / "stable.idx").write_text("<!DOCTYPE html>\n<title>Welcome</title>\n")
    script = published.script
    text = assert_untouched(host, lambda: host.run(script, "--base-url", f"{published.url}/portal"))
    assert "answered with a web page" in text
    script = script.replace("BASE_URLS='", f"BASE_URLS='{published.url}/portal\n")
    result = host.run(script)
    assert result.returncode == 0, said(result)
    assert "answered with a web page" in result.stderr
    archive = published.rows[0].path or ""
    (portal / archive).parent.mkdir(parents=True)
    (portal / archive).write_text("<html>" + "x" * 600)
    (portal / "stable.idx").write_text(published.index.read_text())
    result = host.run(script, "--reinstall")
    assert result.returncode == 0, said(result)
    assert "answered with a web page" in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://localhost.example.org/",
        "http://127.0.0.1@example.org/",
        "http://localhost:80@example.org/",
        "https://user@example.org",
        "https://example.org/$(id)",
        "https://",
        "ftp://example.org",
        "file:///tmp",
    ],
)
def test_a_base_url_that_is_not_https_is_refused(published: Site, host: Host, url: str) -> None:
    for arguments, env in ((["--base-url", url], {}), ([], {"INSTALL_BASE_URL": url})):
        result = host.run(published.script, *arguments, env=env)
        assert result.returncode == 2
        assert "URL: " in result.stderr


@pytest.mark.parametrize(
    "url", ["https://example.org:8443/a%20b", "http://[::1]:80/x", "http://localhost"]
)
def test_a_base_url_that_is_safe_is_taken(published: Site, host: Host, url: str) -> None:
    host.simulate({"curl": "echo 'not today' >&2; exit 7"})
    text = assert_untouched(host, lambda: host.run(published.script, f"--base-url={url}"))
    assert f"cannot get {url}/stable.idx with curl: not today" in text


# Placing


def test_it_installs_over_a_program_that_runs(site: Site, host: Host) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    if subprocess.run([sleep, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("needs a sleep that knows --version")
    row = site.add("1.0.0")
    archive = site.archive(row)
    archive.write_bytes(
        pack({f"{archive.name.removesuffix('.tar.gz')}/{PROJECT}": Path(sleep).read_bytes()})
    )
    site.rows = []
    site.add("1.1.0")
    site.publish()
    host.bin.mkdir(parents=True)
    shutil.copy(sleep, host.binary)
    with subprocess.Popen([host.binary, "60"]) as running:
        result = host.run(site.script)
        was_running = running.poll() is None
        running.kill()
    assert result.returncode == 0, said(result)
    assert was_running
    assert subprocess.check_output([host.binary], text=True) == "tool 1.1.0\n"


def fetched(host: Host, site: Site, *arguments: str) -> tuple[bool, str]:
    """Install; return whether an archive was downloaded, and the last message."""
    result = host.run(site.script, "--no-modify-path", *arguments)
    assert result.returncode == 0, said(result)
    last = [line for line in result.stderr.splitlines() if " installed" in f" {line}"][-1]
    return "downloading " in result.stderr, last


def test_what_is_installed_already_is_not_downloaded_again(published: Site, host: Host) -> None:
    installed = f"installed tool 1.0.0 to {host.binary}"
    already = f"already installed: tool 1.0.0 in {host.binary}"
    assert fetched(host, published) == (True, installed)
    before = host.tree()
    assert fetched(host, published) == (False, already)
    assert host.tree() == before
    assert f"would keep: {host.binary} (1.0.0)\n" in host.run(published.script, "--plan").stdout
    assert fetched(host, published, "--reinstall") == (True, installed)
    plan = host.run(published.script, "--plan", "--reinstall").stdout
    assert f"would replace: {host.binary} (1.0.0)\n" in plan
    elsewhere = host.home / "elsewhere"
    assert fetched(host, published, f"--prefix={elsewhere}")[0]
    published.archive(published.rows[0]).unlink()
    assert fetched(host, published) == (
        False,
        f"already installed: tool 1.0.0 in {elsewhere}/bin/tool",
    )


@pytest.mark.parametrize("change", ["bytes", "mode", "gone", "link", "receipt", "library"])
@pytest.mark.thorough
def test_what_is_no_longer_as_it_was_installed_is_installed_again(
    published: Site, host: Host, change: str
) -> None:
    assert fetched(host, published)[0]
    content = host.binary.read_bytes()
    match change:
        case "bytes":
            host.binary.write_bytes(content + b"\n")
        case "mode":
            host.binary.chmod(0o644)
        case "gone":
            host.binary.unlink()
        case "link":
            host.binary.rename(host.bin / "moved")
            host.binary.symlink_to("moved")
        case "receipt":
            lines = host.receipt.read_text().splitlines(keepends=True)
            host.receipt.write_text("".join(line for line in lines if "sha256" not in line))
        case _:
            # No longer able to run: the trial decides, as it does for a download.
            published.rows = []
            published.add("1.0.0", program=f"#!/bin/sh\n[ ! -e '{host.root}/broken' ]\n")
            published.publish()
            assert fetched(host, published)[0]
            (host.root / "broken").touch()
            assert_untouched(host, lambda: host.run(published.script, "--no-modify-path"))
            return
    assert "would keep" not in host.run(published.script, "--plan").stdout
    assert fetched(host, published)[0]
    assert not host.binary.is_symlink()
    assert host.binary.read_bytes() == content
    assert not fetched(host, published)[0]


def test_other_bytes_of_the_same_version_are_installed(published: Site, host: Host) -> None:
    assert fetched(host, published)[0]
    published.rows = []
    published.add("1.0.0", program="#!/bin/sh\necho other\n")
    published.publish()
    assert fetched(host, published)[0]
    assert subprocess.check_output([host.binary], text=True) == "other\n"


def test_a_reissue_is_installed_and_takes_the_place_of_the_build_before_it(
    published: Site, host: Host
) -> None:
    assert fetched(host, published)[0]
    [first] = published.rows
    published.rows = []
    second = published.add("1.0.0", program="#!/bin/sh\necho mended\n", revision=2)
    published.serial += 1
    published.publish()
    assert second.revision == 2
    assert published.archive(first).exists()
    plan = host.run(published.script, "--plan").stdout
    assert f"would replace: {host.binary} (1.0.0)\n" in plan
    assert fetched(host, published) == (True, f"installed tool 1.0.0 to {host.binary}")
    assert subprocess.check_output([host.binary], text=True) == "mended\n"
    assert not fetched(host, published)[0]
    elsewhere = host.home / "elsewhere"
    assert fetched(host, published, f"--prefix={elsewhere}")[0]
    assert subprocess.check_output([elsewhere / "bin" / "tool"], text=True) == "mended\n"


@needs("ssh-keygen")
@pytest.mark.thorough
def test_what_is_installed_already_is_held_against_the_index_all_the_same(
    published: Site, host: Host
) -> None:
    host.provide("ssh-keygen")
    assert fetched(host, published)[0]
    published.serial = 9
    published.publish()
    assert fetched(host, published, "--require-signature") == (
        False,
        f"already installed: tool 1.0.0 in {host.binary}",
    )
    # What was seen and asked for is remembered, as by an installation.
    assert "\nserial 9\n" in host.receipt.read_text()
    assert "\nrequire_signature yes\n" in host.receipt.read_text()
    published.serial = 8
    published.publish()
    text = assert_untouched(host, lambda: host.run(published.script))
    assert "refusing to go back" in text
    published.serial = 9
    published.publish(expires_in=timedelta(days=-2))
    text = assert_untouched(host, lambda: host.run(published.script))
    assert "the index expired on" in text
    published.publish()
    flip(published.index, published.index.read_text().index("#serial 9") + 8)
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(published.script))


@pytest.mark.parametrize(
    "case",
    [
        ("/bin/sh", ".profile", None),
        ("/bin/ksh", ".profile", ""),
        ("/bin/bash", ".bashrc", "# mine\n"),
        ("/bin/zsh", ".zshrc", "# mine, without a line break"),
        ("/usr/bin/fish", ".config/fish/conf.d/tool.fish", None),
        ("/bin/tcsh", ".cshrc", "# mine\n"),
    ],
)
@pytest.mark.thorough
def test_one_line_goes_into_the_right_file_and_out_again(
    published: Site, host: Host, case: tuple[str, str, str | None]
) -> None:
    shell, name, content = case
    file = host.home / name
    if content is not None:
        file.write_text(content)
    before = host.tree()
    assert host.run(published.script, env={"SHELL": shell}).returncode == 0
    edited = file.read_text()
    assert edited.startswith(content or "")
    plan = host.run(published.script, "--plan", "--uninstall")
    assert f"would take our line out of: {file}\n" in plan.stdout
    assert f"would remove: {host.binary}\n" in plan.stdout
    assert file.read_text() == edited
    added = [line for line in edited.splitlines() if line.endswith("# added by the tool installer")]
    assert len(added) == 1
    assert "$HOME/.local/bin" in added[0]
    assert host.run(published.script, env={"SHELL": shell}).returncode == 0
    assert file.read_text() == edited
    result = host.run(published.script, "--uninstall")
    assert result.returncode == 0, said(result)
    assert host.tree() == before


def test_the_line_puts_the_binary_on_path(published: Site, host: Host) -> None:
    assert host.run(published.script).returncode == 0
    command = '. "$HOME/.profile"; . "$HOME/.profile"; echo "$PATH"; tool'
    output = subprocess.check_output(
        ["/bin/sh", "-c", command], text=True, env={"HOME": str(host.home), "PATH": "/usr/bin:/bin"}
    )
    assert output == f"{host.bin}:/usr/bin:/bin\ntool 1.0.0\n"


def test_path_is_left_alone_when_it_is_right_or_not_ours_to_change(
    published: Site, host: Host
) -> None:
    host.path.insert(0, str(host.bin))
    result = host.run(published.script)
    assert "PATH" not in result.stderr
    host.path.pop(0)
    for arguments, env in ((["--no-modify-path"], {}), ([], {"NO_MODIFY_PATH": "1"})):
        result = host.run(published.script, *arguments, env=env)
        assert f"{host.bin} is not on PATH: run: export PATH=" in result.stderr
    assert not (host.home / ".profile").exists()


def test_what_was_edited_after_us_survives_the_uninstall(published: Site, host: Host) -> None:
    profile = host.home / ".profile"
    profile.write_text("# one")
    host.run(published.script)
    with profile.open("a") as file:
        file.write("# two")
    assert host.run(published.script, "--uninstall").returncode == 0
    assert profile.read_text() == "# one\n# two"


def test_the_destination_follows_the_rules(published: Site, host: Host) -> None:
    default = host.run(published.script, "--plan", env={"XDG_BIN_HOME": ""})
    assert f"would add: {host.home}/.local/bin/tool\n" in default.stdout
    relative = host.run(published.script, "--plan", "--prefix", "some where")
    assert f"would add: {host.root}/some where/bin/tool\n" in relative.stdout
    host.simulate({"id": "echo 0"})
    root = host.run(published.script, "--plan", env={"XDG_BIN_HOME": ""})
    assert " /usr/local/bin/tool\n" in root.stdout
    host.run(published.script, "--prefix", f"{host.home}/elsewhere")
    again = host.run(published.script, "--plan")
    assert f"would keep: {host.home}/elsewhere/bin/tool (1.0.0)\n" in again.stdout


def test_a_channel_is_remembered(published: Site, host: Host) -> None:
    signed = published.index.read_text()
    text = signed[: signed.index("-----BEGIN")].replace("#channel stable", "#channel beta")
    published.publish_text(text)
    published.index.rename(published.root / "beta.idx")
    published.serial = 3
    published.publish()
    assert host.run(published.script, "--channel", "beta").returncode == 0
    assert "/beta.idx (serial 7," in host.run(published.script, "--plan").stdout
    # Each channel has serials of its own.
    assert host.run(published.script, "--channel=stable").returncode == 0
    assert "/stable.idx (serial 3," in host.run(published.script, "--plan").stdout


def test_without_home_it_asks_the_system_or_says_so(published: Site, host: Host) -> None:
    host.simulate({"getent": f'[ "$2" = 1000 ] && echo "me:x:1000:1000::{host.home}:/bin/sh"'})
    assert host.run(published.script, env={"HOME": ""}).returncode == 0
    assert host.receipt.exists()
    host.simulate({"getent": "echo 'me:x:1000:1000:::/bin/sh'"})
    result = host.run(published.script, env={"HOME": ""})
    assert result.returncode == 1
    assert "HOME is not set" in result.stderr


def test_a_directory_in_the_way_is_refused(published: Site, host: Host) -> None:
    host.binary.mkdir(parents=True)
    assert "tool is a directory" in assert_untouched(host, lambda: host.run(published.script))


@pytest.mark.parametrize("link", [None, "/bin/sh"])
def test_an_archive_without_the_binary_is_refused(site: Site, host: Host, link: str | None) -> None:
    row = site.add("1.0.0")
    archive = site.archive(row)
    name = "elsewhere/tool" if link is None else f"{archive.name.removesuffix('.tar.gz')}/tool"
    content = pack({name: b"#!/bin/sh\n"}, link=link)
    archive.write_bytes(content)
    # The index names the bytes as they are: only what is inside is wrong.
    site.rows = [site.relisted(row, content)]
    site.publish()
    text = assert_untouched(host, lambda: host.run(site.script))
    assert "the archive of 1.0.0 has no tool in it" in text


def test_every_binary_and_every_destination_is_remembered(site: Site, host: Host) -> None:
    row = site.add("1.0.0")
    folder = site.archive(row).name.removesuffix(".tar.gz")
    program = b"#!/bin/sh\necho 1.0.0\n"
    content = pack({f"{folder}/tool": program, f"{folder}/tool-extra": program})
    site.archive(row).write_bytes(content)
    site.rows = [site.relisted(row, content)]
    site.publish()
    script = site.script.replace("BINARIES='tool'", "BINARIES='tool\ntool-extra'")
    before = host.tree()
    for prefix in ("one", "two/three"):
        result = host.run(script, "--prefix", f"{host.home}/{prefix}")
        assert result.returncode == 0, said(result)
        assert {file.name for file in (host.home / prefix / "bin").iterdir()} == {
            "tool",
            "tool-extra",
        }
    assert host.run(script, "--uninstall").returncode == 0
    assert host.tree() == before


def test_without_a_receipt_no_file_is_edited(published: Site, host: Host) -> None:
    (host.home / ".config").write_text("in the way")
    result = host.run(published.script)
    assert result.returncode == 0, said(result)
    assert "--uninstall will not know about this copy" in result.stderr
    assert not (host.home / ".profile").exists()
    assert host.binary.exists()


def test_uninstall_needs_a_receipt(published: Site, host: Host) -> None:
    text = assert_untouched(host, lambda: host.run(published.script, "--uninstall"))
    assert "nothing to uninstall" in text


def test_another_program_of_that_name_is_pointed_out(published: Site, host: Host) -> None:
    host.simulate({PROJECT: "echo other"})
    host.path.append(str(host.bin))
    result = host.run(published.script)
    assert f"warning: {host.shims}/tool comes before {host.binary} on PATH" in result.stderr


@needs_openssl_3
def test_quiet_says_nothing_when_all_is_well(published: Site, host: Host) -> None:
    host.simulate({"ssh-keygen": "exit 0", "minisign": "exit 0"})
    host.provide("openssl")
    result = host.run(published.script, "--quiet")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", f"{host.binary}\n")


@pytest.mark.parametrize(
    "arguments", [["--frobnicate"], ["extra"], ["--version"], ["--version", "1;id"], ["--prefix="]]
)
def test_a_wrong_option_is_refused_with_2(
    published: Site, host: Host, arguments: list[str]
) -> None:
    result = host.run(published.script, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")


def test_help_lists_every_option(published: Site, host: Host) -> None:
    result = host.run(published.script, "--help")
    assert result.returncode == 0
    page = (ROOT / "docs/install.md").read_text()
    for line in result.stdout.splitlines():
        option = line.split()[0] if line.startswith("  --") else ""
        assert option in TEMPLATE
        assert option in page


def test_several_installs_at_once_leave_one_good_copy(published: Site, host: Host) -> None:
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(host.run(published.script)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.returncode for result in results] == [0] * 4
    assert [path.name for path in host.bin.iterdir()] == [PROJECT]
    assert not list(host.temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.thorough
def test_a_signal_leaves_nothing_behind(
    published: Site, host: Host, number: signal.Signals
) -> None:
    host.simulate({"curl": f"kill -{number.name.removeprefix('SIG')} $PPID; sleep 0.1"})
    before = host.tree()
    result = host.run(published.script)
    # 1: a shell may have a subshell for the download, which dies of it in its place.
    assert result.returncode in {1, 128 + number}
    assert host.tree() == before


# Lint


# `make lint` looks at the template; what it becomes is looked at here.
@needs("shfmt")
@needs("shellcheck")
@pytest.mark.thorough
def test_it_is_clean_after_rendering(published: Site) -> None:
    for command in (["shellcheck", "-s", "sh", "-"], ["shfmt", "-i", "4", "-d"]):
        subprocess.run(command, input=published.script, text=True, check=True)


@needs("checkbashisms")
@pytest.mark.thorough
def test_it_has_no_bashisms_before_and_after_rendering(published: Site, tmp_path: Path) -> None:
    rendered = tmp_path / "install.sh"
    rendered.write_text(published.script)
    for file in (rendered, ROOT / "install.sh.j2"):
        subprocess.run(["checkbashisms", "--posix", "--extra", "--force", file], check=True)
