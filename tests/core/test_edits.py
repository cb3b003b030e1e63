"""Taking versions back, putting them back, passing them on."""

from __future__ import annotations

import pytest

from orchestrator.core.edits import (
    Flip,
    Selection,
    check_flip,
    flip_rows,
    passed_on,
    promoted_rows,
)
from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Row, Status
from orchestrator.core.version import parse_version
from tests.core.rows import LINUX, NETBSD, OPENBSD, row

OK, PENDING, YANKED, REVOKED = Status.OK, Status.PENDING, Status.YANKED, Status.REVOKED


def selection(version: str = "1.0.0", *targets: str) -> Selection:
    return Selection(version=parse_version(version), targets=targets)


def flipped(rows: tuple[Row, ...], selected: Selection, flip: Flip) -> list[Status]:
    return [each.status for each in flip_rows(rows, selected, flip)]


@pytest.mark.parametrize(
    ("flip", "result"),
    [
        (Flip.YANK, [YANKED, YANKED, REVOKED, PENDING]),
        (Flip.UNYANK, [OK, OK, REVOKED, PENDING]),
        (Flip.REVOKE, [REVOKED, REVOKED, REVOKED, PENDING]),
    ],
)
def test_nothing_leads_out_of_revoked_and_nothing_touches_pending(
    flip: Flip, result: list[Status]
) -> None:
    rows = tuple(row(LINUX, "1.0.0", status) for status in (OK, YANKED, REVOKED, PENDING))
    assert flipped(rows, selection(), flip) == result
    assert flip_rows(rows, selection("2.0.0"), flip) == rows


def test_a_target_is_named_with_or_without_its_os_release() -> None:
    rows = (
        row(OPENBSD, "1.0.0", OK, "openbsd==7.8"),
        row(OPENBSD, "1.0.0", OK, "openbsd==7.7"),
        row(NETBSD, "1.0.0"),
    )
    assert flipped(rows, selection("1.0.0", OPENBSD), Flip.YANK) == [YANKED, YANKED, OK]
    assert flipped(rows, selection("1.0.0", f"{OPENBSD}7.7"), Flip.YANK) == [OK, YANKED, OK]
    assert flipped(rows, selection("1.0.0", NETBSD, OPENBSD), Flip.YANK) == [YANKED] * 3


def test_versions_that_differ_in_build_metadata_are_told_apart() -> None:
    rows = (row(LINUX, "1.0.0+a"), row(LINUX, "1.0.0+b"))
    assert flipped(rows, selection("1.0.0+a"), Flip.YANK) == [YANKED, OK]


ROWS = (
    row(LINUX, "1.10.0", PENDING),
    row(LINUX, "1.9.0", REVOKED),
    row(NETBSD, "1.10.0"),
    row(NETBSD, "1.9.0", YANKED),
)


@pytest.mark.parametrize(
    ("selected", "flip", "message", "hint"),
    [
        (selection("2.0.0"), Flip.YANK, "no version 2.0.0", "the versions are: 1.10.0, 1.9.0"),
        (selection("1.9.0", OPENBSD), Flip.YANK, f"no target {OPENBSD}", f"{NETBSD} (yanked)"),
        (selection("1.10.0", LINUX), Flip.YANK, f"1.10.0 for {LINUX} is pending", "cancel"),
        (selection("1.9.0", LINUX), Flip.UNYANK, "was revoked, and that is for good", "--reissue"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_there_is(
    selected: Selection, flip: Flip, *, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_flip(ROWS, selected, flip)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("selected", "flip"),
    [
        (selection("1.10.0"), Flip.YANK),
        (selection("1.9.0"), Flip.UNYANK),
        (selection("1.9.0", LINUX), Flip.REVOKE),
        (selection("1.10.0", NETBSD), Flip.UNYANK),
    ],
)
def test_what_can_be_done_or_is_done_already_is_not_refused(
    selected: Selection, flip: Flip
) -> None:
    check_flip(ROWS, selected, flip)


def test_an_empty_index_has_no_version_at_all() -> None:
    with pytest.raises(ConfigError, match=r"no version 1.0.0") as caught:
        check_flip((), selection(), Flip.YANK)
    assert caught.value.hint == "the versions are: none"


def test_only_what_is_ok_is_promoted() -> None:
    assert promoted_rows(ROWS, parse_version("1.10.0")) == (ROWS[2],)
    with pytest.raises(ConfigError, match=r"nothing of 1.9.0 is ok") as caught:
        promoted_rows(ROWS, parse_version("1.9.0"))
    assert f"{LINUX} (revoked), {NETBSD} (yanked)" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match=r"no version 3.0.0"):
        promoted_rows(ROWS, parse_version("3.0.0"))


def test_what_is_late_is_passed_on_and_what_was_taken_back_is_not() -> None:
    assert passed_on(ROWS, parse_version("1.10.0")) == (ROWS[0], ROWS[2])
    assert passed_on(ROWS, parse_version("1.9.0")) == ()
