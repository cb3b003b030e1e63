"""Keys in a real ssh-agent: what it signs verifies everywhere, and what it will not do is said."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.signature import index_namespace, render_allowed_signers
from orchestrator.signing import (
    AgentSigner,
    agent,
    generate_key,
    know_key,
    load_signer,
    open_signer,
    verify,
    verify_minisig,
)
from orchestrator.signing.forms import KEY_TYPE, to_string
from tests.agents import RunningAgent, running_agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.core.signature import PublicKey

NAMESPACE = index_namespace("tool")
COMMENT = "file:stable.idx serial:42"
SMALL = b"#orchestrator-index 1\n#end 0\n"
LARGE = bytes(range(256)) * 4 * 1024  # 1 MiB, four times what an agent takes
SIGNIFY = shutil.which("signify-openbsd") or shutil.which("signify") or "signify"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    generate_key(tmp_path / "release", passphrase=None)
    return tmp_path


@pytest.fixture
def running(keys: Path) -> Iterator[RunningAgent]:
    with running_agent() as started:
        started.add(keys / "release")
        yield started


@pytest.fixture
def signer(keys: Path, running: RunningAgent) -> AgentSigner:
    opened = open_signer(keys / "release.pub", None, agent=running.socket)
    assert isinstance(opened, AgentSigner)
    return opened


def ends_with_0(*argv: str | Path, stdin: bytes = b"") -> bool:
    return subprocess.run(argv, input=stdin, capture_output=True, check=False).returncode == 0


def ssh_keygen_verifies(folder: Path, data: bytes, sshsig: str, *, public: PublicKey) -> bool:
    (folder / "allowed").write_text(render_allowed_signers("tool", [public]))
    (folder / "sshsig").write_text(sshsig)
    options = ("-f", folder / "allowed", "-I", "tool", "-n", NAMESPACE, "-s", folder / "sshsig")
    return ends_with_0("ssh-keygen", "-Y", "verify", *options, stdin=data)


def minisign_verifies(folder: Path, data: bytes, minisig: str, *, public: PublicKey) -> bool:
    (folder / "data").write_bytes(data)
    (folder / "minisig").write_text(minisig)
    sides = ("-m", folder / "data", "-x", folder / "minisig")
    return ends_with_0("minisign", "-V", "-P", public.minisign, *sides)


def signify_verifies(folder: Path, data: bytes, minisig: str, *, key: Path) -> bool:
    (folder / "data").write_bytes(data)
    (folder / "minisig").write_text(minisig)
    return ends_with_0(SIGNIFY, "-V", "-p", key, "-m", folder / "data", "-x", folder / "minisig")


def test_an_agent_signs_what_the_file_of_its_key_would_sign(
    keys: Path, signer: AgentSigner
) -> None:
    own = load_signer(keys / "release", None)
    assert signer.public == own.public
    assert signer.sign(SMALL, namespace=NAMESPACE, comment=COMMENT) == own.sign(
        SMALL, namespace=NAMESPACE, comment=COMMENT
    )


def test_an_ssh_signature_alone_is_one_question_to_the_agent(
    keys: Path, signer: AgentSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.signing import agent  # noqa: PLC0415 -- here only

    asked: list[int] = []
    ask = agent._ask

    def counted(socket: str, kind: int, body: bytes) -> tuple[int, bytes]:
        asked.append(kind)
        return ask(socket, kind, body)

    monkeypatch.setattr(agent, "_ask", counted)
    sshsig = signer.sign_ssh(LARGE, namespace=NAMESPACE)
    assert len(asked) == 1
    assert sshsig == load_signer(keys / "release", None).sign_ssh(LARGE, namespace=NAMESPACE)
    assert ssh_keygen_verifies(keys, LARGE, sshsig, public=signer.public)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_what_an_agent_signs_verifies_with_the_tools(
    keys: Path, signer: AgentSigner, data: bytes
) -> None:
    pair = signer.sign(data, namespace=NAMESPACE, comment=COMMENT)
    assert ssh_keygen_verifies(keys, data, pair.sshsig, public=signer.public)
    assert not ssh_keygen_verifies(keys, data[1:], pair.sshsig, public=signer.public)
    assert minisign_verifies(keys, data, pair.minisig, public=signer.public)
    assert not minisign_verifies(keys, data[1:], pair.minisig, public=signer.public)
    # signify knows the kind over the bytes themselves only, which an agent makes of small ones.
    minisign_key = keys / "release.minisign.pub"
    assert signify_verifies(keys, data, pair.minisig, key=minisign_key) is (data is SMALL)
    assert pair.minisig.splitlines()[1].startswith("RW" if data is SMALL else "RU")
    verify(data, pair, keys=[signer.public], namespace=NAMESPACE)


def test_the_most_that_is_signed_as_it_is_fits_an_agent(signer: AgentSigner) -> None:
    for size, start in ((agent.MESSAGE_LIMIT, "RW"), (agent.MESSAGE_LIMIT + 1, "RU")):
        data = b"x" * size
        minisig = signer.sign(data, namespace=NAMESPACE, comment=COMMENT).minisig
        assert minisig.splitlines()[1].startswith(start)
        assert verify_minisig(data, minisig, keys=[signer.public]) == COMMENT


def test_a_hash_that_was_signed_is_no_signature_of_itself(signer: AgentSigner) -> None:
    minisig = signer.sign(LARGE, namespace=NAMESPACE, comment=COMMENT).minisig
    for changed in (minisig.replace("\nRU", "\nRW", 1), minisig.replace("\nRU", "\nRV", 1)):
        with pytest.raises(StoreError, match="minisign"):
            verify_minisig(LARGE, changed, keys=[signer.public])
    with pytest.raises(StoreError, match="minisign"):
        verify_minisig(LARGE[1:], minisig, keys=[signer.public])


def test_a_key_in_an_agent_is_known_without_signing(keys: Path, running: RunningAgent) -> None:
    known = know_key(keys / "release.pub", agent=running.socket)
    assert known.is_in_agent
    assert known.public == load_signer(keys / "release", None).public
    assert not know_key(keys / "release", agent=running.socket).is_in_agent


@pytest.mark.parametrize("socket_path", [None, ""])
def test_without_an_agent_it_says_how_to_start_one(keys: Path, socket_path: str | None) -> None:
    with pytest.raises(ConfigError, match="no ssh-agent runs here") as caught:
        open_signer(keys / "release.pub", None, agent=socket_path)
    assert f"ssh-add {keys / 'release'}" in str(caught.value.hint)


def test_an_agent_that_is_gone_is_named(keys: Path) -> None:
    with running_agent() as started:
        started.add(keys / "release")
        signer = open_signer(keys / "release.pub", None, agent=started.socket)
    with pytest.raises(ConfigError, match="no ssh-agent answers at"):
        signer.sign(SMALL, namespace=NAMESPACE, comment=COMMENT)
    with pytest.raises(ConfigError, match="no ssh-agent answers at"):
        open_signer(keys / "release.pub", None, agent=str(keys / ("x" * 200)))


def test_a_key_that_the_agent_does_not_hold_is_named(keys: Path, running: RunningAgent) -> None:
    other = generate_key(keys / "other", passphrase=None)
    with pytest.raises(ConfigError, match="does not hold the signing key") as caught:
        open_signer(keys / "other.pub", None, agent=running.socket)
    assert other.fingerprint in caught.value.message
    assert caught.value.hint == f"load it: ssh-add {keys / 'other'}"


def test_a_key_that_left_the_agent_signs_no_more(
    keys: Path, running: RunningAgent, signer: AgentSigner
) -> None:
    running.remove(keys / "release")
    with pytest.raises(ConfigError, match="refuses to sign"):
        signer.sign(SMALL, namespace=NAMESPACE, comment=COMMENT)


def test_a_use_that_nobody_confirms_is_a_refusal(keys: Path) -> None:
    with running_agent(SSH_ASKPASS="/bin/false", DISPLAY="none") as started:
        started.add(keys / "release", "-c")
        signer = open_signer(keys / "release.pub", None, agent=started.socket)
        with pytest.raises(ConfigError, match="refuses to sign") as caught:
            signer.sign(SMALL, namespace=NAMESPACE, comment=COMMENT)
    assert caught.value.hint


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Yield a socket where each question gets the next of these answers, and then nothing."""
    with TemporaryDirectory(prefix="agent-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = f"{folder}/socket"
        server.bind(path)
        server.listen()

        def serve() -> None:
            for answer in answers:
                link, _ = server.accept()
                with link:
                    link.recv(1 << 20)
                    link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path


def identities(public: PublicKey) -> bytes:
    blob = agent._blob(public)
    return to_string(bytes([12]) + (1).to_bytes(4) + to_string(blob) + to_string(b"comment"))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        b"\0\0\0\0",
        b"\0\0\0\x05\x0c\0\0",
        b"\x7f\xff\xff\xff\x0c",
        to_string(bytes([5])),
        to_string(bytes([12]) + (9).to_bytes(4) + to_string(b"a") + to_string(b"b")),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_is_no_agent_is_told_and_never_read_without_end(keys: Path, answer: bytes) -> None:
    with answering(answer) as path, pytest.raises(ConfigError, match="is no ssh-agent"):
        open_signer(keys / "release.pub", None, agent=path)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        to_string(to_string(KEY_TYPE) + to_string(b"x" * 63)),
        to_string(to_string(KEY_TYPE) + to_string(b"x" * 65)),
        to_string(to_string(b"ssh-rsa") + to_string(b"x" * 64)),
        to_string(to_string(KEY_TYPE) + to_string(b"x" * 64) + b"more"),
        to_string(to_string(KEY_TYPE) + to_string(b"x" * 64)) + b"more",
    ],
)
def test_what_is_no_signature_is_refused(keys: Path, signature: bytes) -> None:
    public = load_signer(keys / "release", None).public
    answer = to_string(bytes([14]) + signature)
    with answering(identities(public), answer) as path:
        signer = open_signer(keys / "release.pub", None, agent=path)
        with pytest.raises(ConfigError, match="is no ssh-agent"):
            signer.sign(SMALL, namespace=NAMESPACE, comment=COMMENT)


def test_a_bad_signature_of_an_agent_never_leaves(keys: Path) -> None:
    public = load_signer(keys / "release", None).public
    bad = to_string(bytes([14]) + to_string(to_string(KEY_TYPE) + to_string(b"x" * 64)))
    with answering(identities(public), bad, bad, bad) as path:
        signer = open_signer(keys / "release.pub", None, agent=path)
        with pytest.raises(StoreError, match="bad signature"):
            signer.sign(SMALL, namespace=NAMESPACE, comment=COMMENT)


def test_an_agent_that_says_nothing_is_not_waited_for_without_end(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "_PATIENCE_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as server, TemporaryDirectory(prefix="agent-") as folder:
        server.bind(f"{folder}/socket")
        server.listen()
        with pytest.raises(ConfigError, match="did not answer within") as caught:
            open_signer(keys / "release.pub", None, agent=f"{folder}/socket")
    assert caught.value.hint


def test_a_public_key_file_of_another_kind_is_refused(keys: Path, running: RunningAgent) -> None:
    for name, text in (("rsa.pub", "ssh-rsa AAAA"), ("empty.pub", "")):
        (keys / name).write_text(text)
        with pytest.raises(ConfigError, match=f"{name}: not an ed25519 public key"):
            open_signer(keys / name, None, agent=running.socket)
    (keys / "binary.pub").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.pub: cannot be read"):
        open_signer(keys / "binary.pub", None, agent=running.socket)
    with pytest.raises(ConfigError, match="there is no public key"):
        open_signer(keys / "none.pub", None, agent=running.socket)


def test_no_secret_and_no_socket_is_in_a_repr(signer: AgentSigner) -> None:
    assert repr(signer) == f"AgentSigner({signer.public.fingerprint})"
