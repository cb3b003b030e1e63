from __future__ import annotations

from datetime import date
from functools import partial
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.index import Index, Row, Status
from orchestrator.core.verification import (
    INDEX,
    SSH_SIGNATURE,
    ArchiveName,
    IndexRules,
    Verdict,
    Verification,
    good,
    is_recent_copy,
    judge_checksum,
    judge_comment,
    judge_headers,
    judge_index,
    judge_row,
    rows_of,
    split_archive_name,
    unknown,
    verification_as_data,
    wrong,
)
from orchestrator.core.version import parse_version

if TYPE_CHECKING:
    from collections.abc import Mapping

TODAY = date(2026, 11, 25)
NETBSD = "x86_64-unknown-netbsd"
NAME = f"demo-1.0.0-{NETBSD}.tar.gz"
SHA256 = "ab" * 32
NO_CACHE = "no-transform,no-cache"


def row(status: Status = Status.OK, path: str = f"releases/1.0.0/{NETBSD}/{NAME}") -> Row:
    return Row(
        target=NETBSD,
        version=parse_version("1.0.0"),
        status=status,
        size_bytes=5,
        sha256=SHA256,
        path=path,
    )


def index(*rows: Row, **changes: object) -> Index:
    values: dict[str, object] = {
        "project": "demo",
        "channel": "stable",
        "serial": 3,
        "issued": TODAY,
        "expires": date(2027, 2, 1),
        "rows": rows,
    }
    return Index(**(values | changes))  # type: ignore[arg-type]  # a test's own keywords


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (NAME, ("demo", "1.0.0", NETBSD)),
        (f"my-tool-2-1.0.0-rc.1-{NETBSD}.tar.gz", ("my-tool-2", "1.0.0-rc.1", NETBSD)),
        (f"a-1.0.0+b.2-{NETBSD}.tar.gz", ("a", "1.0.0+b.2", NETBSD)),
        (
            "a-1.0.0-x86_64-unknown-openbsd7.8.tar.gz",
            ("a", "1.0.0", "x86_64-unknown-openbsd7.8"),
        ),
    ],
)
def test_an_archive_s_name_says_what_it_is(name: str, parts: tuple[str, str, str]) -> None:
    project, version, target = parts
    assert split_archive_name(name) == ArchiveName(project=project, version=version, target=target)


@pytest.mark.parametrize(
    "name", ["", "demo.tar.gz", f"demo-1.0-{NETBSD}.tar.gz", "demo-1.0.0-vax.tar.gz", f"{NAME}.sig"]
)
def test_another_name_is_none(name: str) -> None:
    assert split_archive_name(name) is None


def test_nothing_wrong_and_something_that_vouches_is_good() -> None:
    checks = (good("a", "checksum file"), unknown("a", INDEX), good("a", SSH_SIGNATURE))
    found = Verification(subject="a", checks=checks)
    assert found.is_good
    assert verification_as_data(found) == {
        "subject": "a",
        "verdict": "good",
        "problems": [],
        "checks": [
            {"subject": "a", "part": "checksum file", "verdict": "good", "message": ""},
            {"subject": "a", "part": "index", "verdict": "not checked", "message": "not there"},
            {"subject": "a", "part": "SSH signature", "verdict": "good", "message": ""},
        ],
    }


def test_one_wrong_part_makes_it_wrong() -> None:
    checks = (good("a", SSH_SIGNATURE), wrong("b", INDEX, "stale"))
    found = Verification(subject="a", checks=checks)
    assert found.problems == ("b: index: stale",)
    assert verification_as_data(found)["verdict"] == "wrong"


@pytest.mark.parametrize("checks", [(), (good("a", "checksum file"), unknown("a", INDEX))])
def test_a_checksum_alone_vouches_for_nothing(checks: tuple[object, ...]) -> None:
    found = Verification(subject="a", checks=checks)  # type: ignore[arg-type]  # see above
    assert found.problems == ("a: nothing that a trusted key has signed vouches for it",)


@pytest.mark.parametrize(
    ("name", "text", "verdict"),
    [
        ("f", None, Verdict.UNKNOWN),
        ("f", f"{SHA256}  f\n", Verdict.GOOD),
        ("f", f"{SHA256} f\n", Verdict.WRONG),
        ("f", f"{'0' * 64}  f\n", Verdict.WRONG),
        ("-f", f"{SHA256}  -f\n", Verdict.WRONG),
    ],
)
def test_a_checksum_file_is_a_line_of_the_tool(
    name: str, text: str | None, verdict: Verdict
) -> None:
    check = judge_checksum(name, SHA256, None if text is None else text.encode())
    assert check.verdict is verdict


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("file:f version:1.0.0", None),
        ("timestamp:1 version:1.0.0 file:f", None),
        ("file:g version:1.0.0", "it was made for the file g"),
        ("file:f version:2.0.0", "it was made for version 2.0.0"),
        ("hello", "it was made for the file None"),
    ],
)
def test_a_comment_binds_a_signature_to_its_file(comment: str, problem: str | None) -> None:
    assert judge_comment(comment, "f", "1.0.0") == problem


@pytest.mark.parametrize(
    ("known", "verdict", "told"),
    [
        (index(row()), Verdict.GOOD, "ok, serial 3"),
        (index(row(Status.YANKED)), Verdict.GOOD, "not offered any more"),
        (index(row(Status.REVOKED)), Verdict.WRONG, "revoked"),
        (index(), Verdict.WRONG, "does not list this file"),
        (index(row(path="releases/x/other.tar.gz")), Verdict.WRONG, "does not list this file"),
    ],
)
def test_an_index_says_how_an_archive_stands(known: Index, verdict: Verdict, told: str) -> None:
    check = judge_row(NAME, known, sha256=SHA256, size_bytes=5, is_for_use=True)
    assert check.verdict is verdict
    assert told in check.message


def test_what_is_revoked_is_as_intended_where_nobody_is_to_use_it() -> None:
    known = index(row(Status.REVOKED))
    check = judge_row(NAME, known, sha256=SHA256, size_bytes=5, is_for_use=False)
    assert (check.verdict, check.message) == (
        Verdict.GOOD,
        "revoked: nobody is to use it, serial 3",
    )


def test_other_bytes_or_another_size_are_wrong() -> None:
    look = partial(judge_row, NAME, index(row()), is_for_use=True)
    assert "other bytes" in look(sha256="0" * 64, size_bytes=5).message
    assert "says 5 bytes" in look(sha256=SHA256, size_bytes=6).message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"project": "other"}, ["mixed up: it is of the project other, not demo"]),
        ({"channel": "prerelease"}, ["mixed up: it is of the channel prerelease, not stable"]),
        ({"expires": date(2026, 11, 24)}, ["stale: it expired on 2026-11-24"]),
        ({"expires": TODAY}, []),
        ({"issued": date(2026, 11, 26)}, []),
        ({"issued": date(2026, 11, 27)}, ["it is dated 2026-11-27, which is yet to come"]),
        (
            {"serial": 1},
            [
                "rolled back: it has serial 1, and 3 was published",
                "rolled back: it has serial 1, and 2 is the least that is accepted",
            ],
        ),
    ],
)
def test_an_index_has_to_be_the_right_one(changes: dict[str, object], told: list[str]) -> None:
    rules = IndexRules(today=TODAY, project="demo", channel="stable", newest=3, min_serial=2)
    found = list(judge_index("stable.idx", index(**changes), rules))
    assert [check.message for check in found] == told


def test_what_is_not_known_of_an_index_is_not_judged() -> None:
    assert list(judge_index("i", index(), IndexRules(today=TODAY))) == []


def test_the_rows_of_a_version_are_its_own() -> None:
    assert rows_of(index(row()), "1.0.0") == (row(),)
    assert rows_of(index(row()), "1.0.1") == ()


@pytest.mark.parametrize(
    ("headers", "wrong_ones"),
    [
        (
            {"content-type": "Text/Plain;charset=UTF-8", "cache-control": "no-transform,no-cache"},
            [],
        ),
        (
            {"content-type": "text/plain", "cache-control": "no-cache, no-transform"},
            ["Content-Type"],
        ),
        ({}, ["Content-Type", "Cache-Control"]),
    ],
)
def test_headers_are_compared_by_their_parts(
    headers: Mapping[str, str], wrong_ones: list[str]
) -> None:
    found = judge_headers(
        "x",
        headers,
        content_type="text/plain; charset=utf-8",
        cache_control="no-cache, no-transform",
    )
    assert [check.part for check in found] == wrong_ones


@pytest.mark.parametrize(
    ("headers", "is_recent"),
    [
        ({"age": "60", "cache-control": "public, max-age=60, no-transform"}, True),
        ({"age": "61", "cache-control": "public, max-age=60"}, False),
        ({"age": "x", "cache-control": "max-age=60"}, False),
        ({"age": "1"}, False),
        ({"cache-control": "max-age=60"}, False),
    ],
)
def test_a_copy_is_recent_within_its_lifetime(
    headers: Mapping[str, str], *, is_recent: bool
) -> None:
    assert is_recent_copy(headers) is is_recent
