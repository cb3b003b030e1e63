"""Keys at work: several of them, a change of them, and a wrong or missing one stops a release."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.signing import generate_key, load_signer, parse_public_key
from tests.agents import running_agent
from tests.releases import ROOT, VERSION, contents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.releases import Desk, Outcome


def sign_with(desk: Desk, key: str, *trusted: str, rotation: bool = False) -> None:
    """Write an inventory whose keys are files of the desk."""
    signing: dict[str, object] = {"key": str(desk.folder / key)}
    if trusted:
        signing["trusted"] = [str(desk.folder / f"{name}.pub") for name in trusted]
    if rotation:
        signing["rotation"] = str(desk.folder / "rotation.pub")
    desk.publication["signing"] = signing
    desk.write(desk.node())


@pytest.fixture
def keys(desk: Desk) -> Path:
    """A desk with three keys and the one that vouches for them."""
    for name in ("key", "second", "third"):
        generate_key(desk.folder / name, passphrase=None)
    ssh_keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "open sesame")
    subprocess.run([*ssh_keygen, "-f", desk.folder / "rotation"], check=True)
    (desk.folder / "passphrase").write_text("open sesame\n")
    return desk.folder


def rotate(desk: Desk, *arguments: str, key: str = "rotation") -> Outcome:
    return desk.run(
        "keys",
        "rotate",
        "--rotation-key",
        str(desk.folder / key),
        "--passphrase-file",
        str(desk.folder / "passphrase"),
        *arguments,
    )


def test_any_of_two_trusted_keys_signs_and_the_installer_pins_both(desk: Desk, keys: Path) -> None:
    sign_with(desk, "key", "second")
    assert desk.release().code == 0
    script = (desk.store / "install.sh").read_text()
    for name in ("key", "second"):
        assert parse_public_key((keys / f"{name}.pub").read_text()).ssh in script
    # The other coordinator, with the other key.
    sign_with(desk, "second", "key")
    assert desk.run("status").code == 0
    assert desk.release("--rebuild").code == 0
    # They do not fight over what follows from the index.
    assert (desk.store / "install.sh").read_text() == script
    assert desk.run("fsck", "--deep").out.endswith("all is well\n")


def test_the_whole_drill(desk: Desk, keys: Path) -> None:
    sign_with(desk, "key", rotation=True)
    assert desk.release().code == 0
    assert "the store has no keys.txt yet" in desk.run("keys").out

    first = rotate(desk, "--json")
    assert first.code == 0, first.err
    assert (first.data["serial"], first.data["signed_anew"]) == (1, [])
    assert "the store says what the inventory says" in desk.run("keys").out
    stolen = (desk.store / "stable.idx").read_bytes()

    sign_with(desk, "second", rotation=True)
    assert "does not say what the inventory says" in desk.run("keys").out
    planned = desk.run("keys", "rotate", "--dry-run")
    assert planned.code == 0
    assert "signed anew  stable.idx" in planned.out
    assert f"stable.idx 1: + {VERSION} " in planned.out
    assert "nothing was touched" in planned.out
    assert not (desk.store / "keys/2.txt").exists()

    changed = rotate(desk)
    assert changed.code == 0, changed.err
    assert "revoked" in changed.out
    assert f"stable.idx 1: + {VERSION} " in changed.out
    old, new = (parse_public_key((keys / f"{name}.pub").read_text()) for name in ("key", "second"))
    script = (desk.store / "install.sh").read_text()
    assert new.ssh in script
    assert old.ssh not in script
    assert parse_public_key((keys / "rotation.pub").read_text()).ssh in script
    serial = desk.run("keys", "--json").data["serial"]
    assert f"    KEYS_SERIAL='{serial}'\n" in script
    assert desk.run("render").out == script
    checked = desk.run("fsck", "--json").data
    assert checked["findings"] == []
    listed = desk.run("keys", "--json").data
    assert [(key["here"], key["in_store"]) for key in listed["keys"]] == [
        ("signs", "active"),
        (None, "revoked"),
    ]
    assert listed["agrees"] is True
    before = contents(desk.store)
    again = rotate(desk)
    assert again.code == 0
    assert "already; nothing was written" in again.out
    assert contents(desk.store) == before

    # The same release again: archives that the old key signed stay as they are.
    assert desk.release().code == 0
    old_signatures = {name: text for name, text in before.items() if name.endswith(".minisig")}
    assert old_signatures
    assert old_signatures.items() <= contents(desk.store).items()

    # A thief of the old key who can write to the store.
    (desk.store / "stable.idx").write_bytes(stolen)
    for refused in (desk.run("status"), desk.release()):
        assert refused.code == 5
        assert "cannot be trusted" in refused.err


def test_what_a_key_signed_before_it_was_revoked_is_still_known(desk: Desk, keys: Path) -> None:
    del keys
    sign_with(desk, "key", rotation=True)
    assert desk.release().code == 0
    assert rotate(desk).code == 0
    sign_with(desk, "second", rotation=True)
    assert rotate(desk).code == 0

    history = desk.run("history", "--json").data["entries"]
    assert [entry["problem"] for entry in history] == [None, None, None]
    checked = desk.run("fsck", "--deep")
    assert checked.code == 0, checked.out
    assert checked.out.endswith("all is well\n")
    verified = desk.run("verify", VERSION)
    assert verified.code == 0, verified.out
    (archive,) = desk.store.rglob("*.tar.gz")
    assert desk.run("verify", str(archive)).code == 0

    # What no index names is judged by the keys of now.
    index = desk.store / "stable.idx"
    index.rename(desk.folder / "kept.idx")
    refused = desk.run("verify", str(archive))
    assert refused.code == 5
    assert "bad signature" in refused.out


def test_the_documented_commands_verify_keys_txt(desk: Desk, keys: Path) -> None:
    sign_with(desk, "key", rotation=True)
    assert rotate(desk).code == 0
    page = (ROOT / "docs/keys.md").read_text()
    commands = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[-1]
    public = parse_public_key((keys / "rotation.pub").read_text())
    (desk.store / "allowed_signers").write_text(f'tool namespaces="keys@tool" {public.ssh}\n')

    def is_good() -> bool:
        script = commands.replace("ballistics", "tool")
        ended = subprocess.run(
            ["sh", "-ec", script], cwd=desk.store, check=False, capture_output=True
        )
        return ended.returncode == 0

    assert is_good()
    file = desk.store / "keys.txt"
    file.write_text(file.read_text().replace("#serial 1", "#serial 2"))
    assert not is_good()


# A wrong or missing key: nothing is built, nothing is written


def assert_stopped(desk: Desk, *, code: int, problem: str) -> None:
    builds, before = desk.builds("here"), contents(desk.folder / "store")
    outcome = desk.release("--rebuild")
    assert outcome.code == code, outcome
    assert problem in outcome.err
    assert desk.builds("here") == builds
    assert contents(desk.folder / "store") == before


def remove_key(desk: Desk) -> None:
    (desk.folder / "key").unlink()


def take_another_kind(desk: Desk) -> None:
    (desk.folder / "key").unlink()
    ecdsa = ("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(desk.folder / "key"))
    (desk.folder / "key.pub").unlink()
    subprocess.run(ecdsa, check=True)


def open_to_others(desk: Desk) -> None:
    (desk.folder / "key").chmod(0o644)


def name_a_public_key_as_private(desk: Desk) -> None:
    (desk.folder / "key").write_bytes((desk.folder / "key.pub").read_bytes())


def take_a_key_that_did_not_sign(desk: Desk) -> None:
    sign_with(desk, "second")


def need_a_passphrase(desk: Desk) -> None:
    command = ("ssh-keygen", "-q", "-p", "-a", "1", "-P", "", "-N", "open sesame")
    subprocess.run([*command, "-f", desk.folder / "key"], check=True, capture_output=True)


def need_an_agent(desk: Desk) -> None:
    sign_with(desk, "key.pub")


def trust_a_file_that_is_gone(desk: Desk) -> None:
    sign_with(desk, "key", "fourth")


def take_a_revoked_key(desk: Desk) -> None:
    sign_with(desk, "key", rotation=True)
    assert rotate(desk).code == 0
    sign_with(desk, "second", rotation=True)
    assert rotate(desk).code == 0
    sign_with(desk, "key", rotation=True)


def trust_a_revoked_key(desk: Desk) -> None:
    take_a_revoked_key(desk)
    sign_with(desk, "second", "key", rotation=True)


def take_a_key_that_is_not_active_yet(desk: Desk) -> None:
    sign_with(desk, "key", rotation=True)
    assert rotate(desk).code == 0
    sign_with(desk, "second", "key", rotation=True)


@pytest.mark.parametrize(
    ("spoil", "code", "problem"),
    [
        (remove_key, 2, "there is no signing key"),
        (take_another_kind, 2, "not an ed25519 key"),
        (open_to_others, 2, "others than its owner may open the signing key"),
        (name_a_public_key_as_private, 2, "not a private key in OpenSSH's form"),
        (take_a_key_that_did_not_sign, 5, "stable.idx"),
        (need_a_passphrase, 2, "has a passphrase, and there is nobody to ask"),
        (need_an_agent, 2, "no ssh-agent runs here"),
        (trust_a_file_that_is_gone, 2, "there is no public key"),
        (take_a_revoked_key, 2, "is revoked: keys.txt in the store says so"),
        (trust_a_revoked_key, 2, "the trusted key"),
        (take_a_key_that_is_not_active_yet, 2, "is not active: keys.txt in the store says so"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.usefixtures("keys")
def test_a_wrong_key_stops_a_release_before_anything_is_built(
    desk: Desk, *, spoil: Callable[[Desk], None], code: int, problem: str
) -> None:
    sign_with(desk, "key")
    assert desk.release().code == 0
    spoil(desk)
    assert_stopped(desk, code=code, problem=problem)


@pytest.mark.usefixtures("keys")
def test_without_any_key_no_store_is_made(desk: Desk) -> None:
    sign_with(desk, "key")
    remove_key(desk)
    outcome = desk.release()
    assert outcome.code == 2
    assert "orchestrator keygen" in outcome.err
    assert desk.builds("here") == []
    assert not desk.store.exists()


def test_a_wrong_passphrase_stops_a_release(
    desk: Desk, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_with(desk, "key")
    need_a_passphrase(desk)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: "close sesame")
    outcome = desk.release()
    assert outcome.code == 2
    assert f"{keys / 'key'}: wrong passphrase" in outcome.err
    assert "sesame" not in outcome.err + outcome.out
    assert desk.builds("here") == []
    assert not desk.store.exists()


def test_an_agent_signs_a_release_and_one_without_the_key_stops_it(
    desk: Desk, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_with(desk, "key.pub")
    with running_agent() as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.socket)
        agent.add(keys / "second")
        outcome = desk.release()
        assert outcome.code == 2
        assert f"load it: ssh-add {keys / 'key'}" in outcome.err
        assert desk.builds("here") == []
        assert not desk.store.exists()
        agent.add(keys / "key")
        # As where the private half is on no disk of this machine.
        (keys / "key").rename(keys / "elsewhere")
        checked = desk.run("check", "--json")
        findings = {each["check"]: each["message"] for each in checked.data["coordinator"]}
        assert findings["key"].endswith(", in the ssh-agent")
        assert desk.release().code == 0
    monkeypatch.delenv("SSH_AUTH_SOCK")
    # Reading needs no agent.
    assert desk.run("status", VERSION).code == 0
    assert desk.run("render").code == 0


# The change itself, refused


@pytest.fixture
def ready(desk: Desk, keys: Path) -> Path:
    """A desk whose inventory names another key than the store's keys.txt."""
    sign_with(desk, "key", rotation=True)
    assert desk.release().code == 0
    assert rotate(desk).code == 0
    sign_with(desk, "second", rotation=True)
    return keys


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "keys change only with the private rotation key"),
        (["--rotation-key", "third"], "not the rotation key of the inventory"),
        (["--rotation-key", "none"], "there is no signing key"),
        (["--rotation-key", "rotation"], "nobody to ask"),
        (["--rotation-key", "rotation", "--passphrase-file", "third.pub"], "wrong passphrase"),
        (["--rotation-key", "rotation", "--passphrase-file", "empty"], "wrong passphrase"),
        (["--rotation-key", "rotation", "--passphrase-file", "none"], "cannot read the passphrase"),
    ],
)
def test_without_the_rotation_key_nothing_changes(
    desk: Desk, arguments: list[str], problem: str
) -> None:
    (desk.folder / "empty").touch()
    words = [word if word.startswith("--") else str(desk.folder / word) for word in arguments]
    before = contents(desk.store)
    outcome = desk.run("keys", "rotate", *words)
    assert outcome.code == 2, outcome
    assert problem in outcome.err
    assert contents(desk.store) == before


def test_without_the_new_signing_key_nothing_changes(desk: Desk, ready: Path) -> None:
    before = contents(desk.store)
    (ready / "second").rename(ready / "kept")
    assert "there is no signing key" in rotate(desk).err
    (ready / "third").rename(ready / "second")
    mixed = rotate(desk)
    assert mixed.code == 2
    assert "is not the public half of the key beside it" in mixed.err
    (ready / "second.pub").unlink()
    for outcome in (rotate(desk), desk.run("keys")):
        assert outcome.code == 2
        assert "there is no signing key" in outcome.err
    assert contents(desk.store) == before


@pytest.mark.usefixtures("keys")
def test_without_a_rotation_key_in_the_inventory_keys_are_listed_and_not_changed(
    desk: Desk,
) -> None:
    sign_with(desk, "key", "second")
    listed = desk.run("keys")
    assert listed.code == 0
    assert "no rotation key vouches for these" in listed.out
    assert "trusted" in listed.out
    refused = rotate(desk)
    assert refused.code == 2
    assert "orchestrator keygen --rotation" in refused.err


@pytest.mark.usefixtures("keys")
def test_check_says_how_the_keys_stand(desk: Desk) -> None:
    def finding() -> str:
        checked = desk.run("check", "--json").data["coordinator"]
        (found,) = [each for each in checked if each["check"] == "keys"]
        return f"{found['state']}: {found['message']}"

    sign_with(desk, "key", rotation=True)
    assert finding().startswith("warning: the store has no keys.txt yet")
    rotate(desk)
    assert finding() == "ok: keys.txt has serial 1, and names the same keys"
    sign_with(desk, "key", "second", rotation=True)
    assert finding().startswith("warning: the store does not say what the inventory says")
    sign_with(desk, "second", rotation=True)
    assert finding().startswith("problem: the signing key")
    (desk.store / "keys.txt").write_text("x")
    assert finding().startswith("problem: keys.txt in")


# New keys


def test_the_next_key_is_made_before_the_inventory_has_it(desk: Desk) -> None:
    desk.write(desk.node())
    path = desk.folder / "next/key"
    outcome = desk.run("keygen", "--output", str(path))
    assert outcome.code == 0, outcome.err
    assert f"made {path}" in outcome.out
    assert load_signer(path, None).public.ssh in outcome.out
    refused = desk.run("keygen", "--output", f"{path}.pub")
    assert refused.code == 2
    assert "name the private one" in refused.err


def test_a_rotation_key_is_made_with_a_passphrase_or_not_at_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(desk.node())
    path = desk.folder / "stick/rotation"
    monkeypatch.setattr("getpass.getpass", lambda _: "")
    refused = desk.run("keygen", "--rotation", str(path))
    assert refused.code == 2
    assert "without a passphrase" in refused.err
    assert not path.parent.exists()
    monkeypatch.setattr("getpass.getpass", lambda _: "open sesame")
    outcome = desk.run("keygen", "--rotation", str(path))
    assert outcome.code == 0, outcome.err
    public = parse_public_key((desk.folder / "stick/rotation.pub").read_text())
    assert f"rotation: {public.ssh}" in outcome.out
    assert load_signer(path, lambda: b"open sesame").public == public


def test_keygen_makes_the_private_half_of_a_key_that_the_inventory_names_by_its_public_one(
    desk: Desk,
) -> None:
    (desk.folder / "key").touch()
    desk.publication["signing"] = {"key": str(desk.folder / "agent-key.pub")}
    desk.write(desk.node())
    outcome = desk.run("keygen")
    assert outcome.code == 0, outcome.err
    assert {name for name in os.listdir(desk.folder) if name.startswith("agent-key")} == {  # noqa: PTH208 -- names are enough
        "agent-key",
        "agent-key.pub",
        "agent-key.minisign.pub",
    }


def test_a_key_with_a_passphrase_needs_somebody_to_ask(
    desk: Desk, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del keys

    def nobody(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", nobody)
    sign_with(desk, "key")
    refused = desk.run("keygen", "--rotation", str(desk.folder / "offline"))
    assert refused.code == 2
    assert "nobody to ask for a passphrase" in refused.err
    assert not (desk.folder / "offline").exists()
