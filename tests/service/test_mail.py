"""E-mail, handed to somebody else's SMTP server: in the clear on this machine only."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email import message_from_bytes
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from orchestrator.core.notice import Message
from orchestrator.core.service_settings import NoticeByMail, Occasion
from orchestrator.service.channels import MailChannel, SendError, channels_of
from tests.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificate

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
MESSAGE = Message(key="k", occasion=Occasion.FAILED, title="tool: it failed", text="so it did")
FAR = "mail.example.org"
PASSWORD = "aVeryLongUnguessableWord"
NOTICE = NoticeByMail(email="alex@example.org", sender="service@example.org")


@dataclass(slots=True)
class Post:
    """What a server does with what it is handed."""

    password: str = PASSWORD
    answer: str = "250 OK"
    recipient_answer: str = "250 OK"
    taken: list[bytes] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def handle_RCPT(self, *args: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        _, _, envelope, address, _ = args
        envelope.rcpt_tos.append(address)
        return self.recipient_answer

    async def handle_DATA(self, *args: Any) -> str:  # noqa: N802
        self.taken.append(args[2].content)
        return self.answer

    def log_in(self, *args: Any) -> AuthResult:
        given = args[4]
        assert isinstance(given, LoginPassword)
        self.logins.append((given.login, given.password))
        return AuthResult(success=given.password == self.password.encode(), handled=False)


@contextmanager
def serving_mail(post: Post, **options: Any) -> Iterator[int]:
    controller = Controller(
        post, hostname="127.0.0.1", port=0, authenticator=post.log_in, **options
    )
    trigger = controller._trigger_server

    # It sees whether it answers at the port that it was told, and that is any.
    def ask() -> None:
        assert isinstance(controller.server, asyncio.Server)
        controller.port = controller.server.sockets[0].getsockname()[1]
        trigger()  # type: ignore[no-untyped-call]

    controller._trigger_server = ask  # type: ignore[method-assign]
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), FAR)


@pytest.fixture
def tls(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


@pytest.fixture
def trust(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))


def lead_to(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every connection one to that port: the name of the server stays what it is."""
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda _, *rest: connect(("127.0.0.1", port), *rest)
    )


def send(server: str, *, user: str | None = None, password: str | None = None) -> None:
    notice = replace(NOTICE, server=server, user=user)
    MailChannel(name="mail", about=(), notice=notice, password=password).send(MESSAGE, NOW)


def test_a_server_on_this_machine_takes_it_as_it_is() -> None:
    post = Post()
    with serving_mail(post) as port:
        send(f"127.0.0.1:{port}")
    (taken,) = post.taken
    mail = message_from_bytes(taken)
    assert mail["Subject"] == "tool: it failed"
    assert mail["To"] == "alex@example.org"
    assert not post.logins


def test_who_has_a_password_logs_in() -> None:
    post = Post()
    with serving_mail(post, auth_require_tls=False) as port:
        send(f"127.0.0.1:{port}", user="me", password=PASSWORD)
        with pytest.raises(SendError, match="535") as caught:
            send(f"127.0.0.1:{port}", user="me", password="wrong-word")
    assert post.logins[0] == (b"me", PASSWORD.encode())
    assert set(post.logins[1:]) == {(b"me", b"wrong-word")}
    assert caught.value.is_final
    assert "wrong-word" not in str(caught.value)


@pytest.mark.usefixtures("trust")
def test_elsewhere_it_goes_over_starttls(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Post()
    with serving_mail(post, tls_context=tls, require_starttls=True) as port:
        lead_to(port, monkeypatch)
        send(f"{FAR}:587", user="me", password=PASSWORD)
    assert len(post.taken) == 1
    assert post.logins == [(b"me", PASSWORD.encode())]


def test_without_starttls_nothing_is_said_to_a_server_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post = Post()
    with serving_mail(post, auth_require_tls=False) as port:
        lead_to(port, monkeypatch)
        with pytest.raises(SendError, match="STARTTLS") as caught:
            send(f"{FAR}:587", user="me", password=PASSWORD)
    assert caught.value.is_final
    assert not post.logins
    assert not post.taken


@pytest.mark.parametrize("port_of_tls", [587, 465])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    port_of_tls: int, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Post()
    how = {"ssl_context": tls} if port_of_tls == 465 else {"tls_context": tls}
    with serving_mail(post, **how) as port:
        lead_to(port, monkeypatch)
        with pytest.raises(SendError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            send(f"{FAR}:{port_of_tls}", user="me", password=PASSWORD)
    # It may be mended.
    assert not caught.value.is_final
    assert not post.logins
    assert not post.taken


@pytest.mark.usefixtures("trust")
def test_a_certificate_of_another_host_is_refused(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Post()
    with serving_mail(post, tls_context=tls) as port:
        lead_to(port, monkeypatch)
        with pytest.raises(SendError, match="CERTIFICATE_VERIFY_FAILED"):
            send("mail.example.net:587")
    assert not post.taken


@pytest.mark.usefixtures("trust")
def test_port_465_speaks_tls_from_the_start(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Post()
    with serving_mail(post, ssl_context=tls) as port:
        lead_to(port, monkeypatch)
        send(f"{FAR}:465")
    assert len(post.taken) == 1


@pytest.mark.parametrize(
    ("post", "words", "is_final"),
    [
        (Post(answer="451 later"), "451 later", False),
        (Post(answer="554 spam"), "554 spam", True),
        (Post(recipient_answer="450 later"), "recipient is refused: \\[450\\]", False),
        (Post(recipient_answer="550 who?"), "recipient is refused: \\[550\\]", True),
    ],
)
def test_a_refusal_says_whether_to_try_again(post: Post, words: str, *, is_final: bool) -> None:
    with serving_mail(post) as port, pytest.raises(SendError, match=words) as caught:
        send(f"127.0.0.1:{port}")
    assert caught.value.is_final == is_final
    assert "alex" not in str(caught.value)


def test_a_server_that_is_gone_may_come_back() -> None:
    with serving_mail(Post()) as port:
        pass
    with pytest.raises(SendError, match="refused") as caught:
        send(f"127.0.0.1:{port}")
    assert not caught.value.is_final


def test_the_settings_say_who_gets_it_and_no_password_is_shown() -> None:
    notice = replace(NOTICE, about=(Occasion.ALARM,), user="me", password_file="x")
    (channel,) = channels_of([notice], [PASSWORD], project="tool")
    assert channel.name == "service.notices[0] (e-mail)"
    assert channel.about == (Occasion.ALARM,)
    assert isinstance(channel, MailChannel)
    assert channel.password == PASSWORD
    assert PASSWORD not in repr(channel)
