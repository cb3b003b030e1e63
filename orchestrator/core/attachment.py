"""What of a version is attached to a release elsewhere, under which names, and when it is whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestrator.core.index import Status
from orchestrator.core.inventory import Policy
from orchestrator.core.target import platform_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.core.index import Row
    from orchestrator.core.inventory import Node
    from orchestrator.core.version import Version


class AttachmentState(StrEnum):
    """How far a release elsewhere is."""

    PUBLISHED = "published"
    DRAFT = "draft"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What became of the release elsewhere; `message` says what it waits for or what is wrong."""

    state: AttachmentState
    url: str | None = None
    message: str | None = None
    hint: str | None = None


def attachable_rows(rows: Iterable[Row], version: Version) -> tuple[Row, ...]:
    """Return the rows of a version whose archives can be installed."""
    return tuple(
        row for row in rows if str(row.version) == str(version) and row.status is Status.OK
    )


def missing_targets(nodes: Iterable[Node], rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the platforms that a release needs and that no row is for.

    It needs what the enabled nodes build that are required or expected.
    """
    missing = {
        platform_name(node.target.triple, node.os_release): None
        for node in nodes
        if node.enabled
        and node.policy is not Policy.BEST_EFFORT
        and not any(_delivers(row, node) for row in rows)
    }
    return tuple(missing)


def _delivers(row: Row, node: Node) -> bool:
    is_bound = node.target.is_bound_to_os_release and node.os_release is not None
    return row.target == node.target.triple and (
        not is_bound or row.exact_release == node.os_release
    )


def asset_name(file_name: str) -> str:
    """Return the name that GitHub gives an uploaded file: a dot for what it does not take."""
    return _REPLACED.sub(".", file_name)


_REPLACED: Final = re.compile(r"[^A-Za-z0-9._-]")


def attachment_as_data(attachment: Attachment) -> Mapping[str, object]:
    """Return what `release --json` prints of it."""
    return {
        "state": str(attachment.state),
        "url": attachment.url,
        "message": attachment.message,
        "hint": attachment.hint,
    }


def attachment_lines(attachment: Attachment) -> tuple[str, ...]:
    """Return what a person reads of it at the end of a release."""
    first = f"GitHub release: {attachment.state}"
    if attachment.url:
        first += f", {attachment.url}"
    lines = [first]
    if attachment.message:
        lines.append(f"  {attachment.message}")
    if attachment.hint:
        lines.append(f"  hint: {attachment.hint}")
    return tuple(lines)
