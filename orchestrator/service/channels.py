"""The ways that a notice goes: a POST to somebody's URL, or an e-mail. Each blocks: in a thread."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, assert_never

from orchestrator.core.notice_forms import mail_of, post_of
from orchestrator.core.service_settings import NoticeByMail, NoticeByWebhook
from orchestrator.core.wording import visible
from orchestrator.web import WebError, fetch, is_allowed, is_loopback

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from orchestrator.core.notice import Message
    from orchestrator.core.service_settings import Notice, NoticeFormat, Occasion

_TIMEOUT: Final = timedelta(seconds=20)
_LIMIT_BYTES: Final = 1 << 16
_TLS_PORT: Final = 465
_PERMANENT: Final = 500


class SendError(Exception):
    """It was not taken; if that is final, it will not be either when it is sent again."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Channel(Protocol):
    """One way; `name` says which, without anything secret."""

    @property
    def name(self) -> str:
        """What it is called in the log."""
        ...

    @property
    def about(self) -> Collection[Occasion]:
        """What goes this way."""
        ...

    def send(self, message: Message, at: datetime) -> None:
        """Send it; raises SendError."""
        ...


def channels_of(
    notices: Iterable[Notice], secrets: Iterable[str | None], *, project: str
) -> tuple[Channel, ...]:
    """Return the ways of the settings; `secrets` are Secrets.notices."""
    return tuple(
        _channel(f"service.notices[{number}]", notice, secret, project=project)
        for number, (notice, secret) in enumerate(zip(notices, secrets, strict=True))
    )


def _channel(place: str, notice: Notice, secret: str | None, *, project: str) -> Channel:
    match notice:
        case NoticeByWebhook():
            return WebhookChannel(
                name=f"{place} ({notice.format})",
                about=notice.about,
                url=secret or "",
                form=notice.format,
                project=project,
            )
        case NoticeByMail():
            return MailChannel(
                name=f"{place} (e-mail)",
                about=notice.about,
                notice=notice,
                password=secret,
            )
        case _:
            assert_never(notice)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChannel:
    """A URL that is posted to; it is not in the errors, for who knows it can write there."""

    name: str
    about: Collection[Occasion]
    url: str = field(repr=False)
    form: NoticeFormat
    project: str

    def send(self, message: Message, at: datetime) -> None:
        """Post it; a redirect is not followed."""
        if not is_allowed(self.url):
            raise SendError("it is not an https URL", is_final=True)
        post = post_of(message, self.form, project=self.project, at=at)
        try:
            answer = fetch(
                self.url,
                limit_bytes=_LIMIT_BYTES,
                timeout=_TIMEOUT,
                method="POST",
                headers=post.headers,
                body=post.body,
            )
        except WebError as error:
            raise SendError(visible(str(error))[:200]) from None
        if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            is_final = answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
            is_final = is_final and answer.status not in _PASSING
            raise SendError(f"it answers {answer.status}", is_final=is_final)


_PASSING: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailChannel:
    """An address, reached through a server that is spoken to over TLS unless it is this machine."""

    name: str
    about: Collection[Occasion]
    notice: NoticeByMail
    password: str | None = field(default=None, repr=False)

    def send(self, message: Message, at: datetime) -> None:
        """Hand it to the server; who it is for is not among its errors."""
        notice = self.notice
        mail = mail_of(message, to=notice.email, sender=notice.sender, at=at)
        try:
            with self._connected() as server:
                server.send_message(mail)
        except smtplib.SMTPResponseException as error:
            reason = error.smtp_error
            text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
            raise SendError(
                f"{error.smtp_code} {visible(text)[:200]}", is_final=error.smtp_code >= _PERMANENT
            ) from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise SendError(
                f"the recipient is refused: {codes}", is_final=min(codes) >= _PERMANENT
            ) from None
        except smtplib.SMTPNotSupportedError as error:
            raise SendError(visible(str(error))[:200], is_final=True) from None
        except (OSError, smtplib.SMTPException) as error:
            raise SendError(visible(str(error))[:200]) from None

    def _connected(self) -> smtplib.SMTP:
        host, _, port = self.notice.server.rpartition(":")
        # Who says hello is the sender's domain: to ask for the own name may take seconds.
        own_name = self.notice.sender.rpartition("@")[2]
        seconds = _TIMEOUT.total_seconds()
        if int(port) == _TLS_PORT:
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, int(port), local_hostname=own_name, timeout=seconds, context=context
            )
        else:
            server = smtplib.SMTP(host, int(port), local_hostname=own_name, timeout=seconds)
        try:
            if int(port) != _TLS_PORT and not is_loopback(host):
                # Without it, this raises: nothing is said in the clear.
                server.starttls(context=ssl.create_default_context())
            if self.notice.user and self.password:
                server.login(self.notice.user, self.password)
        except BaseException:
            server.close()
            raise
        return server
