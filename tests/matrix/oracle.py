"""What must become of a case, by the rules of docs/install.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.core.resolve import Host, resolve
from orchestrator.core.version import parse_version
from tests.installer_hosts import HOSTS

if TYPE_CHECKING:
    from tests.matrix.cases import Case
    from tests.matrix.worlds import World


@dataclass(frozen=True, slots=True)
class Installs:
    """This version, for this target."""

    version: str
    target: str


@dataclass(frozen=True, slots=True)
class Refuses:
    """One error, which says this, and nothing is changed."""

    saying: str


def expected(case: Case, world: World) -> Installs | Refuses:
    """Return what must become of the case."""
    _, candidates, facts = HOSTS[case.host]
    scenario = world.scenario
    if candidates is None:
        return Refuses("this installer knows no target for this host (")
    if scenario.needs_verifier and not case.can_verify:
        return Refuses("a signature is required: refusing")
    if scenario.signature_refusal and case.can_verify:
        return Refuses(scenario.signature_refusal)
    if scenario.refusal:
        return Refuses(scenario.refusal)
    host = Host(
        candidates=tuple(candidates.split()),
        releases=dict(fact.split("=") for fact in facts.split()),
        version=parse_version(scenario.version) if scenario.version else None,
        is_strict=scenario.is_strict,
    )
    runnable = [row for row in world.site.rows if str(row.version) not in scenario.breaks]
    chosen = resolve(runnable, host).chosen
    if chosen is None:
        return Refuses("host (" if not (scenario.version or scenario.is_strict) else "")
    return Installs(str(chosen.version), chosen.target)
