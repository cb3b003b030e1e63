"""How old is what each platform gets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core.freshness import Freshness, freshness_of
from orchestrator.core.index import Status
from tests.core.rows import LINUX, NETBSD, OPENBSD, row

if TYPE_CHECKING:
    from orchestrator.core.index import Row

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
DAY = timedelta(days=1)
PUBLISHED = {"1.0.0": NOW - 9 * DAY, "1.1.0": NOW - 5 * DAY, "1.2.0": NOW - DAY / 2}
PENDING = Status.PENDING


def told(*rows: Row, targets: tuple[str, ...] = ()) -> dict[str, Freshness]:
    found = freshness_of(rows, targets, published=PUBLISHED, now=NOW, late_after=DAY)
    assert json.loads(json.dumps([each.as_data() for each in found]))
    return {each.name: each for each in found}


def test_a_platform_with_the_newest_version_waits_for_nothing() -> None:
    fresh = told(row(LINUX, "1.1.0"), row(LINUX, "1.0.0"))[LINUX]

    assert (fresh.version, fresh.released, fresh.newest) == ("1.1.0", PUBLISHED["1.1.0"], "1.1.0")
    assert (fresh.behind, fresh.awaited, fresh.since, fresh.is_late) == (0, None, None, False)
    assert fresh.title == "Linux x86_64 (glibc)"


def test_a_platform_waits_since_the_oldest_version_that_it_does_not_have() -> None:
    fresh = told(
        row(LINUX, "1.2.0"),
        row(LINUX, "1.1.0"),
        row(NETBSD, "1.2.0", PENDING),
        row(NETBSD, "1.1.0", PENDING),
        row(NETBSD, "1.0.0"),
    )[NETBSD]

    assert (fresh.version, fresh.newest, fresh.behind) == ("1.0.0", "1.2.0", 2)
    assert (fresh.awaited, fresh.since, fresh.is_late) == ("1.1.0", PUBLISHED["1.1.0"], True)


def test_it_is_late_only_after_a_while() -> None:
    rows = (row(LINUX, "1.2.0"), row(NETBSD, "1.2.0", PENDING), row(NETBSD, "1.1.0"))

    assert told(*rows)[NETBSD].since == PUBLISHED["1.2.0"]
    assert not told(*rows)[NETBSD].is_late


def test_nobody_is_late_for_a_version_of_an_unknown_time() -> None:
    fresh = told(row(LINUX, "0.9.0"), row(NETBSD, "0.9.0", PENDING))[NETBSD]

    assert (fresh.awaited, fresh.since, fresh.is_late) == ("0.9.0", None, False)
    assert (fresh.version, fresh.released) == (None, None)


def test_what_was_never_announced_for_a_platform_makes_it_behind_and_not_late() -> None:
    fresh = told(row(LINUX, "1.1.0"), row(NETBSD, "1.0.0"))[NETBSD]

    assert (fresh.behind, fresh.awaited, fresh.is_late) == (1, None, False)


def test_a_version_that_was_withdrawn_everywhere_is_no_version_to_be_behind_of() -> None:
    fresh = told(row(LINUX, "1.2.0", Status.YANKED), row(LINUX, "1.1.0"))[LINUX]

    assert (fresh.version, fresh.newest, fresh.behind) == ("1.1.0", "1.1.0", 0)


def test_a_gap_that_was_left_behind_is_nothing_to_wait_for() -> None:
    fresh = told(row(LINUX, "1.2.0"), row(LINUX, "1.1.0", PENDING), row(LINUX, "1.0.0"))[LINUX]

    assert fresh.awaited is None


def test_each_release_of_openbsd_is_a_platform_of_its_own() -> None:
    fresh = told(
        row(OPENBSD, "1.1.0", Status.OK, "openbsd==7.8"),
        row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.7"),
    )

    assert [(name, each.behind) for name, each in fresh.items()] == [
        ("aarch64-unknown-openbsd7.8", 0),
        ("aarch64-unknown-openbsd7.7", 1),
    ]


def test_a_target_that_no_row_is_for_gets_nothing_yet() -> None:
    fresh = told(row(LINUX, "1.1.0"), targets=(LINUX, NETBSD, NETBSD))

    assert list(fresh) == [LINUX, NETBSD]
    assert (fresh[NETBSD].version, fresh[NETBSD].behind, fresh[NETBSD].title) == (
        None,
        1,
        "NetBSD amd64",
    )


def test_without_a_single_version_nobody_is_behind() -> None:
    fresh = told(targets=(LINUX,))[LINUX]

    assert (fresh.newest, fresh.version, fresh.behind) == (None, None, 0)
