"""The table of targets agrees with rustc and with itself."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.target import (
    OS,
    TARGETS,
    Arch,
    Format,
    Libc,
    Target,
    parse_target,
    platform_name,
    platform_title,
)

ARTICLE = [
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "x86_64-unknown-freebsd",
    "aarch64-unknown-freebsd",
    "x86_64-unknown-openbsd",
    "aarch64-unknown-openbsd",
    "x86_64-unknown-netbsd",
    "aarch64-unknown-netbsd",
]


@pytest.mark.parametrize("triple", ARTICLE)
def test_the_systems_of_the_article_are_known(triple: str) -> None:
    assert str(parse_target(triple)) == triple


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_triple_says_what_the_table_says(target: Target) -> None:
    system = {OS.MACOS: "darwin"}.get(target.os, str(target.os))
    arch = {Arch.RISCV64: "riscv64gc"}.get(target.arch, str(target.arch))
    assert TARGETS[target.triple] is target
    assert target.triple.split("-")[0] == arch
    assert system in target.triple.split("-")
    if target.os is OS.LINUX:
        assert target.triple.split("-")[-1].startswith(str(target.libc))
    else:
        assert target.libc is Libc.SYSTEM
    assert re.fullmatch(r"[A-Za-z0-9_-]+", target.triple)


def test_every_target_is_one_that_rustc_knows() -> None:
    shown = subprocess.run(
        ["rustc", "--print", "target-list"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(TARGETS) <= set(shown)


@pytest.mark.parametrize(
    ("triple", "flat_name"),
    [
        ("aarch64-unknown-freebsd", "freebsd-aarch64"),
        ("x86_64-apple-darwin", "macos-x86_64"),
        ("x86_64-unknown-linux-gnu", "linux-x86_64"),
        ("x86_64-unknown-linux-musl", "linux-x86_64-musl"),
        ("riscv64gc-unknown-linux-gnu", "linux-riscv64"),
    ],
)
def test_flat_names_are_os_and_architecture(triple: str, flat_name: str) -> None:
    assert TARGETS[triple].flat_name == flat_name


def test_only_the_two_abis_of_windows_share_a_flat_name() -> None:
    counts = Counter(target.flat_name for target in TARGETS.values())
    assert [name for name, count in counts.items() if count > 1] == ["windows-x86_64"]


def test_the_format_follows_from_the_os() -> None:
    assert TARGETS["aarch64-apple-darwin"].format is Format.MACHO
    assert TARGETS["x86_64-pc-windows-gnu"].format is Format.PE
    assert TARGETS["aarch64-linux-android"].format is Format.ELF
    assert {target.format for target in TARGETS.values() if target.exe_suffix} == {Format.PE}
    assert TARGETS["x86_64-pc-windows-msvc"].exe_suffix == ".exe"


def test_every_system_but_windows_has_a_name_of_its_own() -> None:
    names = {target.os: target.system_name for target in TARGETS.values()}
    assert names[OS.MACOS] == "Darwin"
    assert names[OS.NETBSD] == "NetBSD"
    assert names[OS.ANDROID] == names[OS.LINUX] == "Linux"
    assert [os for os, name in names.items() if name is None] == [OS.WINDOWS]


def test_only_openbsd_binds_a_binary_to_one_release() -> None:
    bound = {target.os for target in TARGETS.values() if target.is_bound_to_os_release}
    assert bound == {OS.OPENBSD}


@pytest.mark.parametrize(
    ("triple", "hint"),
    [
        ("x86_64-unknown-netbds", "did you mean `x86_64-unknown-netbsd`?"),
        ("arm64-apple-darwin", "did you mean `aarch64-apple-darwin`?"),
        ("?", "`orchestrator schema` lists the known ones"),
    ],
)
def test_an_unknown_target_gets_the_nearest_known_one(triple: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="unknown target") as caught:
        parse_target(triple)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("triple", "release", "name", "title"),
    [
        ("x86_64-unknown-linux-gnu", None, "x86_64-unknown-linux-gnu", "Linux x86_64 (glibc)"),
        (
            "armv7-unknown-linux-musleabihf",
            None,
            "armv7-unknown-linux-musleabihf",
            "Linux armv7 (musl)",
        ),
        ("aarch64-apple-darwin", None, "aarch64-apple-darwin", "macOS Apple silicon"),
        (
            "aarch64-unknown-openbsd",
            "7.8",
            "aarch64-unknown-openbsd7.8",
            "OpenBSD 7.8 arm64",
        ),
        ("aarch64-unknown-openbsd", None, "aarch64-unknown-openbsd", "OpenBSD arm64"),
        ("x86_64-pc-windows-gnu", None, "x86_64-pc-windows-gnu", "Windows x64 (GNU)"),
        (
            "sparc64-unknown-openbsd",
            "7.8",
            "sparc64-unknown-openbsd7.8",
            "sparc64-unknown-openbsd7.8",
        ),
    ],
)
def test_a_platform_has_a_name_for_paths_and_a_title_for_people(
    triple: str, release: str | None, *, name: str, title: str
) -> None:
    assert platform_name(triple, release) == name
    assert platform_title(triple, release) == title


def test_no_two_targets_have_the_same_title() -> None:
    titles = [target.title() for target in TARGETS.values()]
    assert len(set(titles)) == len(titles)
