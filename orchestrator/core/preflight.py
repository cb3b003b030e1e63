"""What would make an hour's build pointless, judged before it starts: facts → findings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from orchestrator.core.cpu import unknown_cpus
from orchestrator.core.finding import Finding, fine, problem, warning
from orchestrator.core.plan import build_texts
from orchestrator.core.wording import human_size, human_time

if TYPE_CHECKING:
    from orchestrator.core.facts import NodeFacts
    from orchestrator.core.inventory import Node, Project

# A release build of even a small program needs about this much: with less it
# would end in "No space left on device".
LEAST_DISK_BYTES: Final = 200_000_000
# A warm target folder, the one of the next version and their sources, for a program of some size.
GOOD_DISK_BYTES: Final = 3_000_000_000
# Vendored crates and cargo's fingerprints are tens of thousands of small files.
LEAST_INODES: Final = 10_000
# rustc and LLVM take several hundred MB for one crate, and the linker as much at the end.
GOOD_MEMORY_BYTES: Final = 1_000_000_000
# OpenBSD's default login class has 1536 MB, where rustc is known to die with RAM to spare.
GOOD_DATA_BYTES: Final = 2_000_000_000
# TLS and tokens bear about this much. Nothing of ours compares clocks, so this never stops a build.
GOOD_CLOCK: Final = timedelta(minutes=5)
# What is left of half a round trip and of `date`'s whole seconds.
_CLOCK_NOISE: Final = timedelta(seconds=3)
# The logs, archives and store of one release on the coordinator, and the binaries at a gate.
LEAST_LOCAL_BYTES: Final = 100_000_000
GOOD_LOCAL_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a release wants of a node: to build, with our own cargo command, from our own bundle.

    Without `builds` it only runs gates for others.
    """

    builds: bool = True
    calls_cargo: bool = False
    unpacks_bundle: bool = False
    # A command of one's own, and nothing that says where the binaries are then.
    leaves_nothing: bool = False
    # The CPUs that its flags name, and that no installer can hold against a host.
    unknown_cpus: tuple[str, ...] = ()


GATE_ONLY: Final = Needs(builds=False)


def needs_of(project: Project, node: Node) -> Needs:
    """Return what a release of the project wants of a node that builds."""
    command = node.build_command or project.build_command
    return Needs(
        leaves_nothing=command is not None
        and node.binary_path is None
        and "ORCHESTRATOR_OUT" not in command,
        calls_cargo=node.build_command is None and project.build_command is None,
        unpacks_bundle=project.source is not None,
        unknown_cpus=unknown_cpus(build_texts(project, node), node.target),
    )


def judge(facts: NodeFacts, node: Node, needs: Needs) -> tuple[Finding, ...]:
    """Return what a node's facts mean for a release, in a fixed order, what is fine included.

    A problem makes the build pointless. What the node cannot say is no problem.
    """
    findings: tuple[Finding | None, ...] = (
        _system(facts, node, needs),
        _toolchain(facts, needs),
        _target(facts, node) if needs.builds else None,
        _command(needs),
        _cpu(needs),
        _linker(facts, needs),
        _tools(facts, needs),
        _files(facts, needs),
        _shell(facts),
        _login_path(facts) if needs.builds else None,
        _download(facts, needs),
        _workdir(facts),
        _wx(facts) if needs.builds else None,
        _tmp(facts, needs),
        _disk(facts, needs),
        _inodes(facts, needs),
        _memory(facts) if needs.builds else None,
        _clock(facts),
        _session(facts) if needs.builds else None,
    )
    return tuple(finding for finding in findings if finding)


def _system(facts: NodeFacts, node: Node, needs: Needs) -> Finding:
    release = facts.release or facts.kernel
    system = " ".join(filter(None, (facts.system, release, facts.machine)))
    if node.gate_on and needs.builds:
        return fine("system", f"{system}; the gate runs on {' or '.join(node.gate_on)}")
    expected = node.target.system_name
    if facts.system and expected not in {facts.system, None}:
        return problem(
            "system",
            f"the gate of {node.target} would run on {facts.system}",
            "name a node that runs its OS with `gate_on`",
        )
    if _is_other_release(facts, node):
        return problem(
            "system",
            f"the inventory says `os_release: {node.os_release}`, and it runs {facts.release}",
            "correct it: binaries for one release do not run on another",
        )
    return fine("system", system)


def _is_other_release(facts: NodeFacts, node: Node) -> bool:
    if not node.target.is_bound_to_os_release:
        return False
    return None not in {node.os_release, facts.release} and node.os_release != facts.release


def _toolchain(facts: NodeFacts, needs: Needs) -> Finding | None:
    if not needs.builds:
        return None
    found = {"cargo": facts.cargo, "rustc": facts.rustc}
    missing = [name for name, version in found.items() if not version]
    if not missing:
        versions = (
            f"{name} {version.partition(' ')[0]}" for name, version in found.items() if version
        )
        return fine("toolchain", ", ".join(versions))
    return _missing(
        "toolchain",
        f"no {' and no '.join(missing)} that answers",
        f"{_RUST.get(facts.system, _RUSTUP)}; where it is already: link it into ~/.cargo/bin, "
        "which is looked at first",
        is_needed=needs.calls_cargo,
    )


def _target(facts: NodeFacts, node: Node) -> Finding | None:
    triple = node.target.triple
    if facts.host_triple in {None, triple} or triple in facts.rust_targets or node.gate_on:
        return None
    return warning(
        "target",
        f"its rustc is for {facts.host_triple}, without the standard library of {triple}",
        f"correct the node's `target`, or on the node: rustup target add {triple}",
    )


def _command(needs: Needs) -> Finding | None:
    if not needs.leaves_nothing:
        return None
    return warning(
        "command",
        "its build command does not name $ORCHESTRATOR_OUT, and no `binary_path` says where the "
        "binaries are",
        'end it with: cp BINARY "$ORCHESTRATOR_OUT/"; or set `binary_path` (--binary-path)',
    )


def _cpu(needs: Needs) -> Finding | None:
    if not needs.unknown_cpus:
        return None
    return warning(
        "cpu",
        f"the build is for the CPU {' and '.join(needs.unknown_cpus)}, and installers cannot "
        "tell whether a host has it",
        "leave target-cpu out, or say x86-64-v2, x86-64-v3 or x86-64-v4: then it gets a floor",
    )


def _linker(facts: NodeFacts, needs: Needs) -> Finding | None:
    if not needs.builds:
        return None
    if facts.linker:
        return fine("linker", facts.linker)
    hint = _LINKER.get(facts.system, "install a C compiler: cc, clang or gcc")
    message = "no cc, clang or gcc, and rustc links with one"
    return _missing("linker", message, hint, is_needed=needs.calls_cargo)


def _tools(facts: NodeFacts, needs: Needs) -> Finding:
    if not facts.hash_tool:
        return problem(
            "tools",
            "nothing that computes SHA-256, so no binary could be collected",
            "install sha256sum, sha256, shasum or openssl",
        )
    if facts.tar or not needs.builds:
        return fine("tools", ", ".join(filter(None, (facts.tar, facts.hash_tool))))
    return _missing(
        "tools",
        "no tar, which the source is unpacked with" if needs.unpacks_bundle else "no tar",
        "install tar",
        is_needed=needs.unpacks_bundle,
    )


def _files(facts: NodeFacts, needs: Needs) -> Finding | None:
    if facts.push_refusal is None:
        return None
    return _missing(
        "files",
        facts.push_refusal,
        "it needs `Subsystem sftp internal-sftp` in its sshd_config, without a forced command, and "
        "room on its disk",
        # A node that fetches for itself, and gates itself, is pushed nothing.
        is_needed=needs.unpacks_bundle or not needs.builds,
    )


def _shell(facts: NodeFacts) -> Finding | None:
    shell = (facts.login_shell or "").rpartition("/")[2]
    if shell not in _OTHER_SHELLS:
        return None
    return fine("shell", f"logins get {shell}, which does not matter: /bin/sh runs all of ours")


def _login_path(facts: NodeFacts) -> Finding | None:
    if facts.cargo_path is None or facts.login_finds_cargo is not False:
        return None
    return fine("path", f"builds find {facts.cargo_path}, also where a login over SSH does not")


def _download(facts: NodeFacts, needs: Needs) -> Finding | None:
    # With a source of ours, nothing is fetched on the node.
    if facts.downloader != "" or needs.unpacks_bundle or not needs.builds:
        return None
    return warning(
        "download",
        "no curl, wget or fetch, and its build command fetches for itself",
        f"{_DOWNLOAD.get(facts.system, 'install curl')}; or give the project a `source:`, which is "
        "pushed from here",
    )


def _wx(facts: NodeFacts) -> Finding | None:
    if facts.allows_wx is not False:
        return None
    return fine(
        "w^x", f"{facts.workdir} is not on a file system with wxallowed: only JITs would need it"
    )


def _workdir(facts: NodeFacts) -> Finding:
    if facts.workdir_runs_programs is False:
        return problem(
            "workdir",
            f"no program in {facts.workdir} can be started: is its file system mounted noexec?",
            "set `workdir:` to a folder elsewhere, or mount it without noexec",
        )
    return fine("workdir", facts.workdir)


def _tmp(facts: NodeFacts, needs: Needs) -> Finding | None:
    # Our command builds in the workdir; other people's often build in /tmp.
    if facts.tmp_runs_programs is not False or not needs.builds or needs.calls_cargo:
        return None
    return warning(
        "tmp",
        "no program in /tmp can be started: it is mounted noexec",
        "let `build_command` build elsewhere, or mount /tmp without noexec",
    )


def _disk(facts: NodeFacts, needs: Needs) -> Finding:
    return _room(
        facts.disk_free_bytes,
        facts.workdir,
        # A gate needs room for the binaries alone.
        least=LEAST_DISK_BYTES if needs.builds else LEAST_LOCAL_BYTES,
        good=GOOD_DISK_BYTES if needs.builds else LEAST_LOCAL_BYTES,
    )


def judge_local_disk(place: str, free_bytes: int) -> Finding:
    """Return what the free space of a folder on the coordinator means for a release."""
    return _room(free_bytes, place, least=LEAST_LOCAL_BYTES, good=GOOD_LOCAL_BYTES)


def _room(free_bytes: int | None, place: str, *, least: int, good: int) -> Finding:
    if free_bytes is None:
        return fine("disk", "unknown")
    message = f"{human_size(free_bytes)} free in {place}"
    if free_bytes < least:
        return problem("disk", f"only {message}", f"make room: {human_size(least)} at least")
    if free_bytes < good:
        return warning("disk", f"only {message}", f"{human_size(good)} would be a good start")
    return fine("disk", message)


def _inodes(facts: NodeFacts, needs: Needs) -> Finding:
    free = facts.inodes_free
    if free is None:
        return fine("inodes", "unknown, or without a limit")
    if needs.builds and free < LEAST_INODES:
        return problem(
            "inodes",
            f"only {free} more files fit into {facts.workdir}",
            "remove old files there: `df -i` tells of inodes, which a disk with room can lack",
        )
    return fine("inodes", f"{free} free")


def _memory(facts: NodeFacts) -> Finding:
    memory, limit = facts.memory_bytes, facts.data_limit_bytes
    if memory is not None and memory < GOOD_MEMORY_BYTES:
        return warning(
            "memory",
            f"only {human_size(memory)} of memory",
            "add swap, and build with one compiler at a time: `jobs: 1`",
        )
    if limit is not None and limit < GOOD_DATA_BYTES:
        return warning(
            "memory",
            f"a process may have {human_size(limit)} only, with which rustc is known to die",
            _CLASS.get(facts.system, "raise the limit for data of its user's processes"),
        )
    return fine("memory", "unknown" if memory is None else human_size(memory))


def _clock(facts: NodeFacts) -> Finding:
    offset = facts.clock_offset
    if offset is None:
        return fine("clock", "unknown")
    if abs(offset) <= _CLOCK_NOISE:
        return fine("clock", "in step with this machine's")
    # The offset is our clock minus the node's.
    direction = "behind" if offset > timedelta() else "ahead of"
    message = f"{human_time(abs(offset))} {direction} this machine's"
    if abs(offset) <= GOOD_CLOCK:
        return fine("clock", message)
    hint = _TIME.get(facts.system, "start a time service there")
    return warning("clock", f"its clock is {message}", f"{hint}; or is it the clock here?")


def _session(facts: NodeFacts) -> Finding | None:
    if not facts.kills_processes:
        return None
    return warning(
        "session",
        f"the system ends what {facts.user} left running when the link is lost",
        f"let it run on: loginctl enable-linger {facts.user}",
    )


def _missing(subject: str, message: str, hint: str, *, is_needed: bool) -> Finding:
    """Return a problem if our own command needs it; what another command needs is not known."""
    return (problem if is_needed else warning)(subject, message, hint)


_RUSTUP: Final = "install Rust (https://rustup.rs), or with rustup: `rustup default stable`"
_RUST: Final = {
    "FreeBSD": "pkg install rust",
    "OpenBSD": "pkg_add rust",
    "NetBSD": "pkgin install rust",
    "DragonFly": "pkg install rust",
}
_LINKER: Final = {
    "Linux": "install gcc (apk: gcc and musl-dev; apt: gcc and libc6-dev)",
    "Darwin": "xcode-select --install",
    "FreeBSD": "install the base system's clang, or: pkg install llvm",
    "OpenBSD": "install the set comp: it has clang as cc",
    "NetBSD": "install the set comp: it has gcc as cc",
}
# These change what is quoted for a POSIX shell; the transport needs no quotes.
_OTHER_SHELLS: Final = frozenset(("csh", "tcsh", "fish"))
_DOWNLOAD: Final = {
    "NetBSD": "pkgin install curl: its own ftp has no HTTPS, or none that verifies",
    "OpenBSD": "its own ftp knows HTTPS: is /usr/bin in the PATH?",
    "FreeBSD": "its own fetch knows HTTPS: is /usr/bin in the PATH?",
}
_CLASS: Final = {
    "OpenBSD": "put its user into a login class with more: usermod -L staff, "
    "or raise `datasize` in /etc/login.conf",
}
_TIME: Final = {
    "Linux": "timedatectl set-ntp true",
    "Darwin": "systemsetup -setusingnetworktime on",
    "FreeBSD": "sysrc ntpd_enable=YES ntpd_sync_on_start=YES && service ntpd start",
    "OpenBSD": "rcctl enable ntpd && rcctl restart ntpd",
    "NetBSD": "echo ntpd=YES >>/etc/rc.conf && service ntpd start",
}
