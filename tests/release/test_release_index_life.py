"""What becomes of a release later: re-issued, passed on, completed by others, too old to offer."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator import wiring
from orchestrator.core.index import Index, Row, Status, parse_index, split_signed
from orchestrator.core.merge import KEEP
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version
from orchestrator.stores.channel import publish_index
from orchestrator.wiring import Operator
from tests.releases import (
    VERSION,
    Desk,
    contents,
    host_target,
    needs_two_targets,
    other_target,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import NodeEntry


def index_of(desk: Desk, channel: str = "stable") -> Index:
    return parse_index(split_signed((desk.store / f"{channel}.idx").read_text())[0])


def rows_of(desk: Desk, channel: str = "stable") -> dict[tuple[str, str], str]:
    return {(row.target, str(row.version)): str(row.status) for row in index_of(desk, channel).rows}


def changing(desk: Desk, name: str = "here") -> NodeEntry:
    """Return a node whose binary is another one once the desk has a file `changed`."""
    build = (
        f"{desk.copy()}[ ! -e {desk.folder}/changed ] || cat {desk.folder}/changed >>$out/tool\n"
    )
    return desk.node(name, build=build)


def archive_of(desk: Desk, folder: str = "") -> Path:
    key = host_target()
    return desk.store / f"releases/{VERSION}/{key}/{folder}tool-{VERSION}-{key}.tar.gz"


def immutable(desk: Desk) -> dict[str, bytes | None]:
    return {**contents(desk.store / "releases"), **contents(desk.store / VERSION)}


# A bad build


def test_a_bad_build_is_issued_again_beside_itself(desk: Desk) -> None:
    desk.publication["flat"] = True
    desk.write(changing(desk))
    assert desk.release().code == 0
    first = immutable(desk)
    assert desk.run("yank", VERSION).code == 0
    (desk.folder / "changed").write_text("mended")

    outcome = desk.release("--reissue", "--node", "here")
    assert outcome.code == 0, outcome
    [row] = index_of(desk).rows
    assert (row.status, row.revision) == (Status.OK, 2)
    assert desk.store / str(row.path) == archive_of(desk, "r2/")
    assert outcome.data["published"] == [host_target()]
    assert outcome.data["serial"] == 3
    assert str(row.path) in (desk.store / "index.html").read_text()
    after = immutable(desk)
    assert after.items() > first.items(), "what was published stays as it was"
    flat = f"r2/tool-{VERSION}-{parse_target(host_target()).flat_name}"
    assert {flat, f"{flat}.sha256"} <= after.keys()
    assert bytes(after[flat] or b"").endswith(b"mended")
    assert desk.run("fsck", "--deep").code == 0

    # Neither is it built nor published once more.
    for arguments in ((), ("--rebuild",)):
        again = desk.release(*arguments)
        assert (again.code, again.data["serial"]) == (0, 3)
    assert desk.builds("here") == [VERSION] * 3


@pytest.mark.thorough
def test_the_same_bytes_are_not_issued_again(desk: Desk) -> None:
    desk.write(changing(desk))
    assert desk.release().code == 0
    before = contents(desk.store)
    outcome = desk.run("release", "--version", VERSION, "--reissue", "--node", "here")
    assert outcome.code == 0
    assert "nothing to re-issue: the new build has the same bytes" in outcome.err
    assert contents(desk.store) == before
    desk.run("yank", VERSION)
    yanked = desk.run("release", "--version", VERSION, "--reissue", "--node", "here")
    assert yanked.code == 0
    assert "is yanked: publishing it again does not change that" in yanked.err


@pytest.mark.thorough
def test_a_revision_that_somebody_died_in_is_passed_over(desk: Desk) -> None:
    desk.write(changing(desk))
    assert desk.release().code == 0
    left = archive_of(desk, "r2/")
    left.parent.mkdir()
    left.write_text("of another build")
    (desk.folder / "changed").write_text("mended")
    assert desk.release("--reissue", "--node", "here").code == 0
    [row] = index_of(desk).rows
    assert row.revision == 3
    assert list(left.parent.iterdir()) == [left], "nothing was added to what is not ours"
    assert left.read_text() == "of another build"


@pytest.mark.thorough
def test_a_build_that_was_revoked_or_never_published_is_issued_too(desk: Desk) -> None:
    desk.write(changing(desk))
    squatter = archive_of(desk)
    squatter.parent.mkdir(parents=True)
    squatter.write_text("of a build that is lost")
    assert desk.release().code == 5
    assert desk.release("--reissue", "--node", "here").code == 0
    assert index_of(desk).rows[0].revision == 2
    desk.run("yank", VERSION, "--revoke")
    (desk.folder / "changed").write_text("mended")
    assert desk.release("--reissue", "--node", "here").code == 0
    [row] = index_of(desk).rows
    assert (row.status, row.revision) == (Status.OK, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--reissue",), "needs the nodes whose builds are bad"),
        (("--reissue", "--node", "here", "--no-publish"), "choose one of them"),
    ],
)
def test_a_reissue_says_what_it_needs(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    desk.write(desk.node())
    outcome = desk.release(*arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert desk.builds("here") == []


def test_a_dry_run_shows_where_a_reissue_goes(desk: Desk) -> None:
    desk.publication["flat"] = True
    desk.write(desk.node())
    assert desk.release().code == 0
    plan = desk.release("--dry-run", "--reissue", "--node", "here").data
    assert [name.split("/")[-2] for name in plan["tasks"][0]["publishes"]] == ["r2", "r2"]


# Who follows prereleases


def test_who_follows_prereleases_gets_the_version_that_they_lead_to(desk: Desk) -> None:
    desk.write(desk.node(build=desk.copy("1.0.0-rc.1")))
    assert desk.release(version="1.0.0-rc.1").code == 0
    assert not (desk.store / "stable.idx").exists()
    before = contents(desk.store)
    desk.write(desk.node())
    assert desk.release().code == 0
    expected = {(host_target(), VERSION): "ok", (host_target(), "1.0.0-rc.1"): "ok"}
    assert rows_of(desk, "prerelease") == expected
    assert rows_of(desk) == {(host_target(), VERSION): "ok"}

    # As it is when a coordinator dies between the two indexes.
    (desk.store / "index/prerelease/2.idx").unlink()
    (desk.store / "prerelease.idx").write_bytes(before["prerelease.idx"] or b"")
    assert desk.release().code == 0
    assert rows_of(desk, "prerelease") == expected
    assert desk.builds("here") == ["1.0.0-rc.1", VERSION]
    assert index_of(desk).serial == 1
    assert desk.release().code == 0
    assert index_of(desk, "prerelease").serial == 2


@pytest.mark.thorough
def test_what_was_yanked_is_not_passed_on_and_no_channel_is_made(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    assert not (desk.store / "prerelease.idx").exists()
    desk.run("yank", VERSION)
    desk.write(desk.node(build=desk.copy("1.1.0-rc.1")))
    assert desk.release(version="1.1.0-rc.1").code == 0
    assert desk.release().code == 0
    assert rows_of(desk, "prerelease") == {(host_target(), "1.1.0-rc.1"): "ok"}
    desk.run("unyank", VERSION)
    assert desk.release().code == 0
    assert (host_target(), VERSION) in rows_of(desk, "prerelease")


# Other coordinators, other days


def colleague(desk: Desk, folder: Path) -> Desk:
    """Return the desk of another coordinator with the same key and store, and nothing else."""
    other = Desk(folder=folder, programs=desk.programs, capsys=desk.capsys)
    other.publication["store"] = str(desk.store)
    for path in desk.folder.glob("key*"):
        shutil.copy(path, other.folder)
    return other


@needs_two_targets
def test_a_late_build_arrives_days_later_from_another_coordinator(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = other_target()
    desk.write(desk.node(build=desk.copy("1.0.0-rc.1")))
    assert desk.release(version="1.0.0-rc.1").code == 0
    desk.write(desk.node(), desk.node("late", build="exit 1\n", target=late))
    outcome = desk.release()
    assert outcome.code == 4
    assert outcome.data["pending"] == [late]
    for channel in ("stable", "prerelease"):
        assert rows_of(desk, channel)[late, VERSION] == "pending"

    today = wiring._today
    monkeypatch.setattr(wiring, "_today", lambda: today() + timedelta(days=10))
    other = colleague(desk, tmp_path / "other")
    other.write(other.node(), other.node("late", target=late))
    before = index_of(desk)
    outcome = other.release()
    assert outcome.code == 0
    assert outcome.data["published"] == [host_target(), late]
    assert outcome.data["pending"] == []
    assert other.builds("here") == [], "it is published already"
    for channel in ("stable", "prerelease"):
        assert rows_of(desk, channel)[late, VERSION] == "ok"
        assert rows_of(desk, channel)[host_target(), VERSION] == "ok"
    assert index_of(desk).serial == before.serial + 1
    assert index_of(desk).issued == before.issued + timedelta(days=10)
    # The first one, who knows nothing of that, changes nothing.
    published = contents(desk.store)
    assert desk.release().code == 0
    assert contents(desk.store) == published


@needs_two_targets
@pytest.mark.thorough
def test_two_coordinators_build_one_target_each_at_the_same_time(
    desk: Desk, tmp_path: Path
) -> None:
    desk.write(desk.node())
    other = colleague(desk, tmp_path / "other")
    desk.capsys = other.capsys = None
    desk.write(desk.node(build=desk.wait_then_copy()))
    other.write(
        other.node(
            "there", build=other.wait_then_copy(target=other_target()), target=other_target()
        )
    )
    arguments = ("--version", VERSION, "--json")
    with desk.started("release", *arguments) as one, other.started("release", *arguments) as two:
        desk.let_go()
        other.let_go()
        ends = [one.end(), two.end()]
    assert [end.code for end in ends] == [0, 0], ends
    assert set(rows_of(desk).values()) == {"ok"}
    assert len(rows_of(desk)) == 2


def test_what_is_older_than_all_that_the_index_keeps_is_stored_and_said(desk: Desk) -> None:
    desk.write(desk.node())
    outlet = Operator.at(str(desk.inventory)).outlet_of("stable")
    newer = [
        Row(
            target=host_target(),
            version=parse_version(f"2.{minor}.0"),
            status=Status.OK,
            size_bytes=1,
            sha256="a" * 64,
            path=f"releases/2.{minor}.0/x/tool.tar.gz",
        )
        for minor in range(KEEP)
    ]
    asyncio.run(
        publish_index(
            outlet.store, outlet.channel, newer, signer=outlet.signer, today=outlet.today()
        )
    )
    before = (desk.store / "stable.idx").read_bytes()
    for _ in range(2):
        outcome = desk.run("release", "--version", VERSION)
        assert outcome.code == 0
        assert f"the index keeps {KEEP} versions, all newer" in outcome.err
        assert f"published {VERSION}: {host_target()}" not in outcome.out
        assert (desk.store / "stable.idx").read_bytes() == before
    assert archive_of(desk).exists()
    assert desk.builds("here") == [VERSION]
