"""The shell scripts that run a virtual machine without us: boot.sh, stop.sh, keep.sh, fetch.sh.

What is never written to lies in the scripts' own folder: `golden.qcow2`, `seed.img`, an installer's
`installer.img`, the guest's `kernel` and `initrd`. What is written lies in the folder of the state.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator.core.vm import Accelerator, DownloadedImage, Guest, VmPaths
from orchestrator.core.vm_argv import (
    FIRMWARE_FILES,
    SANDBOX,
    Option,
    accelerator_options,
    firmware_of,
    qemu_options,
    shutdown_command,
)
from orchestrator.core.vm_facts import Firmware
from orchestrator.core.vm_probe import PROBE_KERNELS, PROBE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.core.vm import Vm

_PATHS: Final = VmPaths(
    seed="$here/seed.img",
    medium="$here/installer.img",
    kernel="$here/kernel",
    initrd="$here/initrd",
)

_HEAD: Final = """\
#!/bin/sh
# @NAME@: @TITLE@. @SUMMARY@
# Made from vm.yaml, where a change belongs.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
cd "${STATE_DIRECTORY:-$here}"
"""

_BOOT: Final = """
fail() {
    echo "$0: $1" >&2
    exit 2
}

case $here in
*,*) fail "QEMU cannot read a path with a comma: $here" ;;
esac
@DISK@@FIRMWARE@
# Whether a guest really runs like this: KVM that is there may hang, or abort, all the same.
works() {
    [ "$accelerator" != tcg ] || return 0
@PROBE_FILE@    @QEMU@ -nodefaults -machine "$machine" -accel "$accel" -cpu "$cpu" -m 128M \\
        -display none -no-reboot @PROBE@ >/dev/null 2>&1 &
    pid=$!
    seconds=0
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$seconds" -ge @PROBE_SECONDS@ ]; then
            kill -9 "$pid"
            wait "$pid" || return 1
        fi
        sleep 1
        seconds=$((seconds + 1))
    done
    wait "$pid"
}

# The first of these that this machine can really do.
chosen=
set -- @ACCELERATORS@
for accelerator; do
    case $accelerator in
@CASES@    esac
    if works; then
        chosen=$accelerator
        break
    fi
    echo "$0: a guest does not run with $accelerator here" >&2
done
[ -n "$chosen" ] || fail "none of the accelerators runs a guest here"
[ -z "${CAUTIOUS:-}" ] || cpu=@CAUTIOUS_CPU@

# One option of QEMU a line.
set -- -machine "$machine"
set -- "$@" -accel "$accel"
set -- "$@" -cpu "$cpu"
@OPTIONS@
exec @PINNED@@QEMU@ "$@"
"""

_OVERLAY: Final = """\
    # @DISK_BECAUSE@
    @DISK_GUARD@qemu-img create -q -f qcow2 -F qcow2 -b "$here/golden.qcow2" @DISK@ @SIZE@
"""
_GOLDEN: Final = """
if [ -r "$here/golden.qcow2" ]; then
@OVERLAY@else
    fail "there is no golden.qcow2 in $here"
fi
"""
_INSTALLED: Final = """
if [ -r "$here/golden.qcow2" ]; then
@OVERLAY@elif [ -r "$here/installer.img" ]; then
    # An empty disk to install onto; afterwards it becomes golden.qcow2.
    [ -e @DISK@ ] || qemu-img create -q -f qcow2 @DISK@ @SIZE@
else
    fail "there is neither golden.qcow2 nor installer.img in $here"
fi
"""

_FIRMWARE: Final = """
# A copy of the host's firmware, and of its settings, which it writes to.
take_firmware() {
    [ -r "$1" ] && cp "$1" @CODE@ && cp "$2" @VARS@
}
@TRIES@ ||
    fail "there is no UEFI firmware for arm64: install qemu-efi-aarch64, or QEMU's own"
"""

_STOP: Final = """
# How long the guest may take to end, and again after its power button.
grace=${GRACE_SECONDS:-60}
pid=$(cat @PID_FILE@ 2>/dev/null) || exit 0

# Say one command to QEMU's monitor.
monitor() {
    {
        printf '{"execute": "qmp_capabilities"}\\n{"execute": "%s"}\\n' "$1"
        sleep 1
    } | if command -v socat >/dev/null; then
        socat -t 1 - UNIX-CONNECT:@MONITOR@ >/dev/null
    else
        nc -U -w 1 @MONITOR@ >/dev/null
    fi
}

# Whether it ends within so many seconds.
ends_within() {
    seconds=$1
    while kill -0 "$pid" 2>/dev/null; do
        [ "$seconds" -gt 0 ] || return 1
        sleep 1
        seconds=$((seconds - 1))
    done
}

# The guest itself, where the key and the host key of its making lie beside this script.
if [ -r "$here/client-key" ] && [ -r "$here/known-hosts" ]; then
    ssh -p @PORT@ -i "$here/client-key" -o BatchMode=yes -o ConnectTimeout=10 \\
        -o "UserKnownHostsFile=\\"$here/known-hosts\\"" -o StrictHostKeyChecking=yes \\
        root@127.0.0.1 '@SHUTDOWN@' || true
    ends_within "$grace" && exit 0
fi
# Its power button.
monitor system_powerdown || true
ends_within "$grace" && exit 0
echo "$0: the guest does not end by itself: ending QEMU" >&2
monitor quit || true
ends_within 20
"""


_KEEP: Final = """
fail() {
    echo "$0: $1" >&2
    exit 2
}

[ ! -e @PID_FILE@ ] || fail "it runs: stop it first"
[ -e @DISK@ ] || fail "there is no @DISK@ in $PWD"
# Whole, or not at all; the older one may be what this one is based on.
qemu-img convert -O qcow2 @DISK@ "$here/golden.part"
mv "$here/golden.part" "$here/golden.qcow2"
rm @DISK@
@CLEANUP@"""
_CLEANUP: Final = """\
# Only the first boot needs them, and one of them holds the guest's private key.
rm -f "$here/seed.img" "$here/installer.img"
"""


_FETCH: Final = """
fail() {
    echo "$0: $1" >&2
    exit 2
}

cd "$here"
url=@URL@
digest=${1:-@DIGEST@}
[ -n "$digest" ] || fail "say its SHA-256 digest, as its project signs it: $0 DIGEST"
[ ! -e @FILE@ ] || fail "there is a @FILE@ already"
curl -fL --proto '=https' --retry 3 -o download.part "$url"
if command -v sha256sum >/dev/null; then
    found=$(sha256sum <download.part)
else
    found=$(shasum -a 256 <download.part)
fi
if [ "${found%% *}" != "$digest" ]; then
    rm download.part
    fail "$url is not what it should be: its digest is ${found%% *}"
fi
@UNPACK@
"""
_UNPACK: Final = """\
@TOOL@ -dc download.part >unpacked.part
mv unpacked.part @FILE@
rm download.part"""


def boot_script(vm: Vm) -> str:
    """Return boot.sh: it runs the virtual machine in the foreground, until it ends."""
    summary = "Runs it in the foreground until it ends; CAUTIOUS=1 takes a plainer CPU."
    kernel = PROBE_KERNELS.get(vm.arch)
    values = {
        "QEMU": vm.arch.qemu,
        "PROBE_FILE": _probe_file(kernel) if kernel else "",
        "PROBE": "-kernel probe" if kernel else "-boot reboot-timeout=1",
        "PROBE_SECONDS": str(PROBE_SECONDS),
        "ACCELERATORS": " ".join(vm.accelerators),
        "CASES": "".join(_case(vm, accelerator) for accelerator in vm.accelerators),
        "CAUTIOUS_CPU": _cpu(vm, cautious=True),
        "DISK": _disk(vm),
        "FIRMWARE": _firmware(vm) if firmware_of(vm) is Firmware.UEFI else "",
        "OPTIONS": _options(vm),
        "PINNED": f"taskset -c {vm.pinned_cpus} " if vm.pinned_cpus else "",
    }
    return _head(vm, summary) + _filled(_BOOT, values)


def stop_script(vm: Vm) -> str:
    """Return stop.sh: it asks the guest to end, then presses its power button, then ends QEMU.

    It takes three minutes at most, and ends with 0 when the virtual machine has ended.
    """
    values = {
        "PID_FILE": _PATHS.pid_file,
        "MONITOR": _PATHS.monitor,
        "PORT": str(vm.ssh_port),
        "SHUTDOWN": shutdown_command(vm),
    }
    return _head(vm, "Stops it, gracefully if it can.") + _filled(_STOP, values)


def keep_script(vm: Vm) -> str:
    """Return keep.sh: what the guest has written becomes the disk that every start begins with."""
    # Debian's image reads its seed at every boot.
    cleanup = "" if vm.guest is Guest.DEBIAN else _CLEANUP
    values = {"PID_FILE": _PATHS.pid_file, "DISK": _PATHS.disk, "CLEANUP": cleanup}
    return _head(vm, "Makes its disk, as it is now, the one that it begins with.") + _filled(
        _KEEP, values
    )


def fetch_script(vm: Vm, image: DownloadedImage) -> str:
    """Return fetch.sh: it downloads the image, checks its digest and unpacks it.

    It ends with 2, and leaves nothing behind, if the digest is another one or nobody says it.
    """
    tool = next((tool for end, tool in _TOOLS.items() if image.url.endswith(end)), None)
    file = "installer.img" if image.installer else _UNPACKED[".img.gz" in image.url]
    unpack = _filled(_UNPACK, {"TOOL": tool, "FILE": file}) if tool else f"mv download.part {file}"
    values = {
        "URL": image.url,
        "DIGEST": image.sha256 or "",
        "FILE": file,
        "UNPACK": unpack,
    }
    return _head(vm, "Downloads its image, which must have the right digest.") + _filled(
        _FETCH, values
    )


_TOOLS: Final = {".xz": "xz", ".gz": "gzip"}
# A raw image of NetBSD gets its credentials before it becomes the disk.
_UNPACKED: Final = {True: "arm64.img", False: "golden.qcow2"}


def _head(vm: Vm, summary: str) -> str:
    return _filled(_HEAD, {"NAME": vm.name, "TITLE": vm.title, "SUMMARY": summary})


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its @NAMES@ replaced, in one pass."""
    return re.sub("@([A-Z_]+)@", lambda match: values[match[1]], text)


def _probe_file(kernel: bytes) -> str:
    octal = "".join(f"\\{byte:03o}" for byte in kernel)
    return f"    printf '{octal}' >probe\n"


def _case(vm: Vm, accelerator: Accelerator) -> str:
    machine, accel, cpu = accelerator_options(vm, accelerator)
    lines = [f"    {accelerator})"]
    for name, option in (("machine", machine), ("accel", accel), ("cpu", cpu)):
        lines += [f"        # {option.because}", f"        {name}={option.value}"]
    return "\n".join([*lines, "        ;;", ""])


def _is_installed(vm: Vm) -> bool:
    return isinstance(vm.image, DownloadedImage) and vm.image.installer


def _cpu(vm: Vm, *, cautious: bool) -> str:
    return accelerator_options(vm, Accelerator.TCG, cautious=cautious)[2].value


def _disk(vm: Vm) -> str:
    values = {"DISK": _PATHS.disk, "SIZE": str(vm.disk_bytes)}
    if vm.fresh:
        values |= {
            "DISK_BECAUSE": "Every start begins with the disk as it was made.",
            "DISK_GUARD": "",
        }
    else:
        values |= {
            "DISK_BECAUSE": "What the guest writes is kept apart from the disk as it was made.",
            "DISK_GUARD": f"[ -e {_PATHS.disk} ] || ",
        }
    values["OVERLAY"] = _filled(_OVERLAY, values)
    return _filled(_INSTALLED if _is_installed(vm) else _GOLDEN, values)


def _firmware(vm: Vm) -> str:
    tries = ["" if vm.fresh else f"[ -e {_PATHS.firmware_vars} ]"]
    tries += [f"take_firmware {code} {settings}" for code, settings in FIRMWARE_FILES]
    values = {
        "CODE": _PATHS.firmware_code,
        "VARS": _PATHS.firmware_vars,
        "TRIES": " ||\n    ".join(filter(None, tries)),
    }
    return _filled(_FIRMWARE, values)


def _options(vm: Vm) -> str:
    chosen_above = ("-machine", "-accel", "-cpu")
    without = VmPaths(kernel=_PATHS.kernel, initrd=_PATHS.initrd)
    plain = _options_of(vm, without)
    seed = _options_of(vm, dataclasses.replace(without, seed=_PATHS.seed))
    medium = _options_of(vm, dataclasses.replace(without, medium=_PATHS.medium))
    lines = [line for each in plain if each.name not in chosen_above for line in _lines(each)]
    lines += _only_if('[ -r "$here/seed.img" ]', _more(seed, plain))
    if _is_installed(vm):
        lines += _only_if('[ ! -r "$here/golden.qcow2" ]', _more(medium, plain))
    return "\n".join([*lines, *_only_if('[ "$(uname -s)" = Linux ]', [SANDBOX])])


def _options_of(vm: Vm, paths: VmPaths) -> tuple[Option, ...]:
    return qemu_options(vm, paths, Accelerator.TCG, sandboxed=False)


def _more(options: Iterable[Option], than: tuple[Option, ...]) -> list[Option]:
    return [each for each in options if each not in than]


def _only_if(condition: str, options: Iterable[Option]) -> list[str]:
    lines = [f"    {line}" for each in options for line in _lines(each)]
    return [f"if {condition}; then", *lines, "fi"]


def _lines(option: Option) -> tuple[str, str]:
    words = " ".join(_quoted(word) for word in option.words)
    return f"# {option.because}", f'set -- "$@" {words}'


def _quoted(word: str) -> str:
    """Return an argument for the shell, in which `$here` is what it stands for."""
    # Nothing that a definition may say has a character that is special within these quotes.
    return word if re.fullmatch("[A-Za-z0-9_.,:=/+-]+", word) else f'"{word}"'
