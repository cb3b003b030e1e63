"""What an index offers on each platform."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.downloads import newest_builds, platforms_of, versions_of
from orchestrator.core.index import Status, parse_index, render_index, sort_rows
from tests.sample_index import make_row, sample_index

OPENBSD = "x86_64-unknown-openbsd"


def found(*rows: object) -> list[tuple[str, str | None, str | None]]:
    """Return the title, the newest version and the late one of each platform."""
    return [
        (
            each.title,
            str(each.newest.version) if each.newest else None,
            str(each.late.version) if each.late else None,
        )
        for each in platforms_of(sort_rows(rows))  # type: ignore[arg-type]  # rows, by name only
    ]


def test_a_platform_has_its_newest_build_and_what_is_late() -> None:
    assert found(
        make_row("1.2.0", "aarch64-apple-darwin", floors="macos>=11.0"),
        make_row("1.1.0", "aarch64-apple-darwin"),
        make_row("1.2.0", "x86_64-unknown-netbsd", Status.PENDING),
        make_row("1.1.0", "x86_64-unknown-netbsd", Status.YANKED),
        make_row("1.0.0", "x86_64-unknown-netbsd"),
        make_row("0.9.0", "x86_64-unknown-netbsd", Status.PENDING),
        make_row("1.2.0", "x86_64-unknown-freebsd", Status.PENDING),
        make_row("1.0.0", "x86_64-unknown-illumos", Status.REVOKED),
    ) == [
        ("macOS Apple silicon", "1.2.0", None),
        ("FreeBSD amd64", None, "1.2.0"),
        ("NetBSD amd64", "1.0.0", "1.2.0"),
        ("illumos x86_64", None, None),
    ]


def test_each_openbsd_release_is_a_platform_and_the_newest_is_first() -> None:
    assert found(
        make_row("1.2.0", OPENBSD, floors="openbsd==7.9"),
        make_row("1.2.0", OPENBSD, floors="openbsd==7.10"),
        make_row("1.2.0", OPENBSD, Status.PENDING, floors="openbsd==7.8"),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.8"),
    ) == [
        ("OpenBSD 7.10 amd64", "1.2.0", None),
        ("OpenBSD 7.9 amd64", "1.2.0", None),
        ("OpenBSD 7.8 amd64", "1.1.0", "1.2.0"),
    ]


def test_a_late_build_that_names_no_os_release_is_late_on_all_of_them() -> None:
    rows = (
        make_row("1.2.0", OPENBSD, Status.PENDING),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.9"),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.8"),
        make_row("1.0.0", OPENBSD, Status.PENDING),
    )
    assert found(*rows) == [
        ("OpenBSD 7.9 amd64", "1.1.0", "1.2.0"),
        ("OpenBSD 7.8 amd64", "1.1.0", "1.2.0"),
    ]
    assert found(rows[0]) == [("OpenBSD amd64", None, "1.2.0")]


def test_what_one_release_has_is_not_late_there() -> None:
    assert found(
        make_row("1.2.0", OPENBSD, Status.PENDING),
        make_row("1.2.0", OPENBSD, floors="openbsd==7.9"),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.8"),
    ) == [
        ("OpenBSD 7.9 amd64", "1.2.0", None),
        ("OpenBSD 7.8 amd64", "1.1.0", "1.2.0"),
    ]


def test_a_target_that_is_not_known_here_is_called_by_its_triple_and_comes_last() -> None:
    titles = [title for title, *_ in found(make_row("1.0.0", "a-b-c"), make_row("1.0.0", OPENBSD))]
    assert titles == ["OpenBSD amd64", "a-b-c"]


def test_versions_are_listed_newest_first_and_once() -> None:
    rows = [make_row(v, OPENBSD) for v in ("1.9.0", "1.10.0-rc.1", "1.10.0", "1.9.0", "1.0.0+b")]
    assert versions_of(rows) == ("1.10.0", "1.10.0-rc.1", "1.9.0", "1.0.0+b")


def test_a_row_is_found_by_its_whole_version() -> None:
    (platform,) = platforms_of([make_row("1.0.0+b", OPENBSD), make_row("1.0.0+a", OPENBSD)])
    row = platform.by_version().get("1.0.0+a")
    assert row is not None
    assert str(row.version) == "1.0.0+a"
    assert "1.0.0" not in platform.by_version()


def test_the_sample_is_an_index_and_most_of_its_platforms_have_a_build() -> None:
    index = sample_index()
    assert parse_index(render_index(index)) == index
    platforms = platforms_of(index.rows)
    assert len(platforms) == 16
    assert len({each.target for each in platforms}) == 14
    assert len(newest_builds(index.rows)) == 15
    assert newest_builds(replace(index, rows=()).rows) == ()
