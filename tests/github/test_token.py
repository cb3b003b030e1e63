"""Where the token comes from, and where the API is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.github.token import api_url, read_token

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "github_pat_11ABCDEF0123456789"


def test_the_token_is_in_the_environment_or_in_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(None, {"GITHUB_TOKEN": f" {TOKEN}\n"}) == TOKEN
    assert read_token(str(file), {"GITHUB_TOKEN": "another"}) == TOKEN


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_token_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    for name, place in ((None, "GITHUB_TOKEN"), (str(file), str(file))):
        with pytest.raises(ConfigError, match=f"no GitHub token in {place}"):
            read_token(name, {"GITHUB_TOKEN": text})


@pytest.mark.parametrize("text", ["two words", "a\nX-Header: b", "tökén", "x" * 1001])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    for name in (None, str(file)):
        with pytest.raises(ConfigError, match="is not a GitHub token") as caught:
            read_token(name, {"GITHUB_TOKEN": text})
        assert text not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    complaint = "others than its owner may open the GitHub token"
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_token(str(file), {})
    assert caught.value.hint == f"chmod 600 {file}"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no GitHub token"):
        read_token(str(tmp_path / "token"), {})


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://api.github.com"),
        ({"GITHUB_API_URL": ""}, "https://api.github.com"),
        (
            {"GITHUB_API_URL": "https://github.example.org/api/v3/"},
            "https://github.example.org/api/v3",
        ),
        ({"GITHUB_API_URL": "http://127.0.0.1:80"}, "http://127.0.0.1:80"),
    ],
)
def test_the_api_is_where_github_s_own_tools_look_for_it(given: dict[str, str], url: str) -> None:
    assert api_url(given) == url


@pytest.mark.parametrize(
    "url", ["http://example.org", "file:///etc", "https://user:secret@example.org", "https://x/?a"]
)
def test_an_api_that_is_not_https_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="GITHUB_API_URL is not an https URL") as caught:
        api_url({"GITHUB_API_URL": url})
    assert "secret" not in caught.value.message
