"""What a release finds out before an hour is spent, and what it does not stop for."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core import preflight
from tests.releases import VERSION

if TYPE_CHECKING:
    from tests.releases import Desk


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node has less room than is needed."""
    monkeypatch.setattr(preflight, "LEAST_DISK_BYTES", 1 << 62)


@pytest.mark.usefixtures("full_disk")
def test_a_node_without_room_is_told_before_it_builds(desk: Desk) -> None:
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 3
    assert "free" in outcome.results["here"]["message"]
    assert desk.builds("here") == []


@pytest.mark.thorough
def test_what_was_built_is_delivered_though_the_disk_is_full_by_now(
    desk: Desk, request: pytest.FixtureRequest
) -> None:
    desk.write(desk.node())
    assert desk.release("--no-publish").code == 0
    request.getfixturevalue("full_disk")
    outcome = desk.release()
    assert outcome.code == 0, outcome
    assert outcome.results["here"]["was_attached"]


@pytest.mark.thorough
def test_an_attempt_that_may_have_filled_the_disk_is_cleared_away_by_the_next(
    desk: Desk, request: pytest.FixtureRequest
) -> None:
    fail_once = f"[ -e {desk.folder}/mended ] || exit 1\n"
    desk.write(desk.node(build=fail_once + desk.copy()))
    assert desk.release().code == 4
    request.getfixturevalue("full_disk")
    desk.let_go("mended")
    outcome = desk.release()
    assert outcome.code == 0, outcome
    assert desk.builds("here") == [VERSION, VERSION]


@pytest.mark.thorough
def test_a_clock_that_is_wrong_is_named_and_breaks_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("_CLOCK_NOISE", "GOOD_CLOCK"):
        monkeypatch.setattr(preflight, bound, timedelta(seconds=-1))
    desk.write(desk.node())
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 0, outcome
    assert "warning: here:" in outcome.err
    assert "clock" in outcome.err


def test_a_store_that_is_no_folder_is_told_before_anything_builds(desk: Desk) -> None:
    desk.write(desk.node())
    desk.store.write_text("a file")
    outcome = desk.release()
    assert outcome.code == 5, outcome
    assert desk.builds("here") == []


def test_a_template_that_is_broken_is_told_before_anything_builds(desk: Desk) -> None:
    desk.write(desk.node())
    (desk.folder / "install.sh.j2").write_text("{{ nothing_of_ours }}")
    outcome = desk.release()
    assert outcome.code == 2, outcome
    assert desk.builds("here") == []


@pytest.mark.thorough
def test_what_nobody_has_used_for_long_is_removed_from_the_node(desk: Desk) -> None:
    desk.write(desk.node(build=desk.copy("0.9.0")))
    assert desk.release("--no-publish", version="0.9.0").code == 0
    (old,) = desk.folder.glob("here-work/jobs/*")
    # It is removed while the build goes on, and no release waits for that.
    meanwhile = f"until [ ! -e {old} ]; do sleep 0.05; done; sleep 2"
    desk.write(desk.node(build=f"{meanwhile}\n{desk.copy()}"))
    for path in (old, *old.iterdir()):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 0, outcome
    assert "removed 1 old job to make room" in outcome.err
    assert not old.exists()
    (new,) = desk.folder.glob("here-work/jobs/*")
    assert (new / "exit").exists()
