"""Three coordinators share one PostgreSQL: the death of one, and of the database, costs nothing."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.postgres import Postgres, running_postgres
from tests.releases import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.running import Works

pytestmark = pytest.mark.thorough


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


def test_another_coordinator_takes_a_release_over_from_one_that_is_killed(
    works: Works, postgres: Postgres
) -> None:
    works.environment["ORCHESTRATOR_DATABASE"] = postgres.url
    works.write(works.desk.node(build=works.desk.wait_then_copy()))
    with ExitStack() as stack:
        services = [stack.enter_context(works.started()) for _ in range(3)]
        assert [service.deliver() for service in services] == [202] * 3
        wait_for(lambda: works.desk.builds("here"))
        at_work = works.orders()["1.0.0#1"][1]
        victim = next(each for each in services if f"-{each.process.pid}-" in at_work)
        victim.kill()
        killed = time.monotonic()
        wait_for(lambda: works.orders()["1.0.0#1"][1] != at_work)
        assert time.monotonic() - killed < 30
        works.desk.let_go()
        works.wait_until_published()
    assert works.desk.builds("here") == ["1.0.0"]


def test_a_database_that_is_away_for_a_while_only_costs_that_while(
    works: Works, postgres: Postgres
) -> None:
    works.environment["ORCHESTRATOR_DATABASE"] = postgres.url
    works.write(works.desk.node(build=works.desk.wait_then_copy()))
    with works.running() as service:
        assert service.deliver() == 202
        wait_for(lambda: works.desk.builds("here"))
        postgres.stop()
        assert service.deliver("v1.0.1") == 503
        works.desk.let_go()
        time.sleep(10)
        postgres.start()
        works.wait_until_published()
        wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
        assert service.deliver("v1.0.1") == 202
    assert works.desk.builds("here")[0] == "1.0.0"
