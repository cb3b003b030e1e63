"""From a delivery of GitHub's to a program that runs: all of it real but GitHub itself."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.gcs.server import serving as serving_gcs
from tests.releases import needs_two_targets, other_target, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import SshNode
    from tests.service.running import Works


def install(url: str, home: Path, *words: str) -> str:
    """Install as a user does, with the address alone; return what the program then says."""
    home.mkdir()
    piped = f"curl -sSf {url} | sh -s -- {' '.join(words)}"
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", piped], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    program = done.stdout.strip()
    said = subprocess.run([program, "hello"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


@needs_two_targets
def test_a_delivery_becomes_a_program_that_runs(
    works: Works, ssh_node: SshNode, tmp_path: Path
) -> None:
    desk = works.desk
    url = works.take_port()
    desk.publication["url"] = url
    works.write(
        desk.node(), desk.node("there", target=other_target(), **{**ssh_node.entry, "group": "one"})
    )
    with works.running() as service:
        assert service.deliver() == 202
        works.wait_until_published()
        wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
        assert install(url, tmp_path / "home") == "HELLO"
        assert install(url, tmp_path / "home-too", "--target", other_target()) == "HELLO"
        status, page = service.get("/", Accept="text/html", **{"User-Agent": "Mozilla/5.0"})
        assert status == 200
        assert b"<!doctype html>" in page[:50].lower()
        assert service.get("/healthz") == (200, b'{"status": "ok"}')
        status, page = service.get("/status")
        assert status == 200
        assert b"1.0.0" in page
    assert desk.builds("here") == ["1.0.0"]
    assert desk.builds("there") == ["1.0.0"]


def test_however_often_and_late_a_delivery_comes_it_is_released_once(works: Works) -> None:
    works.write(works.desk.node())
    with works.running() as service:
        assert [service.deliver() for _ in range(5)] == [202] * 5
        works.wait_until_published()
        assert service.deliver() == 202
    with works.running() as service:
        assert service.deliver() == 202
    assert works.desk.builds("here") == ["1.0.0"]
    assert set(works.orders()) == {"1.0.0#1"}


def test_a_release_whose_delivery_was_lost_is_found(works: Works) -> None:
    works.github.add_release("v1.0.0", page="https://github.com/owner/tool/releases/tag/v1.0.0")
    works.github.add_release("v9.9.9", is_draft=True)
    works.github.add_release("unrelated")
    works.write(works.desk.node())
    with works.running():
        works.wait_until_published()
    assert set(works.orders()) == {"1.0.0#1"}
    assert "found a release whose delivery is missing: 1.0.0" in works.log


def test_releases_of_the_past_are_left_alone(works: Works) -> None:
    works.github.add_release("v1.0.0", published_at="2020-01-01T00:00:00Z")
    works.settings["poll_every"] = "1s"
    works.write(works.desk.node())
    with works.running():
        wait_for(lambda: len(works.github.asked("GET")) > 1)
    assert not works.orders()
    assert any("releases" in path for path in works.github.asked("GET"))


def test_a_prerelease_joins_its_channel_by_its_flag(works: Works) -> None:
    works.write(works.desk.node())
    with works.running() as service:
        assert service.deliver(prerelease=True) == 202
        wait_for(lambda: works.is_published(channel="prerelease"))
        wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
    assert not works.is_published()


def test_a_tag_that_is_not_there_ends_the_order_and_says_so(works: Works) -> None:
    works.github.tags.clear()
    works.write(works.desk.node())
    with works.running() as service:
        assert service.deliver() == 202
        wait_for(lambda: works.orders()["1.0.0#1"][0] == "SUCCESS")
        status, page = service.get("/status/releases/1.0.0.json")
    assert status == 200
    assert b"has no tag v1.0.0" in page
    assert not works.desk.builds("here")


def test_the_same_through_a_bucket(works: Works, tmp_path: Path) -> None:
    desk = works.desk
    with serving_gcs("bucket") as gcs:
        works.environment["STORAGE_EMULATOR_HOST"] = gcs.url
        desk.publication |= {"store": "gs://bucket/tool", "url": f"{gcs.url}/bucket/tool"}
        url = works.take_port()
        works.write(desk.node())
        with works.running() as service:
            assert service.deliver() == 202
            wait_for(lambda: works.orders().get("1.0.0#1", ("",))[0] == "SUCCESS")
            assert install(url, tmp_path / "home") == "HELLO"
