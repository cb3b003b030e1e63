"""`orchestrator bundle`: a part of a store, verified, in one file or folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.releases import contents
from tests.shop import LINUX, NETBSD, Shop

if TYPE_CHECKING:
    from pathlib import Path

TOP = "demo-stable-3-offline"
SIDES = ("", ".minisig", ".sha256", ".sshsig")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shop = Shop(folder=tmp_path_factory.mktemp("filled"))
    shop.publish("1.0.0", LINUX, NETBSD)
    shop.publish("1.1.0", LINUX, pending=(NETBSD,))
    shop.publish("1.2.0-rc.1", LINUX, channel="prerelease")
    assert shop.run("renew", "--force", "--channel", "stable").code == 0
    return shop.folder


@pytest.fixture
def shop(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    folder = tmp_path / "shop"
    shutil.copytree(filled, folder)
    return Shop(folder=folder, capsys=capsys)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder to write bundles into."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def archive(version: str, target: str) -> str:
    return f"releases/{version}/{target}/demo-{version}-{target}.tar.gz"


def files(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if data is not None}


def evidence(shop: Shop, version: str = "1.0.0", target: str = NETBSD) -> None:
    """Put a bill of materials there that nothing vouches for, as a node without evidence has."""
    (shop.store / archive(version, target)).with_name("sbom.cdx.json").write_text("{}")


@pytest.mark.parametrize("tar", [("tar",), ("busybox", "tar")])
def test_any_tar_unpacks_one_folder_with_what_the_store_has(
    shop: Shop, out: Path, tar: tuple[str, ...]
) -> None:
    evidence(shop)
    answer = shop.run("bundle", "--output", str(out / "all.tar"))
    assert (answer.code, answer.err) == (0, ""), answer
    assert f"1.1.0 {LINUX}" in answer.out
    assert f"1.0.0 {NETBSD}" in answer.out
    command = f"tar -xf {out}/all.tar && sh {TOP}/install.sh --from {TOP}"
    assert command in answer.out
    subprocess.run([*tar, "-xf", "all.tar"], cwd=out, check=True)
    assert sorted(path.name for path in out.iterdir()) == ["all.tar", TOP]
    found = files(out / TOP)
    rows = (archive("1.1.0", LINUX), archive("1.0.0", NETBSD))
    assert set(found) == {
        "install.sh",
        "install.sh.sig",
        "stable.idx",
        f"releases/1.0.0/{NETBSD}/sbom.cdx.json",
        *(f"{row}{side}" for row in rows for side in SIDES),
    }
    whole = contents(shop.store)
    assert {name: whole[name] for name in found} == found
    assert os.access(out / TOP / "install.sh", os.X_OK)
    assert (out / TOP / "releases").stat().st_mode & 0o777 == 0o755


def test_the_same_index_makes_the_same_bytes(shop: Shop, out: Path) -> None:
    assert shop.run("bundle", "--output", str(out / "a.tar")).code == 0
    umask = os.umask(0o077)
    try:
        assert shop.run("bundle", "--output", str(out / "b.tar")).code == 0
    finally:
        os.umask(umask)
    assert (out / "a.tar").read_bytes() == (out / "b.tar").read_bytes()
    with tarfile.open(out / "a.tar") as tar:
        members = tar.getmembers()
    assert {member.name.split("/")[0] for member in members} == {TOP}
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}
    assert members[0].name == TOP
    assert members[0].isdir()


def test_a_folder_gets_the_same_files(shop: Shop, out: Path) -> None:
    assert shop.run("bundle", "--output", str(out / "all.tar")).code == 0
    answer = shop.run("bundle", "--output", str(out / "new/folder"))
    assert answer.code == 0
    assert f"sh {out}/new/folder/{TOP}/install.sh --from {out}/new/folder/{TOP}\n" in answer.out
    subprocess.run(["tar", "-xf", "all.tar"], cwd=out, check=True)
    assert contents(out / "new/folder" / TOP) == contents(out / TOP)
    assert [path.name for path in (out / "new/folder").iterdir()] == [TOP]
    assert (out / "new/folder" / TOP).stat().st_mode & 0o777 == 0o755
    again = shop.run("bundle", "--output", str(out / "new/folder"))
    assert again.code == 2
    assert "is there already" in again.err


def test_a_version_a_target_and_a_channel_narrow_it(shop: Shop, out: Path) -> None:
    data = shop.run("bundle", "1.0.0", "--target", LINUX, "--json", "--output", f"{out}/a.tar").data
    assert data["folder"] == "demo-1.0.0-offline"
    assert data["builds"] == [
        {"version": "1.0.0", "target": LINUX, "path": archive("1.0.0", LINUX)}
    ]
    assert data["command"].endswith("--from demo-1.0.0-offline --version 1.0.0")
    assert (data["channel"], data["serial"]) == ("stable", 3)
    data = shop.run("bundle", "--channel", "prerelease", "--json", "--output", f"{out}/b.tar").data
    assert data["folder"] == "demo-prerelease-1-offline"
    assert "prerelease.idx" in data["files"]
    assert "stable.idx" not in data["files"]
    assert data["command"].endswith(" --channel prerelease")
    assert data["size"] == (shop.store / archive("1.2.0-rc.1", LINUX)).stat().st_size


def test_a_bundle_replaces_one_of_that_name(shop: Shop, out: Path) -> None:
    (out / "all.tar").write_text("older")
    assert shop.run("bundle", "--output", str(out / "all.tar")).code == 0
    assert tarfile.is_tarfile(out / "all.tar")
    assert list(contents(out)) == ["all.tar"]


def spoil(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("output", ["all.tar", "folder"])
@pytest.mark.parametrize(
    "name",
    [
        archive("1.1.0", LINUX),
        *(archive("1.0.0", NETBSD) + side for side in SIDES),
        "install.sh",
        "install.sh.sig",
        "stable.idx",
    ],
)
def test_what_is_not_as_it_was_signed_is_not_bundled(
    shop: Shop, out: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, output: str
) -> None:
    monkeypatch.setattr("orchestrator.verification.installer._PAUSES", (0.0,))
    (out / "all.tar").write_text("older")
    spoil(shop.store / name)
    refused = shop.run("bundle", "--output", str(out / output))
    assert refused.code == 5, refused
    # A side file is told under the name of what it vouches for.
    assert re.sub(r"\.(sig|sshsig|minisig|sha256)$", "", name.rpartition("/")[2]) in refused.err
    assert files(out) == {"all.tar": b"older"}
    assert list(contents(out)) == ["all.tar"]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (archive("1.1.0", LINUX), 5, "it is not there"),
        (archive("1.1.0", LINUX) + ".sshsig", 5, "it is not there"),
        ("install.sh.sig", 5, "orchestrator renew"),
        ("install.sh", 2, "orchestrator renew"),
        ("stable.idx", 2, "there is no stable.idx"),
    ],
)
def test_what_is_missing_is_named(
    shop: Shop, out: Path, *, name: str, code: int, said: str
) -> None:
    (shop.store / name).unlink()
    refused = shop.run("bundle", "--output", str(out / "all.tar"))
    assert refused.code == code
    assert said in refused.err
    assert not list(out.iterdir())


def test_an_index_that_expired_is_not_bundled(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    old = Shop(folder=tmp_path / "old", capsys=capsys)
    old.publish("1.0.0", LINUX, ago=timedelta(days=100))
    assert old.run("bundle", "--output", str(out / "all.tar")).code == 5
    assert not list(out.iterdir())
    assert old.run("renew").code == 0
    assert old.run("bundle", "--output", str(out / "all.tar")).code == 0


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("all.tar.gz", "is not compressed"),
        ("nowhere/all.tar", "cannot write"),
        ("file", "cannot write"),
        ("folder.tar", "cannot write"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(
    shop: Shop, out: Path, *, output: str, said: str
) -> None:
    (out / "file").write_text("a file")
    (out / "folder.tar").mkdir()
    refused = shop.run("bundle", "--output", str(out / output))
    assert refused.code == 2
    assert said in refused.err
    assert sorted(contents(out)) == ["file", "folder.tar"]


def test_no_private_key_is_needed(shop: Shop, out: Path) -> None:
    (shop.folder / "key").unlink()
    assert shop.run("bundle", "--output", str(out / "all.tar")).code == 0


def test_the_statement_of_keys_comes_along(tmp_path: Path, out: Path) -> None:
    from orchestrator.signing import generate_key  # noqa: PLC0415 -- here only

    rotation = generate_key(tmp_path / "rotation", passphrase=None)
    signing = {"key": str(tmp_path / "shop/key"), "rotation": rotation.ssh}
    (tmp_path / "shop").mkdir()
    shop = Shop(folder=tmp_path / "shop", publication={"signing": signing})
    shop.publish("1.0.0", LINUX)
    assert shop.run("bundle", "--output", str(out / "before")).code == 0
    assert not list(out.rglob("keys.txt"))
    rotated = shop.run("keys", "rotate", "--rotation-key", str(tmp_path / "rotation"))
    assert rotated.code == 0
    assert shop.run("bundle", "--output", str(out / "after")).code == 0
    [keys] = out.rglob("keys.txt")
    assert keys.read_bytes() == (shop.store / "keys.txt").read_bytes()
    assert shop.run("fsck").code == 0, "a change of keys signs install.sh anew"
