"""yank, unyank, promote, renew, history: what they do to a store, and what they say."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.signing import generate_key
from orchestrator.stores import channel as channels
from orchestrator.stores.directory import DirectoryStore
from tests.releases import contents
from tests.shop import LINUX, NETBSD, Shop

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.index import Index
    from orchestrator.stores.channel import Channel
    from orchestrator.stores.store import Generation, ReleaseStore

WRITERS = (
    ("yank", "1.0.0"),
    ("unyank", "1.0.0"),
    ("promote", "1.0.0", "--from", "stable", "--to", "beta"),
    ("promote", "1.0.0-rc.1"),
    ("renew", "--force"),
)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(folder=tmp_path, capsys=capsys)


def test_a_yanked_version_is_no_longer_offered_and_comes_back(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX, NETBSD)
    shop.publish("1.1.0", LINUX, pending=(NETBSD,))
    page = shop.store / "index.html"
    assert "releases/1.1.0/" in page.read_text()
    before = contents(shop.store / "releases")

    yanked = shop.run("yank", "1.1.0")
    assert (yanked.code, yanked.err) == (0, "")
    assert yanked.out == (
        f"stable: serial 3\n  1.1.0 {LINUX} ok -> yanked\n  1.1.0 {NETBSD} is pending\n"
    )
    assert shop.rows()[:2] == [f"1.1.0 {LINUX} yanked", f"1.0.0 {LINUX} ok"]
    assert "releases/1.1.0/" not in page.read_text(), "the page follows"
    again = shop.run("yank", "1.1.0")
    assert again.code == 0
    assert "nothing to do, serial 3 stays" in again.out
    assert f"1.1.0 {LINUX} is already yanked" in again.out
    assert shop.index().serial == 3

    back = shop.run("unyank", "1.1.0")
    assert f"1.1.0 {LINUX} yanked -> ok" in back.out
    assert (shop.index().serial, shop.rows()[0]) == (4, f"1.1.0 {LINUX} ok")
    assert "releases/1.1.0/" in page.read_text()
    assert contents(shop.store / "releases") == before


def test_only_the_targets_that_are_named_are_yanked(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX, NETBSD)
    assert shop.run("yank", "1.0.0", "--target", NETBSD).code == 0
    assert shop.rows() == [f"1.0.0 {LINUX} ok", f"1.0.0 {NETBSD} yanked"]


def test_revoking_is_for_good(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    assert "ok -> revoked" in shop.run("yank", "1.0.0", "--revoke").out
    yanked = shop.run("yank", "1.0.0")
    assert (yanked.code, shop.index().serial) == (0, 2)
    assert f"1.0.0 {LINUX} is revoked" in yanked.out
    refused = shop.run("unyank", "1.0.0")
    assert refused.code == 2
    assert "was revoked, and that is for good" in refused.err
    assert shop.rows() == [f"1.0.0 {LINUX} revoked"]


def test_publishing_again_does_not_unyank(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    shop.run("yank", "1.0.0")
    shop.publish("1.0.0", LINUX)
    assert (shop.rows(), shop.index().serial) == ([f"1.0.0 {LINUX} yanked"], 2)


def test_a_version_is_yanked_on_every_channel_that_has_it(shop: Shop) -> None:
    shop.publish("1.0.0-rc.1", LINUX, channel="prerelease")
    for channel in ("stable", "prerelease"):
        shop.publish("1.0.0", LINUX, channel=channel)
    page = (shop.store / "index.html").read_bytes()
    one = shop.run("yank", "1.0.0", "--channel", "prerelease")
    assert one.out.startswith("prerelease: serial 3")
    assert shop.rows() == [f"1.0.0 {LINUX} ok"]
    assert (shop.store / "index.html").read_bytes() == page, "it follows the stable channel"
    both = shop.run("yank", "1.0.0")
    assert "stable: serial 2" in both.out
    assert "prerelease: nothing to do" in both.out
    assert shop.rows() == [f"1.0.0 {LINUX} yanked"]
    assert shop.rows("prerelease")[0] == f"1.0.0 {LINUX} yanked"


@pytest.mark.parametrize("passed_to", ["stable", "prerelease"])
def test_a_version_that_is_passed_on_while_it_is_yanked_is_yanked_there_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, passed_to: str
) -> None:
    [passed_from] = {"stable", "prerelease"} - {passed_to}
    shop.publish("0.9.0", LINUX, channel=passed_to)
    shop.publish("1.0.0", LINUX, channel=passed_from)
    in_turn = channels.edit_index

    async def edit_index(store: ReleaseStore, which: Channel, *rest: Any, **options: Any) -> Index:
        # It has looked at both by now.
        if which.name == passed_from:
            publish = partial(shop.publish, "1.0.0", LINUX, channel=passed_to)
            await asyncio.to_thread(publish)
        return await in_turn(store, which, *rest, **options)

    monkeypatch.setattr("orchestrator.channels.edit_index", edit_index)
    yanked = shop.run("yank", "1.0.0")
    assert yanked.code == 0
    assert shop.rows(passed_to) == [f"1.0.0 {LINUX} yanked", f"0.9.0 {LINUX} ok"]
    assert shop.rows(passed_from) == [f"1.0.0 {LINUX} yanked"]
    assert f"{passed_to}: serial 3\n  1.0.0 {LINUX} ok -> yanked" in yanked.out


def test_a_version_that_is_yanked_while_it_is_promoted_is_not_offered(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publish("0.9.0", LINUX)
    shop.publish("1.0.0-rc.1", LINUX, channel="prerelease")
    replace = DirectoryStore.replace

    async def overtaken(store: DirectoryStore, name: str, *rest: Any, **options: Any) -> Generation:
        if name == "stable.idx":
            monkeypatch.undo()
            await asyncio.to_thread(shop.run, "yank", "1.0.0-rc.1")
        return await replace(store, name, *rest, **options)

    monkeypatch.setattr(DirectoryStore, "replace", overtaken)
    promoted = shop.run("promote", "1.0.0-rc.1")
    assert promoted.code == 0
    assert shop.rows() == [f"1.0.0-rc.1 {LINUX} yanked", f"0.9.0 {LINUX} ok"]
    assert "1.0.0-rc.1" in promoted.out
    assert "is yanked" in promoted.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("yank", "3.0.0"), "the versions are: 1.0.0"),
        (("yank", "1.0.0", "--target", "x"), f"it has: {LINUX} (ok)"),
        (("yank", "1"), "not a semantic version"),
        (("yank", "1.0.0", "--channel", "../x"), "not a channel"),
        (("yank", "1.0.0", "--channel", "beta"), "there is no beta.idx"),
        (("renew", "--channel", "beta"), "there is no beta.idx"),
        (("promote", "1.0.0"), "there is no prerelease.idx"),
        (("promote", "2.0.0", "--from", "stable", "--to", "beta"), "the versions are: 1.0.0"),
        (("promote", "1.0.0", "--to", "prerelease"), "promoted to itself"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    shop: Shop, words: tuple[str, ...], said: str
) -> None:
    shop.publish("1.0.0", LINUX)
    before = contents(shop.store)
    refused = shop.run(*words)
    assert refused.code == 2
    assert said in refused.err
    assert contents(shop.store) == before


def test_a_prerelease_is_promoted_as_it_is(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    shop.publish("1.1.0-rc.1", LINUX, channel="prerelease", pending=(NETBSD,))
    promoted = shop.run("promote", "1.1.0-rc.1")
    assert promoted.code == 0
    assert promoted.out == f"stable: serial 2\n  + 1.1.0-rc.1 {LINUX} ok\n"
    assert shop.index().rows[0] == shop.index("prerelease").rows[0]
    assert "1.1.0-rc.1" in (shop.store / "index.html").read_text()
    assert shop.index("prerelease").serial == 1
    assert shop.run("promote", "1.1.0-rc.1").out == "stable: nothing to do, serial 2 stays\n"
    shop.run("yank", "1.1.0-rc.1", "--channel", "stable")
    assert "1.1.0-rc.1 for" in shop.run("promote", "1.1.0-rc.1").out
    assert shop.rows()[0] == f"1.1.0-rc.1 {LINUX} yanked"


def test_an_index_is_renewed_when_it_ages_or_by_force(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    calm = shop.run("renew")
    assert calm.code == 0
    assert calm.out.startswith("stable: nothing was needed, serial 1 is valid until ")
    assert shop.run("renew", "--force").out.startswith("stable: renewed, serial 2")
    shop.publish("1.0.0", LINUX, channel="prerelease", ago=timedelta(days=60))
    old = shop.index("prerelease")
    renewed = shop.run("renew")
    assert "stable: nothing was needed, serial 2" in renewed.out
    assert "prerelease: renewed, serial 2" in renewed.out
    assert shop.index("prerelease").rows == old.rows
    assert shop.index("prerelease").expires > old.expires


def test_the_history_tells_what_each_serial_changed(shop: Shop) -> None:
    shop.publish("1.0.0", LINUX)
    shop.publish("1.1.0", LINUX, pending=(NETBSD,))
    shop.run("yank", "1.1.0")
    shop.run("renew", "--force")
    told = shop.run("history")
    assert told.code == 0
    day = shop.index().issued
    assert [line.split(None, 2) for line in told.out.splitlines()[2:]] == [
        ["4", f"{day}", "renewed"],
        ["3", f"{day}", f"1.1.0 {LINUX} ok -> yanked"],
        ["2", f"{day}", f"+ 1.1.0 {LINUX} ok"],
        ["+", "1.1.0", f"{NETBSD} pending"],
        ["1", f"{day}", f"+ 1.0.0 {LINUX} ok"],
    ]
    newest = shop.run("history", "-n", "1", "--json").data
    assert [entry["serial"] for entry in newest["entries"]] == [4]
    assert newest["channel"] == "stable"


def test_the_history_shows_a_gap_a_forgery_and_what_has_no_copy_yet(shop: Shop) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0"):
        shop.publish(version, LINUX)
    copies = shop.store / "index" / "stable"
    (copies / "1.idx").unlink()
    shutil.copy(copies / "3.idx", copies / "2.idx")
    (copies / "4.idx").unlink()
    (copies / "note.txt").write_text("not ours")
    entries = shop.run("history", "--json").data["entries"]
    assert [(entry["serial"], entry["since"], entry["problem"]) for entry in entries] == [
        (4, 3, None),
        (3, None, None),
        (2, None, entries[2]["problem"]),
        (1, None, "there is no copy of this serial"),
    ]
    assert "cannot be trusted: it is serial 3" in entries[2]["problem"]
    assert entries[0]["lines"] == [f"+ 1.3.0 {LINUX} ok"]
    (copies / "3.idx").write_text((copies / "3.idx").read_text().replace("1.2.0", "6.6.6"))
    (copies / "2.idx").unlink()
    shown = shop.run("history").out
    assert "cannot be trusted: bad signature" in shown
    assert "there is no copy" in shown


def test_changes_across_a_gap_say_since_when(shop: Shop) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        shop.publish(version, LINUX)
    (shop.store / "index" / "stable" / "2.idx").unlink()
    assert "since serial 1:" in shop.run("history").out


def test_an_empty_channel_has_no_history(shop: Shop) -> None:
    assert "nothing is published" in shop.run("history").out
    assert shop.run("history", "--channel", "a/b").code == 2
    with pytest.raises(SystemExit):
        shop.run("history", "-n", "0")


@pytest.mark.parametrize("words", WRITERS)
def test_a_wrong_or_missing_key_stops_before_anything_is_written(
    shop: Shop, words: tuple[str, ...]
) -> None:
    shop.publish("1.0.0", LINUX)
    shop.publish("1.0.0-rc.1", LINUX, channel="prerelease")
    before = contents(shop.store)
    for path in shop.folder.glob("key*"):
        path.unlink()
    missing = shop.run(*words)
    assert missing.code == 2
    assert "no signing key" in missing.err
    generate_key(shop.folder / "key", passphrase=None)
    wrong = shop.run(*words)
    assert wrong.code == 5
    assert "cannot be trusted" in wrong.err
    assert contents(shop.store) == before


@pytest.mark.parametrize(
    "words",
    [
        ("yank", "1.0.0", "--channel"),
        ("unyank", "1.0.0", "--channel"),
        ("yank", "1.0.0", "--revoke", "--channel"),
        ("promote", "1.0.0-rc.1", "--from", "beta", "--to"),
        ("renew", "--channel"),
        ("renew", "--force", "--channel"),
    ],
)
@pytest.mark.parametrize("channel", ["stable", "prerelease"])
def test_an_index_that_went_back_is_refused_by_every_writer(
    shop: Shop, words: tuple[str, ...], channel: str
) -> None:
    shop.publish("1.0.0-rc.1", LINUX, channel="beta")
    shop.publish("1.0.0", LINUX, channel=channel)
    shop.publish("2.0.0", LINUX, channel=channel)
    copy = shop.store / "index" / channel / "1.idx"
    shutil.copy(copy, shop.store / f"{channel}.idx")
    before = contents(shop.store)
    refused = shop.run(*words, channel)
    assert refused.code == 5
    assert f"{channel}.idx" in refused.err
    assert "went back to before serial 2" in refused.err
    assert contents(shop.store) == before
    with pytest.raises(StoreError, match="went back to before serial 2"):
        shop.publish("1.0.0", LINUX, channel=channel)
    assert contents(shop.store) == before
