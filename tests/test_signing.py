from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.index import Index, join_signed, render_index
from orchestrator.core.signature import (
    Signatures,
    artifact_namespace,
    index_namespace,
    render_allowed_signers,
)
from orchestrator.signing import (
    FileSigner,
    generate_key,
    inspect_key,
    load_signer,
    parse_public_key,
    verify,
    verify_minisig,
    verify_sshsig,
)
from orchestrator.signing.forms import render_minisig, split_minisig

if TYPE_CHECKING:
    from orchestrator.core.signature import PublicKey, Signer, Verifier

ROOT = Path(__file__).parent.parent
DATA = b"#orchestrator-index 1\n#project ballistics\n#end 0\n"
NAMESPACE = index_namespace("ballistics")
COMMENT = "timestamp:1795219200 file:stable.idx version:42"

needs_bcrypt = pytest.mark.skipif(
    importlib.util.find_spec("bcrypt") is None, reason="needs the Python package bcrypt"
)
needs_minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="needs minisign")
SIGNIFY = shutil.which("signify-openbsd") or shutil.which("signify")
needs_signify = pytest.mark.skipif(SIGNIFY is None, reason="needs signify-openbsd")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "release"
    generate_key(path, passphrase=None)
    return path


@pytest.fixture
def signer(key_file: Path) -> FileSigner:
    return load_signer(key_file, None)


@pytest.fixture
def signatures(signer: FileSigner) -> Signatures:
    return signer.sign(DATA, namespace=NAMESPACE, comment=COMMENT)


def another_key(tmp_path: Path) -> PublicKey:
    return generate_key(tmp_path / "another", passphrase=None)


def run(*argv: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, input=stdin, capture_output=True, check=False)


def ssh_keygen_verifies(
    folder: Path, data: bytes, sshsig: str, *, allowed: str, namespace: str = NAMESPACE
) -> bool:
    (folder / "allowed").write_text(allowed)
    (folder / "sshsig").write_text(sshsig)
    options = ("-f", folder / "allowed", "-I", "ballistics", "-n", namespace)
    argv = ("ssh-keygen", "-Y", "verify", *options, "-s", folder / "sshsig")
    return run(*argv, stdin=data).returncode == 0


def minisign_verifies(folder: Path, data: bytes, minisig: str, *, public: Path) -> bool:
    (folder / "data").write_bytes(data)
    (folder / "data.minisig").write_text(minisig)
    return run("minisign", "-V", "-m", folder / "data", "-p", public).returncode == 0


def signify_verifies(folder: Path, data: bytes, minisig: str, *, public: Path) -> bool:
    (folder / "data").write_bytes(data)
    (folder / "sig").write_text(minisig)
    argv = (str(SIGNIFY), "-V", "-p", public, "-m", folder / "data", "-x", folder / "sig")
    return run(*argv).returncode == 0


def test_ssh_keygen_verifies_for_the_principal_and_its_namespaces_only(
    tmp_path: Path, signer: FileSigner, signatures: Signatures
) -> None:
    allowed = render_allowed_signers("ballistics", [signer.public])
    sshsig = signatures.sshsig
    assert ssh_keygen_verifies(tmp_path, DATA, sshsig, allowed=allowed)
    assert not ssh_keygen_verifies(tmp_path, DATA + b"\n", sshsig, allowed=allowed)
    artifact = artifact_namespace("ballistics")
    assert not ssh_keygen_verifies(tmp_path, DATA, sshsig, allowed=allowed, namespace=artifact)
    for_another = render_allowed_signers("another", [signer.public])
    assert not ssh_keygen_verifies(tmp_path, DATA, sshsig, allowed=for_another)
    elsewhere = signer.sign(DATA, namespace="git", comment=COMMENT).sshsig
    assert not ssh_keygen_verifies(tmp_path, DATA, elsewhere, allowed=allowed, namespace="git")


def test_each_of_two_pinned_keys_is_accepted(
    tmp_path: Path, signer: FileSigner, signatures: Signatures
) -> None:
    keys = [another_key(tmp_path), signer.public]
    allowed = render_allowed_signers("ballistics", keys)
    assert ssh_keygen_verifies(tmp_path, DATA, signatures.sshsig, allowed=allowed)
    verify(DATA, signatures, keys=keys, namespace=NAMESPACE)


def test_the_sshsig_is_byte_for_byte_that_of_ssh_keygen(
    tmp_path: Path, key_file: Path, signer: FileSigner
) -> None:
    for number, data in enumerate((b"", b"x", DATA, bytes(range(256)) * 5000)):
        file = tmp_path / f"data{number}"
        file.write_bytes(data)
        signed = run("ssh-keygen", "-Y", "sign", "-f", key_file, "-n", NAMESPACE, file)
        assert signed.returncode == 0, signed.stderr
        ours = signer.sign(data, namespace=NAMESPACE, comment=COMMENT).sshsig
        assert ours == file.with_name(f"{file.name}.sig").read_text()


@needs_minisign
def test_minisign_verifies_the_file_and_its_comment(
    tmp_path: Path, key_file: Path, signatures: Signatures
) -> None:
    public = key_file.with_name("release.minisign.pub")
    assert minisign_verifies(tmp_path, DATA, signatures.minisig, public=public)
    assert not minisign_verifies(tmp_path, DATA[1:], signatures.minisig, public=public)
    forged = signatures.minisig.replace("version:42", "version:43")
    assert not minisign_verifies(tmp_path, DATA, forged, public=public)


@needs_signify
def test_signify_verifies_the_same_file_with_the_same_key_file(
    tmp_path: Path, key_file: Path, signatures: Signatures
) -> None:
    public = key_file.with_name("release.minisign.pub")
    assert signify_verifies(tmp_path, DATA, signatures.minisig, public=public)
    assert not signify_verifies(tmp_path, DATA[1:], signatures.minisig, public=public)


@needs_minisign
def test_the_key_id_is_the_one_that_minisign_prints(
    tmp_path: Path, signer: FileSigner, signatures: Signatures
) -> None:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "data.minisig").write_text(signatures.minisig)
    other = another_key(tmp_path).minisign
    refused = run("minisign", "-V", "-m", tmp_path / "data", "-P", other).stderr.decode()
    # minisign prints it as a number: without the zeros in front.
    assert f"{signer.public.key_id.lstrip('0')}\n" in refused


def test_a_change_of_one_byte_anywhere_is_refused(
    signer: FileSigner, signatures: Signatures
) -> None:
    def is_good(data: bytes, sshsig: str, minisig: str) -> bool:
        try:
            pair = Signatures(sshsig=sshsig, minisig=minisig)
            verify(data, pair, keys=[signer.public], namespace=NAMESPACE)
        except StoreError:
            return False
        return True

    sshsig, minisig = signatures.sshsig, signatures.minisig
    assert is_good(DATA, sshsig, minisig)
    for i in range(len(DATA)):
        assert not is_good(DATA[:i] + bytes([DATA[i] ^ 1]) + DATA[i + 1 :], sshsig, minisig)
    for text, is_sshsig in ((sshsig, True), (minisig, False)):
        for i in range(len(text) + 1):
            for changed in (
                text[:i],
                text[:i] + " " + text[i:],
                text[:i] + ("A" if text[i : i + 1] != "A" else "B") + text[i + 1 :],
                text[:i] + "é" + text[i + 1 :],
            ):
                pair = (changed, minisig) if is_sshsig else (sshsig, changed)
                assert changed == text or not is_good(DATA, *pair), (i, changed)


def test_the_wrong_namespace_and_the_wrong_key_are_refused(
    tmp_path: Path, signer: FileSigner, signatures: Signatures
) -> None:
    check: Verifier = verify
    for namespace in (artifact_namespace("ballistics"), index_namespace("ballistics2"), "index"):
        with pytest.raises(StoreError, match=f"SSHSIG for {namespace}"):
            check(DATA, signatures, keys=[signer.public], namespace=namespace)
    for keys in ([another_key(tmp_path)], []):
        with pytest.raises(StoreError, match="SSHSIG") as caught:
            check(DATA, signatures, keys=keys, namespace=NAMESPACE)
        assert caught.value.hint
        with pytest.raises(StoreError, match="minisign"):
            verify_minisig(DATA, signatures.minisig, keys=keys)


def test_either_signature_alone_is_over_the_very_bytes(
    signer: FileSigner, signatures: Signatures
) -> None:
    keys = [signer.public]
    for other in (DATA[1:], DATA + b"\n", b""):
        with pytest.raises(StoreError, match="SSHSIG"):
            verify_sshsig(other, signatures.sshsig, keys=keys, namespace=NAMESPACE)
        with pytest.raises(StoreError, match="minisign"):
            verify_minisig(other, signatures.minisig, keys=keys)


def test_both_signatures_must_be_good(
    tmp_path: Path, signer: FileSigner, signatures: Signatures
) -> None:
    generate_key(tmp_path / "thief", passphrase=None)
    thief = load_signer(tmp_path / "thief", None)
    other = thief.sign(DATA, namespace=NAMESPACE, comment=COMMENT)
    for mixed in (
        replace(signatures, sshsig=other.sshsig),
        replace(signatures, minisig=other.minisig),
    ):
        with pytest.raises(StoreError, match="bad signature"):
            verify(DATA, mixed, keys=[signer.public], namespace=NAMESPACE)


def test_a_minisig_under_a_borrowed_key_number_is_refused(
    tmp_path: Path, signer: FileSigner
) -> None:
    generate_key(tmp_path / "thief", passphrase=None)
    thief = load_signer(tmp_path / "thief", None)
    own = split_minisig(thief.sign(DATA, namespace=NAMESPACE, comment=COMMENT).minisig)
    assert own is not None
    forged = render_minisig(signer.public, own)
    assert signer.public.key_id in forged
    with pytest.raises(StoreError, match="minisign"):
        verify_minisig(DATA, forged, keys=[signer.public])
    # Nor does a signer let out what its own public key does not verify.
    thief.public = replace(signer.public)  # type: ignore[misc]  # that is the attack
    with pytest.raises(StoreError, match="bad signature"):
        thief.sign(DATA, namespace=NAMESPACE, comment=COMMENT)


def test_a_namespace_is_never_a_pattern(signer: FileSigner, signatures: Signatures) -> None:
    for namespace in ("*", "index@*", f"git,{NAMESPACE}", 'a"b', ""):
        with pytest.raises(ValueError, match="not a namespace"):
            verify_sshsig(DATA, signatures.sshsig, keys=[signer.public], namespace=namespace)


def test_the_trusted_comment_comes_back(signer: FileSigner, signatures: Signatures) -> None:
    assert verify_minisig(DATA, signatures.minisig, keys=[signer.public]) == COMMENT


@pytest.mark.parametrize("comment", ["", "two\nlines", "é", "a\tb", "x" * 901])
def test_a_comment_is_one_line_of_ascii(signer: FileSigner, comment: str) -> None:
    with pytest.raises(ValueError, match="not one line"):
        signer.sign(DATA, namespace=NAMESPACE, comment=comment)


def test_the_same_bytes_give_the_same_signatures(key_file: Path, signatures: Signatures) -> None:
    again: Signer = load_signer(key_file, None)
    assert again.sign(DATA, namespace=NAMESPACE, comment=COMMENT) == signatures


def test_a_new_key_is_three_files_that_the_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "release"
    public = generate_key(path, passphrase=None)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "release",
        "release.minisign.pub",
        "release.pub",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    for folder in (path.parent, path.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert run("ssh-keygen", "-y", "-f", path).stdout.decode().split()[:2] == public.ssh.split()
    fingerprint = run("ssh-keygen", "-l", "-f", path.with_name("release.pub")).stdout.decode()
    assert fingerprint.split()[1] == public.fingerprint
    assert path.with_name("release.minisign.pub").read_text().splitlines() == [
        f"untrusted comment: minisign public key {public.key_id}",
        public.minisign,
    ]
    assert public.minisign.startswith("RW")
    assert re.fullmatch("[0-9A-F]{16}", public.key_id)


def test_the_public_key_is_the_same_from_every_side(key_file: Path, signer: FileSigner) -> None:
    line = key_file.with_name("release.pub").read_text()
    assert parse_public_key(line) == signer.public
    assert parse_public_key(f"{line.strip()} somebody@somewhere") == signer.public
    known = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFL+TwT11+/fOGunJG0SAJIc4tvcazw5xgG1lB/KTW4c"
    assert parse_public_key(known).key_id == "B544F71A87161390"
    assert parse_public_key(known).fingerprint == (
        "SHA256:KI7FsRS58nxiNogpgKnzjo30uHkQ+MhuWWzcFr+rj9A"
    )


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-foo AAAA", "a b c"])
def test_what_is_not_a_public_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an ed25519 public key") as caught:
        parse_public_key(text)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["release", "release.pub", "release.minisign.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=f"{name} is there already") as caught:
        generate_key(tmp_path / "release", passphrase=None)
    assert caught.value.hint
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_key_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*keys: Not a directory"):
        generate_key(tmp_path / "file" / "keys" / "release", passphrase=None)
    with pytest.raises(ConfigError, match=r"cannot write .*\.minisign\.pub: File name too long"):
        generate_key(tmp_path / ("x" * 250), passphrase=None)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_a_key(tmp_path: Path) -> None:
    # A limit of this process's own stands in for the disk, with the signal of it ignored.
    script = (
        "import pathlib, resource, signal, sys\n"
        "from orchestrator.core.errors import ConfigError\n"
        "from orchestrator.signing import generate_key\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import cryptography.hazmat.primitives.serialization\n"
        "_, most = before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))\n"
        "try:\n"
        "    generate_key(pathlib.Path(sys.argv[1]), passphrase=None)\n"
        "except ConfigError as error:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, before)\n"
        "    print(error)\n"
    )
    ended = run(sys.executable, "-B", "-c", script, tmp_path / "release")
    assert b"cannot write" in ended.stdout, ended.stderr
    assert b"File too large" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no signing key") as caught:
        load_signer(tmp_path / "none", None)
    assert "orchestrator keygen" in str(caught.value.hint)


def test_a_key_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the signing key: Is a directory"):
        load_signer(tmp_path, None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o777])
def test_a_key_that_others_may_open_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as caught:
        load_signer(key_file, None)
    assert caught.value.hint == f"chmod 600 {key_file}"


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ecdsa"
    run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", path)
    with pytest.raises(ConfigError, match="not an ed25519 key"):
        load_signer(path, None)


@pytest.mark.parametrize("name", ["release.pub", "release.minisign.pub"])
def test_a_public_key_in_place_of_the_private_one_is_refused(key_file: Path, name: str) -> None:
    path = key_file.with_name(name)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a private key in OpenSSH's form"):
        load_signer(path, None)


def test_a_key_of_ssh_keygen_with_a_passphrase_needs_somebody_to_ask(tmp_path: Path) -> None:
    path = tmp_path / "release"
    run("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "open sesame", "-f", path)
    with pytest.raises(ConfigError, match="nobody to ask"):
        load_signer(path, None)
    with pytest.raises(ConfigError, match="wrong passphrase"):
        load_signer(path, lambda: b"")


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_a_key_file_tells_its_public_half_without_its_passphrase(
    passphrase: str, tmp_path: Path
) -> None:
    path = tmp_path / "release"
    run("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", passphrase, "-f", path)
    key = inspect_key(path)
    assert key.public == parse_public_key(path.with_name("release.pub").read_text())
    assert key.has_passphrase is bool(passphrase)


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_a_key_of_another_kind_is_found_without_its_passphrase(
    passphrase: str, tmp_path: Path
) -> None:
    path = tmp_path / "ecdsa"
    run("ssh-keygen", "-q", "-t", "ecdsa", "-a", "1", "-N", passphrase, "-f", path)
    with pytest.raises(ConfigError, match="not an ed25519 key"):
        inspect_key(path)


def test_half_a_key_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "release"
    run("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "open sesame", "-f", path)
    text = path.read_bytes()
    for size in range(0, len(text) - 1, 7):
        path.write_bytes(text[:size])
        with pytest.raises(ConfigError, match="not a private key in OpenSSH's form"):
            inspect_key(path)


@needs_bcrypt
def test_a_passphrase_opens_a_key_of_ssh_keygen_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "release"
    run("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "open sesame", "-f", path)
    signer = load_signer(path, lambda: b"open sesame")
    assert signer.public == parse_public_key(path.with_name("release.pub").read_text())
    with pytest.raises(ConfigError, match="wrong passphrase") as caught:
        load_signer(path, lambda: b"close sesame")
    assert "sesame" not in f"{caught.value!r} {caught.value.hint}"


@needs_bcrypt
@pytest.mark.thorough
def test_a_key_with_a_passphrase_opens_in_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "release"
    public = generate_key(path, passphrase=b"open sesame")
    assert load_signer(path, lambda: b"open sesame").public == public
    shown = run("ssh-keygen", "-y", "-P", "open sesame", "-f", path).stdout.decode()
    assert shown.split()[:2] == public.ssh.split()
    assert run("ssh-keygen", "-y", "-P", "wrong", "-f", path).returncode != 0


def test_without_bcrypt_a_passphrase_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "release"
    run("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", "open sesame", "-f", path)
    # A process of its own: cryptography looks for bcrypt once, when it is imported.
    script = (
        "import pathlib, sys\n"
        "sys.modules['bcrypt'] = None\n"
        "from orchestrator.core.errors import ConfigError\n"
        "from orchestrator.signing import generate_key, load_signer\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for act in (\n"
        "    lambda: load_signer(folder / 'release', lambda: b'open sesame'),\n"
        "    lambda: generate_key(folder / 'new', passphrase=b'open sesame'),\n"
        "):\n"
        "    try:\n"
        "        act()\n"
        "    except ConfigError as error:\n"
        "        print(error.message, error.hint)\n"
    )
    ended = run(sys.executable, "-c", script, tmp_path)
    said = ended.stdout.decode().splitlines()
    assert len(said) == 2, ended.stderr.decode()
    for line in said:
        assert "cannot read or write a key with a passphrase" in line
        assert "install the Python package `bcrypt`" in line
    assert not (tmp_path / "new").exists()


def test_no_secret_is_in_a_repr(key_file: Path, signer: FileSigner) -> None:
    assert repr(signer) == f"FileSigner({signer.public.fingerprint})"
    assert not hasattr(signer, "__dict__")
    secret_lines = key_file.read_text().splitlines()[2:-1]
    assert not any(line in repr(signer) for line in secret_lines)


@pytest.mark.parametrize(
    ("tool", "block"),
    [
        ("ssh-keygen", 1),
        pytest.param("minisign", 2, marks=needs_minisign),
        pytest.param("signify", 3, marks=needs_signify),
    ],
)
def test_the_documented_commands_verify_an_index(
    tmp_path: Path, key_file: Path, *, tool: str, block: int
) -> None:
    signer = load_signer(key_file, None)
    text = render_index(
        Index(
            project="ballistics",
            channel="stable",
            serial=42,
            issued=date(2026, 11, 21),
            expires=date(2027, 2, 19),
            rows=(),
        )
    )
    pair = signer.sign(text.encode(), namespace=NAMESPACE, comment=COMMENT)
    allowed = render_allowed_signers("ballistics", [signer.public])
    (tmp_path / "allowed_signers").write_text(allowed)
    shutil.copy(key_file.with_name("release.minisign.pub"), tmp_path)
    page = (ROOT / "docs" / "index-format.md").read_text()
    commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    script = f"cd {tmp_path} && {commands[0]}\n{commands[block]}"
    assert tool in commands[block]
    script = script.replace("signify -V", f"{SIGNIFY} -V")

    signed = join_signed(text, pair.sshsig, pair.minisig)
    (tmp_path / "stable.idx").write_text(signed)
    assert run("sh", "-eu", stdin=script.encode()).returncode == 0
    (tmp_path / "stable.idx").write_text(signed.replace("#serial 42", "#serial 43"))
    assert run("sh", "-eu", stdin=script.encode()).returncode != 0
