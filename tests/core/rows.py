"""Rows of an index for tests, and strategies that make them."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

from orchestrator.core.index import Row, Status, parse_floor
from orchestrator.core.version import parse_version

LINUX = "x86_64-unknown-linux-gnu"
OPENBSD = "aarch64-unknown-openbsd"
NETBSD = "x86_64-unknown-netbsd"


def row(
    target: str,
    version: str,
    status: Status = Status.OK,
    *floors: str,
    sha256: str = "a" * 64,
    revision: int = 1,
) -> Row:
    is_pending = status is Status.PENDING
    folder = f"r{revision}/" if revision > 1 else ""
    path = f"releases/{version}/{target}/{folder}b.tar.gz"
    return Row(
        target=target,
        version=parse_version(version),
        status=status,
        size_bytes=None if is_pending else 1834022,
        sha256=None if is_pending else sha256,
        floors=tuple(map(parse_floor, floors)),
        path=None if is_pending else path,
    )


# Every fact of a row follows from its key and revision: no two of these rows contradict each other.
_TARGETS = st.sampled_from([LINUX, OPENBSD, NETBSD])
_VERSIONS = st.sampled_from(["0.9.0", "0.10.0-rc.1", "0.10.0-rc.2", "0.10.0", "0.10.0+b", "1.0.0"])


@st.composite
def _rows(draw: st.DrawFn) -> Row:
    target, version, status = draw(_TARGETS), draw(_VERSIONS), draw(st.sampled_from(Status))
    revision = draw(st.sampled_from([1, 2, 10]))
    floors = {LINUX: ("glibc>=2.34",), NETBSD: ("netbsd>=10.0",)}.get(target, ())
    if target == OPENBSD:
        floors = draw(st.sampled_from([("openbsd==7.7",), ("openbsd==7.10",)]))
    if status is Status.PENDING and (target != OPENBSD or draw(st.booleans())):
        floors = ()
    sha256 = hashlib.sha256(f"{target} {version} {floors} {revision}".encode()).hexdigest()
    return row(target, version, status, *floors, sha256=sha256, revision=revision)


ROW_SETS = st.lists(_rows(), max_size=8).map(tuple)
