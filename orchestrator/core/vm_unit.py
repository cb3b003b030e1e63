"""The systemd unit that runs a virtual machine's boot.sh on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import ConfigError
from orchestrator.core.unit_hardening import HARDENING
from orchestrator.core.vm import Accelerator

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm

# The translator keeps up to 1 GiB of translated code beside the guest's memory.
_BESIDE_MIB: Final = 1536
_OWNER: Final = "vms"
_HOMES: Final = ("/home/", "/root/")

_UNIT: Final = """\
# {name}: {title}. Made from vm.yaml, where a change belongs.
# It lies in /etc/systemd/system/. {folder} holds boot.sh, stop.sh and golden.qcow2
# and belongs to {user}; the service cannot write to it. Its state is in /var/lib/vms/{name}.
[Unit]
Description={title}, a virtual machine that builds
After=network.target
# A guest that cannot start is tried five times, and then left for a person to look at.
StartLimitIntervalSec=10min
StartLimitBurst=5

[Service]
Type=exec
User={user}
WorkingDirectory={directory}
ExecStart={program}/boot.sh"
# The guest ends itself, or its power button is pressed, or QEMU ends: that takes up to 3 minutes.
ExecStop={program}/stop.sh"
TimeoutStopSec=240
KillMode=mixed
Restart=on-failure
RestartSec=10
StateDirectory=vms/{name}
StateDirectoryMode=0700
UMask=0077
MemoryMax={memory}M

# It may write to its state only, and gain nothing.
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
{hardening}SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @raw-io @reboot @swap
DevicePolicy=closed
{kvm}
[Install]
WantedBy=multi-user.target
"""

_KVM: Final = """\
# The only device: without it the guest runs all the same, translated.
DeviceAllow=/dev/kvm rw
SupplementaryGroups=kvm
"""


def unit_file(vm: Vm, *, folder: str, user: str | None = None) -> str:
    """Return the unit; `folder` is where boot.sh and stop.sh are on that host.

    Without a user it is the one of the definition's `host`, or `vms`. Raise ConfigError for a
    folder that no unit can name.
    """
    if not folder.isprintable():
        raise ConfigError(
            f"a systemd unit cannot name the folder {ascii(folder)[:200]}",
            hint="take one without control characters",
        )
    directory = folder.replace("%", "%%")
    # Between double quotes, systemd knows backslashes, and fills in variables all the same.
    quoted = directory.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    owner, at, _ = (vm.host or "").partition("@")
    return _UNIT.format(
        hardening=HARDENING,
        name=vm.name,
        title=vm.title,
        folder=folder,
        directory=directory,
        program=f'"{quoted}',
        # What is below a home can only be started if that home can be looked into.
        home="read-only" if folder.startswith(_HOMES) else "yes",
        user=user or (owner if at else _OWNER),
        memory=vm.memory_mib + _BESIDE_MIB,
        kvm=_KVM if Accelerator.KVM in vm.accelerators else "",
    )
