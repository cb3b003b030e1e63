"""A guest made from a download without a person: a real server, real disks, a program for QEMU."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import signal
import stat
import subprocess
from dataclasses import replace
from datetime import timedelta
from getpass import getuser
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.vm import DownloadedImage, GoldenImage
from orchestrator.nodes.vm import dialogue, making
from orchestrator.nodes.vm import machine as machine_module
from orchestrator.nodes.vm.creation import create
from orchestrator.nodes.vm.download import fetch_image, unpack
from orchestrator.nodes.vm.folder import VmFolder
from orchestrator.nodes.vm.seed import make_key, public_line
from tests.nodes import sshd
from tests.servers import bytes_of, serving
from tests.vms import fake_qemu
from tests.vms.definitions import made_up
from tests.vms.test_seeds import TABLES, image_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.core.vm import Vm

pytestmark = sshd.needs_sshd


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for architecture in ("x86_64", "aarch64"):
        fake_qemu.install(tmp_path / "bin", architecture)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(machine_module, "_PROBE_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(dialogue, "_KEY_SECONDS", 0.0)
    monkeypatch.setattr(dialogue, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(dialogue, "_GIVEN_UP_SECONDS", 0.2)
    yield tmp_path
    for pid_file in tmp_path.rglob("qemu.pid"):
        folder = VmFolder(pid_file.parent)
        if folder.is_running and folder.pid:
            os.kill(folder.pid, signal.SIGKILL)


def disk_of(folder: Path, size: str = "1M") -> bytes:
    path = folder / "original.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    return path.read_bytes()


def wanting(vm: Vm, url: str, data: bytes, **more: bool) -> Vm:
    image = DownloadedImage(url=url, sha256=hashlib.sha256(data).hexdigest(), **more)
    return replace(vm, image=image)


def made(place: Path, vm: Vm, *, sha256: str | None = None) -> tuple[VmFolder, list[str]]:
    folder, said = VmFolder(place / "vms" / vm.name), list[str]()
    create(vm, folder, images=place / "images", say=said.append, sha256=sha256)
    return folder, said


def left(place: Path) -> list[str]:
    """What is in the folder of images, but for locks."""
    names = (path.name for path in (place / "images").iterdir())
    return sorted(name for name in names if not name.endswith(".lock"))


def test_a_freebsd_from_its_download_is_booted_finished_and_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "ready")
    packed = lzma.compress(disk_of(place))
    with serving(bytes_of(packed)) as server:
        vm = wanting(
            made_up("freebsd", "amd64", accelerators=["tcg"], user=getuser()),
            f"{server}/FreeBSD.qcow2.xz",
            packed,
        )
        folder, said = made(place, vm)
    assert folder.is_created
    golden = folder.file("golden").resolve()
    assert stat.S_IMODE(golden.parent.stat().st_mode) == 0o700
    info = subprocess.run(["qemu-img", "info", golden], check=True, capture_output=True, text=True)
    assert "backing file" not in info.stdout
    # The machine has the keys that its guest was made with.
    for name in ("ssh_host_ed25519_key", "client-key"):
        assert public_line(folder.file(name)) == public_line(golden.with_name(name))
        assert stat.S_IMODE(folder.file(name).stat().st_mode) == 0o600
    assert any("installs its packages" in line for line in said)
    assert left(place) == ["downloads", golden.parent.name]
    assert not [each for each in (place / "images/downloads").iterdir() if each.suffix != ".lock"]

    # Without a server: what was made is there.
    said_again = made(place, vm)[1]
    assert said_again == []


def test_an_openbsd_is_installed_by_what_is_typed_on_its_serial_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "ready")
    with serving(bytes_of(b"miniroot")) as server:
        vm = made_up("openbsd", "amd64", accelerators=["tcg"], user=getuser())
        vm = wanting(vm, f"{server}/miniroot79.img", b"miniroot", installer=True)
        folder, said = made(place, vm)
    assert folder.is_created
    assert any("installing OpenBSD 7.9 amd64" in line for line in said)


def test_a_netbsd_whose_own_serial_line_names_its_first_key_is_believed_and_re_keyed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "stranger own")
    (place / "raw").mkdir()
    raw = image_with(place / "raw", TABLES["mbr"]).read_bytes()
    packed = gzip.compress(raw)
    with serving(bytes_of(packed)) as server:
        vm = made_up("netbsd", "arm64", accelerators=["tcg"], user=getuser())
        folder, _ = made(place, wanting(vm, f"{server}/arm64.img.gz", packed))
    assert folder.is_created


@pytest.mark.thorough
def test_a_key_that_no_serial_line_names_is_not_believed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "stranger")
    monkeypatch.setattr(making, "_FIRST_BOOT", timedelta(seconds=2))
    (place / "raw").mkdir()
    packed = gzip.compress(image_with(place / "raw", TABLES["mbr"]).read_bytes())
    with serving(bytes_of(packed)) as server:
        vm = made_up("netbsd", "arm64", accelerators=["tcg"], user=getuser(), boot_timeout="2s")
        with pytest.raises(NodeError, match="did not come up"):
            made(place, wanting(vm, f"{server}/arm64.img.gz", packed))
    assert not (place / "vms/netbsd-arm64/created").exists()


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("mute", r"the guest has ended, and has not said `boot>`"),
        ("broken", r"asks again instead of ending(.|\n)*mount: no such disk"),
    ],
)
def test_an_installation_that_fails_shows_the_last_that_it_said_and_leaves_nothing(
    mood: str, message: str, *, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", mood)
    with serving(bytes_of(b"miniroot")) as server:
        vm = made_up("openbsd", "amd64", accelerators=["tcg"], user=getuser())
        vm = wanting(vm, f"{server}/miniroot79.img", b"miniroot", installer=True)
        with pytest.raises(NodeError, match=message) as failure:
            made(place, vm)
    assert "openbsd-amd64-failed.log" in str(failure.value.hint)
    assert left(place) == ["downloads", "openbsd-amd64-failed.log"]


def test_a_guest_that_does_not_shut_down_is_not_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "ready")
    monkeypatch.setattr(machine_module, "_GENTLE_WAYS", ())
    data = disk_of(place)
    with serving(bytes_of(data)) as server:
        vm = made_up("freebsd", "amd64", accelerators=["tcg"], user=getuser())
        with pytest.raises(NodeError, match="its disk is not whole"):
            made(place, wanting(vm, f"{server}/disk.qcow2", data))
    assert left(place) == ["downloads", "freebsd-amd64-failed.log"]


def test_what_a_killed_process_has_left_is_cleared(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "ready")
    data = disk_of(place)
    with serving(bytes_of(data)) as server:
        vm = made_up("freebsd", "amd64", accelerators=["tcg"], user=getuser())
        vm = wanting(vm, f"{server}/disk.qcow2", data)
        assert isinstance(vm.image, DownloadedImage)
        name = making._name_of(vm, vm.image)
        old = place / "images" / f".part-{name}-killed"
        other = place / "images" / ".part-another-0123"
        for folder in (old, other):
            folder.mkdir(parents=True)
            (folder / "disk.qcow2").touch()
        made(place, vm)
    assert not old.exists()
    assert other.exists(), "somebody else may be at it"


def test_nobody_guesses_a_digest_and_nothing_is_installed_that_takes_a_person(
    place: Path,
) -> None:
    vm = made_up("freebsd", "amd64", accelerators=["tcg"])
    with pytest.raises(ConfigError, match="nobody says which digest") as failure:
        made(place, vm)
    assert "vm create freebsd-amd64 --sha256 DIGEST" in str(failure.value.hint)
    with pytest.raises(ConfigError, match="another digest than --sha256 says"):
        made(place, wanting(vm, "https://example.org/a", b"x"), sha256="0" * 64)
    by_hand = wanting(made_up("netbsd", "amd64", accelerators=["tcg"]), "https://e.org/a", b"x")
    with pytest.raises(ConfigError, match="nothing answers the questions of NetBSD's installer"):
        made(place, by_hand)
    assert not (place / "images").exists()


def test_what_has_another_digest_is_refused_and_not_kept(tmp_path: Path) -> None:
    with serving(bytes_of(b"something else")) as server:
        wrong = hashlib.sha256(b"x").hexdigest()
        with pytest.raises(ConfigError, match="is not what it should be: its SHA-256 digest is"):
            fetch_image(f"{server}/a", sha256=wrong, folder=tmp_path / "d", say=print)
    assert [path.name for path in (tmp_path / "d").iterdir()] == [f".{wrong}.lock"]


def test_a_download_that_is_there_is_not_fetched_again_unless_it_is_damaged(tmp_path: Path) -> None:
    right = hashlib.sha256(b"image").hexdigest()
    (tmp_path / right).write_bytes(b"image")
    kept = fetch_image("https://nowhere.invalid/a", sha256=right, folder=tmp_path, say=print)
    assert kept == tmp_path / right
    kept.write_bytes(b"damaged")
    with serving(bytes_of(b"image")) as server:
        fetch_image(f"{server}/a", sha256=right, folder=tmp_path, say=print)
    assert kept.read_bytes() == b"image"


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with (
        serving(bytes_of(b"", status=404)) as server,
        pytest.raises(NodeError, match="cannot be had: 404"),
    ):
        fetch_image(f"{server}/a", sha256="0" * 64, folder=tmp_path, say=print)
    with pytest.raises(NodeError, match="cannot be had"):
        fetch_image("http://127.0.0.1:1/a", sha256="0" * 64, folder=tmp_path, say=print)


@pytest.mark.parametrize(
    ("name", "pack"), [("a.xz", lzma.compress), ("a.gz", gzip.compress), ("a.img", bytes)]
)
def test_an_image_is_unpacked_with_holes_for_its_zeros(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    whole = b"begin" + bytes(8 << 20) + b"end" + bytes(5 << 20)
    (tmp_path / "packed").write_bytes(pack(whole))
    unpack(tmp_path / "packed", f"https://example.org/{name}?x=.xz", tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == whole
    assert (tmp_path / "image").stat().st_blocks * 512 < len(whole) / 2


@pytest.mark.parametrize("name", ["a.xz", "a.gz"])
def test_what_is_no_archive_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(b"no archive")
    with pytest.raises(NodeError, match="cannot be unpacked"):
        unpack(tmp_path / "packed", f"https://example.org/{name}", tmp_path / "image")


def test_a_key_without_its_public_half_beside_a_disk_is_no_trouble(place: Path) -> None:
    disk = place / "golden/disk.qcow2"
    disk.parent.mkdir()
    disk.write_bytes(disk_of(place))
    for name in ("client-key", "ssh_host_ed25519_key"):
        make_key(disk.with_name(name), name)
    right = public_line(disk.with_name("client-key"))
    disk.with_name("client-key.pub").unlink()
    disk.with_name("ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAother other\n")
    vm = replace(made_up("freebsd", "amd64"), image=GoldenImage(file=str(disk)))
    folder, _ = made(place, vm)
    assert public_line(folder.file("client-key")) == right
    assert "other" not in public_line(folder.file("ssh_host_ed25519_key"))
