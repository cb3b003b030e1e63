"""Is a variant worth it: from what a shell's `times` says to what releases build."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.gains import (
    Gain,
    cpu_seconds,
    families,
    gain_of,
    read_gains,
    repeats_for,
    timed_command,
    write_gains,
)
from orchestrator.core.inventory_parser import parse_inventory
from tests.shells import shell_params

if TYPE_CHECKING:
    from orchestrator.core.inventory import Inventory


@pytest.mark.parametrize("shell", shell_params())
def test_every_shell_says_what_its_children_took(shell: str) -> None:
    argv = [shell, "sh"] if shell == "busybox" else [shell]
    work = "awk 'BEGIN { while (i < 300000) i++ }'"
    once, often = (
        cpu_seconds(
            subprocess.run(
                [*argv, "-e", "-c", timed_command(work, repeats)],
                check=True,
                capture_output=True,
            ).stdout
        )
        for repeats in (1, 5)
    )
    assert 0 <= once < often


@pytest.mark.parametrize(
    ("output", "seconds"),
    [
        (b"0m0.00s 0m0.00s\n0m1.50s 0m0.25s\n", 1.75),
        (b"noise 9m9s\n0m0.00s 0m0.00s\n1m0.000000s 0m0.500000s\n", 60.5),
        # ksh93 has names and tabs, and a locale its own point.
        (b"user\t0m0.00s\nsys\t0m0.00s\nuser\t0m1,20s\nsys\t0m0,05s\n", 1.25),
    ],
)
def test_only_the_time_of_what_was_run_counts(output: bytes, seconds: float) -> None:
    assert cpu_seconds(output) == pytest.approx(seconds)


def test_a_shell_that_says_nothing_is_no_measurement() -> None:
    with pytest.raises(NodeError, match="did not say how long"):
        cpu_seconds(b"0m0.00s 0m0.00s\n")


@pytest.mark.parametrize(("once", "repeats"), [(0, 1000), (0.0001, 1000), (0.25, 4), (30, 1)])
def test_what_is_short_is_run_more_often(once: float, repeats: int) -> None:
    assert repeats_for(once) == repeats


def test_the_middle_of_the_rounds_decides() -> None:
    gain = gain_of("linux-v3", "linux", rounds=[(1.0, 0.8), (9.0, 0.9), (1.2, 9.0)])
    assert (gain.base_seconds, gain.seconds) == (1.2, 0.9)
    assert gain.share == pytest.approx(0.25)
    assert gain.is_worth_it
    assert not Gain(node="a", base="b", base_seconds=1, seconds=0.98).is_worth_it
    assert not Gain(node="a", base="b", base_seconds=0, seconds=0).is_worth_it


def test_a_record_says_what_is_worth_it_and_a_damaged_one_nothing() -> None:
    good = Gain(node="a-v3", base="a", base_seconds=1, seconds=0.5)
    poor = Gain(node="b-v3", base="b", base_seconds=1, seconds=1.5)
    assert read_gains(write_gains([good, poor], version="1.0.0")) == ("a-v3",)
    for text in ("", "[]", "{}", '{"gains": [{}]}', '{"gains": 1}', "[" * 100_000):
        assert read_gains(text) == ()


def inventory(*, benchmark: str | None = "{binary}", **more: Any) -> Inventory:
    project = {"binaries": ["tool"], "source": {"crate": "tool"}}
    if benchmark:
        project["benchmark"] = benchmark
    node = {"host": "local", "target": "x86_64-unknown-linux-gnu"}
    nodes = [{"name": "a", **node, **more}, {"name": "b", **node}]
    return parse_inventory({"project": project, "nodes": nodes}, place="nodes.yaml")


def test_a_node_is_timed_with_its_variants() -> None:
    found = families(inventory(variants=["x86-64-v2", "x86-64-v3"]), ())
    assert [[node.name for node in family] for family in found] == [["a", "a-v2", "a-v3"]]
    off = inventory(variants="x86-64-v3", enabled=False)
    assert len(families(off, ["a"])) == 1
    with pytest.raises(ConfigError, match="no node has `variants:`"):
        families(off, ())
    with pytest.raises(ConfigError, match="no node has `variants:`"):
        families(inventory(variants="x86-64-v3"), ["b"])
    with pytest.raises(ConfigError, match="what is to be timed"):
        families(inventory(variants="x86-64-v3", benchmark=None), ())
