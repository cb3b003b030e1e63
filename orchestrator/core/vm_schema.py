"""Every key of a virtual machine's definition: the one table behind its parser and its docs."""

from __future__ import annotations

from typing import Final

from orchestrator.core.kinds import (
    Choice,
    Duration,
    Field,
    Flag,
    ListOf,
    Record,
    Size,
    Text,
    Variants,
    Whole,
)
from orchestrator.core.schema import NODE
from orchestrator.core.vm import (
    Accelerator,
    DownloadedImage,
    GoldenImage,
    Guest,
    PackagesImage,
    Vm,
    VmArch,
)

# What a node and a virtual machine say in the same words.
_OF_NODE: Final = {known.key: known.kind for known in NODE.fields}

_SHA256: Final = Field(
    key="sha256",
    kind=Text(
        words="a SHA-256 digest of 64 hexadecimal digits",
        pattern="[0-9A-Fa-f]{64}",
        convert=str.lower,
    ),
    summary="The digest that it must have.",
    example="0" * 64,
)

IMAGES: Final = (
    Record(
        title="image: a download",
        summary="A disk, or an installer, from the server of the system's project.",
        value=DownloadedImage,
        fields=(
            Field(
                key="url",
                kind=Text(
                    words="an https URL",
                    pattern=r"https://[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[1-9][0-9]{0,4})?"
                    r"/[A-Za-z0-9._~/+-]+",
                    max_length=1024,
                ),
                summary="Where it is; the rendered `fetch.sh` downloads, checks and unpacks it.",
                example="https://cdn.openbsd.org/pub/OpenBSD/7.9/arm64/miniroot79.img",
                required=True,
            ),
            _SHA256,
            Field(
                key="installer",
                kind=Flag(),
                summary="Whether it is what installs the system onto an empty disk.",
                example=True,
            ),
        ),
    ),
    Record(
        title="image: a golden image",
        summary="A disk that you have installed once yourself.",
        value=GoldenImage,
        fields=(
            Field(
                key="file",
                kind=Text(
                    words="a file",
                    pattern=r"(?=[\s\S]*\S)[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*",
                    max_length=1024,
                ),
                summary="The disk, raw or qcow2, from the definition's folder on; it is never "
                "written to.",
                example="~/images/netbsd-11.0-amd64.qcow2",
                required=True,
            ),
            _SHA256,
        ),
    ),
    Record(
        title="image: from packages",
        summary="A disk that is made here from the packages of a Debian suite.",
        value=PackagesImage,
        fields=(
            Field(
                key="suite",
                kind=Text(words="a Debian suite", pattern="[a-z][a-z0-9-]*", max_length=64),
                summary="The suite.",
                example="bookworm",
                required=True,
            ),
            Field(
                key="mirror",
                kind=Text(
                    words="the address of a Debian mirror",
                    pattern=r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]+)*/?",
                    max_length=1024,
                ),
                summary="Where the packages are; without it, where those of a Debian host are.",
                example="https://mirror.example.org/debian",
            ),
        ),
    ),
)

VM: Final = Record(
    title="the definition",
    summary="One virtual machine that builds.",
    value=Vm,
    fields=(
        Field(
            key="guest",
            kind=Choice(noun="guest", choices=tuple(Guest), convert=Guest),
            summary="Its system.",
            example="openbsd",
            required=True,
        ),
        Field(
            key="arch",
            kind=Choice(noun="architecture", choices=tuple(VmArch), convert=VmArch),
            summary="Its CPU.",
            example="arm64",
            required=True,
        ),
        Field(
            key="release",
            kind=_OF_NODE["os_release"],
            summary="The release of its system; some choices depend on it.",
            example="7.9",
            required=True,
        ),
        Field(
            key="cores",
            kind=Whole(minimum=1, maximum=256),
            summary="How many CPU cores it has; one for every 1.5 to 2 GiB of memory.",
            example=2,
            required=True,
        ),
        Field(
            key="memory",
            kind=Size(
                words="a size such as `512MiB` or `3GiB`, or a number of bytes",
                units=("MiB", "GiB"),
                minimum_bytes=128 * 2**20,
                maximum_bytes=2**44,
            ),
            summary="Its memory.",
            example="3GiB",
            required=True,
        ),
        Field(
            key="disk",
            kind=Size(
                words="a size such as `24GiB`, or a number of bytes",
                units=("MiB", "GiB"),
                minimum_bytes=2**30,
                maximum_bytes=2**46,
            ),
            summary="The size of its disk; only what is written takes room on the host.",
            example="24GiB",
            required=True,
        ),
        Field(
            key="ssh_port",
            kind=Whole(minimum=1024, maximum=65_535),
            summary="The port on the host's 127.0.0.1 that leads to its SSH server.",
            example=2223,
            required=True,
        ),
        Field(
            key="image",
            kind=Variants(records=IMAGES),
            summary="Where its disk comes from.",
            example={"suite": "bookworm"},
            required=True,
        ),
        Field(
            key="accelerators",
            kind=ListOf(
                item=Choice(noun="accelerator", choices=tuple(Accelerator), convert=Accelerator),
                unique=True,
            ),
            summary="What may run it, in order of preference; the first that the host really has "
            "is taken.",
            example=["kvm", "tcg"],
        ),
        Field(
            key="cpu",
            kind=Text(
                words="a CPU model of QEMU with its options",
                pattern="[A-Za-z0-9][A-Za-z0-9._-]*(?:,[A-Za-z0-9+-][A-Za-z0-9._=-]*)*",
            ),
            summary="The CPU model; without it, the one that the guest is known to start on.",
            example="neoverse-n1",
        ),
        Field(
            key="pinned_cpus",
            kind=Text(
                words="a list of CPU numbers such as `4-7` or `0,2`",
                pattern="[0-9]{1,4}(?:-[0-9]{1,4})?(?:,[0-9]{1,4}(?:-[0-9]{1,4})?)*",
            ),
            summary="The host's CPUs that it stays on; needed where the host's cores differ.",
            example="4-7",
        ),
        Field(
            key="user",
            kind=Text(
                words="a user's name of `a-z 0-9 _ -` that starts with a letter",
                pattern="[a-z][a-z0-9_-]*",
                max_length=31,
            ),
            summary="The user that builds, and logs in with a key.",
            example="root",
        ),
        Field(
            key="packages",
            kind=ListOf(
                item=Text(words="a package's name", pattern="[A-Za-z0-9][A-Za-z0-9._+-]*"),
                unique=True,
            ),
            summary="What is installed beyond the base system: the Rust toolchain at least.",
            example=["rust", "git"],
        ),
        Field(
            key="fresh",
            kind=Flag(),
            summary="Whether every start begins with the disk as it was made.",
            example=False,
        ),
        Field(
            key="offline",
            kind=Flag(),
            summary="Whether it reaches nothing but the host's SSH connection to it.",
            example=True,
        ),
        Field(
            key="boot_timeout",
            kind=Duration(),
            summary="How long it may take from its start until SSH answers.",
            example="15m",
        ),
        Field(
            key="host",
            kind=_OF_NODE["host"],
            summary="The machine that it runs on as a systemd unit; without it, QEMU is started "
            "here.",
            example="alex@10.1.1.27",
        ),
        Field(
            key="host_key",
            kind=_OF_NODE["host_key"],
            summary="The only host key that is accepted from `host`.",
            example=next(known.example for known in NODE.fields if known.key == "host_key"),
        ),
        Field(
            key="unit",
            kind=Text(
                words="the name of a systemd service, with `.service`",
                pattern=r"[A-Za-z0-9][A-Za-z0-9:_.@-]*\.service",
            ),
            summary="The unit on `host` that is started and stopped.",
            example="openbsd-arm64-emulated-vm.service",
        ),
    ),
)

VM_RECORDS: Final = (VM, *IMAGES)
