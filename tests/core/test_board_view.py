"""A node's row in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.board_view import row_view
from orchestrator.core.events import NodeFinished, Phase
from orchestrator.core.result import FailureClass
from tests.core.test_board import board, built, failed, phase, text

if TYPE_CHECKING:
    from orchestrator.core.board import Board


def view(new: Board, node: str = "first") -> dict[str, Any]:
    return next(row_view(row) for row in new.as_data()["rows"] if row["node"] == node)


def words(new: Board, node: str = "first") -> tuple[str, str, str]:
    found = view(new, node)
    return found["state"], found["phase"], found["note"]


def test_a_node_that_has_not_begun_waits() -> None:
    found = view(board())

    assert (found["state"], found["phase"], found["note"]) == ("waiting", "waiting", "")
    assert (found["began"], found["ended"], found["since"]) == (None, None, None)
    assert (found["due"], found["expected"]) == (text(90), 90)


def test_a_node_at_work_says_since_when_and_until_when() -> None:
    found = view(
        board((1, phase("first", Phase.CONNECTING)), (3, phase("first", Phase.BUILDING, "cargo")))
    )

    assert (found["state"], found["phase"], found["note"]) == ("running", "building", "cargo")
    assert (found["began"], found["ended"], found["since"], found["due"]) == (
        text(1),
        None,
        text(3),
        text(93),
    )


def test_a_node_that_is_done_says_what_came_of_it_and_when() -> None:
    done = board(
        (1, phase("first", Phase.BUILDING)), (9, NodeFinished(node="first", result=built()))
    )

    assert words(done) == ("built", "built", "1.8 MB, no floor")
    assert (view(done)["began"], view(done)["ended"], view(done)["due"]) == (
        text(1),
        text(9),
        None,
    )


def test_what_is_built_and_being_published_is_at_work_again() -> None:
    done = board(
        (1, phase("first", Phase.BUILDING)),
        (9, NodeFinished(node="first", result=built())),
        (10, phase("first", Phase.PUBLISHING)),
    )

    assert words(done) == ("running", "publishing", "")


def test_a_build_that_was_there_already_is_attached() -> None:
    attached = built()
    object.__setattr__(attached, "was_attached", True)

    assert words(board((1, NodeFinished(node="first", result=attached))))[1] == "attached"


def test_a_failure_says_whose_and_its_first_line() -> None:
    broken = board((1, NodeFinished(node="first", result=failed(message="one\ntwo"))))

    assert words(broken) == ("failed", "failed (machine)", "one")


def test_who_had_nothing_to_do_says_why() -> None:
    assert words(board(), "idle") == ("skipped", "skipped", "1.2.3 is already published")


def test_who_takes_over_says_from_whom() -> None:
    new = board((1, phase("spare", Phase.CONNECTING)))
    [row] = [row for row in new.as_data()["rows"] if row["node"] == "spare"]
    row["spans"] = []

    assert row_view(row)["note"] == "takes over from first"


@pytest.mark.parametrize("kind", FailureClass)
def test_every_class_of_failure_has_a_word(kind: FailureClass) -> None:
    result = failed()
    object.__setattr__(result, "failure_class", kind)

    assert words(board((1, NodeFinished(node="first", result=result))))[1] == (
        f"failed ({kind.name.lower()})"
    )


def test_a_node_without_a_measured_build_has_no_expectation() -> None:
    found = view(board((1, phase("linux", Phase.BUILDING))), "linux")

    assert (found["due"], found["expected"]) == (None, None)
