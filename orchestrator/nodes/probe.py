"""What a machine is and has, in one round trip."""

from __future__ import annotations

import re
import secrets
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import LinkError, NodeError
from orchestrator.core.facts import NodeFacts
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from orchestrator.nodes.transport import Transport

__all__ = ["SAFE_PATH", "NodeFacts", "probe", "probe_with_push"]

# Nothing in it means anything to a shell, so such a path may stand anywhere in a script.
SAFE_PATH: Final = re.compile(r"/[A-Za-z0-9._/+-]*")


async def probe(
    transport: Transport,
    *,
    workdir: str | None = None,
    timeout: timedelta = timedelta(seconds=60),  # noqa: ASYNC109 -- passed on to run
) -> NodeFacts:
    """Return what the node is and has; make its workdir, `~/.cache/orchestrator` unless given.

    Raise NodeError when the workdir cannot be used: a build would fail there later.
    """
    if workdir is not None:
        refuse_unsafe(workdir, "its workdir")
    asked_at = datetime.now(UTC)
    completed = await run(transport, _SCRIPT, workdir or "-", timeout=timeout)
    answered_at = datetime.now(UTC)
    said = _parse(completed.stdout)
    if "end" not in said:
        raise NodeError(
            f"the node did not say what it is: {_last_line(completed.stderr)}",
            hint="log in and run `sh -c 'uname -a; df -k .'`: does it have a POSIX shell?",
        )
    if problem := said.get("problem"):
        raise NodeError(problem, hint="set `workdir:` to a folder that this user can write to")
    refuse_unsafe(said["workdir"], "its workdir")
    return _facts(said, asked_at + (answered_at - asked_at) / 2)


async def probe_with_push(transport: Transport, *, workdir: str | None = None) -> NodeFacts:
    """Return what `probe` does, and whether the node takes a small file, which is removed again.

    A release pushes the source and, to a gate, the binaries: an sshd may run scripts and have no
    SFTP all the same.
    """
    facts = await probe(transport, workdir=workdir)
    place = f"{facts.workdir}/.probe-{secrets.token_hex(8)}"
    refusal = None
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"orchestrator\n")
        file.flush()
        try:
            await transport.push(Path(file.name), place)
        except LinkError:
            raise
        except NodeError as error:
            refusal = error.message
    await run(transport, 'rm -f "$1"', place, timeout=_REMOVAL)
    return replace(facts, push_refusal=refusal)


_REMOVAL: Final = timedelta(seconds=60)


# Every probe may fail by itself: a missing tool is a missing fact.
_SCRIPT: Final = r"""
say() {
    [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"
}

# find_first TOOL...: in $found where the first of them is that is here. By hand, because to ask
# `command -v` takes a copy of the shell each time, which is slow on an emulated machine.
find_first() {
    found=
    separators=$IFS
    IFS=:
    set -f
    for tool in "$@"; do
        for folder in $PATH; do
            if [ -f "$folder/$tool" ] && [ -x "$folder/$tool" ]; then
                found=$folder/$tool
                break 2
            fi
        done
    done
    set +f
    IFS=$separators
}

say_first_of() {
    what=$1
    shift
    find_first "$@"
    say "$what" "$found"
}

sysctl_first() {
    for key in "$@"; do
        sysctl -n "$key" 2>/dev/null && return
    done
}

release() {
    case $system in
    Linux) . /etc/os-release && printf '%s %s\n' "${ID-}" "${VERSION_ID-}" ;;
    FreeBSD) freebsd-version -u ;;
    Darwin) sw_vers -productVersion ;;
    *) printf '%s\n' "$kernel" ;;
    esac
}

say_memory() {
    while read -r key kilobytes _unit; do
        if [ "$key" = MemTotal: ]; then
            say memory_kb "$kilobytes"
            return
        fi
    done </proc/meminfo
    say memory_bytes "$(sysctl_first hw.memsize hw.physmem64 hw.physmem)"
}

say_boot() {
    boot_id=
    read -r boot_id </proc/sys/kernel/random/boot_id ||
        boot_id=$(sysctl_first kern.bootsessionuuid kern.boot_id kern.boottime)
    say boot_id "$boot_id"
}

say_compiler() {
    while read -r key value; do
        case $key in
        release:) say rustc "$value" ;;
        host:) say host_triple "$value" ;;
        esac
    done <<COMPILER
$(rustc -vV)
COMPILER
}

# The targets whose standard library is there.
rust_targets() {
    sysroot=$(rustc --print sysroot) || return
    for library in "$sysroot"/lib/rustlib/*/lib; do
        library=${library%/lib}
        printf '%s ' "${library##*/}"
    done
}

# On a Mac the compiler is a stub until Apple's tools are there.
say_linker() {
    [ "$system" != Darwin ] || xcode-select -p >/dev/null || return
    say_first_of linker cc clang gcc
}

# Every system has a cksum, and on NetBSD alone it is the tool that knows SHA-256.
say_hash_tool() {
    find_first sha256sum sha256 shasum openssl
    [ -n "$found" ] || ! cksum -a SHA256 </dev/null >/dev/null || find_first cksum
    say hash_tool "$found"
}

# -P gives Linux one line for each file system; the BSDs know no inodes with it.
inodes() {
    case $system in
    Linux) df -Pi . ;;
    *) df -ki . ;;
    esac | awk 'NR > 1 { printf "%s ", $0 }'
}

# runs_programs DIR: yes or no; nothing where none can be written.
runs_programs() {
    printf '#!/bin/sh\nexit 0\n' >"$1/.probe.$$" && chmod 700 "$1/.probe.$$" || return
    if "$1/.probe.$$"; then echo yes; else echo no; fi
    rm -f "$1/.probe.$$"
}

# In a folder of its own: a name in /tmp itself could be somebody else's link.
tmp_runs_programs() {
    folder=$(mktemp -d /tmp/orchestrator.XXXXXXXXXX) || return
    runs_programs "$folder"
    rmdir "$folder"
}

# root is excluded unless somebody says otherwise.
say_kills_processes() {
    [ "$uid" != 0 ] && [ -d /run/systemd/system ] || return
    case $(busctl --timeout=2 get-property org.freedesktop.login1 /org/freedesktop/login1 \
        org.freedesktop.login1.Manager KillUserProcesses) in
    'b true') if [ -e "/var/lib/systemd/linger/$user" ]; then kills=no; else kills=yes; fi ;;
    'b false') kills=no ;;
    *) return ;;
    esac
    say kills_processes "$kills"
}

# model_in FILE...: the model of the first CPU in such a list as Linux has, if it has a name.
model_in() {
    sed -n -e '/^[Mm]odel name[^:]*: */{' -e 's///' -e '/[^ -]/{' -e p -e q -e '}' -e '}' "$@"
}

say_cpu() {
    model=$(model_in /proc/cpuinfo)
    [ -n "$model" ] || model=$(
        {
            sysctl_first machdep.cpu.brand_string machdep.cpu_brand hw.model
            lscpu | model_in
            tr -d '\000' </proc/device-tree/model && echo
        } | sed -n -e '/[^ -]/{' -e p -e q -e '}'
    )
    say cpu "$model"
}

# musl's `ldd` is its loader, which says what it is on standard error.
say_libc() {
    glibc=$(getconf GNU_LIBC_VERSION)
    say glibc "$glibc"
    [ -n "$glibc" ] || say musl "$(ldd 2>&1 | sed -n 's/^Version //p')"
}

# In a subshell: IFS is its own.
login_finds_cargo() {
    IFS=:
    for folder in $inherited; do
        [ ! -x "$folder/cargo" ] || {
            echo yes
            return
        }
    done
    echo no
}

# NetBSD's ftp knew no HTTPS for long, and then did not verify whom it spoke to.
say_downloader() {
    case $system in
    OpenBSD) find_first curl wget ftp ;;
    *) find_first curl wget fetch ;;
    esac
    say downloader "${found:-none}"
}

# OpenBSD only: `mount` tells it of each file system.
say_allows_wx() {
    place=$(df -P . | awk 'NR == 2 { print $NF }')
    case $(mount | awk -v place="$place" '$3 == place') in
    *wxallowed*) say allows_wx yes ;;
    *) say allows_wx no ;;
    esac
}

use_workdir() {
    [ -d "$1" ] || (umask 077 && mkdir -p "$1") || return
    # Someone else's folder could be changed under a build, up to the binary.
    [ -n "$(find "$1/." -prune -user "$uid" ! -perm -0002)" ] || {
        say problem "the workdir $1 belongs to another user, or everybody may write to it"
        return
    }
    # A full disk is another matter: what can be done about it depends on what there is.
    if ! (cd "$1" && : >".probe.$$" && rm -f ".probe.$$") && [ ! -w "$1" ]; then
        say problem "the workdir $1 cannot be written to"
        return
    fi
    cd "$1" || return
    say workdir "$(pwd -P)"
    say disk_kb "$(df -Pk . | awk 'NR == 2 { print ($4 > 0 ? $4 : 0) }')"
    say inodes "$(inodes)"
    say workdir_runs_programs "$(runs_programs .)"
    [ "$system" != OpenBSD ] || say_allows_wx
}

inherited=$PATH
PATH=$HOME/.cargo/bin:/usr/local/bin:/usr/local/sbin:/usr/pkg/bin:/usr/pkg/sbin:/opt/homebrew/bin
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin:$inherited
LC_ALL=C
export PATH LC_ALL
exec 2>/dev/null
user=$(id -un)
uid=$(id -u)
system=$(uname -s)
kernel=$(uname -r)
say now "$(date +%s)"
say path "$PATH"
say home "$HOME"
say user "$user"
say system "$system"
say kernel "$kernel"
say machine "$(uname -m)"
say processor "$(uname -p)"
say hostname "$(uname -n)"
say release "$(release)"
say cpus "$(nproc || sysctl_first hw.ncpuonline hw.ncpu || getconf _NPROCESSORS_ONLN)"
say_memory
say data_limit_kb "$(ulimit -H -d)"
say_boot
say cargo_home "${CARGO_HOME-}"
say rustup_home "${RUSTUP_HOME-}"
say_cpu
say_libc
say login_shell "${SHELL-}"
say cargo "$(cargo --version)"
say_first_of cargo_path cargo
say login_finds_cargo "$(login_finds_cargo)"
say_downloader
say_compiler
say rust_targets "$(rust_targets)"
say_linker
say_first_of tar tar
say_hash_tool
say tmp_runs_programs "$(tmp_runs_programs)"
say_kills_processes
case $1 in
-) use_workdir "$HOME/.cache/orchestrator" || say problem "cannot make $HOME/.cache/orchestrator" ;;
*) use_workdir "$1" || say problem "cannot make the workdir $1" ;;
esac
printf 'end=1\n'
"""


def refuse_unsafe(path: str, name: str) -> None:
    """Raise NodeError for a path that could not stand in a script as it is."""
    if not SAFE_PATH.fullmatch(path) or ".." in path.split("/"):
        raise NodeError(
            f"{name} is {path[:200]!r}, and builds need a plain absolute path",
            hint="set `workdir:` to a path of letters, digits and . _ + - /",
        )


def _parse(stdout: bytes) -> dict[str, str]:
    lines = stdout.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _facts(said: dict[str, str], now: datetime) -> NodeFacts:
    return NodeFacts(
        system=said.get("system", ""),
        kernel=said.get("kernel", ""),
        machine=said.get("machine", ""),
        processor=said.get("processor"),
        release=said.get("release"),
        glibc=said.get("glibc", "").removeprefix("glibc ") or None,
        hostname=said.get("hostname"),
        user=said.get("user", ""),
        home=said.get("home", "/"),
        workdir=said["workdir"],
        path=_absolute_once(said.get("path", "")),
        cargo_home=said.get("cargo_home"),
        rustup_home=said.get("rustup_home"),
        cpus=_number(said, "cpus"),
        memory_bytes=_bytes(said, "memory_kb") or _number(said, "memory_bytes"),
        data_limit_bytes=_bytes(said, "data_limit_kb"),
        disk_free_bytes=_bytes(said, "disk_kb"),
        inodes_free=_inodes_free(said.get("inodes", "")),
        boot_id=said.get("boot_id"),
        cargo=said.get("cargo", "").removeprefix("cargo ") or None,
        rustc=said.get("rustc"),
        host_triple=said.get("host_triple"),
        rust_targets=tuple(said.get("rust_targets", "").split()),
        linker=said.get("linker"),
        tar=said.get("tar"),
        hash_tool=said.get("hash_tool"),
        workdir_runs_programs=_claim(said, "workdir_runs_programs"),
        tmp_runs_programs=_claim(said, "tmp_runs_programs"),
        kills_processes=_claim(said, "kills_processes"),
        clock_offset=_offset(_number(said, "now"), now),
        cpu=said.get("cpu"),
        musl=said.get("musl"),
        login_shell=said.get("login_shell"),
        cargo_path=said.get("cargo_path"),
        login_finds_cargo=_claim(said, "login_finds_cargo"),
        downloader="" if said.get("downloader") == "none" else said.get("downloader"),
        allows_wx=_claim(said, "allows_wx"),
    )


# `… blocks used available capacity iused ifree %iused mount` on the BSDs and macOS, `… inodes used
# free use% mount` on Linux: counted from the percentage, since names of devices and mount points
# may have spaces in them.
_BSD_INODES: Final = re.compile(
    r"\s-?\d+\s+-?\d+\s+-?\d+\s+\S+\s+(?P<used>\d+)\s+(?P<free>\d+)\s+(?:\d+%|-)\s+/"
)
_LINUX_INODES: Final = re.compile(r"\s\d+\s+(?P<used>\d+)\s+(?P<free>\d+)\s+(?:\d+%|-)\s+/")


def _inodes_free(row: str) -> int | None:
    """Return the free inodes in a row of `df -i`; None if it has none, or the system no limit."""
    found = _BSD_INODES.search(row) or _LINUX_INODES.search(row)
    if found is None:
        return None
    used, free = int(found["used"]), int(found["free"])
    # btrfs, FAT and others count no inodes, and say so with zeros.
    return free if used + free else None


def _absolute_once(path: str) -> str:
    """Return the PATH without doubles and without folders that depend on where one stands."""
    folders = dict.fromkeys(folder for folder in path.split(":") if folder.startswith("/"))
    return ":".join(folders)


def _number(said: dict[str, str], name: str) -> int | None:
    value = said.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else None


def _bytes(said: dict[str, str], name: str) -> int | None:
    kilobytes = _number(said, name)
    return None if kilobytes is None else kilobytes * 1024


def _claim(said: dict[str, str], name: str) -> bool | None:
    return {"yes": True, "no": False}.get(said.get(name, ""))


def _offset(there: int | None, here: datetime) -> timedelta | None:
    # `date` cuts the fraction off, half a second on average.
    return None if there is None else timedelta(seconds=round(here.timestamp() - 0.5 - there))


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no answer"
