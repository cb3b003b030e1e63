"""OpenBSD's installation without a question: autoinstall(8), started from the installer's shell.

The answer file cannot bring a host key, and the installer fetches it from port 80 only. So the
volume holds a script beside it, which is started by one typed line, and finishes the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import VmArch
from orchestrator.core.vm_facts import Case, Setting, find_row
from orchestrator.core.vm_seed import HOST_KEY_FILE, READY_LINE, Line, Seed, SeedFile, key_files

if TYPE_CHECKING:
    from orchestrator.core.vm import Vm
    from orchestrator.core.vm_seed import GuestKeys

_LABEL: Final = "seed"
# Of the disk, the installer's medium and the seed, in the order in which QEMU has them.
_SEED_DISK: Final = "sd2"
# encrypt(1) gives nothing that is equal to it: nobody logs in with a password.
_NO_PASSWORD: Final = "*************"  # noqa: S105 -- it is the absence of one
_ARCHITECTURES: Final = {VmArch.AMD64: "amd64", VmArch.ARM64: "arm64"}

# Mount points, their least and greatest size, and their part of what is left: disklabel(8).
# /usr/local is a file system of its own, as the installer lets programs there map memory that is
# writable and executable (wxallowed), which compilers need.
_DISKLABEL: Final = """\
/ 1G
swap 1G-2G 5%
/tmp 1G-4G 8%
/var 1G-2G 5%
/usr 3G-6G 15%
/usr/local 3G-8G 25%
/home 3G-* 42%
"""


def openbsd_seed(vm: Vm, keys: GuestKeys) -> Seed:
    """Return the volume with the answers, the script, and what the first boot does."""
    return Seed(
        label=_LABEL,
        files=(
            SeedFile(name="install.conf", text=_answers(vm, keys)),
            SeedFile(name="disklabel", text=_DISKLABEL),
            SeedFile(name="install.sh", text=_INSTALL),
            SeedFile(name="rc.firsttime", text=_first_boot(vm)),
            *key_files(keys),
        ),
    )


def openbsd_lines(vm: Vm) -> tuple[Line, ...]:
    """Return what is typed to the installer."""
    mount = f"mount -r -t cd9660 /dev/{_SEED_DISK}c /seed"
    start = f"cd /dev && sh MAKEDEV {_SEED_DISK}; mkdir /seed && {mount} && sh /seed/install.sh"
    console: tuple[Line, ...] = ()
    if vm.arch is VmArch.AMD64:
        # On arm64 the serial line is the console anyway.
        console = (
            Line(awaits="boot>", says="set tty com0"),
            Line(awaits="boot>", says="boot"),
        )
    return (*console, Line(awaits="(S)hell?", says="s"), Line(awaits="# ", says=start))


def _answers(vm: Vm, keys: GuestKeys) -> str:
    nic = "em0" if _nic(vm).startswith("e1000") else "vio0"
    arch = _ARCHITECTURES[vm.arch]
    answers = {
        "System hostname": vm.name,
        "Network interface to configure": nic,
        f"IPv4 address for {nic}": "autoconf",
        f"IPv6 address for {nic}": "none",
        "DNS domain name": "localdomain",
        "Password for root account": _NO_PASSWORD,
        "Public ssh key for root account": keys.client_public,
        "Start sshd(8) by default": "yes",
        "Do you want the X Window System to be started by xenodm(1)": "no",
        "Change the default console to com0": "yes",
        "Which speed should com0 use": "115200",
        "Setup a user": vm.user,
        f"Full name for user {vm.user}": vm.user,
        f"Password for user {vm.user}": _NO_PASSWORD,
        f"Public ssh key for user {vm.user}": keys.client_public,
        "Allow root ssh login": "prohibit-password",
        "What timezone are you in": "UTC",
        "Which disk is the root disk": "sd0",
        "Encrypt the root disk with a (p)assphrase or (k)eydisk": "no",
        "Use (W)hole disk MBR, whole disk (G)PT or (E)dit": "gpt"
        if vm.arch is VmArch.ARM64
        else "whole",
        "URL to autopartitioning template for disklabel": "file:/tmp/seed/disklabel",
        "Location of sets": "http",
        "HTTP proxy URL": "none",
        "HTTP Server": "cdn.openbsd.org",
        "Server directory": f"pub/OpenBSD/{vm.release}/{arch}",
        "Set name(s)": "-game* -x* done",
        # Its sets are signed, and the installer has the key.
        "Continue without verification": "no",
    }
    if vm.user == "root":
        answers = {key: value for key, value in answers.items() if "for user" not in key}
        answers["Setup a user"] = "no"
    return "".join(f"{question} = {answer}\n" for question, answer in answers.items())


def _nic(vm: Vm) -> str:
    case = Case(guest=vm.guest, arch=vm.arch, release=vm.release)
    return find_row(Setting.NIC, case).value


_INSTALL: Final = f"""\
# Started in the installer's shell. The new system is below /mnt when the installer has ended.
mkdir -m 755 /tmp/seed && cp /seed/* /tmp/seed/ && chmod 644 /tmp/seed/disklabel || exit 1
/install -af /tmp/seed/install.conf || exit 1
cp /tmp/seed/{HOST_KEY_FILE} /tmp/seed/{HOST_KEY_FILE}.pub /mnt/etc/ssh/ || exit 1
chmod 600 /mnt/etc/ssh/{HOST_KEY_FILE}
chmod 644 /mnt/etc/ssh/{HOST_KEY_FILE}.pub
cat /tmp/seed/rc.firsttime >>/mnt/etc/rc.firsttime
sync
halt -p
"""


def _first_boot(vm: Vm) -> str:
    install = f"pkg_add -I {' '.join(vm.packages)}\n" if vm.packages else ""
    user = ""
    if vm.user != "root":
        user = f"usermod -L build -G operator {vm.user}\n"
    return f"""\
# A compiler needs more memory than the class that a user has.
cat >>/etc/login.conf <<'END'

build:\\
\t:datasize=infinity:\\
\t:openfiles=4096:\\
\t:maxproc=1024:\\
\t:stacksize-cur=32M:\\
\t:tc=default:
END
[ ! -f /etc/login.conf.db ] || cap_mkdb /etc/login.conf
{user}{install}su -l {vm.user} -c 'cargo --version' && echo '{READY_LINE}' >/dev/console
"""
