"""Versions are semver by full match, and their order is semver.org's."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.version import Version, parse_version

NUMBERS = st.integers(0, 10**9)
WORDS = st.one_of(
    st.integers(0, 99).map(str),
    st.from_regex(r"[0-9]{0,3}[A-Za-z-][0-9A-Za-z-]{0,3}", fullmatch=True),
)
VERSIONS = st.builds(
    Version,
    major=NUMBERS,
    minor=st.integers(0, 2),
    patch=st.integers(0, 2),
    prerelease=st.lists(WORDS, max_size=3).map(tuple),
    build=st.lists(st.from_regex(r"[0-9A-Za-z-]{1,4}", fullmatch=True), max_size=2).map(tuple),
)
NEAR = st.builds(
    Version,
    major=st.just(1),
    minor=st.integers(0, 1),
    patch=st.just(0),
    prerelease=st.lists(st.sampled_from(["0", "2", "10", "a", "A", "-"]), max_size=2).map(tuple),
)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        *pairwise(["1.0.0", "2.0.0", "2.1.0", "2.1.1"]),
        *pairwise(
            [
                "1.0.0-alpha",
                "1.0.0-alpha.1",
                "1.0.0-alpha.beta",
                "1.0.0-beta",
                "1.0.0-beta.2",
                "1.0.0-beta.11",
                "1.0.0-rc.1",
                "1.0.0",
            ]
        ),
        ("1.9.0", "1.10.0"),
        ("0.13.4", "0.13.10"),
        ("1.0.0-A", "1.0.0-a"),
        ("1.0.0-2", "1.0.0--"),
    ],
)
def test_the_order_is_the_one_of_semver_org(lower: str, higher: str) -> None:
    assert parse_version(lower) < parse_version(higher)
    assert parse_version(higher) > parse_version(lower)
    assert parse_version(lower) != parse_version(higher)


def test_build_metadata_does_not_count_in_the_order() -> None:
    first, second = parse_version("1.0.0+20130313144700"), parse_version("1.0.0+21AF26D3.117")
    assert first == second
    assert hash(first) == hash(second)
    assert not first < second
    assert str(first) != str(second)


@given(first=NEAR, second=NEAR, third=NEAR)
def test_the_order_is_total(first: Version, second: Version, third: Version) -> None:
    assert (first < second) + (first == second) + (first > second) == 1
    assert (first <= second) is not (first > second)
    if first <= second <= third:
        assert first <= third
    if first == second:
        assert hash(first) == hash(second)


@given(VERSIONS)
def test_what_is_written_is_read_back(version: Version) -> None:
    read = parse_version(str(version))
    assert str(read) == str(version)
    assert read == version
    assert read.is_prerelease is bool(version.prerelease)


def test_a_version_is_nothing_but_a_version() -> None:
    assert parse_version("1.0.0") != "1.0.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.02.3",
        "1.2.03",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3-a..b",
        "1.2.3+",
        "1.2.3+a+b",
        "1.2.3\n",
        " 1.2.3",
        "1.2.3; rm -rf /",
        "1.2.3-$(id)",
        "-1.2.3",
        "１.2.3",  # noqa: RUF001 -- a fullwidth digit is the point
        "1.2.3-" + "a" * 59,
    ],
)
def test_what_is_not_semver_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a semantic version"):
        parse_version(text)


def test_a_version_may_have_64_characters() -> None:
    assert len(str(parse_version("1.2.3-" + "a" * 58))) == 64


def test_a_leading_v_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_version("v1.2.3")
    assert caught.value.hint == "leave out the leading `v`: 1.2.3"
    with pytest.raises(ConfigError) as caught:
        parse_version("version1")
    assert caught.value.hint is not None
    assert "MAJOR.MINOR.PATCH" in caught.value.hint
