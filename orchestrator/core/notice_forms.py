"""How a notice is written for whoever takes it: bytes and headers, or an e-mail.

Slack: docs.slack.dev/messaging/formatting-message-text and .../reference/block-kit/blocks;
Discord: docs.discord.com/developers/resources/webhook#execute-webhook; ntfy: docs.ntfy.sh/publish.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final, assert_never

from orchestrator.core.service_settings import NoticeFormat, Occasion
from orchestrator.core.wording import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from orchestrator.core.notice import Message

JSON_FORMAT: Final = 1
_JSON: Final = "application/json"

# In characters, as each of them counts.
_SLACK_HEADER: Final = 150
_SLACK_SECTION: Final = 3000
_DISCORD: Final = 2000
# ntfy turns what is longer into an attachment; in bytes.
_NTFY_BYTES: Final = 4000
_NTFY_TITLE: Final = 200
_SUBJECT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """The body of a POST, and its headers."""

    body: bytes
    headers: Mapping[str, str]


def post_of(message: Message, form: NoticeFormat, *, project: str, at: datetime) -> Post:
    """Return what is posted to a URL of that format."""
    match form:
        case NoticeFormat.JSON:
            return _json({"format": JSON_FORMAT, "project": project, **_plain(message, at)})
        case NoticeFormat.SLACK:
            return _json(_slack(message))
        case NoticeFormat.DISCORD:
            return _json(_discord(message))
        case NoticeFormat.NTFY:
            return _ntfy(message)
        case _:
            assert_never(form)


def mail_of(message: Message, *, to: str, sender: str, at: datetime) -> EmailMessage:
    """Return the e-mail; the same message has the same Message-ID however often it is sent."""
    mail = EmailMessage()
    # A line break in a header would begin another one: there is none in what `visible` returns.
    mail["Subject"] = _cut(_line(message.title), _SUBJECT)
    mail["From"] = sender
    mail["To"] = to
    mail["Date"] = format_datetime(at)
    digest = hashlib.sha256(message.key.encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{digest}@{sender.rpartition('@')[2]}>"
    # Nobody's absence is answered to a machine: RFC 3834.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_with_link(message) + "\n")
    return mail


def _plain(message: Message, at: datetime) -> dict[str, Any]:
    told = message.as_data()
    del told["key"]
    return {**told, "text": _lines(message.text), "time": at.isoformat(timespec="seconds")}


def _json(data: Mapping[str, Any]) -> Post:
    return Post(body=json.dumps(data).encode(), headers={"Content-Type": _JSON})


def _slack(message: Message) -> Mapping[str, Any]:
    title, text = _line(message.title), _lines(message.text)
    blocks: list[Mapping[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(title, _SLACK_HEADER)}},
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": _cut_escaped(text, _SLACK_SECTION)},
        },
    ]
    if message.link:
        link = f"<{_escaped(message.link)}|status>"
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": link}]})
    return {"text": _cut_escaped(title, _SLACK_SECTION), "blocks": blocks}


def _escaped(text: str) -> str:
    # All that Slack reads as its own: <!channel> wakes everybody up.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut_escaped(text: str, limit: int) -> str:
    """Return the escaped text, cut at its end; no escape is cut in two."""
    escaped: list[str] = []
    length = 0
    for char in text:
        form = _escaped(char)
        length += len(form)
        if length > limit - 1:
            return "".join(escaped) + "…"
        escaped.append(form)
    return "".join(escaped)


def _discord(message: Message) -> Mapping[str, Any]:
    text = f"{_line(message.title)}\n{_with_link(message)}"
    return {
        "content": _cut(_without_markdown(text), _DISCORD),
        # Nothing in it calls anybody, whatever a build has printed.
        "allowed_mentions": {"parse": []},
        # No pictures of what links lead to.
        "flags": 4,
    }


_MARKDOWN: Final = str.maketrans({char: f"\\{char}" for char in "\\*_~`|>#[]"})


def _without_markdown(text: str) -> str:
    # A link stays one: a backslash in it would lead elsewhere.
    lines = (
        line if line.startswith("https://") else line.translate(_MARKDOWN)
        for line in text.splitlines()
    )
    return "\n".join(lines)


_PRIORITIES: Final = {
    Occasion.FAILED: "4",
    Occasion.LATE: "4",
    Occasion.RECOVERED: "3",
    Occasion.RELEASED: "2",
    Occasion.ALARM: "5",
}
_TAGS: Final = {
    Occasion.FAILED: "x",
    Occasion.LATE: "hourglass",
    Occasion.RECOVERED: "white_check_mark",
    Occasion.RELEASED: "package",
    Occasion.ALARM: "rotating_light",
}


def _ntfy(message: Message) -> Post:
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Title": _word(_cut(_line(message.title), _NTFY_TITLE)),
        "Priority": _PRIORITIES[message.occasion],
        "Tags": _TAGS[message.occasion],
    }
    if message.link:
        headers["Click"] = _line(message.link)
    body = _lines(message.text).encode()
    if len(body) > _NTFY_BYTES:
        body = body[: _NTFY_BYTES - 3].decode(errors="ignore").encode() + "…".encode()
    return Post(body=body, headers=headers)


def _word(text: str) -> str:
    """Return a header's value: as it is in ASCII, else as encoded words of RFC 2047."""
    if text.isascii():
        return text
    return Header(text, "utf-8", maxlinelen=75).encode(linesep="")


def _with_link(message: Message) -> str:
    text = _lines(message.text)
    return f"{text}\n\n{_line(message.link)}" if message.link else text


def _line(text: str) -> str:
    return visible(text)


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
