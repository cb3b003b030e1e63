"""The folder that runs a virtual machine elsewhere: written, kept, and known when it comes back."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.nodes.vm.creation import create
from orchestrator.nodes.vm.folder import VmFolder
from orchestrator.nodes.vm.kit import write_kit
from orchestrator.nodes.vm.seed import public_line
from tests.vms.definitions import NAMES, made_up, shipped
from tests.vms.test_scripts import check
from tests.vms.test_seeds import TABLES, image_with

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ["ssh_host_ed25519_key", "client-key"]


@pytest.mark.parametrize("name", NAMES)
def test_a_kit_has_scripts_unit_keys_and_the_seed_of_a_first_boot(
    name: str, tmp_path: Path
) -> None:
    kit = tmp_path / "the kit"

    written = {path.name for path in write_kit(shipped(name), kit)}

    assert {"boot.sh", "stop.sh", "keep.sh", f"{name}.service", "known-hosts", *KEYS} <= written
    assert "seed.img" in written
    assert ("install.txt" in written) == name.startswith("openbsd")
    assert ("creds.txt" in written) == (name == "netbsd-arm64")
    assert stat.S_IMODE(kit.stat().st_mode) == 0o700
    is_downloaded = not name.startswith("debian") and name != "netbsd-amd64"
    assert ("fetch.sh" in written) == is_downloaded
    for script in {"keep.sh", "fetch.sh"} & written:
        assert not check(["shellcheck", "-s", "sh", "-"], (kit / script).read_text())
        assert not check(["shfmt", "-i", "4", "-d"], (kit / script).read_text())
    assert not check(["systemd-analyze", "verify", str(kit / f"{name}.service")], "")


def test_a_kit_that_is_written_again_keeps_its_keys(tmp_path: Path) -> None:
    write_kit(shipped("freebsd-amd64"), tmp_path)
    before = [(tmp_path / name).read_bytes() for name in KEYS]

    write_kit(shipped("freebsd-amd64"), tmp_path)

    assert [(tmp_path / name).read_bytes() for name in KEYS] == before


def test_ssh_knows_the_host_by_the_file_of_the_kit(tmp_path: Path) -> None:
    write_kit(shipped("freebsd-amd64"), tmp_path)

    found = check(["ssh-keygen", "-F", "[127.0.0.1]:2201", "-f", str(tmp_path / "known-hosts")], "")
    assert public_line(tmp_path / "ssh_host_ed25519_key") in found


def test_netbsds_unpacked_image_becomes_the_disk_with_credentials_in_it(tmp_path: Path) -> None:
    image_with(tmp_path, TABLES["gpt"])

    written = {path.name for path in write_kit(shipped("netbsd-arm64"), tmp_path)}

    assert "golden.qcow2" in written
    raw = tmp_path / "back.raw"
    check(["qemu-img", "convert", "-O", "raw", str(tmp_path / "golden.qcow2"), str(raw)], "")
    credentials = check(["mtype", "-i", f"{raw}@@1M", "::creds.txt"], "")
    assert f"sshkey root {public_line(tmp_path / 'client-key')}\n" in credentials
    # What was made of the golden disk since then is not thrown away.
    assert "golden.qcow2" not in {
        path.name for path in write_kit(shipped("netbsd-arm64"), tmp_path)
    }


def keep(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / "keep.sh"], capture_output=True, text=True, check=False)


def test_what_a_guest_has_written_becomes_what_it_begins_with(tmp_path: Path) -> None:
    write_kit(shipped("openbsd-amd64"), tmp_path)
    assert keep(tmp_path).returncode == 2
    disk = str(tmp_path / "disk.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "4M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 0 64k", disk], check=True, capture_output=True)
    (tmp_path / "qemu.pid").write_text("1")
    assert "it runs: stop it first" in keep(tmp_path).stderr
    (tmp_path / "qemu.pid").unlink()

    assert keep(tmp_path).returncode == 0

    golden = str(tmp_path / "golden.qcow2")
    subprocess.run(["qemu-io", "-c", "read -P 7 0 64k", golden], check=True, capture_output=True)
    assert not (tmp_path / "disk.qcow2").exists()
    assert not (tmp_path / "seed.img").exists()
    # Debian's image reads its own at every boot.
    write_kit(shipped("debian-amd64"), tmp_path)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "4M"], check=True)
    assert keep(tmp_path).returncode == 0
    assert (tmp_path / "seed.img").exists()


def test_a_machine_made_from_a_kits_disk_has_the_keys_of_the_kit(tmp_path: Path) -> None:
    kit, state = tmp_path / "kit", tmp_path / "state"
    write_kit(shipped("freebsd-amd64"), kit)
    golden = kit / "golden.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(golden), "4M"], check=True)
    vm = made_up("freebsd", "amd64", image={"file": str(golden)})

    for _ in range(2):
        create(vm, VmFolder(state), images=tmp_path / "images", say=lambda _: None)

    for name in KEYS:
        assert (state / name).read_bytes() == (kit / name).read_bytes()
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


def fetch(kit: Path, name: str, *, content: bytes, digest: str) -> subprocess.CompletedProcess[str]:
    """Run fetch.sh with a curl that has the content at hand."""
    write_kit(shipped(name), kit)
    programs = kit / "programs"
    programs.mkdir(exist_ok=True)
    (kit / "content").write_bytes(content)
    (programs / "curl").write_text("#!/bin/sh\nfor url; do :; done\ncp content download.part\n")
    (programs / "curl").chmod(0o755)
    return subprocess.run(
        [kit / "fetch.sh", *([digest] if digest else [])],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
    )


@pytest.mark.parametrize(
    ("name", "packed", "file"),
    [
        ("freebsd-amd64", lzma.compress(b"a disk"), "golden.qcow2"),
        ("netbsd-arm64", gzip.compress(b"a disk", mtime=0), "arm64.img"),
        ("openbsd-arm64", b"a disk", "installer.img"),
    ],
)
def test_what_is_fetched_is_checked_and_unpacked(
    name: str, *, packed: bytes, file: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(packed).hexdigest()

    assert "say its SHA-256 digest" in fetch(tmp_path, name, content=packed, digest="").stderr
    wrong = fetch(tmp_path, name, content=packed, digest="0" * 64)
    assert (wrong.returncode, f"its digest is {digest}" in wrong.stderr) == (2, True)
    assert not list(tmp_path.glob("*.part"))
    assert fetch(tmp_path, name, content=packed, digest=digest).returncode == 0

    assert (tmp_path / file).read_bytes() == b"a disk"
    assert not list(tmp_path.glob("*.part"))
    if file != "arm64.img":
        assert "already" in fetch(tmp_path, name, content=packed, digest=digest).stderr
