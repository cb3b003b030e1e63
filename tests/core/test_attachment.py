"""What is attached to a release elsewhere, and when that is whole."""

from __future__ import annotations

import pytest

from orchestrator.core.attachment import (
    Attachment,
    AttachmentState,
    asset_name,
    attachable_rows,
    attachment_as_data,
    attachment_lines,
    missing_targets,
)
from orchestrator.core.index import Status
from orchestrator.core.inventory import Node, Policy
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from tests.sample_index import make_row

LINUX = "x86_64-unknown-linux-gnu"
NETBSD = "x86_64-unknown-netbsd"
OPENBSD = "x86_64-unknown-openbsd"


def node(target: str, *, policy: Policy = Policy.EXPECTED, **more: object) -> Node:
    return Node(name="a", host="local", target=parse_target(target), policy=policy, **more)  # type: ignore[arg-type]  # a test's keys


def test_what_can_be_installed_of_the_version_is_attached() -> None:
    rows = (
        make_row("1.0.0", LINUX),
        make_row("1.0.0", NETBSD, Status.PENDING),
        make_row("1.0.0", OPENBSD, Status.YANKED),
        make_row("0.9.0", LINUX),
        make_row("1.0.0+b", LINUX),
    )
    assert attachable_rows(rows, parse_version("1.0.0")) == rows[:1]


def test_every_enabled_node_that_is_not_best_effort_is_waited_for() -> None:
    nodes = (
        node(LINUX, policy=Policy.REQUIRED),
        node(NETBSD),
        node("x86_64-unknown-illumos", policy=Policy.BEST_EFFORT),
        node("aarch64-apple-darwin", enabled=False),
    )
    assert missing_targets(nodes, ()) == (LINUX, NETBSD)
    assert missing_targets(nodes, (make_row("1.0.0", LINUX),)) == (NETBSD,)
    assert missing_targets(nodes, (make_row("1.0.0", LINUX), make_row("1.0.0", NETBSD))) == ()


def test_each_openbsd_release_that_a_node_names_is_waited_for() -> None:
    rows = (make_row("1.0.0", OPENBSD, floors="openbsd==7.8"),)
    nodes = (node(OPENBSD, os_release="7.8"), node(OPENBSD, os_release="7.7"))
    assert missing_targets(nodes, rows) == (f"{OPENBSD}7.7",)
    assert missing_targets((node(OPENBSD),), rows) == ()


def test_an_os_release_does_not_matter_where_a_binary_runs_on_many() -> None:
    rows = (make_row("1.0.0", NETBSD, floors="netbsd>=10.0"),)
    assert missing_targets((node(NETBSD, os_release="10.1"),), rows) == ()


def test_an_asset_has_the_name_that_it_gets() -> None:
    assert asset_name("tool-1.0.0+b~1-x86_64.tar.gz") == "tool-1.0.0.b.1-x86_64.tar.gz"


@pytest.mark.parametrize(
    ("attachment", "lines"),
    [
        (
            Attachment(state=AttachmentState.PUBLISHED, url="https://x"),
            ("GitHub release: published, https://x",),
        ),
        (
            Attachment(state=AttachmentState.FAILED, message="no", hint="do"),
            ("GitHub release: failed", "  no", "  hint: do"),
        ),
    ],
)
def test_its_end_is_told_in_words_and_as_data(
    attachment: Attachment, lines: tuple[str, ...]
) -> None:
    assert attachment_lines(attachment) == lines
    assert attachment_as_data(attachment) == {
        "state": str(attachment.state),
        "url": attachment.url,
        "message": attachment.message,
        "hint": attachment.hint,
    }
