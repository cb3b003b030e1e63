"""How a release ended, as an exit code and as data."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.attachment import Attachment, AttachmentState
from orchestrator.core.index import Row, Status
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.report import Report, Verified, exit_code, report_as_data, row_as_data
from orchestrator.core.result import Artifact, Built, Failed, FailureClass, Floor, Skipped
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version

NETBSD = parse_target("x86_64-unknown-netbsd")
FLOORS = (Floor(name="netbsd", operator=">=", release="10.0"),)


def built(node: str = "a") -> Built:
    artifact = Artifact(
        version="1.2.3",
        target=NETBSD,
        os_release=None,
        path=Path("/dist/tool.tar.gz"),
        size_bytes=12,
        sha256="ab" * 32,
        floors=FLOORS,
        binaries=(),
    )
    return Built(
        node=node,
        artifact=artifact,
        elapsed=timedelta(seconds=1.23456),
        was_attached=True,
        warnings=("it leaks",),
    )


def failed(node: str, failure_class: FailureClass = FailureClass.BUILD) -> Failed:
    return Failed(node=node, target=NETBSD, failure_class=failure_class, message="no", hint="so")


def skipped(node: str) -> Skipped:
    return Skipped(node=node, target=NETBSD, reason="1.2.3 is already published")


MACHINE, BUILD, STORE = FailureClass.MACHINE, FailureClass.BUILD, FailureClass.STORE


@pytest.mark.parametrize(
    ("tasks", "code"),
    [
        ((), 0),
        (((built("required"),), (skipped("expected"), built("best-effort"))), 0),
        (((failed("best-effort"),),), 0),
        (((failed("expected"),),), 4),
        (((failed("required", STORE),),), 5),
        (((failed("required", STORE),), (failed("expected", MACHINE),)), 3),
        (((failed("expected", BUILD),), (failed("best-effort", MACHINE),)), 4),
        # Whoever delivers, delivers for all nodes of the target.
        (((failed("required", MACHINE), built("best-effort")),), 0),
        (((failed("best-effort", MACHINE), failed("expected", BUILD)),), 3),
    ],
)
def test_the_lowest_class_among_the_targets_that_count_is_the_exit_code(
    tasks: tuple[tuple[Built | Failed | Skipped, ...], ...], code: int
) -> None:
    nodes = [
        {"name": name, "host": "local", "target": str(NETBSD), "policy": name}
        for name in ("required", "expected", "best-effort")
    ]
    data = {"project": {"name": "tool", "source": {"path": "."}}, "nodes": nodes}

    assert exit_code(tasks, parse_inventory(data, place="x").nodes) == code


@pytest.mark.parametrize(
    ("state", "results", "code"),
    [
        (AttachmentState.FAILED, (), 5),
        (AttachmentState.FAILED, (failed("expected"),), 4),
        (AttachmentState.SKIPPED, (), 0),
        (AttachmentState.DRAFT, (), 0),
        (AttachmentState.PUBLISHED, (), 0),
    ],
)
def test_an_attachment_that_failed_is_a_failure_of_a_store(
    state: AttachmentState, results: tuple[Failed, ...], code: int
) -> None:
    assert exit_code((results,) if results else (), (), Attachment(state=state)) == code


@pytest.mark.parametrize(
    ("is_public", "problems", "word"),
    [
        (True, (), "public"),
        (False, (), "store"),
        (True, ("x",), "failed"),
        (False, ("x",), "failed"),
    ],
)
def test_a_word_says_what_came_of_reading_it_back(
    *, is_public: bool, problems: tuple[str, ...], word: str
) -> None:
    assert str(Verified(is_public=is_public, problems=problems)) == word


def test_a_report_is_data_that_json_can_write() -> None:
    log = Path("/dist/1.2.3/c/build.log")
    bad = failed("b", STORE)
    logged = Failed(node="c", target=NETBSD, failure_class=MACHINE, message="gone", log_path=log)
    report = Report(
        version="1.2.3",
        results=(built(), bad, logged, skipped("d")),
        published=("x86_64-unknown-netbsd",),
        pending=(),
        held_back=("aarch64-unknown-openbsd",),
        serial=7,
        url="https://example.org",
        exit_code=3,
        elapsed=timedelta(seconds=61.0004),
        attachment=Attachment(state=AttachmentState.DRAFT, url="https://x", message="it waits"),
        verified=Verified(is_public=True, problems=("stable.idx: gone",)),
    )
    target = "x86_64-unknown-netbsd"

    assert json.loads(json.dumps(report_as_data(report))) == {
        "version": "1.2.3",
        "exit_code": 3,
        "published": [target],
        "pending": [],
        "held_back": ["aarch64-unknown-openbsd"],
        "serial": 7,
        "url": "https://example.org",
        "github": {
            "state": "draft",
            "url": "https://x",
            "message": "it waits",
            "hint": None,
        },
        "verified": "failed",
        "unreadable": ["stable.idx: gone"],
        "drifts": [],
        "elapsed_seconds": 61.0,
        "results": [
            {
                "node": "a",
                "target": target,
                "result": "built",
                "was_attached": True,
                "elapsed_seconds": 1.235,
                "file": "tool.tar.gz",
                "path": "/dist/tool.tar.gz",
                "size_bytes": 12,
                "sha256": "ab" * 32,
                "floors": ["netbsd>=10.0"],
                "warnings": ["it leaks"],
            },
            {
                "node": "b",
                "target": target,
                "result": "failed",
                "class": "store",
                "message": "no",
                "hint": "so",
                "log": None,
            },
            {
                "node": "c",
                "target": target,
                "result": "failed",
                "class": "machine",
                "message": "gone",
                "hint": None,
                "log": str(log),
            },
            {
                "node": "d",
                "target": target,
                "result": "skipped",
                "reason": "1.2.3 is already published",
            },
        ],
    }


def test_a_row_is_data_too() -> None:
    row = Row(target=str(NETBSD), version=parse_version("1.2.3"), status=Status.PENDING)

    assert json.loads(json.dumps(row_as_data(row))) == {
        "target": "x86_64-unknown-netbsd",
        "version": "1.2.3",
        "status": "pending",
        "size_bytes": None,
        "sha256": None,
        "floors": [],
        "path": None,
    }
