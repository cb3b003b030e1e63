"""versions.json and latest/: what they say, and that they say nothing the index does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from orchestrator.core.derived import derive_conveniences
from orchestrator.core.index import Status
from orchestrator.stores.store import ObjectKind, kind_of, parse_name
from tests.sample_index import make_index, make_row, sample_index

LINUX = "x86_64-unknown-linux-gnu"
OPENBSD = "x86_64-unknown-openbsd"


def summary(*rows: Any) -> Any:
    return json.loads(derive_conveniences(make_index(rows))["versions.json"])


def latest(*rows: Any) -> dict[str, str]:
    texts = derive_conveniences(make_index(rows))
    return {name: text for name, text in texts.items() if name != "versions.json"}


def test_the_summary_has_the_header_and_every_row_of_the_index() -> None:
    assert summary(
        make_row("1.1.0", LINUX, Status.PENDING),
        make_row("1.0.0", LINUX, floors="glibc>=2.34"),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.8"),
    ) == {
        "format": 1,
        "authority": "stable.idx: it is signed, and this file is not",
        "project": "tool",
        "channel": "stable",
        "serial": 42,
        "issued": "2026-11-21",
        "expires": "2027-02-19",
        "latest": {LINUX: "1.0.0", f"{OPENBSD}7.8": "1.1.0"},
        "versions": [
            {
                "version": "1.1.0",
                "targets": {
                    LINUX: {
                        "target": LINUX,
                        "status": "pending",
                        "size": None,
                        "sha256": None,
                        "floors": [],
                        "path": None,
                    },
                    f"{OPENBSD}7.8": _built("1.1.0", OPENBSD, "openbsd==7.8"),
                },
            },
            {"version": "1.0.0", "targets": {LINUX: _built("1.0.0", LINUX, "glibc>=2.34")}},
        ],
    }


def _built(version: str, target: str, floors: str) -> dict[str, Any]:
    row = make_row(version, target, floors=floors)
    return {
        "target": target,
        "status": "ok",
        "size": row.size_bytes,
        "sha256": row.sha256,
        "floors": [floors],
        "path": row.path,
    }


def test_the_newest_version_of_a_platform_is_one_line() -> None:
    assert latest(
        make_row("1.2.0", LINUX, Status.PENDING),
        make_row("1.1.0", LINUX, Status.YANKED),
        make_row("1.0.0", LINUX),
        make_row("0.9.0", LINUX),
        make_row("1.1.0", OPENBSD, floors="openbsd==7.8"),
        make_row("1.0.0", OPENBSD, floors="openbsd==7.7"),
    ) == {
        f"latest/{LINUX}.txt": "1.0.0\n",
        f"latest/{OPENBSD}7.7.txt": "1.0.0\n",
        f"latest/{OPENBSD}7.8.txt": "1.1.0\n",
    }


def test_a_platform_whose_builds_were_all_withdrawn_has_a_dash() -> None:
    rows = (
        make_row("1.1.0", LINUX, Status.PENDING),
        make_row("1.0.0", LINUX, Status.YANKED),
        make_row("0.9.0", LINUX, Status.REVOKED),
    )
    assert latest(*rows) == {f"latest/{LINUX}.txt": "-\n"}
    assert summary(*rows)["latest"] == {LINUX: None}


def test_what_was_never_built_has_no_file_yet() -> None:
    assert latest(make_row("1.1.0", OPENBSD, Status.PENDING)) == {}
    assert derive_conveniences(make_index()).keys() == {"versions.json"}


def test_every_name_is_one_of_the_layout() -> None:
    for name in derive_conveniences(sample_index()):
        expected = ObjectKind.SUMMARY if name == "versions.json" else ObjectKind.LATEST
        assert kind_of(parse_name(name)) is expected


def test_the_same_index_gives_the_same_bytes_whoever_publishes_it() -> None:
    index = sample_index()
    again = replace(index, rows=tuple(reversed(tuple(reversed(index.rows)))))
    assert derive_conveniences(index) == derive_conveniences(again)
