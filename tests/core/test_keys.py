"""keys.txt: what it says, how it follows from the one before, and what is no such text."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, StoreError
from orchestrator.core.keys import (
    IndexMark,
    KeyStatement,
    follow,
    join_keys,
    keys_as_data,
    parse_keys,
    render_keys,
    says_the_same,
    split_keys,
)
from orchestrator.core.signature import public_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.core.signature import PublicKey

TODAY = date(2026, 11, 25)
A, B, C = (public_key(hashlib.sha256(name).digest()) for name in (b"a", b"b", b"c"))
MARK = IndexMark(channel="stable", serial=42, sha256="0123456789abcdef" * 4)
STATEMENT = KeyStatement(
    project="tool",
    serial=7,
    issued=TODAY,
    active=(B, C),
    revoked=(A,),
    indexes=(replace(MARK, channel="prerelease"), MARK),
)
TEXT = f"""\
#orchestrator-keys 1
#project tool
#serial 7
#issued 20261125
active\t{B.ssh.replace(" ", chr(9))}\t{B.minisign}
active\t{C.ssh.replace(" ", chr(9))}\t{C.minisign}
revoked\t{A.ssh.replace(" ", chr(9))}\t{A.minisign}
index\tprerelease\t42\t{MARK.sha256}
index\tstable\t42\t{MARK.sha256}
#end 5
"""
BLOCKS = (
    "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
    "untrusted comment: x\nRWAA\ntrusted comment: y\nAAAA\n",
)


def test_a_statement_is_the_documented_text_and_comes_back() -> None:
    assert render_keys(STATEMENT) == TEXT
    assert parse_keys(TEXT) == STATEMENT


LINES = TEXT.splitlines(keepends=True)


@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_text_without_one_of_its_lines_is_refused(number: int) -> None:
    with pytest.raises(StoreError, match=r"^keys\.txt line [0-9]+: "):
        parse_keys("".join(LINES[:number] + LINES[number + 1 :]))


@pytest.mark.parametrize("size", range(0, len(TEXT), 13))
def test_a_text_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(StoreError, match=r"^keys\.txt line [0-9]+: "):
        parse_keys(TEXT[:size])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("-keys 1", "-keys 2", "line 1: expected `#orchestrator-keys`"),
        ("#project tool", "#project a b", "line 2: expected `#project`"),
        ("#serial 7", "#serial 0", "line 3: expected `#serial`"),
        ("#serial 7", "#serial 1234567890", "line 3: expected `#serial`"),
        ("20261125", "20261325", "line 4: not a day"),
        ("active\t", "Active\t", "line 5: not a row"),
        ("ssh-ed25519", "ssh-rsa", "line 5: not an ed25519 public key"),
        (B.minisign, C.minisign, "line 5: the two forms of the key are not of one key"),
        (f"{B.minisign}\n", f"{B.minisign}\tx\n", "line 5: the two forms"),
        (LINES[5], LINES[4], "line 6: a second row for SHA256:"),
        (LINES[6], LINES[4].replace("active", "revoked"), "line 7: a second row for SHA256:"),
        (LINES[4], "", "line 9: expected `#end 4`"),
        (LINES[5] + LINES[6], LINES[6] + LINES[5], "line 7: not a row, or not in its place"),
        (LINES[6] + LINES[7], LINES[7] + LINES[6], "line 8: not a row, or not in its place"),
        (LINES[7] + LINES[8], LINES[8] + LINES[7], "line 9: prerelease is not in its place"),
        (LINES[7], LINES[8], "line 9: stable is not in its place, or there twice"),
        ("stable\t42", "stable\t-", "line 9: not the mark of an index"),
        (MARK.sha256, "0" * 63, "line 8: not the mark of an index"),
        ("#end 5", "#end 05", "line 10: expected `#end 5`"),
        ("#end 5\n", "#end 5\n\n", "line 11: not a row|line 10: not a row|expected"),
        (LINES[4] + LINES[5], "", "expected `#end 3`"),
    ],
)
def test_a_line_that_is_not_right_is_named(old: str, new: str, problem: str) -> None:
    assert old in TEXT
    with pytest.raises(StoreError, match=problem):
        parse_keys(TEXT.replace(old, new, 1))


def test_a_statement_has_an_active_key() -> None:
    with pytest.raises(StoreError, match="no key is active"):
        render_keys(replace(STATEMENT, active=()))


def test_nothing_is_written_that_could_not_be_read() -> None:
    with pytest.raises(StoreError, match="line 2"):
        render_keys(replace(STATEMENT, project="a b"))


def test_the_file_is_split_as_an_index_is() -> None:
    assert split_keys(join_keys(TEXT, *BLOCKS) + "more") == (TEXT, *BLOCKS)
    with pytest.raises(StoreError, match="no `#end` line with two signatures"):
        split_keys(TEXT + BLOCKS[0])


def following(
    previous: KeyStatement | None, active: Sequence[PublicKey], *marks: IndexMark
) -> KeyStatement:
    return follow(previous, project="tool", active=active, indexes=marks, today=TODAY)


def test_the_first_statement_has_serial_1_and_revokes_nothing() -> None:
    assert following(None, [A, B]) == KeyStatement(
        project="tool", serial=1, issued=TODAY, active=(A, B)
    )


def test_what_is_active_no_more_is_revoked_and_stays_so() -> None:
    first = following(None, [A, B])
    second = following(first, [B, C], MARK)
    assert (second.serial, second.active, second.revoked) == (2, (B, C), (A,))
    assert second.indexes == (MARK,)
    third = following(second, [C])
    assert (third.serial, third.active, third.revoked) == (3, (C,), (A, B))
    assert third.indexes == ()


def test_the_same_keys_in_another_order_are_no_change() -> None:
    first = following(None, [A, B])
    assert following(first, [B, A], MARK) is first
    assert says_the_same(first, [B, A])
    assert not says_the_same(first, [A])


def test_a_revoked_key_is_never_active_again() -> None:
    second = following(following(None, [A]), [B])
    for active in ([A], [B, A]):
        with pytest.raises(ConfigError, match="is revoked, and a revoked key is never active"):
            following(second, active)


def test_as_data_each_key_says_what_it_is_here_and_in_the_store() -> None:
    data = keys_as_data([B, public_key(bytes(32))], C, replace(STATEMENT, active=(B,)))
    assert data["keys"] == [
        {"fingerprint": B.fingerprint, "ssh": B.ssh, "minisign": B.minisign}
        | {"here": "signs", "in_store": "active"},
        {
            "fingerprint": public_key(bytes(32)).fingerprint,
            "ssh": public_key(bytes(32)).ssh,
            "minisign": public_key(bytes(32)).minisign,
            "here": "trusted",
            "in_store": None,
        },
        {"fingerprint": A.fingerprint, "ssh": A.ssh, "minisign": A.minisign}
        | {"here": None, "in_store": "revoked"},
    ]
    assert (data["serial"], data["issued"], data["agrees"]) == (7, "2026-11-25", False)


def test_as_data_without_a_rotation_key_or_a_statement_nothing_agrees() -> None:
    alone = keys_as_data([A], None, None)
    assert (alone["rotation"], alone["serial"], alone["agrees"]) == (None, None, None)
    assert keys_as_data([A], C, None)["agrees"] is False
    assert keys_as_data([A], C, following(None, [A]))["agrees"] is True
