"""What guests are told at their first boot: the texts, and the volumes, read back for real."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.vm_netbsd import CREDENTIALS_FILE, netbsd_credentials
from orchestrator.core.vm_provisioning import lines_for, seed_for
from orchestrator.core.vm_seed import READY_LINE, GuestKeys
from orchestrator.core.vm_volume import boot_partition_offset
from orchestrator.nodes.vm.seed import add_to_boot_partition, make_key, public_line, write_iso
from tests.vms.definitions import made_up, shipped
from tests.vms.test_scripts import check

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.vm import Vm

BSDS = ["freebsd-amd64", "freebsd-arm64", "openbsd-amd64", "openbsd-arm64"]
BSDS += ["netbsd-amd64", "netbsd-arm64"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> GuestKeys:
    """Keys that ssh-keygen has made."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("host", "client"):
        make_key(folder / name, name)
    return GuestKeys(
        host_private=(folder / "host").read_text(),
        host_public=public_line(folder / "host"),
        client_public=public_line(folder / "client"),
    )


def files_of(vm: Vm, keys: GuestKeys) -> dict[str, str]:
    seed = seed_for(vm, keys)
    assert seed
    return {file.name: file.text for file in seed.files}


def test_keys_must_be_keys_and_are_not_shown(keys: GuestKeys) -> None:
    assert "PRIVATE" not in repr(keys)
    assert "PRIVATE" not in repr(seed_for(shipped("freebsd-amd64"), keys))
    good = {
        "host_private": keys.host_private,
        "host_public": keys.host_public,
        "client_public": keys.client_public,
    }
    for field, bad in (
        ("host_public", f"{keys.host_public} # comment"),
        ("client_public", f"{keys.client_public}\nssh-rsa AAAA"),
        ("client_public", "ssh-ed25519 AAAA'; reboot; '"),
        ("host_private", "-----BEGIN OPENSSH PRIVATE KEY-----\n$(reboot)\n"),
        ("host_private", ""),
    ):
        with pytest.raises(ConfigError) as caught:
            GuestKeys(**{**good, field: bad})
        assert "reboot" not in caught.value.message


def test_freebsd_reads_a_cloud_config_with_users_keys_and_packages(keys: GuestKeys) -> None:
    seed = seed_for(shipped("freebsd-arm64"), keys)
    assert seed
    assert seed.label == "cidata"
    files = files_of(shipped("freebsd-arm64"), keys)

    meta = yaml.safe_load(files["meta-data"])
    assert meta == {"instance-id": "freebsd-arm64", "local-hostname": "freebsd-arm64"}
    assert files["user-data"].startswith("#cloud-config\n")
    said = yaml.safe_load(files["user-data"])
    assert said["users"] == [
        {"name": "builder", "shell": "/bin/sh", "ssh_authorized_keys": [keys.client_public]}
    ]
    assert said["ssh_pwauth"] is False
    assert said["package_upgrade"] is False
    assert said["packages"] == ["rust"]
    assert said["ssh_keys"] == {
        "ed25519_private": keys.host_private,
        "ed25519_public": keys.host_public,
    }
    assert not check(["shellcheck", "-s", "sh", "-"], "\n".join(said["runcmd"]) + "\n")
    assert READY_LINE in said["runcmd"][-1]


def test_a_guest_without_packages_installs_none(keys: GuestKeys) -> None:
    assert "packages" not in yaml.safe_load(
        files_of(made_up("freebsd", "amd64"), keys)["user-data"]
    )
    assert "pkg_add" not in files_of(made_up("openbsd", "amd64"), keys)["rc.firsttime"]
    script = files_of(made_up("netbsd", "amd64"), keys)["provision.sh"]
    assert "pkg_add -U \n" not in script
    assert not check(["sh", "-n"], script)


def answers_of(vm: Vm, keys: GuestKeys) -> dict[str, str]:
    lines = files_of(vm, keys)["install.conf"].splitlines()
    return dict(line.split(" = ", 1) for line in lines)


def test_openbsd_has_an_answer_to_every_question(keys: GuestKeys) -> None:
    answers = answers_of(shipped("openbsd-arm64"), keys)

    assert answers["System hostname"] == "openbsd-arm64"
    assert answers["Network interface to configure"] == "vio0"
    assert answers["Public ssh key for root account"] == keys.client_public
    assert answers["Public ssh key for user builder"] == keys.client_public
    assert answers["Setup a user"] == "builder"
    assert answers["Allow root ssh login"] == "prohibit-password"
    assert answers["Server directory"] == "pub/OpenBSD/7.9/arm64"
    assert answers["Use (W)hole disk MBR, whole disk (G)PT or (E)dit"] == "gpt"
    assert answers["Change the default console to com0"] == "yes"
    assert {value for key, value in answers.items() if "Password" in key} == {"*" * 13}
    amd64 = answers_of(shipped("openbsd-amd64"), keys)
    assert amd64["Use (W)hole disk MBR, whole disk (G)PT or (E)dit"] == "whole"
    old = answers_of(made_up("openbsd", "amd64", release="7.5"), keys)
    assert old["IPv4 address for em0"] == "autoconf"


def test_openbsd_makes_no_user_where_root_builds(keys: GuestKeys) -> None:
    vm = made_up("openbsd", "amd64", user="root")

    answers = answers_of(vm, keys)
    assert answers["Setup a user"] == "no"
    assert not [question for question in answers if "for user" in question]
    assert "usermod" not in files_of(vm, keys)["rc.firsttime"]


def test_openbsd_gives_a_compiler_the_memory_that_it_needs(keys: GuestKeys) -> None:
    first = files_of(shipped("openbsd-amd64"), keys)["rc.firsttime"]

    assert "\t:datasize=infinity:\\\n" in first
    assert "usermod -L build -G operator builder\n" in first
    assert "pkg_add -I rust\n" in first
    assert "/usr/local " in files_of(shipped("openbsd-amd64"), keys)["disklabel"]


def test_what_is_typed_to_openbsds_installer_starts_the_seeds_script() -> None:
    amd64, arm64 = lines_for(shipped("openbsd-amd64")), lines_for(shipped("openbsd-arm64"))

    assert [line.says for line in amd64[:3]] == ["set tty com0", "boot", "s"]
    assert arm64 == amd64[2:]
    assert arm64[-1].awaits == "# "
    assert arm64[-1].says.endswith("mount -r -t cd9660 /dev/sd2c /seed && sh /seed/install.sh")
    assert lines_for(shipped("freebsd-amd64")) == ()


@pytest.mark.parametrize("name", BSDS)
def test_every_script_of_a_seed_is_clean(name: str, keys: GuestKeys) -> None:
    scripts = {
        file: text
        for file, text in files_of(shipped(name), keys).items()
        if file in {"install.sh", "rc.firsttime", "provision.sh"}
    }
    assert bool(scripts) == (not name.startswith("freebsd"))
    for text in scripts.values():
        assert not check(["shellcheck", "-s", "sh", "-"], text)


def test_netbsds_script_knows_the_console_of_its_architecture(keys: GuestKeys) -> None:
    amd64 = files_of(shipped("netbsd-amd64"), keys)["provision.sh"]
    arm64 = files_of(shipped("netbsd-arm64"), keys)["provision.sh"]

    assert "consdev=com0" in amd64
    assert "consdev" not in arm64
    for line in ("ntpdate=NO", "dhcpcd=NO", "net.inet.ip.dad_count=0", "pkg_add -U rust"):
        assert line in arm64


def test_debian_knows_a_seed_of_its_own(keys: GuestKeys) -> None:
    assert seed_for(shipped("debian-amd64"), keys) is None


def test_a_name_that_is_none_gets_into_no_file(keys: GuestKeys) -> None:
    from orchestrator.core.vm_parser import parse_vm  # noqa: PLC0415 -- only this needs it
    from tests.vms.definitions import data_of  # noqa: PLC0415

    vm = parse_vm(data_of("freebsd", "amd64"), name="a\nrogue: yes", place="x")
    with pytest.raises(ConfigError, match="cannot be the name of a guest"):
        seed_for(vm, keys)


# Real volumes


@pytest.mark.parametrize("name", BSDS)
def test_a_volume_has_the_label_and_the_files_of_its_seed(
    name: str, keys: GuestKeys, tmp_path: Path
) -> None:
    seed = seed_for(shipped(name), keys)
    assert seed
    path = tmp_path / "seed.img"

    write_iso(path, seed)

    said = check(["xorriso", "-indev", str(path), "-pvd_info"], "")
    assert f"Volume Id    : {seed.label}\n" in said
    out = tmp_path / "out"
    check(["xorriso", "-osirrox", "on", "-indev", str(path), "-extract", "/", str(out)], "")
    assert {file.name: file.read_text() for file in out.iterdir()} == {
        file.name: file.text for file in seed.files
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".seed")] == []


def partition(image: Path, table: str) -> None:
    # It is for everybody, and lies where only root looks.
    program = shutil.which("sfdisk", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program
    subprocess.run([program, "--quiet", str(image)], input=table, text=True, check=True)


def image_with(folder: Path, table: str) -> Path:
    """A raw disk with one FAT partition from 1 MiB on, and one more."""
    image = folder / "arm64.img"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(48 * 2**20)
    partition(image, table)
    subprocess.run(
        ["mformat", "-i", f"{image}@@1M", "-t", "32", "-h", "16", "-s", "64", "::"], check=True
    )
    return image


TABLES = {
    "gpt": "label: gpt\nstart=2048, size=32768, type=U\nstart=40960, type=linux\n",
    "gpt-basic-data": "label: gpt\nstart=2048, size=32768, "
    "type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n",
    "mbr": "label: dos\nstart=2048, size=32768, type=c\nstart=40960, type=a9\n",
    "mbr-second": "label: dos\nstart=40960, type=a9\nstart=2048, size=32768, type=ef\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_credentials_get_into_the_boot_partition_of_an_image(
    kind: str, keys: GuestKeys, tmp_path: Path
) -> None:
    image = image_with(tmp_path, TABLES[kind])
    credentials = netbsd_credentials(shipped("netbsd-arm64"), keys)

    for text in ("sshkey somebody of-before\n", credentials):
        add_to_boot_partition(image, CREDENTIALS_FILE, text)

    read = check(["mtype", "-i", f"{image}@@1M", f"::{CREDENTIALS_FILE}"], "")
    assert read == f"sshkey root {keys.client_public}\nsshkey builder {keys.client_public}\n"


@pytest.mark.parametrize(
    "table", ["", "label: gpt\nstart=2048, type=linux\n", "label: dos\nstart=2048, type=a9\n"]
)
def test_an_image_without_a_fat_partition_is_refused(table: str, tmp_path: Path) -> None:
    image = tmp_path / "x.img"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(8 * 2**20)
    if table:
        partition(image, table)

    with pytest.raises(NodeError, match="has no FAT partition"):
        add_to_boot_partition(image, CREDENTIALS_FILE, "x")


@given(st.binary(max_size=2048))
def test_no_partition_table_can_break_the_search(rest: bytes) -> None:
    for signature in (b"EFI PART", b""):
        table = bytes(510) + b"\x55\xaa" + signature + rest
        offset = boot_partition_offset(table)
        assert offset is None or offset >= 0


def test_root_alone_is_listed_once(keys: GuestKeys) -> None:
    vm = made_up("netbsd", "arm64", user="root")
    assert netbsd_credentials(vm, keys) == f"sshkey root {keys.client_public}\n"
