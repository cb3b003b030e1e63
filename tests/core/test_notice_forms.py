"""A notice in each format: what a build has printed calls nobody, and is no other header."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.notice import Message
from orchestrator.core.notice_forms import mail_of, post_of
from orchestrator.core.service_settings import NoticeFormat, Occasion

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
MESSAGE = Message(
    key="failed:1.0.0:x",
    occasion=Occasion.FAILED,
    title="tool: 1.0.0 failed for netbsd",
    text="netbsd on a: <!channel> & @everyone **bold** `code`\nhttps://example.org/a_b_c",
    version="1.0.0",
    targets=("netbsd",),
    link="https://example.org/status?a=1&b=2",
)
HOSTILE = "a\r\nX-Evil: 1\x1b[31m\u202e\x85b\u2028c"


def data_of(message: Message, form: NoticeFormat) -> Any:
    post = post_of(message, form, project="tool", at=NOW)
    assert post.headers == {"Content-Type": "application/json"}
    assert post.body.isascii()
    return json.loads(post.body)


def test_the_generic_format_is_as_documented() -> None:
    assert data_of(MESSAGE, NoticeFormat.JSON) == {
        "format": 1,
        "project": "tool",
        "occasion": "failed",
        "title": "tool: 1.0.0 failed for netbsd",
        "text": MESSAGE.text,
        "version": "1.0.0",
        "targets": ["netbsd"],
        "link": "https://example.org/status?a=1&b=2",
        "time": "2026-11-26T09:00:00+00:00",
    }


def test_slack_gets_text_and_blocks_and_no_markup_of_its_own() -> None:
    data = data_of(MESSAGE, NoticeFormat.SLACK)
    assert data["text"] == MESSAGE.title
    header, section, context = data["blocks"]
    assert header == {"type": "header", "text": {"type": "plain_text", "text": MESSAGE.title}}
    assert section["text"]["type"] == "mrkdwn"
    assert "&lt;!channel&gt; &amp; @everyone" in section["text"]["text"]
    assert "<" not in section["text"]["text"]
    (link,) = context["elements"]
    assert link == {"type": "mrkdwn", "text": "<https://example.org/status?a=1&amp;b=2|status>"}
    assert len(data_of(replace(MESSAGE, link=None), NoticeFormat.SLACK)["blocks"]) == 2


@pytest.mark.parametrize("text", ["x" * 5000, "<" * 5000, "&<" * 3000])
def test_slack_gets_no_more_than_it_takes_and_no_half_escape(text: str) -> None:
    data = data_of(replace(MESSAGE, title=text, text=text), NoticeFormat.SLACK)
    header, section, _ = data["blocks"]
    assert len(header["text"]["text"]) == 150
    told = section["text"]["text"]
    assert 2990 < len(told) <= 3000
    assert told.endswith("…")
    whole = told[:-1].replace("&lt;", "<").replace("&amp;", "&")
    assert text.startswith(whole)


def test_discord_calls_nobody_and_reads_no_markdown() -> None:
    data = data_of(MESSAGE, NoticeFormat.DISCORD)
    assert data["allowed_mentions"] == {"parse": []}
    assert "\\*\\*bold\\*\\* \\`code\\`" in data["content"]
    assert "\nhttps://example.org/a_b_c\n" in data["content"]
    assert data["content"].endswith("\n\nhttps://example.org/status?a=1&b=2")
    long = data_of(replace(MESSAGE, text="*" * 5000), NoticeFormat.DISCORD)
    assert len(long["content"]) == 2000


def test_ntfy_gets_headers_and_a_body() -> None:
    post = post_of(MESSAGE, NoticeFormat.NTFY, project="tool", at=NOW)
    assert post.body == MESSAGE.text.encode()
    assert post.headers == {
        "Content-Type": "text/plain; charset=utf-8",
        "Title": "tool: 1.0.0 failed for netbsd",
        "Priority": "4",
        "Tags": "x",
        "Click": "https://example.org/status?a=1&b=2",
    }
    plain = post_of(replace(MESSAGE, link=None), NoticeFormat.NTFY, project="tool", at=NOW)
    assert "Click" not in plain.headers


@pytest.mark.parametrize("occasion", Occasion)
def test_every_occasion_has_a_priority_that_ntfy_knows(occasion: Occasion) -> None:
    post = post_of(replace(MESSAGE, occasion=occasion), NoticeFormat.NTFY, project="t", at=NOW)
    assert post.headers["Priority"] in "12345"
    assert post.headers["Tags"].isascii()


def test_ntfy_reads_a_title_of_other_letters_as_rfc_2047_has_it() -> None:
    title = "Überprüfung: 1.0.0 ist für OpenBSD über 30 Stunden verspätet 🐡 " * 2
    post = post_of(replace(MESSAGE, title=title), NoticeFormat.NTFY, project="t", at=NOW)
    header = post.headers["Title"]
    assert header.isascii()
    assert all(len(word) <= 75 for word in header.split())
    assert str(make_header(decode_header(header))) == title


def test_ntfy_gets_no_attachment() -> None:
    long = replace(MESSAGE, text="ü" * 5000)
    body = post_of(long, NoticeFormat.NTFY, project="tool", at=NOW).body
    assert len(body) <= 4000
    assert body.decode().endswith("ü…")


def test_an_e_mail_says_who_and_what() -> None:
    mail = mail_of(MESSAGE, to="alex@example.org", sender="service@example.org", at=NOW)
    read = message_from_bytes(mail.as_bytes(policy=SMTP))
    assert read["Subject"] == MESSAGE.title
    assert read["To"] == "alex@example.org"
    assert read["From"] == "service@example.org"
    assert read["Date"] == "Thu, 26 Nov 2026 09:00:00 +0000"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["Message-ID"].endswith("@example.org>")
    again = mail_of(MESSAGE, to="alex@example.org", sender="service@example.org", at=NOW)
    assert again["Message-ID"] == mail["Message-ID"]
    assert mail.get_content() == f"{MESSAGE.text}\n\n{MESSAGE.link}\n"


@pytest.mark.parametrize("form", NoticeFormat)
def test_hostile_text_begins_no_header_and_moves_no_cursor(form: NoticeFormat) -> None:
    hostile = replace(MESSAGE, title=HOSTILE, text=HOSTILE, link=f"https://x/{HOSTILE}")
    post = post_of(hostile, form, project="tool", at=NOW)
    for value in post.headers.values():
        assert value.isprintable()
        assert value.isascii()
    told = str(json.loads(post.body)) if form is not NoticeFormat.NTFY else post.body.decode()
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "\r" not in told


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_injects_a_header_into_an_e_mail(title: str, text: str) -> None:
    mail = mail_of(
        replace(MESSAGE, title=title, text=text),
        to="alex@example.org",
        sender="service@example.org",
        at=NOW,
    )
    read = message_from_bytes(mail.as_bytes(policy=SMTP))
    assert set(read.keys()) == {
        "Subject",
        "From",
        "To",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
    }
