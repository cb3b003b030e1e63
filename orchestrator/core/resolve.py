"""Which row of an index a host gets, and why not the others: what the installer does, in Python."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from orchestrator.core.index import Row, Status, release_order
from orchestrator.core.result import cpu_level

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from orchestrator.core.result import Floor
    from orchestrator.core.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine to install on, and what its user asked for.

    `candidates` are the targets that run there, best first; `releases` maps floor names to what the
    host has, as numbers with dots (`{"glibc": "2.36"}`); a missing name could not be found out.
    """

    candidates: tuple[str, ...]
    releases: Mapping[str, str]
    version: Version | None = None
    is_strict: bool = False


class Reason(Enum):
    """Why a row was not taken."""

    PENDING = "pending"
    ABSENT = "absent"
    YANKED = "yanked"
    REVOKED = "revoked"
    FLOOR = "floor"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A row that would have come first, and why it was not taken.

    For `Reason.ABSENT` it is a pending row that the index does not have: the version exists for
    other targets only, and nobody has announced it for the best candidate.
    """

    row: Row
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The row to install (None: there is none), and every better one that was passed over."""

    chosen: Row | None
    passed_over: tuple[PassedOver, ...] = ()


def resolve(rows: Sequence[Row], host: Host) -> Resolution:
    """Return the newest row that the host can run; of one version, the best candidate's.

    A floor whose release the host does not know excludes a row only when it is exact: the installer
    runs a binary before it places it, and goes on to the next one if it cannot run.
    """
    passed_over: list[PassedOver] = []
    plain = {(row.target, str(row.version)) for row in rows if not cpu_level(row.floors)}
    for row in _in_order(rows, host):
        if isinstance(row, PassedOver):
            passed_over.append(row)
            continue
        refusal = _refusal(row, host) or _untold_cpu(row, host, plain)
        refusal = refusal or _refused_fallback(row, host, passed_over)
        if refusal is None:
            return Resolution(chosen=row, passed_over=tuple(passed_over))
        passed_over.append(refusal)
    return Resolution(chosen=None, passed_over=tuple(passed_over))


def _in_order(rows: Sequence[Row], host: Host) -> Iterator[Row | PassedOver]:
    # Other targets too: their rows order versions that no candidate of this host shares.
    targets = dict.fromkeys((*host.candidates, *(row.target for row in rows)))
    lists = [[row for row in rows if row.target == target] for target in targets]
    for version in _versions_in_order([[str(row.version) for row in own] for own in lists]):
        if host.version is not None and version != str(host.version):
            continue
        found = [row for own in lists for row in own if str(row.version) == version]
        mine = [row for row in found if row.target in host.candidates]
        yield from mine or _absent(found, host)


def _absent(elsewhere: Sequence[Row], host: Host) -> Iterator[PassedOver]:
    offered = [row for row in elsewhere if row.status in {Status.OK, Status.PENDING}]
    for target in host.candidates[:1] if offered else ():
        row = Row(target=target, version=offered[0].version, status=Status.PENDING)
        message = f"{row.version} is not built for {target}"
        yield PassedOver(row=row, reason=Reason.ABSENT, message=message)


def _versions_in_order(lists: list[list[str]]) -> Iterator[str]:
    # Without comparing versions, because an installer in awk has only the order of the rows: the
    # next one is a head that stands in no other list behind that list's head.
    while lists := [own for own in lists if own]:
        heads = [own[0] for own in lists]
        behind = {version for own in lists for version in own if version != own[0]}
        version = next(head for head in heads if head not in behind)
        yield version
        lists = [[other for other in own if other != version] for own in lists]


_REFUSED: Final = {
    Status.PENDING: (Reason.PENDING, "is not built yet"),
    Status.YANKED: (Reason.YANKED, "was yanked"),
    Status.REVOKED: (Reason.REVOKED, "was revoked"),
}


def _refusal(row: Row, host: Host) -> PassedOver | None:
    name = f"{row.version} for {row.target}"
    is_asked_for = row.status is Status.YANKED and host.version is not None
    if row.status in _REFUSED and not is_asked_for:
        reason, what = _REFUSED[row.status]
        return PassedOver(row=row, reason=reason, message=f"{name} {what}")
    unmet = next((floor for floor in row.floors if not _is_met(floor, host)), None)
    if unmet is None:
        return None
    found = host.releases.get(unmet.name, "unknown")
    message = f"{name} needs {unmet}; this host has {unmet.name} {found}"
    return PassedOver(row=row, reason=Reason.FLOOR, message=message)


def _untold_cpu(row: Row, host: Host, plain: Collection[tuple[str, str]]) -> PassedOver | None:
    """Return why a faster build is not tried: the CPU does not tell, and another one is for all."""
    level = cpu_level(row.floors)
    if not level or "cpu" in host.releases or (row.target, str(row.version)) not in plain:
        return None
    name = f"{row.version} for {row.target}"
    message = f"{name} needs cpu>={level}; this host has cpu unknown"
    return PassedOver(row=row, reason=Reason.FLOOR, message=message)


def _is_met(floor: Floor, host: Host) -> bool:
    found = host.releases.get(floor.name)
    if floor.operator == "==":
        return found is not None and release_order(found) == release_order(floor.release)
    return found is None or release_order(found) >= release_order(floor.release)


_NEWER: Final = {Reason.PENDING, Reason.ABSENT, Reason.FLOOR}


def _refused_fallback(row: Row, host: Host, passed_over: Sequence[PassedOver]) -> PassedOver | None:
    newer = [
        other.row
        for other in passed_over
        if other.reason in _NEWER and other.row.version != row.version
    ]
    if not host.is_strict or not newer:
        return None
    message = f"{row.version} for {row.target} would be a fallback from {newer[0].version}"
    return PassedOver(row=row, reason=Reason.FALLBACK, message=message)
