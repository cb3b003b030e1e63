"""Conditions, ranges and encodings of RFC 9110, decided without a server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.conditions import (
    CONDITIONAL_HEADERS,
    Portion,
    Verdict,
    Version,
    accepts_gzip,
    decide,
)

MODIFIED = datetime(2026, 11, 26, 8, 0, 0, tzinfo=UTC)
BEFORE = "Thu, 26 Nov 2026 07:59:59 GMT"
THEN = "Thu, 26 Nov 2026 08:00:00 GMT"
OBJECT = Version(tag='"tag"', size_bytes=100, modified=MODIFIED)
WHOLE = Portion(verdict=Verdict.WHOLE, length_bytes=100)


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, Verdict.WHOLE),
        ({"If-None-Match": '"tag"'}, Verdict.UNCHANGED),
        ({"If-None-Match": 'W/"tag"'}, Verdict.UNCHANGED),
        ({"If-None-Match": '"other,", "tag"'}, Verdict.UNCHANGED),
        ({"If-None-Match": " * "}, Verdict.UNCHANGED),
        ({"If-None-Match": '"other"'}, Verdict.WHOLE),
        ({"If-None-Match": "tag"}, Verdict.WHOLE),
        ({"If-None-Match": ""}, Verdict.WHOLE),
        ({"If-Modified-Since": THEN}, Verdict.UNCHANGED),
        ({"If-Modified-Since": "Thursday, 26-Nov-26 08:00:00 GMT"}, Verdict.UNCHANGED),
        ({"If-Modified-Since": "Thu Nov 26 08:00:00 2026"}, Verdict.UNCHANGED),
        ({"If-Modified-Since": BEFORE}, Verdict.WHOLE),
        ({"If-Modified-Since": "yesterday"}, Verdict.WHOLE),
        ({"If-Modified-Since": "Thu, 99 Nov 2026 08:00:00 GMT"}, Verdict.WHOLE),
        # A tag says more than a date.
        ({"If-Modified-Since": THEN, "If-None-Match": '"other"'}, Verdict.WHOLE),
        ({"If-Match": '"other", "tag"'}, Verdict.WHOLE),
        ({"If-Match": "*"}, Verdict.WHOLE),
        ({"If-Match": '"other"'}, Verdict.CHANGED),
        ({"If-Match": 'W/"tag"'}, Verdict.CHANGED),
        ({"If-Unmodified-Since": THEN}, Verdict.WHOLE),
        ({"If-Unmodified-Since": BEFORE}, Verdict.CHANGED),
        ({"If-Unmodified-Since": BEFORE, "If-Match": '"tag"'}, Verdict.WHOLE),
        ({"If-Unmodified-Since": "never"}, Verdict.WHOLE),
        ({"If-Match": '"other"', "If-None-Match": '"tag"'}, Verdict.CHANGED),
        ({"Range": "bytes=0-1", "If-None-Match": '"tag"'}, Verdict.UNCHANGED),
        ({"Range": "bytes=0-1", "If-Range": '"tag"'}, Verdict.PART),
        ({"Range": "bytes=0-1", "If-Range": 'W/"tag"'}, Verdict.WHOLE),
        ({"Range": "bytes=0-1", "If-Range": THEN}, Verdict.WHOLE),
        ({"Range": "bytes=100-", "If-Range": '"other"'}, Verdict.WHOLE),
        ({"Range": "bytes=2-1"}, Verdict.WHOLE),
    ],
)
def test_a_condition_decides_whether_the_object_is_sent(
    headers: dict[str, str], verdict: Verdict
) -> None:
    assert decide(headers, OBJECT).verdict is verdict


def test_an_object_of_unknown_age_is_neither_old_nor_new() -> None:
    ageless = Version(tag='"tag"', size_bytes=100)
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        assert decide({name: BEFORE}, ageless) == WHOLE


@pytest.mark.parametrize("text", ["bytes=0-", "bytes=-1", "bytes=0-0", "bytes=-0"])
def test_there_is_no_part_of_nothing(text: str) -> None:
    nothing = Version(tag='"tag"', size_bytes=0)
    assert decide({"Range": text}, nothing) == Portion(verdict=Verdict.NO_SUCH_PART)


@given(
    first=st.none() | st.integers(0, 300), last=st.none() | st.integers(0, 300), size=st.just(100)
)
def test_a_range_is_the_slice_that_it_says(first: int | None, last: int | None, size: int) -> None:
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    portion = decide({"Range": text}, OBJECT)
    places = list(range(size))
    if first is None:
        expected = places[-last:] if last else None
        is_sense = last is not None
    else:
        is_sense = last is None or last >= first
        expected = places[first:] if last is None else places[first : last + 1]
    if not is_sense:
        assert portion == WHOLE
    elif not expected:
        assert portion == Portion(verdict=Verdict.NO_SUCH_PART)
    else:
        assert portion == Portion(
            verdict=Verdict.PART, first=expected[0], length_bytes=len(expected)
        )


@given(st.dictionaries(st.sampled_from(CONDITIONAL_HEADERS), st.text(max_size=40)))
def test_no_header_upsets_it(headers: dict[str, str]) -> None:
    portion = decide(headers, OBJECT)
    assert 0 <= portion.first <= portion.first + portion.length_bytes <= 100


@pytest.mark.parametrize(
    "text",
    [
        "gzip",
        "GZIP",
        "x-gzip",
        "gzip, deflate, br, zstd",
        "br;q=1.0, gzip;q=0.8, *;q=0.1",
        "gzip;q=0.001",
        "deflate,gzip ; q=1",
        "identity;q=0.5, gzip",
        "gzip, identity",
    ],
)
def test_gzip_is_for_who_names_it(text: str) -> None:
    assert accepts_gzip(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "identity",
        "*",
        "*;q=1",
        "gzip;q=0",
        "gzip;q=0.000",
        "x-gzip;q=0.0",
        "gzip;q=0.5, identity",
        "gzip;q=0, *",
        "deflate, br",
        "gzipped",
        "gzip;q=two",
        "gzip;q=-1",
        "not gzip",
        "*;q=0, identity;q=0",
    ],
)
def test_everybody_else_gets_the_object_as_it_is(text: str) -> None:
    assert not accepts_gzip(text)


@given(st.text(max_size=60))
def test_no_encoding_upsets_it(text: str) -> None:
    accepts_gzip(text)
