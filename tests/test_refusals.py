"""What the installer refuses, and how an old copy of it follows a change of keys."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.installer import render_installer
from orchestrator.core.signature import Signatures, artifact_namespace, index_namespace
from orchestrator.signing import FileSigner
from orchestrator.signing.pair import sign_pair
from tests.installer_site import (
    GNU,
    TEMPLATE,
    VERIFIERS,
    Host,
    Server,
    Site,
    as_shell,
    assert_untouched,
    needs,
    said,
    serve,
    verifier_params,
)
from tests.shells import shell_params

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") or shutil.which("wget")), reason="needs curl or wget"
)

NEW, ROTATION, THIEF = (FileSigner(Ed25519PrivateKey.generate()) for _ in range(3))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("server"))


@pytest.fixture
def site(server: Server) -> Site:
    """A project whose installers pin a rotation key, and which has published 1.0.0."""
    site = server.site()
    site.rotation = ROTATION
    site.add("1.0.0")
    site.publish()
    return site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(root=tmp_path / "host")
    host.provide(*VERIFIERS)
    return host


def fresh(site: Site) -> str:
    """Return the installer as it is published now."""
    return render_installer(TEMPLATE, site.values)


def rotate(site: Site) -> FileSigner:
    """Change the key: the old one is revoked, the index signed anew; return the old one."""
    old = site.signer
    site.publish_keys([NEW], [old], serial=2)
    site.signer = NEW
    site.serial += 1
    site.publish()
    return old


# An index that is not the newest, not whole, or not one


@pytest.mark.parametrize("verifier", verifier_params())
def test_each_verifier_refuses_an_index_by_another_key(
    site: Site, host: Host, verifier: str
) -> None:
    for other in VERIFIERS:
        if other != verifier:
            (host.shims / other).unlink(missing_ok=True)
    script = site.script
    site.signer = THIEF
    site.publish()
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(script))


def test_an_index_that_was_signed_as_something_else_is_refused(site: Site, host: Host) -> None:
    text = site.index.read_text()
    text = text[: text.index("-----BEGIN")]
    for namespace in (artifact_namespace("tool"), index_namespace("other"), "keys@tool"):
        pair = site.signer.sign(text.encode(), namespace=namespace, comment="index")
        site.index.write_text(text + pair.sshsig + pair.minisig)
        assert "the SSH signature" in assert_untouched(host, lambda: host.run(site.script))


def test_the_text_of_one_index_with_signatures_of_another_is_refused(
    site: Site, host: Host
) -> None:
    first = site.index.read_text()
    site.serial = 8
    site.publish()
    second = site.index.read_text()

    def parts(text: str) -> tuple[str, str, str]:
        ssh, minisign = text.index("-----BEGIN"), text.index("untrusted comment")
        return text[:ssh], text[ssh:minisign], text[minisign:]

    old, new = parts(first), parts(second)
    for mixed in (
        (new[0], old[1], old[2]),
        (old[0], new[1], new[2]),
        (new[0], new[1], old[2]),
        (new[0], old[1], new[2]),
    ):
        site.index.write_text("".join(mixed))
        assert "is bad: refusing" in assert_untouched(host, lambda: host.run(site.script))
    site.index.write_text("".join(new))
    assert host.run(site.script).returncode == 0


def test_rows_that_were_added_after_the_signatures_are_never_read(site: Site, host: Host) -> None:
    text = site.index.read_text()
    row = next(line for line in text.splitlines() if line.startswith(GNU))
    more = row.replace("1.0.0", "9.9.9")
    site.index.write_text(f"{text}{more}\n#end 2\n")
    assert "9.9.9" not in said(host.run(site.script, "--plan"))
    # Before the end they are part of the text that was signed, and it is another one.
    site.index.write_text(text.replace("#end 1\n", f"{more}\n#end 2\n"))
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(site.script))


@pytest.mark.parametrize("kept", ["#serial", "#end", "-----BEGIN", "-----END", "untrusted", "RW"])
def test_an_index_that_is_cut_off_is_refused(site: Site, host: Host, kept: str) -> None:
    text = site.index.read_text()
    site.index.write_text(text[: text.index(kept) + len(kept)])
    assert_untouched(host, lambda: host.run(site.script))


def test_an_index_that_is_stale_or_rolled_back_is_refused(site: Site, host: Host) -> None:
    older = site.index.read_text()
    site.serial = 8
    site.publish()
    assert host.run(site.script).returncode == 0
    site.index.write_text(older)
    refused = assert_untouched(host, lambda: host.run(site.script))
    assert "is older (serial 7) than what was installed from before (serial 8)" in refused
    site.serial = 9
    site.publish(expires_in=timedelta(days=-1))
    assert "the index expired on" in assert_untouched(host, lambda: host.run(site.script))


# A minisig of the kind that an agent makes of a large text


def sign_hash_of(site: Site) -> None:
    text = site.index.read_text()
    text = text[: text.index("-----BEGIN")]
    pair: Signatures = sign_pair(
        text.encode(),
        site.signer.public,
        site.signer.sign_bytes,
        namespace=index_namespace("tool"),
        comment="index",
        is_prehashed=True,
    )
    site.index.write_text(text + pair.sshsig + pair.minisig)


@needs("ssh-keygen")
@needs("minisign")
def test_a_signature_of_the_hash_is_good_where_something_can_check_it(
    site: Site, host: Host
) -> None:
    sign_hash_of(site)
    plan = host.run(site.script, "--plan", "--require-signature")
    assert "signature: ssh-keygen and minisign\n" in plan.stdout, said(plan)
    (host.shims / "minisign").unlink()
    plan = host.run(site.script, "--plan", "--require-signature")
    assert "signature: ssh-keygen\n" in plan.stdout, said(plan)


@needs("signify-openbsd")
def test_nobody_may_choose_a_kind_of_signature_that_is_not_checked_here(
    site: Site, host: Host
) -> None:
    sign_hash_of(site)
    for tool in ("ssh-keygen", "minisign"):
        (host.shims / tool).unlink()
    refused = assert_untouched(host, lambda: host.run(site.script))
    assert "the minisign signature" in refused
    for tool in VERIFIERS:
        (host.shims / tool).unlink(missing_ok=True)
    assert "relying on TLS and SHA-256 alone" in host.run(site.script, "--plan").stderr


# A change of keys


@pytest.mark.parametrize("shell", shell_params())
def test_an_old_copy_of_the_installer_follows_a_change_of_keys_in_every_shell(
    site: Site, host: Host, shell: str
) -> None:
    host.shell = as_shell(host.root / "shells", shell)
    # busybox prefers its own uname to the simulated one.
    saved = site.script.replace("wanted_target=''", f"wanted_target='{GNU}'")
    environment = {"XDG_BIN_HOME": str(host.bin)}
    rotate(site)
    result = host.run(saved, env=environment)
    assert result.returncode == 0, said(result)
    assert "its rotation key vouches for them" in result.stderr
    assert result.stderr.endswith(f"installed tool 1.0.0 to {host.binary}\n")
    assert "\nkeys_serial 2\n" in host.receipt.read_text()
    # What was seen once is remembered, also by who needs no keys.txt.
    site.serial += 1
    site.publish()
    again = host.run(
        fresh(site).replace("wanted_target=''", f"wanted_target='{GNU}'"), env=environment
    )
    assert "already installed" in again.stderr
    assert "vouches" not in again.stderr
    assert "\nkeys_serial 2\n" in host.receipt.read_text()
    site.publish_keys([NEW], serial=1)
    refused = host.run(saved, env=environment)
    assert refused.returncode == 1
    assert "keys.txt is older than what is known here (serial 2)" in refused.stderr
    site.publish_keys([NEW, THIEF], serial=10)
    assert host.run(saved, env=environment).returncode == 0
    assert "\nkeys_serial 10\n" in host.receipt.read_text()


@pytest.mark.parametrize("verifier", verifier_params())
def test_each_verifier_alone_follows_a_change_of_keys_and_no_forgery_of_one(
    site: Site, host: Host, verifier: str
) -> None:
    for other in VERIFIERS:
        if other != verifier:
            (host.shims / other).unlink(missing_ok=True)
    saved = site.script
    old = rotate(site)
    plan = host.run(saved, "--plan", "--require-signature")
    assert plan.returncode == 0, said(plan)
    assert f"signature: {verifier}\n" in plan.stdout
    site.publish_keys([NEW], [old], serial=2, by=old)
    refused = assert_untouched(host, lambda: host.run(saved))
    assert "keys.txt has a bad signature too" in refused
    assert "is bad: refusing" in refused


def test_the_drill_a_stolen_key_opens_nothing_to_who_has_the_new_installer(
    site: Site, host: Host
) -> None:
    saved = site.script
    old = rotate(site)
    assert NEW.public.ssh in fresh(site)
    assert old.public.ssh not in fresh(site)

    # The thief has the old key and the store.
    site.signer = old
    site.serial = 99
    site.add("6.6.6")
    site.rows.reverse()
    site.publish()
    site.signer = NEW
    refused = assert_untouched(host, lambda: host.run(fresh(site)))
    assert "is bad: refusing" in refused
    for forger in (old, THIEF):
        site.publish_keys([old], serial=3, by=forger)
        assert "is bad: refusing" in assert_untouched(host, lambda: host.run(fresh(site)))
    # What docs/keys.md says an old copy cannot know: the key that it pins is stolen.
    assert "6.6.6" in host.run(saved, "--plan").stdout


def test_a_new_installer_takes_no_keys_txt_from_before_it_was_made(site: Site, host: Host) -> None:
    old = site.signer
    site.publish_keys([old], serial=1)
    early = site.keys.read_bytes()
    rotate(site)
    script = fresh(site)
    # The thief has the old key, the store, and what was genuine before the key was revoked.
    site.signer = old
    site.serial = 99
    site.add("6.6.6")
    site.publish()
    site.keys.write_bytes(early)
    refused = assert_untouched(host, lambda: host.run(script))
    assert "keys.txt is older than what is known here (serial 2): refusing to go back" in refused
    assert "is bad: refusing" in refused


def test_the_receipt_keeps_the_newest_serial_of_keys_txt_that_is_known(
    site: Site, host: Host
) -> None:
    before = site.script
    rotate(site)
    assert host.run(fresh(site)).returncode == 0
    # Nothing had to be followed, and an older copy of the installer knows it all the same.
    assert "\nkeys_serial 2\n" in host.receipt.read_text()
    site.publish_keys([NEW], serial=1)
    refused = host.run(before)
    assert refused.returncode == 1
    assert "keys.txt is older than what is known here (serial 2)" in refused.stderr
    site.publish_keys([NEW], serial=10)
    assert host.run(before).returncode == 0
    assert host.run(render_installer(TEMPLATE, replace(site.values, keys_serial=9))).returncode == 0
    assert "\nkeys_serial 10\n" in host.receipt.read_text()


def test_an_index_by_a_revoked_key_is_refused_by_who_pins_neither(site: Site, host: Host) -> None:
    saved = site.script
    old = rotate(site)
    # A third key, after which the second is revoked as well.
    third = FileSigner(Ed25519PrivateKey.generate())
    site.publish_keys([third], [old, NEW], serial=3)
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(saved))
    site.signer = third
    site.publish()
    assert host.run(saved).returncode == 0


def test_keys_txt_is_fetched_only_when_it_is_needed(site: Site, host: Host) -> None:
    site.publish_keys([site.signer])
    site.redirects[f"/{site.root.name}/keys.txt"] = "http://127.0.0.1:1/"
    result = host.run(site.script)
    assert result.returncode == 0, said(result)
    assert "keys.txt" not in said(result)
    # The one that it was made with.
    assert "\nkeys_serial 1\n" in host.receipt.read_text()


def test_without_a_rotation_key_nothing_follows(site: Site, host: Host) -> None:
    site.rotation = None
    saved = site.script
    site.rotation = ROTATION
    rotate(site)
    refused = assert_untouched(host, lambda: host.run(saved))
    assert "keys.txt" not in refused


def test_without_a_verifier_it_is_as_before(site: Site, host: Host) -> None:
    saved = site.script
    rotate(site)
    for tool in VERIFIERS:
        (host.shims / tool).unlink(missing_ok=True)
    assert_untouched(host, lambda: host.run(saved, "--require-signature"))
    result = host.run(saved)
    assert result.returncode == 0, said(result)
    assert "keys.txt" not in said(result)


@needs("ssh-keygen")
def test_a_keys_txt_that_nothing_here_can_check_is_worth_nothing(site: Site, host: Host) -> None:
    script = render_installer(TEMPLATE, replace(site.values, rotation_ssh_keys=()))
    old = rotate(site)
    site.publish_keys([NEW], [old], serial=2, by=THIEF)
    for tool in VERIFIERS[1:]:
        (host.shims / tool).unlink(missing_ok=True)
    refused = assert_untouched(host, lambda: host.run(script))
    assert "keys.txt has no signature that a tool here can check" in refused


KEYS_TEXT: Final = f"""\
#orchestrator-keys 1
#project tool
#serial 2
#issued 20261125
active\t{NEW.public.ssh.replace(" ", chr(9))}\t{NEW.public.minisign}
#end 1
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("-keys 1", "-keys 2", "is in a format newer than this installer"),
        ("-keys 1", "-index 1", "is in a format newer than this installer"),
        ("#project tool", "#project other", "is about the keys of other, not of tool"),
        ("#end 1", "#end 2", "says that it has 2 rows and has 1"),
        ("#serial 2", "#serial 2\n#serial 3", "says #serial twice"),
        ("#serial 2", "#serial x", "has no serial"),
        ("#serial 2\n", "", "has no serial"),
        ("active\tssh-ed25519", "active\tssh-rsa", "has a malformed row (number 1)"),
        ("active\t", "active\tx\t", "has a malformed row (number 1)"),
        ("AAAA", "AAA'", "has a malformed row (number 1)"),
        ("RW", "R", "has a malformed row (number 1)"),
        ("active\t", "revoked\t", "has no active key"),
    ],
)
@pytest.mark.thorough
def test_a_signed_keys_txt_that_is_not_meant_for_this_is_refused(
    site: Site, host: Host, *, old: str, new: str, problem: str
) -> None:
    saved = site.script
    rotate(site)
    assert old in KEYS_TEXT
    site.publish_keys_text(KEYS_TEXT)
    assert host.run(saved, "--plan").returncode == 0
    text = KEYS_TEXT.replace(old, new, 1)
    pair = ROTATION.sign(text.encode(), namespace="keys@tool", comment="keys")
    site.keys.write_text(text + pair.sshsig + pair.minisig)
    assert f"keys.txt {problem}" in assert_untouched(host, lambda: host.run(saved))


@needs("ssh-keygen")
def test_an_index_by_the_rotation_key_is_no_keys_txt_and_the_other_way_round(
    site: Site, host: Host
) -> None:
    saved = site.script
    rotate(site)
    site.publish_keys_text(KEYS_TEXT, namespace=index_namespace("tool"))
    refused = assert_untouched(host, lambda: host.run(saved))
    assert "keys.txt has a bad signature too" in refused
    site.signer = ROTATION
    site.publish()
    site.publish_keys_text(KEYS_TEXT)
    assert "is bad: refusing" in assert_untouched(host, lambda: host.run(saved))
