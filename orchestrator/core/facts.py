"""What a machine is and has, as its own tools describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A machine as its own tools describe it; None is what it cannot say.

    `release` is what the OS calls its version: 14.3-RELEASE-p1, 7.8, 15.1, or, on Linux, the
    distribution's (debian 12). `host_triple` is rustc's, and
    `rust_targets` are those whose standard library it has. `linker` is the path of the C compiler
    that rustc links with. `clock_offset` is the coordinator's clock minus the node's, to about a
    second. The free space and inodes are those of the workdir's file system, inodes None also where
    it has no limit of them. `data_limit_bytes` is what one process may at most have of memory, None
    also without a limit. `workdir_runs_programs` and `tmp_runs_programs` say whether a program that
    lies there can be started (`noexec`). `kills_processes` says whether the system ends what a user
    left running at the end of the last login (systemd's KillUserProcesses). `cpu` is the CPU's
    name, and `musl` the version of that C library, where it is the system's. `login_shell` is the
    user's own, which runs nothing of ours. `cargo_path` is where builds find cargo, and
    `login_finds_cargo` whether a plain `ssh HOST cargo` does. `downloader` can fetch over HTTPS, ""
    if there is none. `allows_wx` says whether OpenBSD lets a program on the workdir's file system
    map memory writable and executable. `push_refusal` is why it takes no files, None also where
    that was not tried.
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
    data_limit_bytes: int | None
    disk_free_bytes: int | None
    inodes_free: int | None
    boot_id: str | None
    cargo: str | None
    rustc: str | None
    host_triple: str | None
    rust_targets: tuple[str, ...]
    linker: str | None
    tar: str | None
    hash_tool: str | None
    workdir_runs_programs: bool | None
    tmp_runs_programs: bool | None
    kills_processes: bool | None
    clock_offset: timedelta | None
    cpu: str | None = None
    musl: str | None = None
    login_shell: str | None = None
    cargo_path: str | None = None
    login_finds_cargo: bool | None = None
    downloader: str | None = None
    allows_wx: bool | None = None
    push_refusal: str | None = None
