"""What a machine is and has, in one round trip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import NodeError
from orchestrator.nodes.transport import run

if TYPE_CHECKING:
    from orchestrator.nodes.transport import Transport

# Nothing in it means anything to a shell, so such a path may stand anywhere in a script.
SAFE_PATH: Final = re.compile(r"/[A-Za-z0-9._/+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A machine as its own tools describe it; None is what it cannot say.

    `release` is what the OS calls its version: 14.3-RELEASE-p1, 7.8, 15.1, or, on Linux, the
    distribution's (debian 12). `host_triple` is rustc's. `clock_offset` is the coordinator's clock
    minus the node's, to about a second.
    """

    system: str
    kernel: str
    machine: str
    processor: str | None
    release: str | None
    glibc: str | None
    hostname: str | None
    user: str
    home: str
    workdir: str
    path: str
    cargo_home: str | None
    rustup_home: str | None
    cpus: int | None
    memory_bytes: int | None
    disk_free_bytes: int | None
    boot_id: str | None
    cargo: str | None
    rustc: str | None
    host_triple: str | None
    tar: str | None
    hash_tool: str | None
    clock_offset: timedelta


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
        _refuse_unsafe(workdir, "its workdir")
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
    _refuse_unsafe(said["workdir"], "its workdir")
    return _facts(said, asked_at + (answered_at - asked_at) / 2)


# Every probe may fail by itself: a missing tool is a missing fact.
_SCRIPT: Final = r"""
say() {
    [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"
}

first_of() {
    for tool in "$@"; do
        if command -v "$tool" >/dev/null 2>&1; then
            command -v "$tool"
            return
        fi
    done
}

sysctl_first() {
    for key in "$@"; do
        sysctl -n "$key" 2>/dev/null && return
    done
}

release() {
    case $(uname -s) in
    Linux) (. /etc/os-release && printf '%s %s\n' "${ID-}" "${VERSION_ID-}") ;;
    FreeBSD) freebsd-version -u ;;
    Darwin) sw_vers -productVersion ;;
    *) uname -r ;;
    esac
}

use_workdir() {
    (umask 077 && mkdir -p "$1") || return
    # Someone else's folder could be changed under a build, up to the binary.
    [ -n "$(find "$1/." -prune -user "$(id -u)" ! -perm -0002)" ] || {
        say problem "the workdir $1 belongs to another user, or everybody may write to it"
        return
    }
    if ! (cd "$1" && : >.probe && rm -f .probe); then
        say problem "the workdir $1 cannot be written to"
        return
    fi
    cd "$1" || return
    say workdir "$(pwd -P)"
    say disk_kb "$(df -Pk . | awk 'NR == 2 { print $4 }')"
}

inherited=$PATH
PATH=$HOME/.cargo/bin:/usr/local/bin:/usr/local/sbin:/usr/pkg/bin:/usr/pkg/sbin:/opt/homebrew/bin
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin:$inherited
LC_ALL=C
export PATH LC_ALL
exec 2>/dev/null
say now "$(date +%s)"
say path "$PATH"
say home "$HOME"
say user "$(id -un)"
say system "$(uname -s)"
say kernel "$(uname -r)"
say machine "$(uname -m)"
say processor "$(uname -p)"
say hostname "$(uname -n)"
say release "$(release)"
say glibc "$(getconf GNU_LIBC_VERSION)"
say cpus "$(nproc || sysctl_first hw.ncpuonline hw.ncpu || getconf _NPROCESSORS_ONLN)"
say memory_kb "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
say memory_bytes "$(sysctl_first hw.memsize hw.physmem64 hw.physmem)"
say boot_id "$(cat /proc/sys/kernel/random/boot_id ||
    sysctl_first kern.bootsessionuuid kern.boot_id kern.boottime)"
say cargo_home "${CARGO_HOME-}"
say rustup_home "${RUSTUP_HOME-}"
say cargo "$(cargo --version)"
rustc -vV | sed -n -e 's/^release: /rustc=/p' -e 's/^host: /host_triple=/p'
say tar "$(first_of tar)"
say hash_tool "$(first_of sha256sum sha256 shasum openssl cksum)"
case $1 in
-) use_workdir "$HOME/.cache/orchestrator" || say problem "cannot make $HOME/.cache/orchestrator" ;;
*) use_workdir "$1" || say problem "cannot make the workdir $1" ;;
esac
printf 'end=1\n'
"""


def _refuse_unsafe(path: str, name: str) -> None:
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
        disk_free_bytes=_bytes(said, "disk_kb"),
        boot_id=said.get("boot_id"),
        cargo=said.get("cargo", "").removeprefix("cargo ") or None,
        rustc=said.get("rustc"),
        host_triple=said.get("host_triple"),
        tar=said.get("tar"),
        hash_tool=said.get("hash_tool"),
        # `date` cuts the fraction off, half a second on average.
        clock_offset=timedelta(seconds=round(now.timestamp() - 0.5 - (_number(said, "now") or 0))),
    )


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


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no answer"
