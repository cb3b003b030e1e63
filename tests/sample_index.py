"""An index as a project has it after a year: 14 targets, 6 versions, late and withdrawn builds."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import TYPE_CHECKING, Final

from orchestrator.core.index import Index, Row, Status, parse_floor, sort_rows
from orchestrator.core.target import platform_name
from orchestrator.core.version import parse_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSIONS: Final = ("0.13.5", "0.13.4", "0.13.3", "0.13.2", "0.13.1", "0.13.0")
OPENBSD: Final = ("x86_64-unknown-openbsd", "aarch64-unknown-openbsd")
FLOORS: Final = {
    "aarch64-apple-darwin": "macos>=11.0",
    "x86_64-apple-darwin": "macos>=10.13",
    "x86_64-unknown-linux-gnu": "glibc>=2.34",
    "x86_64-unknown-linux-musl": "",
    "aarch64-unknown-linux-gnu": "glibc>=2.31",
    "riscv64gc-unknown-linux-gnu": "glibc>=2.36",
    "armv7-unknown-linux-gnueabihf": "glibc>=2.31",
    "x86_64-unknown-freebsd": "freebsd>=14.1",
    "aarch64-unknown-freebsd": "freebsd>=14.1",
    "x86_64-unknown-netbsd": "netbsd>=10.0",
    "aarch64-unknown-netbsd": "netbsd>=10.0",
    "x86_64-unknown-illumos": "",
}


def make_row(
    version: str,
    target: str,
    status: Status = Status.OK,
    *,
    floors: str = "",
    project: str = "tool",
) -> Row:
    """Return a row as a publisher would make it; a pending one keeps an exact floor only."""
    is_built = status is not Status.PENDING
    known = tuple(parse_floor(floor) for floor in floors.split(",") if floor)
    release = next((floor.release for floor in known if floor.operator == "=="), None)
    name = platform_name(target, release)
    digest = hashlib.sha256(f"{version} {name}".encode()).hexdigest()
    return Row(
        target=target,
        version=parse_version(version),
        status=status,
        size_bytes=1_700_000 + int(digest[:5], 16) if is_built else None,
        sha256=digest if is_built else None,
        floors=tuple(floor for floor in known if is_built or floor.operator == "=="),
        path=f"releases/{version}/{name}/{project}-{version}-{name}.tar.gz" if is_built else None,
    )


def make_index(rows: Iterable[Row] = (), *, serial: int = 42, project: str = "tool") -> Index:
    """Return an index of these rows that was issued on 21 November 2026."""
    return Index(
        project=project,
        channel="stable",
        serial=serial,
        issued=date(2026, 11, 21),
        expires=date(2027, 2, 19),
        rows=sort_rows(rows),
    )


def sample_index(project: str = "tool") -> Index:
    """Return the index of a project with a past."""
    return make_index(_sample_rows(project), project=project)


def _sample_rows(project: str) -> Iterator[Row]:
    for version in VERSIONS:
        for target, floors in FLOORS.items():
            status = _status(version, target)
            if status:
                yield make_row(version, target, status, floors=floors, project=project)
        for target in OPENBSD:
            releases = ("7.8",) if version == VERSIONS[0] else ("7.8", "7.7")
            for release in releases:
                status = _status(version, target) or Status.OK
                yield make_row(
                    version, target, status, floors=f"openbsd=={release}", project=project
                )


def _status(version: str, target: str) -> Status | None:
    late = {
        "0.13.5": ("aarch64-unknown-openbsd", "x86_64-unknown-netbsd", "aarch64-unknown-netbsd"),
        "0.13.4": ("aarch64-unknown-netbsd",),
    }
    if target == "x86_64-unknown-illumos":
        return Status.PENDING if version == VERSIONS[0] else None
    if target in late.get(version, ()):
        return Status.PENDING
    if version == "0.13.2":
        return Status.YANKED
    return Status.REVOKED if version == "0.13.0" and "linux" in target else Status.OK
