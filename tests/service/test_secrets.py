"""Where the secrets of the service come from, and that none of them is ever shown."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.service_settings import NoticeByMail, NoticeByWebhook, Service
from orchestrator.service.secrets import Secrets, read_secrets

if TYPE_CHECKING:
    from pathlib import Path

WEBHOOK = "webhook-secret-that-is-long-enough"
ACTION = "action-token-that-is-long-enough"
URL = "https://hooks.example.org/services/T0000/B0000/aVeryLongUnguessableWord"
MAIL = NoticeByMail(email="alex@example.org", sender="service@example.org")


def write(folder: Path, name: str, text: str, *, mode: int = 0o600) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_each_secret_is_in_its_file(tmp_path: Path) -> None:
    settings = Service(
        webhook_secret_file=write(tmp_path, "webhook", f"{WEBHOOK}\n"),
        action_token_file=write(tmp_path, "action", ACTION),
        github_token_file=write(tmp_path, "github", "ghp_1"),
        notices=(
            NoticeByWebhook(url_file=write(tmp_path, "url", f"{URL}\n")),
            replace(MAIL, user="me", password_file=write(tmp_path, "mail", "pass word")),
            MAIL,
        ),
    )
    # What is in the environment is another's, then.
    found = read_secrets(settings, {"ORCHESTRATOR_WEBHOOK_SECRET": "x", "GITHUB_TOKEN": "y"})
    assert found == Secrets(
        webhook=WEBHOOK,
        action_token=ACTION,
        github_token="ghp_1",
        notices=(URL, "pass word", None),
    )


def test_without_a_file_it_is_in_the_environment() -> None:
    database = "postgresql://me:pw@db.example.org/x"
    environment = {
        "ORCHESTRATOR_WEBHOOK_SECRET": WEBHOOK,
        "ORCHESTRATOR_ACTION_TOKEN": ACTION,
        "ORCHESTRATOR_DATABASE": database,
        "GITHUB_TOKEN": "ghp_1",
        "SLACK": URL,
    }
    settings = Service(notices=(NoticeByWebhook(url_env="SLACK"),))
    assert read_secrets(settings, environment) == Secrets(
        webhook=WEBHOOK,
        action_token=ACTION,
        github_token="ghp_1",
        database=database,
        notices=(URL,),
    )
    assert read_secrets(Service(), {}) == Secrets()


def test_or_it_is_a_credential_of_systemd(tmp_path: Path) -> None:
    # Its access list lets one user in, which shows as a bit of the group.
    write(tmp_path, "ORCHESTRATOR_WEBHOOK_SECRET", WEBHOOK, mode=0o440)
    write(tmp_path, "SLACK", URL, mode=0o400)
    settings = Service(notices=(NoticeByWebhook(url_env="SLACK"),))
    found = read_secrets(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (found.webhook, found.notices, found.action_token) == (WEBHOOK, (URL,), None)
    write(tmp_path, "SLACK", URL, mode=0o444)
    with pytest.raises(ConfigError, match="may open"):
        read_secrets(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_shown(tmp_path: Path) -> None:
    canary = "CANARY"
    settings = Service(
        webhook_secret_file=write(tmp_path, "short", canary),
        action_token_file=write(tmp_path, "open", canary * 5, mode=0o644),
        github_token_file=write(tmp_path, "words", f"{canary} {canary}"),
        notices=(
            NoticeByWebhook(url_file=write(tmp_path, "url", f"http://example.org/{canary}")),
            NoticeByWebhook(url_env="UNSET"),
            NoticeByWebhook(url_file=str(tmp_path / "none")),
            NoticeByWebhook(url_file=write(tmp_path, "empty", "\n")),
            replace(MAIL, user="me"),
            replace(MAIL, password_file=write(tmp_path, "mail", canary)),
        ),
    )
    with pytest.raises(ConfigError) as caught:
        read_secrets(settings, {})
    lines = caught.value.message.splitlines()
    for line, words in zip(
        lines,
        (
            "short: the webhook secret is shorter than 16 letters",
            "open: others than its owner may open the action token",
            "words: the GitHub token is not one word of printable ASCII letters",
            "url: what it holds is not an https URL",
            "service.notices[1]: the variable UNSET is not set",
            "none: there is no notices' URL",
            "empty: there is no notices' URL in it",
            "service.notices[4]: `user` and `password_file` go together",
            "service.notices[5]: `user` and `password_file` go together",
        ),
        strict=True,
    ):
        assert words in line
    assert "chmod 600" in (caught.value.hint or "")
    assert "openssl rand" in (caught.value.hint or "")
    assert canary not in f"{caught.value.message} {caught.value.hint}"


def test_secrets_do_not_show_themselves() -> None:
    secrets = Secrets(webhook=WEBHOOK, action_token=ACTION, database=URL, notices=(URL,))
    assert repr(secrets) == "Secrets()"
    assert str(secrets) == "Secrets()"


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("after", ["", ":", "::"])
def test_no_form_of_a_secret_is_left(before: str, after: str) -> None:
    secret = 'ab&"/+?sécret value-with-32-letters'
    redact = Secrets(webhook=secret).redact
    inside = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    for text in (
        f"{before}{secret}{after}",
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps({"a": secret}),
        json.dumps({"a": secret}, ensure_ascii=False),
        f"Authorization: Basic {inside}",
        base64.urlsafe_b64encode(f"{before}{secret}{after}".encode()).decode(),
        base64.b64encode(quote(secret, safe="").encode()).decode(),
    ):
        told = redact(text)
        assert "…" in told, text
        assert "cret" not in told
    # Of base64, a letter or two that share their bits with what is beside it may stay.
    assert len(redact(inside)) <= 10


def test_of_a_url_the_path_is_a_secret_too() -> None:
    redact = Secrets(notices=(URL, None)).redact
    assert redact(f"POST {URL} failed") == "POST … failed"
    assert redact("POST /services/T0000/B0000/aVeryLongUnguessableWord") == "POST …"
    assert redact("the word aVeryLongUnguessableWord") == "the word …"
    assert redact("hooks.example.org is down") == "hooks.example.org is down"


def test_the_password_of_a_database_is_a_secret() -> None:
    redact = Secrets(database="postgresql://me:hunter22@db.example.org/x").redact
    assert redact("password hunter22 for db.example.org") == "password … for db.example.org"
    assert Secrets(database="postgresql://me@db/x").redact("me@db") == "me@db"


def test_where_there_is_no_secret_nothing_is_taken_out() -> None:
    assert Secrets().redact("hello") == "hello"


@given(st.text(min_size=4, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_secret_is_it_is_not_left(secret: str, before: str, after: str) -> None:
    secrets = Secrets(webhook=secret)
    assert secret not in secrets.redact(before + secret + after).replace("…", "\0")
