"""Variants of a real cargo project: timed, remembered, released, and a node's own for all CPUs."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli import main
from tests.releases import host_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86_64 CPU"),
]

# What was compiled for newer CPUs does less.
MAIN = """\
fn main() {
    let rounds: u64 = if cfg!(target_feature = "sse4.2") { 10_000_000 } else { 40_000_000 };
    let work = std::env::args().nth(1).as_deref() == Some("work");
    let sum = (0..if work { rounds } else { 0 }).fold(1u64, |sum, i| {
        std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i))
    });
    println!("tool 1.0.0 {}", u64::from(sum == 0));
}
"""


@pytest.fixture
def crate(desk: Desk) -> Path:
    folder = desk.folder / "tool"
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.rs").write_text(MAIN)
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "tool"\nversion = "1.0.0"\nedition = "2021"\n[workspace]\n'
    )
    (folder / "Cargo.lock").write_text(
        'version = 3\n\n[[package]]\nname = "tool"\nversion = "1.0.0"\n'
    )
    desk.project |= {"source": {"path": str(folder), "allow_dirty": True}}
    return folder


def labels(desk: Desk) -> list[str]:
    return [
        line.split("\t")[0] + (" v2" if "cpu>=2" in line else "")
        for line in (desk.store / "stable.idx").read_text().splitlines()
        if "\tok\t" in line
    ]


def bench(desk: Desk, *words: str) -> tuple[int, Any]:
    assert desk.capsys is not None
    desk.capsys.readouterr()
    at = ["--inventory", str(desk.inventory), "--version", "1.0.0", "--json"]
    code = main(["bench", "--bench-variants", *at, *words])
    return code, json.loads(desk.capsys.readouterr().out or "{}")


def test_a_variant_is_released_once_it_was_seen_to_be_faster(desk: Desk, crate: Path) -> None:
    assert crate.is_dir()
    desk.project["benchmark"] = "{binary} work"
    node = {
        "name": "linux",
        "host": "local",
        "target": host_target(),
        "workdir": str(desk.folder / "work"),
        "variants": "x86-64-v2",
    }
    desk.write(node)
    first = desk.release()
    assert first.code == 0
    assert labels(desk) == [host_target()]

    code, said = bench(desk, "linux")
    assert code == 0
    (gain,) = said["gains"]
    assert (gain["node"], gain["is_worth_it"]) == ("linux-v2", True)
    assert gain["gain"] > 0.3

    assert desk.release().code == 0
    assert labels(desk) == [f"{host_target()} v2", host_target()]
    assert main(["fsck", "--deep", "--inventory", str(desk.inventory)]) == 0
    assert main(["verify", "1.0.0", "--inventory", str(desk.inventory)]) == 0


def test_without_a_benchmark_it_is_said_what_is_missing(desk: Desk, crate: Path) -> None:
    assert crate.is_dir()
    node = {"name": "linux", "host": "local", "target": host_target(), "variants": "x86-64-v2"}
    desk.write(node)
    assert bench(desk)[0] == 2
