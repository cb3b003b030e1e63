"""What enters the installer, and what is kept out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.installer import (
    InstallerValues,
    render_installer,
    source_command,
    version_words,
)
from orchestrator.core.inventory import CrateSource, GitSource, PathSource, Source

SSH_KEY = f"ssh-ed25519 AAAA{'C3Nz' * 16}"
MINISIGN_KEY = f"RW{'Q' * 54}"
VALUES = InstallerValues(
    project="tool",
    binaries=("tool", "tool-extra"),
    base_urls=("https://example.org/tool/", "https://mirror.example.org:8443"),
    channel="stable",
    ssh_keys=(SSH_KEY,),
    minisign_keys=(MINISIGN_KEY,),
)
TEMPLATE = (
    "'{{ project }}' '{{ binaries }}' '{{ base_urls }}' "
    "'{{ channel }}' '{{ ssh_keys }}' '{{ minisign_keys }}'\n"
)


def test_every_value_has_its_place_and_lists_have_a_line_each() -> None:
    assert render_installer(TEMPLATE, VALUES) == (
        "'tool' 'tool\ntool-extra' 'https://example.org/tool\nhttps://mirror.example.org:8443' "
        f"'stable' '{SSH_KEY}' '{MINISIGN_KEY}'\n"
    )


def test_keys_may_be_absent() -> None:
    values = replace(VALUES, ssh_keys=(), minisign_keys=())
    assert render_installer(TEMPLATE, values).endswith("'stable' '' ''\n")


@pytest.mark.parametrize("word", ["", "a b", "a'b", "a\nb", "-a", "a;b", "$a", "ä", "a" * 101])
@pytest.mark.parametrize("place", ["project", "binaries", "channel"])
def test_a_name_that_a_shell_could_misread_is_refused(place: str, word: str) -> None:
    changes: dict[str, str | tuple[str, ...]] = {place: (word,) if place == "binaries" else word}
    with pytest.raises(ConfigError, match=f"^{place}: not a name"):
        render_installer(TEMPLATE, replace(VALUES, **changes))  # type: ignore[arg-type]  # a test table


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://127.0.0.1.example.org",
        "http://localhost@example.org",
        "https://user:word@example.org",
        "https://example.org/?a=b",
        "https://example.org/#a",
        "https://example.org/a'b",
        "https://example.org/\n",
        "https://",
        "ftp://example.org",
        "/srv/store",
    ],
)
def test_a_base_url_that_is_not_plain_https_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^base_urls: not an https URL"):
        render_installer(TEMPLATE, replace(VALUES, base_urls=(url,)))


ROW = f"x86_64-unknown-linux-gnu\t1.0.0\tok\t5\t{'0' * 64}\tglibc>=2.17\treleases/tool.tar.gz"


def test_rows_of_the_index_have_a_line_each() -> None:
    values = replace(VALUES, newest=(ROW, ROW))
    assert render_installer("'{{ newest }}'", values) == f"'{ROW}\n{ROW}'"


@pytest.mark.parametrize("row", ["", "a\tb", f"{ROW}\t", f"{ROW}'", f"{ROW}\n", f"{ROW} a"])
def test_a_row_that_no_index_has_is_refused(row: str) -> None:
    with pytest.raises(ConfigError, match=r"^newest: not "):
        render_installer(TEMPLATE, replace(VALUES, newest=(row,)))


@pytest.mark.parametrize("url", ["http://127.0.0.1:80", "http://localhost/a", "http://[::1]:8080/"])
def test_http_is_for_this_machine_only(url: str) -> None:
    assert url.rstrip("/") in render_installer(TEMPLATE, replace(VALUES, base_urls=(url,)))


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("ssh_keys", f"{SSH_KEY} comment"),
        ("ssh_keys", "ssh-rsa AAAA"),
        ("ssh_keys", f"{SSH_KEY}'"),
        ("minisign_keys", f"{MINISIGN_KEY}\n"),
        ("minisign_keys", "RWQ"),
    ],
)
def test_a_key_of_another_form_is_refused(place: str, key: str) -> None:
    changes: dict[str, tuple[str, ...]] = {place: (key,)}
    with pytest.raises(ConfigError, match=f"^{place}: not "):
        render_installer(TEMPLATE, replace(VALUES, **changes))  # type: ignore[arg-type]  # a test table


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (None, ""),
        (CrateSource(crate="tool-engine"), "cargo install --locked tool-engine"),
        (
            GitSource(git="https://example.org/a/tool.git"),
            "cargo install --locked --git https://example.org/a/tool.git",
        ),
        (GitSource(git="git@example.org:a/tool.git"), ""),
        (GitSource(git="https://user:word@example.org/tool.git"), ""),
        (PathSource(path="/src/tool"), ""),
    ],
)
def test_who_has_no_build_is_told_how_to_make_one(source: Source | None, command: str) -> None:
    assert source_command(source) == command
    template = "'{{ source_command }}'"
    assert render_installer(template, replace(VALUES, source_command=command)) == f"'{command}'"


@pytest.mark.parametrize("command", ["rm -rf /", "cargo install --locked a;b", "cargo install x"])
def test_nothing_but_cargo_install_is_recommended(command: str) -> None:
    with pytest.raises(ConfigError, match=r"^source_command: not a command"):
        render_installer(TEMPLATE, replace(VALUES, source_command=command))


def test_the_serial_of_keys_txt_has_its_place() -> None:
    template = "'{{ keys_serial }}'"
    assert render_installer(template, VALUES) == "'0'"
    assert render_installer(template, replace(VALUES, keys_serial=12)) == "'12'"
    with pytest.raises(ConfigError, match=r"^keys_serial: not a serial"):
        render_installer(template, replace(VALUES, keys_serial=-1))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("{binary} --version", "--version"),
        ('"{binary}" --version\n', "--version"),
        ("  {binary}   about \t --format=plain,short", "about --format=plain,short"),
        ("{binary}", ""),
        ("{binary}version", "?"),
        ("{binary} version {version}", "?"),
        ("{binary} --version\nrm x", "?"),
        ("{binary} --version; rm x", "?"),
        ("{binary} $HOME", "?"),
        ("{binary} `id`", "?"),
        ("{binary} 'a b'", "?"),
        ("{binary} ~", "?"),
        ("{binary} *", "?"),
        ("{binary} ?", "?"),
        ("{binary} --version 2>&1 | head -1", "?"),
        ("{binary} ä", "?"),
        ("{binary} a\u00a0b", "?"),
        ("exec {binary} --version", "?"),
        ("{binary} " + "a" * 100, "?"),
        ("{binary}" + " a" * 11, "?"),
    ],
)
def test_only_plain_words_of_a_version_command_enter_the_script(command: str, words: str) -> None:
    assert version_words(command) == words
    template = "W='{{ version_words }}'"
    values = replace(VALUES, version_words=version_words(command))
    assert render_installer(template, values) == f"W='{words}'"


@pytest.mark.parametrize("words", ["--version'", "a\nb", "a  b", " a", "? ?", "$x", "a;b", "a\n"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"^version_words: not up to ten words"):
        render_installer(TEMPLATE, replace(VALUES, version_words=words))


def test_every_problem_is_listed_at_once() -> None:
    values = InstallerValues(project="a b", binaries=(), base_urls=(), channel="c d")
    with pytest.raises(ConfigError) as caught:
        render_installer(TEMPLATE, values)
    places = [line.split(":")[0] for line in caught.value.message.splitlines()]
    assert places == ["project", "channel", "binaries", "base_urls"]
