"""What is known of how an artifact was made: for its provenance, and its bill of materials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.core.inventory import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node as provenance names it: nothing that leads to where it is, or to who owns it."""

    node: str
    system: str
    release: str | None
    arch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """What is known of a build; None is what nobody could say.

    `command` is the inventory's, with `{source}` and `{jobs}` as they stand there. `level` is
    SLSA's build level that the node may claim. `orchestrator` is the version of this program.
    """

    project: str
    source: Source | None
    bundle_sha256: str | None
    revision: str | None
    command: str
    environment: tuple[str, ...]
    builder: Machine
    gate: Machine
    level: int
    job: str
    started: datetime | None
    ended: datetime | None
    rustc: str | None
    lockfile_sha256: str | None
    orchestrator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is published about an artifact's making, beside it; `sbom` is None if nobody has one."""

    record: BuildRecord
    sbom: bytes | None = None


def build_level(*, is_dedicated: bool) -> int:
    """Return the SLSA build level that a node may claim.

    L2 is for machines that only build; a workstation is L1. L3 needs a fresh environment for each
    build, which nobody here promises.
    """
    return 2 if is_dedicated else 1
