"""A virtual machine's definition: what is read, what is refused and how, and what is shipped."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.kinds import INVALID, Field, Place, Record
from orchestrator.core.vm import (
    RECIPES,
    Accelerator,
    DownloadedImage,
    GoldenImage,
    Guest,
    PackagesImage,
    VmArch,
)
from orchestrator.core.vm_parser import parse_vm
from orchestrator.core.vm_schema import VM_RECORDS
from orchestrator.workspace import list_vms, load_vm
from tests.vms.definitions import NAMES, TOP, data_of, made_up, shipped

if TYPE_CHECKING:
    from pathlib import Path


SIZE = "a size such as `512MiB` or `3GiB`, or a number of bytes"


def problems_of(data: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_vm(data, name="x", place="vm.yaml")
    assert caught.value.hint == "docs/vms.md explains every key"
    return caught.value.message.split("\n")


def test_there_is_a_definition_for_every_recipe() -> None:
    assert {(shipped(name).guest, shipped(name).arch) for name in NAMES} == set(RECIPES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_definition_is_named_after_what_it_is(name: str) -> None:
    vm = shipped(name)

    assert vm.name == name == f"{vm.guest}-{vm.arch}"
    assert vm.user == "builder"
    assert vm.fresh
    assert vm.packages


def test_no_two_shipped_definitions_share_a_port() -> None:
    ports = [shipped(name).ssh_port for name in NAMES]
    assert len(set(ports)) == len(ports)


def test_a_definition_says_everything_that_it_can() -> None:
    vm = made_up(
        "openbsd",
        "arm64",
        memory="512MiB",
        disk="24GiB",
        accelerators=["tcg"],
        cpu="neoverse-n1",
        pinned_cpus="4-7",
        user="root",
        packages=["rust"],
        fresh=False,
        offline=True,
        boot_timeout="1h",
        host="alex@10.1.1.27",
        unit="openbsd-arm64.service",
    )

    assert (vm.guest, vm.arch, vm.release) == (Guest.OPENBSD, VmArch.ARM64, "7.9")
    assert vm.memory_mib == 512
    assert vm.memory_bytes == 512 * 2**20
    assert vm.disk_bytes == 24 * 2**30
    assert vm.accelerators == (Accelerator.TCG,)
    assert vm.boot_timeout == timedelta(hours=1)
    assert vm.image == DownloadedImage(
        url="https://download.example.org/miniroot.img", installer=True
    )
    assert (vm.host, vm.unit) == ("alex@10.1.1.27", "openbsd-arm64.service")
    assert vm.target.triple == "aarch64-unknown-openbsd"
    assert vm.title == "OpenBSD 7.9 arm64"
    assert vm.arch.qemu == "qemu-system-aarch64"


def test_a_definition_that_says_little_has_good_defaults() -> None:
    vm = made_up("debian", "amd64")

    assert vm.image == PackagesImage(suite="bookworm")
    assert vm.accelerators == (Accelerator.KVM, Accelerator.HVF, Accelerator.TCG)
    assert (vm.user, vm.fresh, vm.offline, vm.host) == ("builder", True, False, None)


def test_every_mistake_is_told_at_once_and_at_its_place() -> None:
    assert problems_of(
        {
            "guest": "openbs",
            "arch": "arm64",
            "memory": "3GB",
            "cores": 0,
            "acelerators": ["kvm"],
            "ssh_port": 22,
            "image": {"sha256": "0" * 64},
            "unit": "x",
            "cpu": "host,,x",
        }
    ) == [
        "vm.yaml: guest: unknown guest `openbs`, did you mean `openbsd`?",
        f"vm.yaml: memory: must be {SIZE}, not `3GB`",
        "vm.yaml: cores: must be a whole number from 1 to 256, not `0`",
        "vm.yaml: acelerators: unknown key, did you mean `accelerators`?",
        "vm.yaml: ssh_port: must be a whole number from 1024 to 65535, not `22`",
        "vm.yaml: image: must be a mapping with one of `url`, `file`, `suite`",
        "vm.yaml: unit: must be the name of a systemd service, with `.service`, not `x`",
        "vm.yaml: cpu: must be a CPU model of QEMU with its options, not `host,,x`",
        "vm.yaml: `release` is missing",
        "vm.yaml: `disk` is missing",
        "vm.yaml: `unit` needs a `host`: where it is",
    ]


def test_an_empty_file_lacks_everything_that_is_needed() -> None:
    assert [line.split("`")[1] for line in problems_of(None)] == [
        known.key for known in VM_RECORDS[0].fields if known.required
    ]
    assert problems_of(["x"]) == ["vm.yaml: must be a mapping of keys, not a list"]


def test_memory_is_too_small_or_too_large() -> None:
    assert problems_of(data_of("debian", "amd64", memory="64MiB")) == [
        "vm.yaml: memory: must be at least 128MiB, not `64MiB`"
    ]
    assert problems_of(data_of("debian", "amd64", memory="99999GiB")) == [
        "vm.yaml: memory: must be at most 16384GiB, not `99999GiB`"
    ]


@pytest.mark.parametrize("guest", ["freebsd", "openbsd"])
def test_a_machine_without_high_memory_has_room_for_3_gib(guest: str) -> None:
    assert made_up(guest, "arm64", memory="3GiB").memory_mib == 3072
    assert problems_of(data_of(guest, "arm64", memory="4GiB")) == [
        "vm.yaml: memory: must be at most 3GiB: with highmem=off there is room for 3 GiB"
    ]


def test_only_kvm_limits_the_memory_of_the_other_arm_guests() -> None:
    data = data_of("debian", "arm64", memory="4GiB")

    assert problems_of(data)[0].startswith("vm.yaml: memory: must be at most 3GiB")
    assert problems_of(data | {"accelerators": ["tcg", "xen"]}) == [
        "vm.yaml: accelerators[1]: unknown accelerator `xen`, must be one of `kvm`, `hvf`, `tcg`"
    ]
    parse_vm(data | {"accelerators": ["tcg"]}, name="x", place="vm.yaml")


def test_a_guest_has_a_recipe_for_some_architectures_only() -> None:
    assert problems_of(data_of("freebsd", "riscv64")) == [
        "vm.yaml: arch: FreeBSD has no recipe for it, only for `amd64`, `arm64`"
    ]


def test_an_image_from_packages_is_for_debian_and_for_nothing_else() -> None:
    suite = {"suite": "bookworm"}
    assert problems_of(data_of("netbsd", "amd64", image=suite)) == [
        "vm.yaml: image: `suite` is for Debian, not for NetBSD"
    ]
    golden = {"file": "x.qcow2"}
    assert problems_of(data_of("debian", "amd64", image=golden)) == [
        "vm.yaml: image: Debian's is made from packages: it needs a `suite`"
    ]


def test_a_host_and_a_unit_belong_together() -> None:
    assert problems_of(data_of("debian", "amd64", host="alex@rig")) == [
        "vm.yaml: `host` needs a `unit`: what is started there"
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user", "Root; reboot"),
        ("packages", ["rust; reboot"]),
        ("packages", ["-rf"]),
        ("cpu", "max file=/etc/passwd"),
        ("pinned_cpus", "0;reboot"),
        ("release", 7.9),
        ("image", {"url": "http://example.org/x"}),
        ("image", {"url": "https://example.org/x$(reboot)"}),
        ("image", {"url": "https://example.org/x", "sha256": "abc"}),
    ],
)
def test_what_could_reach_a_shell_is_refused(key: str, value: object) -> None:
    (problem,) = problems_of(data_of("freebsd", "amd64") | {key: value})
    assert problem.startswith(f"vm.yaml: {key}")


def write(folder: Path, name: str, text: str) -> None:
    (folder / "vms" / name).mkdir(parents=True)
    (folder / "vms" / name / "vm.yaml").write_text(text)


GOLDEN = """\
guest: netbsd
arch: amd64
release: "11.0"
cores: 1
memory: 1GiB
disk: 4GiB
ssh_port: 2299
image: {file: disks/netbsd.qcow2}
"""


def test_a_golden_image_is_found_from_the_definitions_own_folder(tmp_path: Path) -> None:
    write(tmp_path, "mine", GOLDEN)

    vm = load_vm(tmp_path, "mine")

    assert vm.name == "mine"
    assert vm.image == GoldenImage(file=str(tmp_path / "vms/mine/disks/netbsd.qcow2"))


def test_a_definition_that_is_not_there_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, "netbsd-amd64", GOLDEN)
    (tmp_path / "vms" / "Not A Name").mkdir()
    (tmp_path / "vms" / "Not A Name" / "vm.yaml").write_text(GOLDEN)

    assert list_vms(tmp_path) == ("netbsd-amd64",)
    for name in ("netbsd-amd65", "Not A Name", "../vms/netbsd-amd64"):
        with pytest.raises(ConfigError, match="there is no virtual machine"):
            load_vm(tmp_path, name)
    with pytest.raises(ConfigError, match="did you mean `netbsd-amd64`") as caught:
        load_vm(tmp_path, "netbsd-amd65")
    assert "docs/vms.md" in (caught.value.hint or "")


def test_a_mistake_in_a_file_is_told_with_the_files_name(tmp_path: Path) -> None:
    write(tmp_path, "x", GOLDEN.replace("cores: 1", "cores: many"))

    with pytest.raises(ConfigError, match=r"/vms/x/vm\.yaml: cores: must be a whole number"):
        load_vm(tmp_path, "x")


@pytest.mark.parametrize(
    ("record", "known"),
    [(record, known) for record in VM_RECORDS for known in record.fields],
    ids=lambda value: value.key if isinstance(value, Field) else value.title,
)
def test_every_key_has_an_example_that_it_accepts(record: Record, known: Field) -> None:
    place = Place(file="f")
    assert known.kind.read(known.example, place) is not INVALID
    default = record.default_of(known)
    if default not in (None, []):
        assert known.kind.read(default, place) is not INVALID
    assert not place.problems


def test_what_is_shipped_stands_beside_the_shipped_inventory() -> None:
    assert (TOP / "build-nodes.yaml").exists()
    assert set(NAMES) == {path.parent.name for path in TOP.glob("vms/*/vm.yaml")}
