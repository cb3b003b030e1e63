"""Keys in an ssh-agent: it signs, and the private half never comes here.

The protocol is draft-ietf-sshm-ssh-agent: a request, an answer, each with its length before it.
"""

from __future__ import annotations

import base64
import socket
import time
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.signing.forms import COUNT_BYTES, KEY_TYPE, split_string, to_string
from orchestrator.signing.pair import sign_pair, sign_ssh
from orchestrator.signing.verification import verify_raw

if TYPE_CHECKING:
    from orchestrator.core.signature import PublicKey, Signatures


class AgentSigner:
    """Signs with a key that an agent holds; each signature is a question to it."""

    __slots__ = ("_agent", "public")

    def __init__(self, public: PublicKey, agent: str) -> None:
        self._agent = agent
        self.public: Final = public

    def __repr__(self) -> str:
        return f"AgentSigner({self.public.fingerprint})"

    def sign(self, data: bytes, *, namespace: str, comment: str) -> Signatures:
        """Return both signatures, already verified; `comment` is signed into the minisig.

        An agent that is gone, or refuses, raises ConfigError.
        """
        return sign_pair(
            data,
            self.public,
            self.sign_bytes,
            namespace=namespace,
            comment=comment,
            is_prehashed=len(data) > MESSAGE_LIMIT,
        )

    def sign_ssh(self, data: bytes, *, namespace: str) -> str:
        """Return the SSHSIG alone, already verified: one question to the agent."""
        return sign_ssh(data, self.public, self.sign_bytes, namespace=namespace)

    def sign_raw(self, data: bytes) -> bytes:
        """Return the 64 bytes of a plain ed25519 signature over the data, already verified."""
        signature = self.sign_bytes(data)
        verify_raw(data, signature, keys=(self.public,))
        return signature

    def sign_bytes(self, data: bytes) -> bytes:
        """Return the bare 64 bytes of an ed25519 signature."""
        # No flags: they choose among the hashes of RSA.
        request = to_string(_blob(self.public)) + to_string(data) + bytes(COUNT_BYTES)
        kind, answer = _ask(self._agent, _SIGN_REQUEST, request)
        if kind == _FAILURE:
            raise ConfigError(
                f"the ssh-agent refuses to sign with {self.public.fingerprint}",
                hint="is it locked, is the key gone from it, or did nobody confirm its use?",
            )
        # A string that holds the kind of signature, and then the signature.
        signature, rest = split_string(answer)
        algorithm, bare = split_string(signature)
        bare, more = split_string(bare)
        if (kind, algorithm, len(bare), rest, more) != (
            _SIGN_RESPONSE,
            KEY_TYPE,
            _SIGNATURE_BYTES,
            b"",
            b"",
        ):
            raise _garbled(self._agent)
        return bare


def find_in_agent(public: PublicKey, agent: str | None, *, key_file: str) -> AgentSigner:
    """Return the signer whose private half the agent holds; raise ConfigError if it does not.

    `agent` is the path of its socket, as SSH_AUTH_SOCK has it; nothing is signed yet.
    """
    if not agent:
        raise ConfigError(
            f"the inventory names a public key, {key_file}, and no ssh-agent runs here to sign "
            "with its private half: SSH_AUTH_SOCK is not set",
            hint=f'start one and load the key: eval "$(ssh-agent)"; ssh-add {_private(key_file)}',
        )
    if _blob(public) not in _identities(agent):
        raise ConfigError(
            f"the ssh-agent does not hold the signing key {public.fingerprint} ({key_file})",
            hint=f"load it: ssh-add {_private(key_file)}",
        )
    return AgentSigner(public, agent)


# OpenSSH's agent takes messages of 256 KiB; the rest is for what stands around the data.
MESSAGE_LIMIT: Final = 240 * 1024
_ANSWER_LIMIT: Final = 256 * 1024
# A person may have to confirm, or to touch a token.
_PATIENCE_SECONDS: Final = 60.0
_FAILURE: Final = 5
_REQUEST_IDENTITIES: Final = 11
_IDENTITIES_ANSWER: Final = 12
_SIGN_REQUEST: Final = 13
_SIGN_RESPONSE: Final = 14
_SIGNATURE_BYTES: Final = 64


def _private(key_file: str) -> str:
    return key_file.removesuffix(".pub")


def _blob(public: PublicKey) -> bytes:
    return base64.b64decode(public.ssh.split()[1])


def _identities(agent: str) -> set[bytes]:
    kind, answer = _ask(agent, _REQUEST_IDENTITIES, b"")
    if kind != _IDENTITIES_ANSWER:
        raise _garbled(agent)
    count, rest = int.from_bytes(answer[:COUNT_BYTES]), answer[COUNT_BYTES:]
    blobs = set()
    for _ in range(count):
        if not rest:
            raise _garbled(agent)
        blob, rest = split_string(rest)
        _, rest = split_string(rest)
        blobs.add(blob)
    return blobs


def _ask(agent: str, kind: int, body: bytes) -> tuple[int, bytes]:
    """Return the kind of the agent's answer and what is in it."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(_PATIENCE_SECONDS)
            link.connect(agent)
            link.sendall(to_string(bytes([kind]) + body))
            size = int.from_bytes(_read(link, COUNT_BYTES, deadline))
            answer = _read(link, size, deadline) if 1 <= size <= _ANSWER_LIMIT else b""
    except TimeoutError:
        raise ConfigError(
            f"the ssh-agent at {agent} did not answer within {_PATIENCE_SECONDS:.0f} s",
            hint="does it wait for somebody to confirm the use of the key?",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"no ssh-agent answers at {agent}: {error.strerror or error}",
            hint="is SSH_AUTH_SOCK that of an agent which still runs?",
        ) from error
    if not answer:
        raise _garbled(agent)
    return answer[0], answer[1:]


def _read(link: socket.socket, size: int, deadline: float) -> bytes:
    """Return that many bytes, or nothing if the agent hung up before."""
    data = b""
    while len(data) < size:
        # An agent that sends a byte now and then is none the less too slow.
        link.settimeout(max(0.001, deadline - time.monotonic()))
        part = link.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data


def _garbled(agent: str) -> ConfigError:
    return ConfigError(
        f"what answers at {agent} is no ssh-agent, or it broke off",
        hint="is SSH_AUTH_SOCK the socket of an ssh-agent?",
    )
