"""How long nodes took: the record that decides who builds, and says how long is left."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.timings import append_timing, read_timings

if TYPE_CHECKING:
    from pathlib import Path


def test_no_record_is_no_history(tmp_path: Path) -> None:
    assert read_timings(tmp_path / "none.jsonl") == {}


def test_what_counts_is_the_median_of_the_last_five(tmp_path: Path) -> None:
    path = tmp_path / "made" / "timings.jsonl"
    for seconds in (9000, 8000, 10, 12, 500, 11, 13):
        append_timing(path, "slow", timedelta(seconds=seconds))
    append_timing(path, "once", timedelta(seconds=1.5))

    assert read_timings(path) == {"slow": timedelta(seconds=12), "once": timedelta(seconds=1.5)}


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
        b"\xff\xfe\n",
        b"\n\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_line_counts_for_nothing(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    append_timing(path, "a", timedelta(seconds=3))
    with path.open("ab") as file:
        file.write(damage)

    assert read_timings(path) == {"a": timedelta(seconds=3)}

    append_timing(path, "a", timedelta(seconds=5))
    append_timing(path, "a", timedelta(seconds=5))
    assert read_timings(path) == {"a": timedelta(seconds=5)}


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    append_timing(path, "a", timedelta(seconds=1))
    with path.open("a", encoding="utf-8") as other:
        append_timing(path, "b", timedelta(seconds=2))
        other.write('{"node": "c", "seconds": 3}\n')

    seconds = {node: taken.total_seconds() for node, taken in read_timings(path).items()}
    assert seconds == {"a": 1, "b": 2, "c": 3}
