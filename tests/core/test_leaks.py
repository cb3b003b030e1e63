"""The leak scan finds what names a person or a machine, and nothing that is common."""

from __future__ import annotations

import pytest

from orchestrator.core.binary import find_leaks

HOME = {"home path": "/home/alex"}
USER = {"user name": "alex"}


def test_a_finding_says_what_how_often_and_where() -> None:
    path = b"/home/alex/.cargo/registry/src/index/rand-0.9.0/src/lib.rs"
    assert find_leaks(b"\0" + path + b"\0\1" + path + b"\xff", HOME) == (
        f"home path `/home/alex` 2 times, first near `{path.decode()}`",
    )


def test_a_program_that_leaks_nothing_has_no_findings() -> None:
    assert find_leaks(b"\0/cargo/registry/src/lib.rs\0", {**HOME, **USER}) == ()


def test_windows_text_is_searched_too() -> None:
    data = b"\1" + "C:\\Users\\alex\\x.rs".encode("utf-16-le") + b"\0\0"
    assert find_leaks(data, {"home path": "C:\\Users\\alex\\", **USER}) == (
        "home path `C:\\Users\\alex` once, first near `C:\\Users\\alex\\x.rs`",
        "user name `alex` once, first near `C:\\Users\\alex\\x.rs`",
    )


@pytest.mark.parametrize(
    ("data", "is_found"),
    [
        (b"alex", True),
        (b"/home/alex/", True),
        (b"alex@bench", True),
        (b"\xffalex\xff", True),
        (b"alexander", False),
        (b"alex-crichton", False),
        (b"my_alex", False),
        (b"0alex", False),
        ("xalex".encode("utf-16-le"), False),
        ("alexx".encode("utf-16-le"), False),
        (".alex.".encode("utf-16-le"), True),
        ("alex\u3061".encode("utf-16-le"), True),
    ],
)
def test_a_name_counts_as_a_whole_word_only(data: bytes, is_found: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    assert bool(find_leaks(data, USER)) is is_found


@pytest.mark.parametrize("text", ["", "/", "root", "Root", "bob", "/x/", "ubuntu", "localhost"])
def test_what_is_short_or_generic_is_not_looked_for(text: str) -> None:
    assert find_leaks(f"a {text} b {text}/".encode(), {"user name": text}) == ()


def test_a_home_of_one_component_counts_as_a_whole_word() -> None:
    assert find_leaks(b"/rootfs /chroot", {"home path": "/root"}) == ()
    assert find_leaks(b"see /root/.cargo/x", {"home path": "/root/"}) == (
        "home path `/root` once, first near `/root/.cargo/x`",
    )


def test_a_longer_home_is_found_where_texts_run_into_one_another() -> None:
    assert find_leaks(b"error/home/alexpanicked", HOME) != ()


def test_an_excerpt_is_printable_and_at_most_60_characters() -> None:
    (line,) = find_leaks(b"x" * 99 + b" alex " + b"y" * 99, USER)
    excerpt = line.split("`")[3]
    assert len(excerpt) == 60
    assert "alex" in excerpt
    assert excerpt.endswith("...")
    (line,) = find_leaks("\x1b[31m/home/jörg\x1b[0m".encode(), {"home path": "/home/jörg"})
    assert line == r"home path `/home/j\xc3\xb6rg` once, first near `/home/j`"


def test_counting_ends_somewhere() -> None:
    (line,) = find_leaks(b"alex " * 5000, USER)
    assert "1000 times or more" in line
