"""Whose row stands when two publishers know different ones, and which versions an index keeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import StoreError
from orchestrator.core.index import Row, Status, sort_rows
from orchestrator.core.merge import KEEP, merge_rows, row_of, why_not_offered
from tests.core.rows import LINUX, NETBSD, OPENBSD, ROW_SETS, row

KEEPS = st.sampled_from([1, 2, 3, KEEP])


def versions(rows: tuple[Row, ...]) -> list[str]:
    return [f"{row.version} {row.status} {row.exact_release or '-'}" for row in rows]


def test_rows_that_are_there_change_nothing() -> None:
    rows = sort_rows((row(LINUX, "1.0.0"), row(NETBSD, "1.0.0", Status.PENDING)))
    assert merge_rows((), rows) == rows
    assert merge_rows(rows, [row(NETBSD, "1.0.0")]) != rows
    assert merge_rows(rows, [row(LINUX, "1.0.0", Status.PENDING)]) == rows


def test_ok_takes_the_place_of_pending_and_never_the_other_way() -> None:
    pending, done = row(LINUX, "1.0.0", Status.PENDING), row(LINUX, "1.0.0")
    assert merge_rows([pending], [done]) == (done,)
    assert merge_rows([done], [pending]) == (done,)
    assert merge_rows([pending], [pending]) == (pending,)


def test_the_same_row_again_changes_nothing() -> None:
    rows = (row(LINUX, "1.0.0", Status.OK, "glibc>=2.34"),)
    assert merge_rows(rows, rows) == rows
    assert merge_rows(rows, [replace(rows[0], path="elsewhere.tar.gz")]) == rows


@pytest.mark.parametrize("status", [Status.YANKED, Status.REVOKED])
def test_what_was_taken_back_stays_so_when_the_build_comes_again(status: Status) -> None:
    gone = row(LINUX, "1.0.0", status)
    assert merge_rows([gone], [row(LINUX, "1.0.0")]) == (gone,)
    assert merge_rows([row(LINUX, "1.0.0")], [gone]) == (gone,)
    assert merge_rows([gone], [row(LINUX, "1.0.0", Status.PENDING)]) == (gone,)


@pytest.mark.parametrize("status", [Status.OK, Status.YANKED, Status.REVOKED])
def test_other_bytes_for_the_same_version_are_a_conflict(status: Status) -> None:
    published = row(LINUX, "1.0.0", status)
    with pytest.raises(StoreError) as caught:
        merge_rows([published], [row(LINUX, "1.0.0", sha256="b" * 64)])
    assert f"{LINUX} 1.0.0 is already published with other bytes" in caught.value.message
    assert "a" * 64 in caught.value.message
    assert "b" * 64 in caught.value.message
    assert caught.value.hint


def test_each_openbsd_release_has_a_row_of_its_own() -> None:
    old = row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.7")
    new = row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.8", sha256="b" * 64)
    assert merge_rows([old], [new]) == (new, old)


def test_a_pending_openbsd_row_waits_for_its_own_release() -> None:
    waiting = row(OPENBSD, "1.0.0", Status.PENDING, "openbsd==7.8")
    other = row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.7")
    assert merge_rows([waiting], [other]) == (waiting, other)
    own = row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.8", sha256="b" * 64)
    assert merge_rows([waiting, other], [own]) == (own, other)


def test_a_pending_openbsd_row_of_no_release_goes_when_any_is_decided() -> None:
    unknown = row(OPENBSD, "1.0.0", Status.PENDING)
    done = row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.7")
    assert merge_rows([unknown], [done]) == (done,)
    assert merge_rows([done], [unknown]) == (done,)
    newer = row(OPENBSD, "1.1.0", Status.PENDING)
    assert merge_rows([unknown, newer], [done]) == (newer, done)


def test_versions_that_differ_in_build_metadata_are_different_files() -> None:
    one, two = row(LINUX, "1.0.0+a"), row(LINUX, "1.0.0+b", sha256="b" * 64)
    assert versions(merge_rows([one], [two])) == ["1.0.0+b ok -", "1.0.0+a ok -"]


@given(ROW_SETS, KEEPS)
def test_merging_is_idempotent(rows: tuple[Row, ...], keep: int) -> None:
    once = merge_rows((), rows, keep=keep)
    assert merge_rows(once, rows, keep=keep) == once
    assert merge_rows(once, once, keep=keep) == once


@given(ROW_SETS, ROW_SETS, KEEPS)
def test_merging_does_not_depend_on_who_was_first(
    a: tuple[Row, ...], b: tuple[Row, ...], keep: int
) -> None:
    assert merge_rows(a, b, keep=keep) == merge_rows(b, a, keep=keep)


@given(st.tuples(ROW_SETS, ROW_SETS, ROW_SETS), KEEPS)
def test_merging_does_not_depend_on_the_grouping(
    sets: tuple[tuple[Row, ...], tuple[Row, ...], tuple[Row, ...]], keep: int
) -> None:
    a, b, c = sets
    first = merge_rows(merge_rows(a, b, keep=keep), c, keep=keep)
    assert first == merge_rows(a, merge_rows(b, c, keep=keep), keep=keep)
    assert first == merge_rows((), (*a, *b, *c), keep=keep)


# Re-issued builds


@pytest.mark.parametrize("status", [Status.OK, Status.YANKED, Status.REVOKED])
def test_a_higher_revision_is_offered_whatever_became_of_the_lower_one(status: Status) -> None:
    bad = row(LINUX, "1.0.0", status)
    mended = row(LINUX, "1.0.0", sha256="b" * 64, revision=2)
    for order in permutations((bad, mended)):
        assert merge_rows(order[:1], order[1:]) == (mended,)
    assert merge_rows([mended], [row(LINUX, "1.0.0", Status.PENDING)]) == (mended,)


def test_revisions_are_numbers() -> None:
    ninth, tenth = (
        row(LINUX, "1.0.0", sha256=digit * 64, revision=n) for digit, n in (("9", 9), ("a", 10))
    )
    assert merge_rows([tenth], [ninth]) == (tenth,)


def test_what_was_yanked_of_a_higher_revision_stays_so() -> None:
    gone = row(LINUX, "1.0.0", Status.YANKED, sha256="b" * 64, revision=2)
    assert merge_rows([gone], [row(LINUX, "1.0.0")]) == (gone,)
    assert merge_rows([gone], [replace(gone, status=Status.OK)]) == (gone,)


def test_two_issues_of_one_revision_are_a_conflict() -> None:
    one = row(LINUX, "1.0.0", sha256="b" * 64, revision=2)
    with pytest.raises(StoreError, match="already published with other bytes") as caught:
        merge_rows([one], [replace(one, sha256="c" * 64)])
    assert "--reissue" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("path", "revision"),
    [
        ("releases/1.0.0/t/b.tar.gz", 1),
        ("releases/1.0.0/t/r2/b.tar.gz", 2),
        ("releases/1.0.0/t/r10/b.tar.gz", 10),
        ("releases/1.0.0/t/r1/b.tar.gz", 1),
        ("releases/1.0.0/t/r02/b.tar.gz", 1),
        ("releases/1.0.0/r2/b.tar.gz", 1),
        ("elsewhere/1.0.0/t/r2/b.tar.gz", 1),
        (None, 1),
    ],
)
def test_a_revision_is_read_from_the_path(path: str | None, revision: int) -> None:
    assert replace(row(LINUX, "1.0.0"), path=path).revision == revision


# What an index keeps


def test_only_the_newest_versions_of_a_target_stay() -> None:
    old = [row(LINUX, f"1.{minor}.0") for minor in range(KEEP)]
    kept = merge_rows(old, [row(LINUX, "2.0.0"), row(NETBSD, "1.0.0")])
    assert len(kept) == KEEP + 1
    assert [str(row.version) for row in kept[:2]] == ["2.0.0", f"1.{KEEP - 1}.0"]
    assert row_of(kept, row(LINUX, "1.0.0").key) is None
    assert row_of(kept, row(LINUX, "1.1.0").key)
    assert row_of(kept, row(NETBSD, "1.0.0").key)


def test_each_openbsd_release_has_its_own_count() -> None:
    rows = [
        row(OPENBSD, f"1.{minor}.0", Status.OK, f"openbsd=={release}", sha256=digit * 64)
        for minor in range(3)
        for release, digit in (("7.7", "a"), ("7.8", "b"))
    ]
    assert versions(merge_rows((), rows, keep=2)) == [
        "1.2.0 ok 7.8",
        "1.2.0 ok 7.7",
        "1.1.0 ok 7.8",
        "1.1.0 ok 7.7",
    ]


def test_versions_that_are_late_push_out_no_build() -> None:
    late = [row(LINUX, f"2.{minor}.0", Status.PENDING) for minor in range(5)]
    kept = merge_rows([row(LINUX, "1.0.0"), row(LINUX, "0.9.0")], late, keep=2)
    assert versions(kept) == ["2.4.0 pending -", "2.3.0 pending -", "1.0.0 ok -", "0.9.0 ok -"]


def test_a_late_arrival_older_than_all_that_is_kept_changes_nothing() -> None:
    kept = merge_rows((), [row(LINUX, f"1.{minor}.0") for minor in range(KEEP)])
    old = row(LINUX, "0.1.0")
    for late in (old, row(LINUX, "0.1.0", Status.PENDING)):
        assert merge_rows(kept, [late]) == kept
    assert "the index keeps 30 versions, all newer" in str(why_not_offered(kept, old))


def test_it_is_said_why_an_artifact_is_not_offered() -> None:
    done = row(LINUX, "1.0.0")
    assert why_not_offered([done], done) is None
    yanked = replace(done, status=Status.YANKED)
    assert "1.0.0 for x86_64-unknown-linux-gnu is yanked" in str(why_not_offered([yanked], done))
    second = row(LINUX, "1.0.0", sha256="b" * 64, revision=2)
    assert "r2 is what people install" in str(why_not_offered([second], done))
    assert "stored, and not offered" in str(
        why_not_offered([row(LINUX, "1.0.0", Status.PENDING)], done)
    )
