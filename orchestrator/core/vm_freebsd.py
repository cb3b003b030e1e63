"""FreeBSD's first boot: the cloud-config that nuageinit(7) reads, which is in the base system."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestrator.core.vm_seed import READY_LINE, Seed, SeedFile

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm
    from orchestrator.core.vm_seed import GuestKeys

# As nuageinit looks for it. On FAT, tools write labels in upper case, which FreeBSD 14 does not
# find, and FreeBSD 15 wants to write to such a volume. An ISO 9660 volume has neither problem.
_LABEL = "cidata"


def freebsd_seed(vm: Vm, keys: GuestKeys) -> Seed:
    """Return the volume with meta-data and user-data."""
    return Seed(
        label=_LABEL,
        files=(
            SeedFile(name="meta-data", text=_meta_data(vm)),
            SeedFile(name="user-data", text=_user_data(vm, keys)),
        ),
    )


def _meta_data(vm: Vm) -> str:
    return f"instance-id: {vm.name}\nlocal-hostname: {vm.name}\n"


def _user_data(vm: Vm, keys: GuestKeys) -> str:
    private = "".join(f"    {line}\n" for line in keys.host_private.splitlines())
    commands = "".join(f"  - {json.dumps(command)}\n" for command in _commands(vm, keys))
    packages = f"packages: {json.dumps(list(vm.packages))}\n" if vm.packages else ""
    return f"""\
#cloud-config
# {vm.name}: {vm.title}. Made from vm.yaml.

# Without a list of users, one is made whose password everybody knows.
users:
  - name: {vm.user}
    shell: /bin/sh
    ssh_authorized_keys:
      - {keys.client_public}
ssh_pwauth: false

# The host key was made before the guest, so that even the first contact is verified.
ssh_keys:
  ed25519_private: |
{private}  ed25519_public: {keys.host_public}

# Otherwise the first boot upgrades what the image has.
package_upgrade: false
{packages}
runcmd:
{commands}"""


def _commands(vm: Vm, keys: GuestKeys) -> tuple[str, ...]:
    settings = r"PermitRootLogin prohibit-password\nUseDNS no\n"
    return (
        # It alone can switch the machine off without a power button.
        "mkdir -p /root/.ssh",
        "chmod 700 /root/.ssh",
        f"echo '{keys.client_public}' >/root/.ssh/authorized_keys",
        "sed -i '' -E '/^(PermitRootLogin|UseDNS) /d' /etc/ssh/sshd_config",
        f"printf '{settings}' >>/etc/ssh/sshd_config",
        "service sshd restart",
        f"su -l {vm.user} -c 'cargo --version' && echo '{READY_LINE}' >/dev/console",
    )
