"""NetBSD's first boot: credentials in the boot partition of the arm64 image, and a script.

Nothing answers the questions of NetBSD's installer. So amd64 is installed once by hand, and the
script does the rest there; on arm64 it is run over the first SSH connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import VmArch
from orchestrator.core.vm_seed import HOST_KEY_FILE, READY_LINE, Seed, SeedFile, key_files

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm
    from orchestrator.core.vm_seed import GuestKeys

_LABEL: Final = "seed"
# creds_msdos(8) reads it from the FAT partition that the board starts from.
CREDENTIALS_FILE: Final = "creds.txt"


def netbsd_seed(vm: Vm, keys: GuestKeys) -> Seed:
    """Return the volume with the script, and the keys that it puts into place."""
    script = SeedFile(name="provision.sh", text=_provision(vm))
    return Seed(label=_LABEL, files=(script, *key_files(keys)))


def netbsd_credentials(vm: Vm, keys: GuestKeys) -> str:
    """Return creds.txt: root, and the user that builds, log in with the client key."""
    users = dict.fromkeys(("root", vm.user))
    return "".join(f"sshkey {user} {keys.client_public}\n" for user in users)


def _provision(vm: Vm) -> str:
    console = _COM0 if vm.arch is VmArch.AMD64 else ""
    packages = " ".join(vm.packages)
    return f"""\
#!/bin/sh
# {vm.name}: {vm.title}. Run as root, once; made from vm.yaml.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH=/usr/pkg/sbin:/usr/pkg/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The host key was made before the guest, so that every contact from now on is verified.
cp "$here/{HOST_KEY_FILE}" "$here/{HOST_KEY_FILE}.pub" /etc/ssh/
chmod 600 /etc/ssh/{HOST_KEY_FILE}

# Who may log in, and with which key.
id {vm.user} >/dev/null 2>&1 || useradd -m -s /bin/sh -G operator {vm.user}
for user in root {vm.user}; do
    home=$(eval echo "~$user")
    mkdir -p "$home/.ssh"
    cp "$here/authorized_keys" "$home/.ssh/"
    chmod 700 "$home/.ssh"
    chmod 600 "$home/.ssh/authorized_keys"
    chown -R "$user" "$home/.ssh"
done

# QEMU's network never changes: no waiting for an address, for its check, or for a time server.
cat >>/etc/rc.conf <<'END'
sshd=YES
ntpdate=NO
dhcpcd=NO
ifconfig_vioif0="inet 10.0.2.15 netmask 255.255.255.0"
defaultroute=10.0.2.2
END
echo 'nameserver 10.0.2.3' >/etc/resolv.conf
echo 'net.inet.ip.dad_count=0' >>/etc/sysctl.conf
# NetBSD 11 takes an emulated CPU that is slow for a dead one.
if sysctl kern.heartbeat.max_period >/dev/null 2>&1; then
    echo 'kern.heartbeat.max_period=0' >>/etc/sysctl.conf
fi
{console}
# Packages. Before NetBSD 10 the base system cannot verify HTTPS: only the certificates come first.
packages=cdn.NetBSD.org/pub/pkgsrc/packages/NetBSD/$(uname -p)/{vm.release}/All
if [ ! -x /usr/sbin/certctl ]; then
    PKG_PATH=http://$packages pkg_add -U mozilla-rootcerts
    mozilla-rootcerts install || true
fi
PKG_PATH=https://$packages
export PKG_PATH
{f"pkg_add -U {packages}" if packages else ":"}

service sshd restart
su -l {vm.user} -c '/usr/pkg/bin/cargo --version'
echo '{READY_LINE}' >/dev/console
"""


_COM0: Final = """
# Without this line the serial log is empty.
grep -q '^consdev=com0' /boot.cfg || echo 'consdev=com0' >>/boot.cfg
"""
