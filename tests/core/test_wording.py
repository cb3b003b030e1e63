"""Durations, sizes, results and foreign text, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Floor, Skipped
from orchestrator.core.target import parse_target
from orchestrator.core.wording import (
    floors_of,
    human_size,
    human_time,
    install_command,
    result_detail,
    result_name,
    visible,
    without_escapes,
)

NETBSD = parse_target("x86_64-unknown-netbsd")
ARTIFACT = Artifact(
    version="1.2.3",
    target=NETBSD,
    os_release=None,
    path=Path("tool.tar.gz"),
    size_bytes=1200,
    sha256="ab" * 32,
    floors=(),
    binaries=(),
)


@given(st.text())
def test_foreign_text_becomes_one_printable_line(text: str) -> None:
    assert visible(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünlü, 日本語", "plain text, ünlü, 日本語"),
        ("\x1b[1;31merror\x1b[0m", "error"),
        ("a\tb", "a   b"),
        ("\x1b[2J\x9b\u202e\r\n\x00", "\\x1b[2J\\x9b\\u202e\\r\\n\\x00"),
    ],
)
def test_colours_are_dropped_and_other_controls_are_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (187, "3m07s"),
        (7500, "2h05m"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, words: str) -> None:
    assert human_time(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (10_400_000, "10.4 MB"),
        (999_999_999, "1.0 GB"),
        (25_276_510_208, "25.3 GB"),
        (2_500_000_000_000, "2500.0 GB"),
    ],
)
def test_a_size_has_one_decimal_at_most(size_bytes: int, words: str) -> None:
    assert human_size(size_bytes) == words


def test_each_result_has_a_name_and_a_detail() -> None:
    floor = Floor(name="netbsd", operator=">=", release="10.0")
    fresh = Built(node="a", artifact=ARTIFACT, elapsed=timedelta(), was_attached=False)
    attached = replace(fresh, was_attached=True, artifact=replace(ARTIFACT, floors=(floor, floor)))
    failed = Failed(
        node="a", target=NETBSD, failure_class=FailureClass.MACHINE, message="no\rroute\nmore"
    )
    skipped = Skipped(node="a", target=NETBSD, reason="it stands by")

    said = [(result_name(one), result_detail(one)) for one in (fresh, attached, failed, skipped)]

    assert said == [
        ("built", "1.2 kB, no floor"),
        ("attached", "1.2 kB, netbsd>=10.0,netbsd>=10.0"),
        ("failed (machine)", "no\\rroute"),
        ("skipped", "it stands by"),
    ]
    assert floors_of(ARTIFACT) == "no floor"


def test_what_is_for_a_terminal_alone_is_taken_out() -> None:
    said = "\x1b[?2004h\x1b]0;a title\x07\x1b[1;31mlogin\x1b[0m: \x1b(B\x1b=ok\x1b]8;;u\x1b\\!\n"
    assert without_escapes(said) == "login: ok!\n"


def test_tls_is_demanded_wherever_there_is_tls() -> None:
    https = "curl --proto '=https' --tlsv1.2 -sSf https://example.org/install.sh | sh"
    assert install_command("https://example.org") == https
    assert install_command("http://127.0.0.1:8000") == (
        "curl -sSf http://127.0.0.1:8000/install.sh | sh"
    )
