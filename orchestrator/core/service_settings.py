"""How the service runs, as the inventory's `service:` says it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final


class NoticeFormat(StrEnum):
    """How a notice is written for whoever takes it."""

    JSON = "json"
    SLACK = "slack"
    DISCORD = "discord"
    NTFY = "ntfy"


class Occasion(StrEnum):
    """What a notice is about."""

    FAILED = "failed"
    LATE = "late"
    RECOVERED = "recovered"
    RELEASED = "released"
    ALARM = "alarm"


# What wakes a person up unless they say otherwise; that all went well does not.
DEFAULT_OCCASIONS: Final = (Occasion.FAILED, Occasion.LATE, Occasion.RECOVERED, Occasion.ALARM)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeByWebhook:
    """A URL that notices are posted to; it is a secret, so it is in a file or in the environment.

    One of `url_file` and `url_env` is there.
    """

    url_file: str | None = None
    url_env: str | None = None
    format: NoticeFormat = NoticeFormat.JSON
    about: tuple[Occasion, ...] = DEFAULT_OCCASIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeByMail:
    """An address that notices are sent to, through an SMTP server; `sender` is who writes.

    `server` is `HOST:PORT`; with port 465 TLS is spoken from the start, else STARTTLS is required,
    except on this machine.
    """

    email: str
    sender: str
    server: str = "127.0.0.1:25"
    user: str | None = None
    password_file: str | None = None
    about: tuple[Occasion, ...] = DEFAULT_OCCASIONS


Notice = NoticeByWebhook | NoticeByMail


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How `orchestrator serve` runs.

    `url` is where people reach it, for links in what it sends.
    `repository` (`owner/name`) is whose releases are made, None if only the store is served;
    `repository_id` is its number, which stays when it is renamed or its name becomes another's.
    `database` is a URL, `sqlite:///PATH` or `postgresql://...`; None is a file in the record
    folder. Secrets are in files, or in the environment: ORCHESTRATOR_WEBHOOK_SECRET,
    ORCHESTRATOR_ACTION_TOKEN, ORCHESTRATOR_DATABASE.
    """

    listen: str = "127.0.0.1:8000"
    url: str | None = None
    repository: str | None = None
    repository_id: int | None = None
    tag: str = "v{version}"
    webhook_secret_file: str | None = None
    action_token_file: str | None = None
    github_token_file: str | None = None
    database: str | None = None
    poll_every: timedelta = timedelta(minutes=5)
    statuses: bool = False
    late_after: timedelta = timedelta(hours=24)
    notices: tuple[Notice, ...] = ()
