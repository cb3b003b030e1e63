from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import StoreError
from orchestrator.core.index import (
    Index,
    Row,
    SignedIndex,
    Status,
    advance,
    join_signed,
    parse_floor,
    parse_index,
    release_order,
    render_index,
    sort_rows,
    split_signed,
)
from orchestrator.core.merge import merge_rows
from orchestrator.core.result import Floor
from tests.core.rows import LINUX, NETBSD, OPENBSD, ROW_SETS, row

TODAY = date(2026, 11, 21)

SIGNED_TEXT = (
    "#orchestrator-index 1\n"
    "#project ballistics\n"
    "#channel stable\n"
    "#serial 42\n"
    "#issued 20261121\n"
    "#expires 20270219\n"
    f"{OPENBSD}\t0.13.4\tok\t1834022\t{'a' * 64}\topenbsd==7.8\t"
    f"releases/0.13.4/{OPENBSD}/b.tar.gz\n"
    f"{NETBSD}\t0.13.5\tpending\t-\t-\t-\t-\n"
    "#end 2\n"
)
SSHSIG = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\nAAAA\n-----END SSH SIGNATURE-----\n"
MINISIG = "untrusted comment: one\nRWQ=\ntrusted comment: two\nAAAA\n"


def index(*rows: Row) -> Index:
    return Index(
        project="ballistics",
        channel="stable",
        serial=42,
        issued=TODAY,
        expires=TODAY + timedelta(days=90),
        rows=rows,
    )


def test_the_text_is_what_the_design_shows() -> None:
    rows = (
        row(OPENBSD, "0.13.4", Status.OK, "openbsd==7.8"),
        row(NETBSD, "0.13.5", Status.PENDING),
    )
    assert render_index(index(*rows)) == SIGNED_TEXT
    assert parse_index(SIGNED_TEXT) == index(*rows)


@given(ROW_SETS, st.integers(1, 999_999_999), st.dates(date(2000, 1, 1)))
def test_what_is_written_is_read_back(rows: tuple[Row, ...], serial: int, issued: date) -> None:
    written = replace(index(*merge_rows(rows, ())), serial=serial, issued=issued, expires=date.max)
    text = render_index(written)
    assert parse_index(text) == written
    assert render_index(parse_index(text)) == text


def test_an_index_without_rows_is_one() -> None:
    assert parse_index(render_index(index())).rows == ()


def test_rows_are_by_target_then_newest_version_then_newest_os_release() -> None:
    rows = (
        row(LINUX, "1.9.0"),
        row(LINUX, "1.10.0-rc.1"),
        row(LINUX, "1.10.0"),
        row(OPENBSD, "1.9.0", Status.OK, "openbsd==7.9"),
        row(OPENBSD, "1.9.0", Status.OK, "openbsd==7.10"),
        row(OPENBSD, "1.10.0", Status.PENDING),
    )
    expected = [
        f"{OPENBSD} 1.10.0 -",
        f"{OPENBSD} 1.9.0 7.10",
        f"{OPENBSD} 1.9.0 7.9",
        f"{LINUX} 1.10.0 -",
        f"{LINUX} 1.10.0-rc.1 -",
        f"{LINUX} 1.9.0 -",
    ]
    for shuffled in list(permutations(rows))[::37]:
        found = [f"{r.target} {r.version} {r.exact_release or '-'}" for r in sort_rows(shuffled)]
        assert found == expected
        assert parse_index(render_index(index(*shuffled))).rows == sort_rows(rows)


ROW = SIGNED_TEXT.splitlines()[6]


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("#orchestrator-index 1", "#orchestrator-index 2", 1, "expected `#orchestrator-index`"),
        ("#orchestrator-index 1", "\ufeff#orchestrator-index 1", 1, "expected"),
        ("#orchestrator-index 1", "\n#orchestrator-index 1", 1, "expected"),
        ("#project ballistics\n", "", 2, "expected `#project`"),
        ("ballistics\n", "bal listics\n", 2, "expected `#project`"),
        ("ballistics\n", "ballistics\r\n", 2, "expected `#project`"),
        ("#channel stable", "#channel", 3, "expected `#channel`"),
        ("#channel stable", "#channel stable\n#channel stable", 4, "expected `#serial`"),
        ("#serial 42", "#serial 042", 4, "expected `#serial`"),
        ("#serial 42", "#serial 0", 4, "expected `#serial`"),
        ("#serial 42", "#serial 4294967296", 4, "expected `#serial`"),
        ("#serial 42", "#serial \u0664\u0662", 4, "expected `#serial`"),
        ("20261121", "20261131", 5, "not a day"),
        ("20270219", "2027021", 6, "expected `#expires`"),
        ("20270219", "20261120", 6, "before it was issued"),
        (ROW, f"{ROW}\t", 7, "not seven fields"),
        (ROW, ROW.replace("\t", " ", 1), 7, "not seven fields"),
        (ROW, ROW.replace("\t", "\t\t", 1), 7, "not seven fields"),
        (ROW, ROW.replace(".tar.gz", ".tar.gz;rm"), 7, "not seven fields"),
        (ROW, ROW.replace(".tar.gz", "\u2028.tar.gz"), 7, "not seven fields"),
        (ROW, "", 7, "not seven fields"),
        (ROW, "#comment", 7, "not seven fields"),
        (ROW, ROW.replace(OPENBSD, "../etc"), 7, "not a target"),
        (ROW, ROW.replace("0.13.4\tok", "v0.13.4\tok"), 7, "not a semantic version"),
        (ROW, ROW.replace("\tok\t", "\tOK\t"), 7, "not a status"),
        (ROW, ROW.replace("1834022", "-1"), 7, "not a size"),
        (ROW, ROW.replace("1834022", "01"), 7, "not a size"),
        (ROW, ROW.replace("a" * 64, "A" * 64), 7, "not a sha256"),
        (ROW, ROW.replace("a" * 64, "a" * 63), 7, "not a sha256"),
        (ROW, ROW.replace("==7.8", "<7.8"), 7, "not a floor"),
        (ROW, ROW.replace("==7.8", "==7.8,"), 7, "not a floor"),
        (ROW, ROW.replace("==7.8", "==7.8,openbsd>=7.7"), 7, "two floors of one name"),
        (ROW, ROW.replace("==7.8", "==7.8,netbsd==10.0"), 7, "two exact releases"),
        (ROW, ROW.replace("releases/", "/releases/"), 7, "not a path"),
        (ROW, ROW.replace("releases/", "releases//"), 7, "the path leaves its place"),
        (ROW, ROW.replace("releases/", "releases/../"), 7, "the path leaves its place"),
        (ROW, ROW.replace("releases/", "./"), 7, "not a path"),
        (ROW, ROW.replace("1834022", "-"), 7, "a row that is ok has a size"),
        (ROW, ROW.replace("\tok\t", "\tpending\t"), 7, "a pending row has no size"),
        ("pending\t-\t-\t-", "pending\t-\t-\tnetbsd>=10.0", 8, "no measured floor"),
        ("pending\t-\t-\t-", "revoked\t-\t-\t-", 8, "a row that is revoked has a size"),
        (ROW, f"{ROW}\n{ROW}", 8, "a second row for aarch64-unknown-openbsd 0.13.4"),
        (ROW, f"{ROW}\n{ROW.replace('7.8', '7.9')}", 8, "not in its place"),
        (ROW, f"{ROW}\n{ROW.replace('0.13.4', '0.14.0')}", 8, "not in its place"),
        (NETBSD, "a86_64-unknown-netbsd", 8, "not in its place"),
        ("#end 2", "#end 3", 9, "expected `#end 2`"),
        ("#end 2", "#end 02", 9, "expected `#end 2`"),
        ("#end 2\n", "#end 2", 9, "cut off"),
        ("#end 2\n", "", 8, "expected `#end 1`"),
        ("#end 2\n", "#end 2\n\n", 9, "not seven fields"),
        ("#end 2\n", "#end 2\nmore\n", 9, "not seven fields"),
    ],
)
def test_a_malformed_line_is_named(old: str, new: str, *, line: int, problem: str) -> None:
    assert old in SIGNED_TEXT
    with pytest.raises(StoreError) as caught:
        parse_index(SIGNED_TEXT.replace(old, new, 1))
    assert caught.value.message.startswith(f"index line {line}: ")
    assert problem in caught.value.message


def test_no_beginning_of_an_index_is_one() -> None:
    for length in range(len(SIGNED_TEXT)):
        with pytest.raises(StoreError, match="index line"):
            parse_index(SIGNED_TEXT[:length])


@pytest.mark.parametrize(
    "bad",
    [
        index(replace(row(LINUX, "1.0.0"), path="a\tb")),
        index(replace(row(LINUX, "1.0.0"), path="a b")),
        index(replace(row(LINUX, "1.0.0"), path=f"a\n{ROW}")),
        index(replace(row(LINUX, "1.0.0"), target="#end")),
        index(row(LINUX, "1.0.0"), row(LINUX, "1.0.0")),
        replace(index(), project="a\n#channel b"),
        replace(index(), serial=0),
        replace(index(), expires=TODAY - timedelta(days=1)),
    ],
)
def test_what_could_not_be_read_back_is_not_written(bad: Index) -> None:
    with pytest.raises(StoreError, match="index line"):
        render_index(bad)


def test_signed_parts_come_back_and_what_follows_them_is_ignored() -> None:
    joined = join_signed(SIGNED_TEXT, SSHSIG, MINISIG)
    assert joined == SIGNED_TEXT + SSHSIG + MINISIG
    parts = SignedIndex(SIGNED_TEXT, SSHSIG, MINISIG)
    assert split_signed(joined) == parts
    assert split_signed(f"{joined}{ROW}\n#end 99\n") == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        SIGNED_TEXT,
        SIGNED_TEXT + SSHSIG,
        SIGNED_TEXT + MINISIG,
        SIGNED_TEXT + MINISIG + SSHSIG,
        SIGNED_TEXT + SSHSIG + MINISIG.removesuffix("AAAA\n"),
        SIGNED_TEXT + SSHSIG + MINISIG.removesuffix("\n"),
        SIGNED_TEXT + "\n" + SSHSIG + MINISIG,
        SIGNED_TEXT.replace("#end 2\n", "") + SSHSIG + MINISIG,
        SIGNED_TEXT + SIGNED_TEXT + SSHSIG + MINISIG,
    ],
)
def test_an_index_file_with_a_part_missing_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="no `#end` line with two signatures"):
        split_signed(text)


def test_a_broken_signature_block_is_not_joined() -> None:
    with pytest.raises(StoreError, match="does not have the form"):
        join_signed(SIGNED_TEXT, SSHSIG, MINISIG + "more\n")


def test_the_first_index_has_serial_1_and_the_next_one_more() -> None:
    first = advance(
        None,
        [row(LINUX, "1.0.0")],
        project="ballistics",
        channel="stable",
        today=TODAY,
        lifetime=timedelta(days=90),
    )
    assert (first.serial, first.issued, first.expires) == (1, TODAY, date(2027, 2, 19))
    second = advance(
        first,
        [row(NETBSD, "1.0.0"), *first.rows],
        project="ballistics",
        channel="stable",
        today=TODAY + timedelta(days=1),
        lifetime=timedelta(days=1),
    )
    assert (second.serial, second.issued) == (2, TODAY + timedelta(days=1))
    assert second.expires == TODAY + timedelta(days=2)
    assert [row.target for row in second.rows] == [LINUX, NETBSD]


@pytest.mark.parametrize(("project", "channel"), [("other", "stable"), ("ballistics", "beta")])
def test_the_index_of_another_project_or_channel_is_not_replaced(
    project: str, channel: str
) -> None:
    with pytest.raises(StoreError, match="holds the index of ballistics stable") as caught:
        advance(
            index(), (), project=project, channel=channel, today=TODAY, lifetime=timedelta(days=90)
        )
    assert caught.value.hint


def test_a_floor_is_a_name_an_operator_and_a_release() -> None:
    assert parse_floor("glibc>=2.34") == Floor(name="glibc", operator=">=", release="2.34")
    assert str(parse_floor("openbsd==7.8")) == "openbsd==7.8"


@pytest.mark.parametrize(
    "text", ["", "glibc", "glibc>2.34", "musl>=1.2", "glibc>=", "glibc>=2.", "glibc>=02", "a>=1\n"]
)
def test_what_is_not_a_floor_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="not a floor"):
        parse_floor(text)


def test_releases_sort_by_their_numbers() -> None:
    assert sorted(["14.1", "7.10", "11", "7.9"], key=release_order) == ["7.9", "7.10", "11", "14.1"]
    assert release_order("11") == release_order("11.0")
    assert release_order("0") == ()
