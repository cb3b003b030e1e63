"""What follows from an index for scripts that cannot read one; nothing of it is authoritative."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.index import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.core.index import Index, Row

VERSIONS: Final = "versions.json"
# The newest version of a platform that has none to install: a file that was published stays.
NO_VERSION: Final = "-"


def derive_conveniences(index: Index) -> Mapping[str, str]:
    """Return the names and texts of versions.json and of latest/<platform>.txt.

    A platform that was never built has no file yet; one whose builds were all withdrawn has `-`.
    """
    latest = _latest(index.rows)
    return {
        VERSIONS: _render_versions(index, latest),
        **{
            f"latest/{platform}.txt": f"{version or NO_VERSION}\n"
            for platform, version in latest.items()
        },
    }


def _latest(rows: Iterable[Row]) -> dict[str, str | None]:
    latest: dict[str, str | None] = {}
    # An index lists a target's newest version first.
    for row in rows:
        if row.status is Status.PENDING:
            continue
        name = row.label
        known = latest.setdefault(name, None)
        if known is None and row.status is Status.OK:
            latest[name] = str(row.version)
    return latest


def _render_versions(index: Index, latest: Mapping[str, str | None]) -> str:
    data = {
        "format": 1,
        "authority": f"{index.channel}.idx: it is signed, and this file is not",
        "project": index.project,
        "channel": index.channel,
        "serial": index.serial,
        "issued": index.issued.isoformat(),
        "expires": index.expires.isoformat(),
        "latest": latest,
        "versions": _versions(index.rows),
    }
    return json.dumps(data, indent=1) + "\n"


def _versions(rows: Iterable[Row]) -> list[dict[str, Any]]:
    # By the text too: 1.0.0+a and 1.0.0+b have the same rank and are different versions.
    newest_first = sorted(rows, key=lambda row: (row.version, str(row.version)), reverse=True)
    versions: dict[str, dict[str, object]] = {}
    for row in newest_first:
        name = row.label
        versions.setdefault(str(row.version), {})[name] = _row_as_data(row)
    return [
        {"version": version, "targets": dict(sorted(targets.items()))}
        for version, targets in versions.items()
    ]


def _row_as_data(row: Row) -> dict[str, object]:
    return {
        "target": row.target,
        "status": row.status,
        "size": row.size_bytes,
        "sha256": row.sha256,
        "floors": [str(floor) for floor in row.floors],
        "path": row.path,
    }
