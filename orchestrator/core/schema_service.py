"""The keys of an inventory's `service:`; `schema` has the others."""

from __future__ import annotations

from typing import Final

from orchestrator.core.kinds import (
    Choice,
    Duration,
    Field,
    Flag,
    ListOf,
    OneOrMany,
    Record,
    Text,
    Variants,
    Whole,
)
from orchestrator.core.schema_texts import (
    HOSTNAME,
    LINE,
    LOOPBACK,
    PUBLIC_URL,
    REPOSITORY,
    TAG,
    file_text,
)
from orchestrator.core.service_settings import (
    NoticeByMail,
    NoticeByWebhook,
    NoticeFormat,
    Occasion,
    Service,
)

_PORT_NUMBER: Final = (
    r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
_VARIABLE: Final = Text(
    words="the name of an environment variable of upper-case letters, digits and `_`",
    pattern="[A-Z_][A-Z0-9_]*",
    max_length=100,
)
_ADDRESS: Final = Text(
    words="an e-mail address",
    pattern=rf"[A-Za-z0-9._+-]+@{HOSTNAME}",
    max_length=254,
)

_ABOUT: Final = Field(
    key="about",
    kind=OneOrMany(
        item=Choice(noun="occasion", choices=tuple(Occasion), convert=Occasion), unique=True
    ),
    summary="What it is told of.",
    example=["failed", "late"],
)
_FORMAT: Final = Field(
    key="format",
    kind=Choice(noun="format", choices=tuple(NoticeFormat), convert=NoticeFormat),
    summary="Whose messages these are.",
    example="slack",
)

NOTICES: Final = (
    Record(
        title="service.notices[]: a webhook whose URL is in a file",
        summary="A URL that is posted to; who knows it can write there, so it is no part of this.",
        value=NoticeByWebhook,
        fields=(
            Field(
                key="url_file",
                kind=file_text("a file"),
                summary="The file that holds the URL, and only its owner may read.",
                example="~/.config/orchestrator/slack-url",
                required=True,
            ),
            _FORMAT,
            _ABOUT,
        ),
    ),
    Record(
        title="service.notices[]: a webhook whose URL is in the environment",
        summary="The same, for who has secrets in the environment.",
        value=NoticeByWebhook,
        fields=(
            Field(
                key="url_env",
                kind=_VARIABLE,
                summary="The environment variable that holds the URL.",
                example="NTFY_URL",
                required=True,
            ),
            _FORMAT,
            _ABOUT,
        ),
    ),
    Record(
        title="service.notices[]: an e-mail",
        summary="An address that is written to.",
        value=NoticeByMail,
        fields=(
            Field(
                key="email",
                kind=_ADDRESS,
                summary="Who is written to.",
                example="alex@example.org",
                required=True,
            ),
            Field(
                key="sender",
                kind=_ADDRESS,
                summary="Who writes.",
                example="orchestrator@example.org",
                required=True,
            ),
            Field(
                key="server",
                kind=Text(
                    words="`HOST:PORT` of an SMTP server", pattern=rf"{HOSTNAME}:{_PORT_NUMBER}"
                ),
                summary="The SMTP server: TLS on port 465, else STARTTLS, but on this machine.",
                example="mail.example.org:587",
            ),
            Field(
                key="user",
                kind=Text(words="a user's name", pattern=rf"(?=[\s\S]*\S){LINE}", max_length=254),
                summary="Who logs in there; without it, nobody does.",
                example="orchestrator",
            ),
            Field(
                key="password_file",
                kind=file_text("a file"),
                summary="The file that holds the password, and only its owner may read.",
                example="~/.config/orchestrator/mail-password",
            ),
            _ABOUT,
        ),
    ),
)

SERVICE: Final = Record(
    title="service",
    summary="How `orchestrator serve` runs; docs/operating.md explains it.",
    value=Service,
    fields=(
        Field(
            key="listen",
            kind=Text(
                words="`ADDRESS:PORT`, such as `127.0.0.1:8000`",
                pattern=rf"(?:{LOOPBACK}|[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}|\[[0-9A-Fa-f:.]+\])"
                rf":{_PORT_NUMBER}",
            ),
            summary="Where it listens, without TLS: behind a web server that speaks it.",
            example="127.0.0.1:8000",
        ),
        Field(
            key="url",
            kind=PUBLIC_URL,
            summary="Where people reach it: for links in notices and commit statuses.",
            example="https://ballistics.zip",
        ),
        Field(
            key="repository",
            kind=REPOSITORY,
            summary="The GitHub repository whose releases are made; without it, only the store is "
            "served.",
            example="ajokela/ballistics-engine",
        ),
        Field(
            key="repository_id",
            kind=Whole(minimum=1, maximum=1 << 53),
            summary="The number that GitHub gave it: it stays when the name becomes another's.",
            example=1234567,
        ),
        Field(
            key="tag",
            kind=TAG,
            summary="How the tag of a version is called.",
            example="v{version}",
        ),
        Field(
            key="webhook_secret_file",
            kind=file_text("a file"),
            summary="The file that holds the webhook's secret; without it, "
            "`ORCHESTRATOR_WEBHOOK_SECRET` does.",
            example="~/.config/orchestrator/webhook-secret",
        ),
        Field(
            key="action_token_file",
            kind=file_text("a file"),
            summary="The file that holds the token for actions on the page; without it, "
            "`ORCHESTRATOR_ACTION_TOKEN` does. Without either, there are none.",
            example="~/.config/orchestrator/action-token",
        ),
        Field(
            key="github_token_file",
            kind=file_text("a file"),
            summary="The file that holds a GitHub token to look up tags and to set commit "
            "statuses; without it, `GITHUB_TOKEN` does, and without either it looks anonymously.",
            example="~/.config/orchestrator/github-token",
        ),
        Field(
            key="database",
            kind=Text(
                words="`sqlite:///PATH` or `postgresql://[USER@]HOST[:PORT]/NAME`, no password",
                pattern=rf"sqlite:////{LINE}|postgresql://(?:[A-Za-z0-9_.-]+@)?(?:{HOSTNAME}"
                r"(?::[1-9][0-9]{0,4})?)?/[A-Za-z0-9_-]+(?:\?[A-Za-z0-9_=&%./-]+)?",
                max_length=1024,
            ),
            summary="Where the queue is; without it, `ORCHESTRATOR_DATABASE`, or a file in `dist`. "
            "A password belongs into the environment, or into `~/.pgpass`.",
            example="postgresql://orchestrator@db.example.org/orchestrator",
        ),
        Field(
            key="poll_every",
            kind=Duration(),
            summary="How often GitHub is asked for releases whose delivery was lost.",
            example="5m",
        ),
        Field(
            key="statuses",
            kind=Flag(),
            summary="Whether each target's state is shown at the commit on GitHub.",
            example=True,
        ),
        Field(
            key="late_after",
            kind=Duration(),
            summary="How long a platform may be without a version before it is called late.",
            example="24h",
        ),
        Field(
            key="notices",
            kind=ListOf(item=Variants(records=NOTICES), max_items=20),
            summary="Who is told of what went wrong, and of what is well again.",
            example=[{"url_env": "NTFY_URL", "format": "ntfy"}],
        ),
    ),
)
