"""How a guest is finished after its first start: what it does by itself, and what root runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.vm import DownloadedImage, Guest, VmArch

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBoot:
    """What there is to wait for, and to do, before a guest's disk is worth keeping.

    `says_ready`: it installs its packages by itself, and writes READY_LINE on its serial line then.
    `makes_own_host_key`: its first host key is its own, and its serial line has the fingerprint.
    `script`: what root runs over the first connection.
    """

    says_ready: bool = False
    makes_own_host_key: bool = False
    script: str | None = None


def first_boot_of(vm: Vm) -> FirstBoot:
    """Return how a guest from a download is finished; raise ConfigError if that takes a person."""
    match vm.guest:
        case Guest.FREEBSD | Guest.OPENBSD:
            return FirstBoot(says_ready=True)
        case Guest.NETBSD if vm.arch is VmArch.ARM64 and not _is_installer(vm):
            return FirstBoot(makes_own_host_key=True, script=_RUN_SEED)
        case Guest.NETBSD:
            raise ConfigError(
                f"nothing answers the questions of {vm.guest.proper_name}'s installer",
                hint=f"install {vm.name} once by hand (docs/vms.md), and name the disk as "
                "`image.file`",
            )
        case _:
            return FirstBoot()


def _is_installer(vm: Vm) -> bool:
    return isinstance(vm.image, DownloadedImage) and vm.image.installer


# That it has what it was made for: whatever the system, this is where its packages put it.
CARGO_VERSION: Final = """
PATH=/usr/local/bin:/usr/pkg/bin:$HOME/.cargo/bin:/usr/bin:/bin
cargo --version
"""
# The names of disks depend on the release and on the bus; the seed says itself that it is one.
_RUN_SEED: Final = """
PATH=/sbin:/usr/sbin:/bin:/usr/bin
for disk in ld1c ld1d ld1a ld2c ld2d ld0d sd1c sd1d cd0a cd0d; do
    [ -e "/dev/$disk" ] && mount -r -t cd9660 "/dev/$disk" /mnt 2>/dev/null || continue
    if [ -r /mnt/provision.sh ]; then
        sh /mnt/provision.sh 2>&1
        exit
    fi
    umount /mnt
done
echo "none of the disks is the seed"
exit 1
"""
