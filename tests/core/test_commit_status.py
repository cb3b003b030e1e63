"""What a commit's page shows of a release."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.commit_status import (
    StatusState,
    TargetStatus,
    final_statuses,
    pending_statuses,
    published_statuses,
)
from orchestrator.core.errors import StoreError
from orchestrator.core.events import NodeFinished
from orchestrator.core.result import FailureClass
from tests.core.test_board import LINUX, NETBSD, at, board, built, failed, plan, report

if TYPE_CHECKING:
    from orchestrator.core.result import Result


def status(target: str, state: StatusState, description: str) -> TargetStatus:
    return TargetStatus(target=target, state=state, description=description)


def ended(*results: Result, **more: object) -> dict[str, TargetStatus]:
    """What is shown of a release that ended with these results."""
    new = board(*((9, NodeFinished(node=each.node, result=each)) for each in results))
    new.finish(at(10), report(*results, **more))
    return {each.target: each for each in final_statuses(plan(), new.as_data())}


def test_every_target_that_is_built_begins_as_pending() -> None:
    assert pending_statuses(plan()) == (
        status(NETBSD, StatusState.PENDING, "1.2.3 is being built"),
        status(LINUX, StatusState.PENDING, "1.2.3 is being built"),
    )


def test_what_can_be_installed_is_a_success_at_once() -> None:
    told = published_statuses(plan(), (LINUX, "other"), "1.2.3")
    assert told == (status(LINUX, StatusState.SUCCESS, "1.2.3 can be installed"),)


def test_where_two_nodes_deliver_for_a_target_only_the_end_tells() -> None:
    twice = replace(plan(), tasks=plan().tasks * 2)
    assert not published_statuses(twice, (LINUX, NETBSD), "1.2.3")
    new = board((9, NodeFinished(node="first", result=built())))
    new.finish(at(10), report(built()))
    (first, *_) = final_statuses(twice, new.as_data())
    assert first == status(NETBSD, StatusState.ERROR, "it was not published")


def test_a_target_that_was_published_ends_well_whoever_failed_before() -> None:
    told = ended(failed("first"), built("spare"))
    assert told[NETBSD] == status(NETBSD, StatusState.SUCCESS, "1.2.3 can be installed")


def test_what_was_built_and_not_published_is_an_error() -> None:
    told = ended(built(), published=())
    assert told[NETBSD] == status(NETBSD, StatusState.ERROR, "it was not published")


@pytest.mark.parametrize(
    ("failure_class", "state"),
    [
        (FailureClass.BUILD, StatusState.FAILURE),
        (FailureClass.MACHINE, StatusState.ERROR),
        (FailureClass.STORE, StatusState.ERROR),
    ],
)
def test_whose_fault_it_is_shows(failure_class: FailureClass, state: StatusState) -> None:
    told = ended(replace(failed(message="no\nmore"), failure_class=failure_class), published=())
    assert told[NETBSD] == status(NETBSD, state, "first: no")


def test_the_code_s_fault_goes_before_a_machine_s() -> None:
    code = replace(failed("spare", "E0308"), failure_class=FailureClass.BUILD)
    told = ended(failed("first"), code, published=())
    assert told[NETBSD] == status(NETBSD, StatusState.FAILURE, "spare: E0308")


def test_what_stopped_the_release_is_what_all_targets_show() -> None:
    new = board()
    new.finish(at(1), error=StoreError("the store is away"))
    for told in final_statuses(plan(), new.as_data()):
        assert (told.state, told.description) == (StatusState.ERROR, "the store is away")


def test_a_description_is_no_longer_than_github_takes() -> None:
    told = ended(failed(message="ü" * 500), published=())
    assert len(told[NETBSD].description) == 140
    assert told[NETBSD].description.endswith("…")
