"""The last step of a release: it reads back what it has published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.service.directory import serve_directory
from tests.releases import host_target

if TYPE_CHECKING:
    from tests.releases import Desk


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.verification.public._PAUSES", (0.0,))


def test_a_release_that_a_stranger_can_read_is_done(desk: Desk) -> None:
    desk.store.mkdir()
    with serve_directory(desk.store, port=0) as url:
        desk.publication.update(url=url, verify=True, flat=True)
        desk.write(desk.node())
        outcome = desk.release()
        assert outcome.code == 0, outcome
        assert (outcome.data["verified"], outcome.data["unreadable"]) == ("public", [])
        again = desk.run("release", "--version", "1.0.0")
        assert again.code == 0
        assert f"verifying: reading the release back through {url}" in again.err
        assert "verified: a stranger reads all of it" in again.out


def test_a_release_that_nobody_can_read_is_not_done_and_the_next_run_says_so_too(
    desk: Desk,
) -> None:
    # Somebody serves another folder.
    (desk.folder / "elsewhere").mkdir()
    with serve_directory(desk.folder / "elsewhere", port=0) as url:
        desk.publication.update(url=url, verify=True)
        desk.write(desk.node())
        outcome = desk.release()
        assert outcome.code == 5
        assert outcome.data["published"] == [host_target()]
        assert outcome.data["verified"] == "failed"
        assert "stable.idx: index: the server says 404" in outcome.data["unreadable"]
        again = desk.run("release", "--version", "1.0.0")
        assert again.code == 5
        assert "it does not read back through the public URL, so it is not done:" in again.out
        assert "orchestrator verify 1.0.0 --public" in again.out


def test_a_folder_that_is_copied_by_hand_is_looked_at_in_the_store(desk: Desk) -> None:
    desk.write(desk.node())
    outcome = desk.release()
    assert (outcome.code, outcome.data["verified"]) == (0, "store")
    (archive,) = desk.store.rglob("*.tar.gz")
    # Cut off; and as long as it was, but other bytes.
    for data in (b"x", bytes(archive.stat().st_size)):
        archive.write_bytes(data)
        outcome = desk.release()
        assert (outcome.code, outcome.data["verified"]) == (5, "failed")
        assert "it is not what the index says" in outcome.data["unreadable"][0]
    archive.unlink()
    outcome = desk.run("release", "--version", "1.0.0")
    assert outcome.code == 5
    assert "it does not read back in the store" in outcome.out
    assert "it is not there" in outcome.out


def test_what_is_not_published_is_not_read_back(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release("--no-publish").data["verified"] is None


def test_a_failure_of_the_code_stays_the_reason(desk: Desk) -> None:
    desk.write(desk.node(build="exit 1\n"))
    outcome = desk.release()
    assert (outcome.code, outcome.data["verified"]) == (4, None)
