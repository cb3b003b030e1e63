"""The service killed again and again while it releases: what it took is released, and once.

Releases come one after another; at random moments, also while it starts, the service is ended with
SIGKILL and started again. `make test-service KILLS=200` does it two hundred times.
"""

from __future__ import annotations

import http.client
import os
import random
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from tests.postgres import running_postgres
from tests.releases import host_target, needs_two_targets, other_target, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.service.running import Service, Works

pytestmark = [pytest.mark.thorough, needs_two_targets]

KILLS: Final = int(os.environ.get("KILLS", "8"))
SEED: Final = os.environ.get("SEED", "1")
NODES: Final = {"one": host_target, "two": other_target}
# A release takes about a second and a half after a start: some kills hit none, most hit one. An
# index keeps thirty versions, and all of them are looked up at the end.
_KILLS_PER_RELEASE: Final = max(4, KILLS // 25)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, works: Works) -> Iterator[None]:
    if request.param == "sqlite":
        yield
        return
    with running_postgres() as server:
        works.environment["ORCHESTRATOR_DATABASE"] = server.url
        yield


@pytest.mark.usefixtures("database")
def test_whenever_the_service_is_killed_no_release_is_lost_and_none_is_built_twice(
    works: Works,
) -> None:
    chance = random.Random(SEED)
    versions = [f"1.{number}.0" for number in range(1 + KILLS // _KILLS_PER_RELEASE)]
    works.write(*(_node(works, name, target, versions=versions) for name, target in NODES.items()))
    works.github.tags |= {f"v{version}" for version in versions}
    accepted: list[str] = []
    for number in range(KILLS):
        is_awaited = number % _KILLS_PER_RELEASE == 0 or chance.random() < 0.7
        with works.started(is_awaited=is_awaited) as service:
            if number % _KILLS_PER_RELEASE == 0:
                accepted += _deliver(service, versions[number // _KILLS_PER_RELEASE])
            time.sleep(chance.uniform(0, 2.5))
            if accepted and is_awaited and chance.random() < 0.3:
                _deliver(service, accepted[-1])
            service.kill()
    with works.running():
        for version in accepted:
            wait_for(partial(works.is_published, version))
        wait_for(lambda: {state for state, _ in works.orders().values()} == {"SUCCESS"})
    assert accepted
    assert set(works.orders()) == {f"{version}#1" for version in accepted}
    for name in NODES:
        assert Counter(works.desk.builds(name)) == Counter(accepted)


def _node(
    works: Works, name: str, target: Callable[[], str], *, versions: list[str]
) -> dict[str, object]:
    programs = {version: works.desk.programs.program(version, target()) for version in versions}
    [pattern] = {str(path).replace(version, "{version}") for version, path in programs.items()}
    build = f"sleep 0.3\ncp {pattern} $out/tool\n"
    return works.desk.node(name, target=target(), build=build)


def _deliver(service: Service, version: str) -> list[str]:
    """Return the version if it was accepted: only then it has to be released."""
    try:
        return [version] if service.deliver(f"v{version}") == 202 else []
    except (OSError, http.client.HTTPException):
        return []
