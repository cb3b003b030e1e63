"""What a node's facts mean for an hour's build."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.facts import NodeFacts
from orchestrator.core.finding import Finding, Severity
from orchestrator.core.inventory import CrateSource, Node, Project
from orchestrator.core.preflight import (
    GATE_ONLY,
    GOOD_CLOCK,
    GOOD_DATA_BYTES,
    GOOD_DISK_BYTES,
    GOOD_LOCAL_BYTES,
    GOOD_MEMORY_BYTES,
    LEAST_DISK_BYTES,
    LEAST_INODES,
    LEAST_LOCAL_BYTES,
    Needs,
    judge,
    judge_local_disk,
    needs_of,
)
from orchestrator.core.target import Target, parse_target

OK, WARNING, PROBLEM = Severity.OK, Severity.WARNING, Severity.PROBLEM
OURS = Needs(calls_cargo=True, unpacks_bundle=True)
THEIRS = Needs()
NETBSD = parse_target("x86_64-unknown-netbsd")
OPENBSD = parse_target("x86_64-unknown-openbsd")
NODE = Node(name="a", host="a.example", target=NETBSD)
HEALTHY = NodeFacts(
    system="NetBSD",
    kernel="10.1",
    machine="amd64",
    processor="x86_64",
    release="10.1",
    glibc=None,
    hostname="a",
    user="builder",
    home="/home/builder",
    workdir="/home/builder/.cache/orchestrator",
    path="/usr/pkg/bin:/usr/bin:/bin",
    cargo_home=None,
    rustup_home=None,
    cpus=4,
    memory_bytes=8_000_000_000,
    data_limit_bytes=None,
    disk_free_bytes=20_000_000_000,
    inodes_free=1_000_000,
    boot_id="1",
    cargo="1.95.0 (f2d3ce0bd 2026-03-21)",
    rustc="1.95.0",
    host_triple="x86_64-unknown-netbsd",
    rust_targets=("x86_64-unknown-netbsd",),
    linker="/usr/bin/cc",
    tar="/usr/bin/tar",
    hash_tool="/usr/bin/cksum",
    workdir_runs_programs=True,
    tmp_runs_programs=True,
    kills_processes=None,
    clock_offset=timedelta(0),
)


def found(subject: str, needs: Needs = OURS, node: Node = NODE, **facts: Any) -> Finding:
    """Return the one finding about a subject, of a healthy node but for these facts."""
    [finding] = [
        finding
        for finding in judge(replace(HEALTHY, **facts), node, needs)
        if finding.subject == subject
    ]
    return finding


def troubles(needs: Needs = OURS, node: Node = NODE, **facts: Any) -> list[tuple[Severity, str]]:
    """Return what is not fine, of a healthy node but for these facts."""
    findings = judge(replace(HEALTHY, **facts), node, needs)
    assert all(bool(finding.hint) is (finding.severity is not OK) for finding in findings)
    return [(each.severity, each.subject) for each in findings if each.severity is not OK]


def test_of_a_healthy_node_everything_is_said_and_all_of_it_is_fine() -> None:
    assert [(each.severity, each.subject, each.message) for each in judge(HEALTHY, NODE, OURS)] == [
        (OK, "system", "NetBSD 10.1 amd64"),
        (OK, "toolchain", "cargo 1.95.0, rustc 1.95.0"),
        (OK, "linker", "/usr/bin/cc"),
        (OK, "tools", "/usr/bin/tar, /usr/bin/cksum"),
        (OK, "workdir", "/home/builder/.cache/orchestrator"),
        (OK, "disk", "20.0 GB free in /home/builder/.cache/orchestrator"),
        (OK, "inodes", "1000000 free"),
        (OK, "memory", "8.0 GB"),
        (OK, "clock", "in step with this machine's"),
    ]


def test_what_a_node_cannot_say_is_no_problem() -> None:
    silent = "memory_bytes data_limit_bytes disk_free_bytes inodes_free clock_offset release"
    claims = "workdir_runs_programs tmp_runs_programs kills_processes"
    unknown: dict[str, Any] = dict.fromkeys([*silent.split(), *claims.split()])
    assert troubles(**unknown) == []
    assert troubles(THEIRS, **unknown) == []
    assert found("disk", disk_free_bytes=None).message == "unknown"
    assert found("inodes", inodes_free=None).message == "unknown, or without a limit"
    assert found("memory", memory_bytes=None).message == "unknown"
    assert found("clock", clock_offset=None).message == "unknown"
    assert found("system", release=None).message == "NetBSD 10.1 amd64"
    assert found("system", system="").severity is OK


@pytest.mark.parametrize(
    ("facts", "subject"),
    [
        ({"cargo": None}, "toolchain"),
        ({"rustc": None, "host_triple": None}, "toolchain"),
        ({"linker": None}, "linker"),
    ],
)
def test_what_our_own_command_needs_is_a_problem_and_what_another_may_need_a_warning(
    facts: dict[str, Any], subject: str
) -> None:
    assert troubles(OURS, **facts) == [(PROBLEM, subject)]
    assert troubles(THEIRS, **facts) == [(WARNING, subject)]
    assert troubles(GATE_ONLY, **facts) == []


def test_the_missing_tools_are_named() -> None:
    both = found("toolchain", cargo=None, rustc=None)
    assert both.message == "no cargo and no rustc that answers"
    assert found("toolchain", cargo=None).message == "no cargo that answers"


@pytest.mark.parametrize(
    ("system", "rust", "compiler", "time"),
    [
        ("Linux", "https://rustup.rs", "gcc", "timedatectl"),
        ("Darwin", "https://rustup.rs", "xcode-select --install", "systemsetup"),
        ("FreeBSD", "pkg install rust", "clang", "service ntpd start"),
        ("OpenBSD", "pkg_add rust", "comp", "rcctl"),
        ("NetBSD", "pkgin install rust", "comp", "rc.conf"),
        ("DragonFly", "pkg install rust", "C compiler", "time service"),
        ("SunOS", "https://rustup.rs", "C compiler", "time service"),
    ],
)
def test_a_hint_is_for_the_system_that_it_is_about(
    system: str, *, rust: str, compiler: str, time: str
) -> None:
    facts: dict[str, Any] = {"system": system, "cargo": None, "linker": None}
    assert rust in (found("toolchain", **facts).hint or "")
    assert "~/.cargo/bin" in (found("toolchain", **facts).hint or "")
    assert compiler in (found("linker", **facts).hint or "")
    skewed = found("clock", system=system, clock_offset=timedelta(hours=1))
    assert time in (skewed.hint or "")


def test_tar_is_needed_where_a_bundle_is_unpacked() -> None:
    assert troubles(OURS, tar=None) == [(PROBLEM, "tools")]
    assert "source" in found("tools", OURS, tar=None).message
    assert troubles(THEIRS, tar=None) == [(WARNING, "tools")]
    assert troubles(GATE_ONLY, tar=None) == []
    assert found("tools", GATE_ONLY, tar=None).message == "/usr/bin/cksum"


@pytest.mark.parametrize("needs", [OURS, THEIRS, GATE_ONLY])
def test_without_a_hash_nothing_could_be_collected(needs: Needs) -> None:
    assert troubles(needs, hash_tool=None) == [(PROBLEM, "tools")]


@pytest.mark.parametrize("needs", [OURS, THEIRS, GATE_ONLY])
def test_a_workdir_where_nothing_starts_is_a_problem(needs: Needs) -> None:
    assert troubles(needs, workdir_runs_programs=False) == [(PROBLEM, "workdir")]
    assert HEALTHY.workdir in found("workdir", needs, workdir_runs_programs=False).message


def test_tmp_matters_to_commands_that_are_not_ours() -> None:
    assert troubles(THEIRS, tmp_runs_programs=False) == [(WARNING, "tmp")]
    assert troubles(OURS, tmp_runs_programs=False) == []
    assert troubles(GATE_ONLY, tmp_runs_programs=False) == []


@pytest.mark.parametrize(
    ("fact", "subject", "limits"),
    [
        ("disk_free_bytes", "disk", {LEAST_DISK_BYTES: PROBLEM, GOOD_DISK_BYTES: WARNING}),
        ("inodes_free", "inodes", {LEAST_INODES: PROBLEM}),
        ("memory_bytes", "memory", {GOOD_MEMORY_BYTES: WARNING}),
        ("data_limit_bytes", "memory", {GOOD_DATA_BYTES: WARNING}),
    ],
)
def test_each_limit_is_where_it_says(fact: str, subject: str, limits: dict[int, Severity]) -> None:
    after = [*list(limits.values())[1:], OK]
    for (limit, below), above in zip(limits.items(), after, strict=True):
        too_little: dict[str, Any] = {fact: limit - 1}
        enough: dict[str, Any] = {fact: limit}
        assert found(subject, **too_little).severity is below
        assert found(subject, **enough).severity is above


def test_a_gate_needs_room_for_the_binaries_alone() -> None:
    assert troubles(GATE_ONLY, disk_free_bytes=LEAST_LOCAL_BYTES, inodes_free=10) == []
    assert troubles(GATE_ONLY, disk_free_bytes=LEAST_LOCAL_BYTES - 1) == [(PROBLEM, "disk")]
    assert troubles(GATE_ONLY, memory_bytes=1, kills_processes=True) == []


def test_the_coordinator_needs_room_for_logs_and_archives() -> None:
    assert judge_local_disk("/srv", LEAST_LOCAL_BYTES - 1).severity is PROBLEM
    assert judge_local_disk("/srv", GOOD_LOCAL_BYTES - 1).severity is WARNING
    assert judge_local_disk("/srv", GOOD_LOCAL_BYTES) == Finding(
        severity=OK, subject="disk", message="1.0 GB free in /srv"
    )


def test_a_limit_for_data_is_said_to_openbsd_s_users_in_its_words() -> None:
    limited = found("memory", system="OpenBSD", data_limit_bytes=1536 * 1024**2)
    assert limited.message.startswith("a process may have 1.6 GB only")
    assert "usermod -L staff" in (limited.hint or "")
    assert "data" in (found("memory", data_limit_bytes=1).hint or "")


@pytest.mark.parametrize(
    ("offset", "severity", "message"),
    [
        (timedelta(seconds=3), OK, "in step with this machine's"),
        (timedelta(seconds=4), OK, "4.0s behind this machine's"),
        (-GOOD_CLOCK, OK, "5m00s ahead of this machine's"),
        (timedelta(hours=1), WARNING, "its clock is 1h00m behind this machine's"),
        (timedelta(hours=-1), WARNING, "its clock is 1h00m ahead of this machine's"),
        (timedelta(days=-20_000), WARNING, "its clock is 480000h00m ahead of this machine's"),
    ],
)
def test_a_wrong_clock_is_named_with_its_direction_and_never_stops_a_build(
    offset: timedelta, severity: Severity, message: str
) -> None:
    clock = found("clock", clock_offset=offset)
    assert (clock.severity, clock.message) == (severity, message)


def test_a_toolchain_for_another_target_is_a_warning() -> None:
    facts: dict[str, Any] = {
        "host_triple": "x86_64-unknown-linux-gnu",
        "rust_targets": ("x86_64-unknown-linux-gnu",),
    }
    assert troubles(**facts) == [(WARNING, "target")]
    assert "x86_64-unknown-netbsd" in found("target", **facts).message
    # With its standard library, or declared as a cross-build, it is what somebody wants.
    assert troubles(**facts | {"rust_targets": ("x86_64-unknown-netbsd",)}) == []
    assert troubles(OURS, replace(NODE, gate_on=("b",)), **facts) == []
    assert troubles(GATE_ONLY, **facts) == []


def test_a_gate_on_another_system_is_a_problem_before_the_build_and_not_after() -> None:
    assert troubles(system="Linux", release="debian 12") == [(PROBLEM, "system")]
    assert troubles(GATE_ONLY, system="Linux") == [(PROBLEM, "system")]
    crossing = replace(NODE, gate_on=("b", "c"))
    assert troubles(OURS, crossing, system="Linux", release="debian 12") == []
    said = found("system", OURS, crossing, system="Linux", release="debian 12").message
    assert said == "Linux debian 12 amd64; the gate runs on b or c"
    # Who runs gates for others is judged by itself, also where its own builds are gated elsewhere.
    assert troubles(GATE_ONLY, crossing, system="Linux") == [(PROBLEM, "system")]
    windows = replace(NODE, target=parse_target("x86_64-pc-windows-gnu"))
    assert found("system", OURS, windows, system="Linux").severity is OK


@pytest.mark.parametrize(
    ("target", "declared", "runs", "severity"),
    [
        (OPENBSD, "7.8", "7.9", PROBLEM),
        (OPENBSD, "7.8", "7.8", OK),
        (OPENBSD, None, "7.8", OK),
        (OPENBSD, "7.8", None, OK),
        (NETBSD, "10.0", "10.1", OK),
    ],
)
def test_a_node_that_runs_another_release_than_its_binaries_are_for(
    target: Target, *, declared: str | None, runs: str | None, severity: Severity
) -> None:
    node = replace(NODE, target=target, os_release=declared)
    system = {OPENBSD: "OpenBSD", NETBSD: "NetBSD"}[target]
    assert found("system", OURS, node, system=system, release=runs).severity is severity


def test_a_system_that_ends_what_is_left_running_is_told_how_not_to() -> None:
    assert found("session", kills_processes=True).hint == (
        "let it run on: loginctl enable-linger builder"
    )
    assert troubles(kills_processes=False) == []


def test_what_is_needed_follows_from_the_inventory() -> None:
    source = CrateSource(crate="tool")
    bare = Project(name="tool", binaries=("tool",), source=source)
    assert needs_of(bare, NODE) == OURS
    lost = Needs(unpacks_bundle=True, leaves_nothing=True)
    assert needs_of(bare, replace(NODE, build_command="make")) == lost
    assert needs_of(replace(bare, build_command="make"), NODE) == lost
    placed = replace(NODE, build_command="make", binary_path="/opt/tool")
    assert needs_of(bare, placed) == Needs(unpacks_bundle=True)
    assert needs_of(replace(bare, source=None), placed) == THEIRS
    delivering = replace(NODE, build_command='make && cp tool "$ORCHESTRATOR_OUT/"')
    assert needs_of(bare, delivering) == Needs(unpacks_bundle=True)


def test_a_command_that_leaves_its_binaries_nowhere_is_warned_of() -> None:
    lost = needs_of(Project(name="tool", binaries=("tool",)), replace(NODE, build_command="make"))
    finding = found("command", lost)
    assert finding.severity is Severity.WARNING
    assert "$ORCHESTRATOR_OUT" in finding.message
    assert "command" not in dict(troubles(THEIRS))


@pytest.mark.parametrize(
    ("needs", "severity"),
    [
        (OURS, Severity.PROBLEM),
        (GATE_ONLY, Severity.PROBLEM),
        (THEIRS, Severity.WARNING),
    ],
)
def test_a_node_that_takes_no_files_is_a_problem_where_some_are_pushed(
    needs: Needs, severity: Severity
) -> None:
    finding = found("files", needs, push_refusal="it has no SFTP")
    assert (finding.severity, finding.message) == (severity, "it has no SFTP")
    assert "Subsystem sftp" in (finding.hint or "")


def test_a_build_for_a_cpu_of_its_own_is_warned_of() -> None:
    project = Project(name="tool", binaries=("tool",))
    node = replace(NODE, env=(("RUSTFLAGS", "-C target-cpu=native"),))
    cpu = found("cpu", needs_of(project, node), node)
    assert cpu.severity is Severity.WARNING
    assert "for the CPU native, and installers cannot tell" in cpu.message
    known = replace(NODE, env=(("RUSTFLAGS", "-C target-cpu=x86-64-v3"),))
    assert not needs_of(project, known).unknown_cpus


def test_an_error_is_a_problem_for_whoever_it_is_for() -> None:
    refused = Finding.of("key", ConfigError("no key", hint="make one"))
    assert refused.is_problem
    assert (refused.message, refused.hint, refused.exit_code) == ("no key", "make one", 2)
    assert found("linker", linker=None).exit_code == NodeError.exit_code
    assert not found("linker").is_problem


@pytest.mark.parametrize(
    ("facts", "needs", "subject"),
    [
        ({"login_shell": "/bin/csh"}, OURS, "shell"),
        ({"login_shell": "/usr/local/bin/fish"}, GATE_ONLY, "shell"),
        ({"cargo_path": "/root/.cargo/bin/cargo", "login_finds_cargo": False}, OURS, "path"),
        ({"allows_wx": False}, OURS, "w^x"),
    ],
)
def test_what_looks_like_trouble_and_is_none_is_explained(
    facts: dict[str, Any], needs: Needs, subject: str
) -> None:
    found = judge(replace(HEALTHY, **facts), NODE, needs)
    assert [finding.severity for finding in found if finding.subject == subject] == [OK]
    assert subject not in {finding.subject for finding in judge(HEALTHY, NODE, needs)}


@pytest.mark.parametrize("system", ["NetBSD", "OpenBSD", "Linux"])
def test_a_command_that_fetches_for_itself_needs_something_to_fetch_with(system: str) -> None:
    facts = replace(HEALTHY, system=system, downloader="")
    (finding,) = [found for found in judge(facts, NODE, THEIRS) if found.subject == "download"]
    assert finding.severity is WARNING
    assert finding.hint
    assert "curl" in finding.hint or "ftp" in finding.hint
    assert "download" not in {found.subject for found in judge(facts, NODE, OURS)}
