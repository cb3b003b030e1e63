"""Golden images: what they depend on, that they are made once, and that nothing half-made is left.

mmdebstrap is a program that leaves what the real one does; `make test-vm` has the real one.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.vm import PackagesImage, VmArch
from orchestrator.nodes.vm import image as image_module
from orchestrator.nodes.vm import tools
from orchestrator.nodes.vm.image import DebianRecipe, make_image
from orchestrator.nodes.vm.initramfs import make_initramfs
from orchestrator.nodes.vm.seed import make_key, public_line, write_fat
from orchestrator.nodes.vm.tools import require_tools, run_tool
from tests.releases import wait_for
from tests.vms.definitions import made_up

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm

MMDEBSTRAP = """#!/bin/sh
echo "$*" >>{folder}/calls
[ ! -e {folder}/broken ] || {{ echo "E: cannot fetch packages" >&2; exit 25; }}
cp {folder}/modules.tar out/
echo busybox >out/busybox
echo kernel >out/vmlinuz
truncate -s 1M out/root.img
ls files/etc/orchestrator >{folder}/laid
"""
# It has finished the root, or not.
QEMU = """#!/bin/sh
[ -e {folder}/stuck ] || echo FINISHED >serial.log
[ ! -e {folder}/stuck ] || echo "dpkg: error" >serial.log
"""


def machine(arch: str = "") -> Vm:
    here = "amd64" if os.uname().machine == "x86_64" else "arm64"
    return made_up("debian", arch or here, packages=["cargo-web"])


def foreign() -> Vm:
    return machine("riscv64")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    names = ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-system-riscv64")
    for name, text in (("mmdebstrap", MMDEBSTRAP), *((name, QEMU) for name in names)):
        (programs / name).write_text(text.format(folder=tmp_path))
        (programs / name).chmod(0o755)
    (programs / "apt-get").write_text("#!/bin/sh\necho Debian https://apt.example/debian\n")
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (tmp_path / "modules.tar").write_bytes(modules({"ext4.ko": b"module"}))
    return tmp_path


def modules(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./fs/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def test_an_image_is_made_once_and_never_written_to_again(folder: Path) -> None:
    said: list[str] = []

    made = make_image(machine(), folder / "images", said.append)

    assert make_image(machine(), folder / "images", said.append) == made
    assert len((folder / "calls").read_text().splitlines()) == 1
    assert len(said) == 1
    modes = {path.name: path.stat().st_mode & 0o222 for path in made.iterdir()}
    assert modes["golden.qcow2"] == modes["kernel"] == modes["initrd"] == 0
    record = json.loads((made / "image.json").read_text())
    assert record["packages"] == ["cargo-web"]
    assert set(record["sha256"]) == {"golden.qcow2", "kernel", "initrd"}


def test_the_packages_come_from_where_those_of_the_host_do_or_from_where_it_is_said(
    folder: Path,
) -> None:
    make_image(machine(), folder / "images", lambda _: None)
    assert (folder / "calls").read_text().split()[-1] == "https://apt.example/debian"

    (folder / "bin/apt-get").write_text("#!/bin/sh\necho Ubuntu https://apt.example/ubuntu\n")
    other = replace(machine(), packages=("rustc",))
    with pytest.raises(ConfigError, match="this host's come from elsewhere") as refused:
        make_image(other, folder / "images", lambda _: None)
    assert "`image: mirror:`" in (refused.value.hint or "")
    image = PackagesImage(suite="bookworm", mirror="https://mirror.example/debian")
    make_image(replace(other, image=image), folder / "images", lambda _: None)
    assert (folder / "calls").read_text().split()[-1] == "https://mirror.example/debian"


def test_an_image_that_cannot_be_made_leaves_nothing(folder: Path) -> None:
    (folder / "broken").touch()

    with pytest.raises(NodeError, match="cannot fetch packages"):
        make_image(machine(), folder / "images", lambda _: None)

    assert [path.name for path in (folder / "images").iterdir() if path.is_dir()] == []


def test_what_a_killed_process_has_left_is_cleared_by_the_next_one(folder: Path) -> None:
    old = folder / "images" / f".part-{DebianRecipe.of(machine()).name}-killed"
    other = folder / "images" / ".part-another-0123"
    for left in (old, other):
        (left / "out").mkdir(parents=True)

    make_image(machine(), folder / "images", lambda _: None)

    assert not old.exists()
    assert other.exists(), "another one may be at it"


def test_a_root_of_another_architecture_is_finished_inside_of_a_guest(folder: Path) -> None:
    made = make_image(foreign(), folder / "images", lambda _: None)

    assert "--variant=extract" in (folder / "calls").read_text()
    assert "unfinished" in (folder / "laid").read_text()
    assert sorted(path.name for path in made.iterdir()) == [
        *("golden.qcow2", "image.json", "initrd", "kernel"),
    ]


def test_a_root_that_cannot_be_finished_is_no_image(folder: Path) -> None:
    (folder / "stuck").touch()

    with pytest.raises(NodeError, match="could not be finished:\n  dpkg: error"):
        make_image(foreign(), folder / "images", lambda _: None)

    assert [path.name for path in (folder / "images").iterdir() if path.is_dir()] == []


def test_its_own_root_is_finished_here(folder: Path) -> None:
    make_image(machine(), folder / "images", lambda _: None)

    assert "--variant=essential" in (folder / "calls").read_text()
    assert "unfinished" not in (folder / "laid").read_text()


def test_the_name_of_an_image_says_all_that_it_is_made_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = DebianRecipe.of(machine())
    names = {
        recipe.name,
        replace(recipe, suite="trixie").name,
        replace(recipe, arch=VmArch.RISCV64).name,
        replace(recipe, packages=("cargo",)).name,
    }
    sources = (*image_module._sources(), ("root/etc/motd", b""))
    monkeypatch.setattr(image_module, "_sources", lambda: sources)
    names.add(recipe.name)

    assert len(names) == 5


def test_only_a_suite_makes_an_image() -> None:
    with pytest.raises(ConfigError, match="is not made of Debian's packages"):
        DebianRecipe.of(made_up("openbsd", "amd64"))


def test_the_ram_disk_is_what_cpio_reads(tmp_path: Path) -> None:
    import lzma  # noqa: PLC0415 -- only here

    packed = modules(
        {"virtio.ko": b"first", "ext4.ko.xz": lzma.compress(b"last"), "other.ko": b"not wanted"}
    )

    archive = make_initramfs(busybox=b"busybox", modules=packed, init=b"#!/bin/busybox sh\n")

    words = ["busybox", "cpio", "-i", "-d"]
    subprocess.run(
        words, check=True, cwd=tmp_path, input=gzip.decompress(archive), capture_output=True
    )
    assert (tmp_path / "init").read_bytes() == b"#!/bin/busybox sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin/busybox").read_bytes() == b"busybox"
    assert (tmp_path / "modules/order").read_text() == "virtio.ko\next4.ko\n"
    assert (tmp_path / "modules/ext4.ko").read_bytes() == b"last"
    assert not (tmp_path / "modules/other.ko").exists()


def test_the_same_parts_are_the_same_ram_disk() -> None:
    parts = {"busybox": b"b", "modules": modules({}), "init": b"i"}

    assert make_initramfs(**parts) == make_initramfs(**parts)


def test_a_seed_is_a_fat_volume_with_the_files(tmp_path: Path) -> None:
    seed = tmp_path / "seed.img"

    write_fat(seed, label="SEED", files={"authorized_keys": b"ssh-ed25519 AAAA\n"})

    assert seed.stat().st_mode & 0o777 == 0o600
    assert b"SEED" in run_tool("mdir", "-i", "seed.img", "::", folder=tmp_path)
    read = run_tool("mtype", "-i", "seed.img", "::authorized_keys", folder=tmp_path)
    assert read == b"ssh-ed25519 AAAA\n"


def test_a_key_is_made_once(tmp_path: Path) -> None:
    key = tmp_path / "key"
    # What a killed run has left is no key.
    (tmp_path / "key.part").write_text("half")
    make_key(key, "vm")
    made = key.read_bytes()

    make_key(key, "vm")

    assert key.read_bytes() == made
    assert public_line(key).startswith("ssh-ed25519 AAAA")
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_missing_program_is_told_with_the_package_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ConfigError, match="no qemu-system-aarch64, qemu-img") as failure:
        require_tools("qemu-system-aarch64", "qemu-img")

    assert failure.value.hint is not None
    assert "qemu-system-arm qemu-utils" in failure.value.hint


def test_a_program_that_hangs_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"sleep did not end within 0\.1 s"):
        run_tool("sleep", "60", folder=tmp_path, timeout_seconds=0.1)


def test_what_a_given_up_program_has_started_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "_CLEANING_SECONDS", 0.1)
    script = "trap '' TERM; sleep 60 & echo $! >pid; wait; sleep 60"
    with pytest.raises(NodeError, match="did not end"):
        run_tool("sh", "-c", script, folder=tmp_path, timeout_seconds=1)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or is_dead(pid))


def is_dead(pid: int) -> bool:
    """Whether it has ended, and whoever adopted it has not looked yet."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no such disk >&2; exit 3", "sh failed (status 3):\n  no such disk"),
        ("echo it was said here; exit 3", "sh failed (status 3):\n  it was said here"),
        ("exit 3", "sh failed (status 3), and said nothing"),
        ("kill -9 $$", "sh failed (SIGKILL), and said nothing"),
    ],
)
def test_a_tool_that_fails_is_never_told_of_without_a_reason(
    tmp_path: Path, script: str, message: str
) -> None:
    with pytest.raises(NodeError) as caught:
        run_tool("sh", "-c", script, folder=tmp_path)
    assert caught.value.message == message
