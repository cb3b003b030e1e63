from __future__ import annotations

import pytest

from orchestrator.core.index import Row, Status, parse_floor, sort_rows
from orchestrator.core.resolve import Host, Reason, Resolution, resolve
from orchestrator.core.version import parse_version

GNU = "x86_64-unknown-linux-gnu"
MUSL = "x86_64-unknown-linux-musl"
OPENBSD = "aarch64-unknown-openbsd"


def row(target: str, version: str, status: Status = Status.OK, *floors: str) -> Row:
    is_pending = status is Status.PENDING
    return Row(
        target=target,
        version=parse_version(version),
        status=status,
        size_bytes=None if is_pending else 1,
        sha256=None if is_pending else "a" * 64,
        floors=tuple(map(parse_floor, floors)),
        path=None if is_pending else "a.tar.gz",
    )


def linux(
    glibc: str | None = "2.36", *, version: str | None = None, is_strict: bool = False
) -> Host:
    return Host(
        candidates=(GNU, MUSL),
        releases={"glibc": glibc} if glibc else {},
        version=parse_version(version) if version else None,
        is_strict=is_strict,
    )


def openbsd(release: str, *, is_strict: bool = False) -> Host:
    return Host(candidates=(OPENBSD,), releases={"openbsd": release}, is_strict=is_strict)


def resolved(host: Host, *rows: Row) -> Resolution:
    return resolve(sort_rows(rows), host)


def chosen(host: Host, *rows: Row) -> str | None:
    row = resolved(host, *rows).chosen
    return f"{row.target} {row.version}" if row else None


def test_the_newest_version_of_the_best_candidate_is_chosen() -> None:
    rows = [row(target, version) for target in (MUSL, GNU) for version in ("1.9.0", "1.10.0")]
    assert resolved(linux(), *rows) == Resolution(chosen=row(GNU, "1.10.0"))


def test_a_late_platform_gets_the_version_before_and_is_told() -> None:
    resolution = resolved(
        openbsd("7.8"),
        row(OPENBSD, "0.13.5", Status.PENDING),
        row(OPENBSD, "0.13.4", Status.OK, "openbsd==7.8"),
        row(GNU, "0.13.5"),
    )
    assert resolution.chosen
    assert str(resolution.chosen.version) == "0.13.4"
    (passed,) = resolution.passed_over
    assert passed.reason is Reason.PENDING
    assert passed.message == "0.13.5 for aarch64-unknown-openbsd is not built yet"


def test_a_floor_that_is_too_high_leaves_the_next_candidate_of_the_same_version() -> None:
    rows = [
        row(GNU, "2.0.0", Status.OK, "glibc>=2.38"),
        row(MUSL, "2.0.0"),
        row(GNU, "1.0.0", Status.OK, "glibc>=2.17"),
    ]
    resolution = resolved(linux("2.36"), *rows)
    assert resolution.chosen == row(MUSL, "2.0.0")
    (passed,) = resolution.passed_over
    assert passed.reason is Reason.FLOOR
    assert passed.message == f"2.0.0 for {GNU} needs glibc>=2.38; this host has glibc 2.36"
    assert chosen(linux("2.38"), *rows) == f"{GNU} 2.0.0"
    assert chosen(linux("2.36", is_strict=True), *rows) == f"{MUSL} 2.0.0"


@pytest.mark.parametrize(
    ("floor", "host", "is_met"),
    [
        ("2.9", "2.34", True),
        ("2.34", "2.34", True),
        ("2.34", "2.34.0", True),
        ("2.34", "2.9", False),
        ("2.34", "3.0", True),
    ],
)
def test_floors_compare_as_numbers(floor: str, host: str, *, is_met: bool) -> None:
    expected = f"{GNU} 1.0.0" if is_met else None
    assert chosen(linux(host), row(GNU, "1.0.0", Status.OK, f"glibc>={floor}")) == expected


def test_an_unknown_release_is_tried_unless_the_floor_is_exact() -> None:
    assert chosen(linux(None), row(GNU, "1.0.0", Status.OK, "glibc>=2.38")) == f"{GNU} 1.0.0"
    host = Host(candidates=(OPENBSD,), releases={})
    resolution = resolved(host, row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.8"))
    assert resolution.chosen is None
    assert "this host has openbsd unknown" in resolution.passed_over[0].message


def test_openbsd_gets_the_row_of_its_own_release() -> None:
    rows = [row(OPENBSD, "1.0.0", Status.OK, f"openbsd=={release}") for release in ("7.7", "7.8")]
    for release in ("7.7", "7.8"):
        found = resolved(openbsd(release, is_strict=True), *rows).chosen
        assert found
        assert found.exact_release == release
    assert chosen(openbsd("7.9"), *rows) is None


def test_a_yanked_version_is_installed_only_when_it_is_named() -> None:
    rows = (row(GNU, "2.0.0", Status.YANKED), row(GNU, "1.0.0"))
    resolution = resolved(linux(), *rows)
    assert resolution.chosen == row(GNU, "1.0.0")
    assert [passed.reason for passed in resolution.passed_over] == [Reason.YANKED]
    assert chosen(linux(version="2.0.0"), *rows) == f"{GNU} 2.0.0"


def test_a_revoked_version_is_never_installed() -> None:
    rows = (row(GNU, "2.0.0", Status.REVOKED), row(GNU, "1.0.0"))
    assert chosen(linux(), *rows) == f"{GNU} 1.0.0"
    resolution = resolved(linux(version="2.0.0"), *rows)
    assert resolution.chosen is None
    assert [passed.reason for passed in resolution.passed_over] == [Reason.REVOKED]


def test_a_pinned_version_is_that_one_or_none() -> None:
    rows = (row(GNU, "2.0.0"), row(GNU, "1.0.0"), row(GNU, "0.9.0", Status.PENDING))
    assert chosen(linux(version="1.0.0"), *rows) == f"{GNU} 1.0.0"
    assert chosen(linux(version="0.9.0"), *rows) is None
    assert resolved(linux(version="3.0.0"), *rows) == Resolution(chosen=None)


@pytest.mark.parametrize(
    "newest",
    [row(GNU, "2.0.0", Status.PENDING), row(GNU, "2.0.0", Status.OK, "glibc>=2.38")],
)
def test_strict_refuses_a_fallback_and_says_from_what(newest: Row) -> None:
    older = row(GNU, "1.0.0")
    assert chosen(linux(), newest, older) == f"{GNU} 1.0.0"
    resolution = resolved(linux(is_strict=True), newest, older)
    assert resolution.chosen is None
    assert resolution.passed_over[-1].reason is Reason.FALLBACK
    assert resolution.passed_over[-1].message == f"1.0.0 for {GNU} would be a fallback from 2.0.0"


@pytest.mark.parametrize("status", [Status.YANKED, Status.REVOKED])
def test_a_version_that_was_taken_back_makes_no_fallback(status: Status) -> None:
    rows = (row(GNU, "2.0.0", status), row(GNU, "1.0.0"))
    assert chosen(linux(is_strict=True), *rows) == f"{GNU} 1.0.0"


def test_a_newer_version_of_the_next_candidate_comes_before_an_older_one_of_the_best() -> None:
    rows = [row(GNU, "1.0.0"), row(MUSL, "1.0.0"), row(MUSL, "2.0.0")]
    assert chosen(linux(), *rows) == f"{MUSL} 2.0.0"
    assert chosen(linux(), row(GNU, "2.0.0", Status.PENDING), *rows) == f"{MUSL} 2.0.0"


def test_versions_that_candidates_do_not_share_are_ordered_by_other_targets() -> None:
    rows = [row(GNU, "1.0.0"), row(MUSL, "2.0.0")]
    assert chosen(linux(), *rows) == f"{GNU} 1.0.0"
    elsewhere = [row(OPENBSD, version, Status.OK, "openbsd==7.8") for version in ("1.0.0", "2.0.0")]
    assert chosen(linux(), *rows, *elsewhere) == f"{MUSL} 2.0.0"


def test_a_newer_version_that_exists_only_elsewhere_is_told() -> None:
    rows = [row(GNU, "1.0.0"), row(OPENBSD, "2.0.0", Status.PENDING), row(OPENBSD, "1.0.0")]
    resolution = resolved(linux(), *rows)
    assert resolution.chosen == row(GNU, "1.0.0")
    (passed,) = resolution.passed_over
    assert passed.reason is Reason.ABSENT
    assert passed.row == row(GNU, "2.0.0", Status.PENDING)
    assert passed.message == f"2.0.0 is not built for {GNU}"
    assert chosen(linux(is_strict=True), *rows) is None
    pinned = resolved(linux(version="2.0.0"), *rows)
    assert pinned == Resolution(chosen=None, passed_over=(passed,))


@pytest.mark.parametrize("status", [Status.YANKED, Status.REVOKED])
def test_a_version_that_was_taken_back_elsewhere_is_no_news(status: Status) -> None:
    rows = (row(GNU, "1.0.0"), row(OPENBSD, "2.0.0", status), row(OPENBSD, "1.0.0"))
    assert resolved(linux(is_strict=True), *rows) == Resolution(chosen=row(GNU, "1.0.0"))


def test_a_host_that_nothing_is_built_for_gets_nothing() -> None:
    resolution = resolved(openbsd("7.8"), row(GNU, "1.0.0"))
    assert resolution.chosen is None
    assert [passed.reason for passed in resolution.passed_over] == [Reason.ABSENT]
    nowhere = Host(candidates=(), releases={})
    assert resolved(nowhere, row(GNU, "1.0.0")) == Resolution(chosen=None)


def test_without_comparing_versions_they_still_come_newest_first() -> None:
    numbers = [f"{major}.{minor}.0" for major in (2, 1, 0) for minor in (10, 9, 1)]
    rows = [row(OPENBSD, number, Status.YANKED) for number in numbers]
    rows += [row(GNU, number, Status.PENDING) for number in numbers[1::2]]
    rows += [row(MUSL, number, Status.PENDING) for number in numbers[::2]]
    assert [str(passed.row.version) for passed in resolved(linux(), *rows).passed_over] == numbers
