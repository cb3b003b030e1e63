"""How builds went: the record that decides who builds, and says how long is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.record import Outcome, PastBuild, Warmth
from orchestrator.timings import append_build, read_record

if TYPE_CHECKING:
    from pathlib import Path


def build(node: str, seconds: float) -> PastBuild:
    return PastBuild(node=node, took=timedelta(seconds=seconds))


def test_no_record_is_no_history(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none.jsonl").builds == ()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "made" / "timings.jsonl"
    now = datetime(2026, 11, 26, 4, 5, 6, tzinfo=UTC)
    builds = (
        PastBuild(
            node="pi",
            target="aarch64-unknown-freebsd",
            took=timedelta(seconds=12.345),
            warmth=Warmth.COLD,
            at=now,
            version="1.0.0",
            rustc="1.94.1",
            is_pinned=True,
            is_bench=True,
        ),
        PastBuild(node="pi", outcome=Outcome.MACHINE, at=now),
        build("pi", 0),
    )
    for each in builds:
        append_build(path, each)

    assert read_record(path).builds == builds
    assert read_record(path, now=now).now == now


def test_lines_of_the_first_releases_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    path.write_text('{"node": "a", "seconds": 3.5}\n')

    assert read_record(path).builds == (build("a", 3.5),)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"node": "a", "sec',
        b"[]\n",
        b"null\n",
        b'{"node": "a"}\n',
        b'{"node": "a", "seconds": "long"}\n',
        b'{"node": "a", "seconds": null}\n',
        b'{"node": "a", "seconds": NaN}\n',
        b'{"node": "a", "seconds": Infinity}\n',
        b'{"node": "a", "seconds": 1e300}\n',
        b'{"node": "a", "seconds": -5}\n',
        b'{"node": "a", "seconds": 1' + b"0" * 400 + b"}\n",
        b'{"node": "a", "seconds": 1, "warmth": "tepid"}\n',
        b'{"node": "a", "outcome": "lost"}\n',
        b'{"node": "a", "seconds": 1, "at": "yesterday"}\n',
        b'{"node": "a", "seconds": 1, "at": "2026-11-26T04:05:06"}\n',
        b"\xff\xfe\n",
        b"\n\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_line_counts_for_nothing(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    append_build(path, build("a", 3))
    with path.open("ab") as file:
        file.write(damage)

    assert read_record(path).builds == (build("a", 3),)

    append_build(path, build("a", 5))
    assert read_record(path).builds == (build("a", 3), build("a", 5))


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    append_build(path, build("a", 1))
    with path.open("a", encoding="utf-8") as other:
        append_build(path, build("b", 2))
        other.write('{"node": "c", "seconds": 3}\n')

    assert read_record(path).builds == (build("a", 1), build("b", 2), build("c", 3))
