"""Builds of one version and target for several CPUs, from the inventory to a host."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from orchestrator.core.cpu import variant_name, with_cpu
from orchestrator.core.downloads import newest_builds, platforms_of
from orchestrator.core.dry_run import plan_as_data
from orchestrator.core.errors import ConfigError
from orchestrator.core.index import Row, RowKey, Status, sort_rows
from orchestrator.core.inventory import Inventory, Policy
from orchestrator.core.inventory_parser import parse_inventory
from orchestrator.core.merge import merge_rows
from orchestrator.core.plan import ReleaseRequest, node_cpu, plan_release
from orchestrator.core.resolve import Host, Reason, resolve
from orchestrator.core.version import parse_version
from tests.core.rows import LINUX, OPENBSD, row

BASE = row(LINUX, "1.0.0", Status.OK, "glibc>=2.34")
FASTER = row(LINUX, "1.0.0", Status.OK, "glibc>=2.34", "cpu>=3", sha256="b" * 64)
FASTEST = row(LINUX, "1.0.0", Status.OK, "cpu>=4", sha256="c" * 64)


def parse(*nodes: dict[str, Any], **project: Any) -> Inventory:
    given = {"name": "tool", "binaries": ["tool"], "source": {"crate": "tool"}, **project}
    return parse_inventory({"project": given, "nodes": list(nodes)}, place="nodes.yaml")


def linux(**more: Any) -> dict[str, Any]:
    return {"name": "linux", "host": "a.example", "target": LINUX, **more}


def test_each_variant_of_a_node_is_one_more_node() -> None:
    env = {"A": "1", "RUSTFLAGS": "-C lto"}
    inventory = parse(linux(variants=["x86-64-v2", "x86-64-v3"], env=env, policy="required"))
    base, v2, v3 = inventory.nodes
    assert [node.name for node in inventory.nodes] == ["linux", "linux-v2", "linux-v3"]
    assert (base.env, base.policy) == ((("A", "1"), ("RUSTFLAGS", "-C lto")), Policy.REQUIRED)
    assert v3.env == (("A", "1"), ("RUSTFLAGS", "-C lto -C target-cpu=x86-64-v3"))
    assert (v3.policy, v3.variant_of, v3.variants) == (Policy.BEST_EFFORT, "linux", ())
    assert [node_cpu(inventory.project, node) for node in (base, v2, v3)] == [0, 2, 3]
    assert variant_name("linux", "x86-64-v4") == "linux-v4"
    assert with_cpu((), "x86-64-v3") == (("RUSTFLAGS", "-C target-cpu=x86-64-v3"),)


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (linux(variants="x86-64-v5"), "unknown CPU `x86-64-v5`"),
        (linux(variants="x86-64-v3", target="aarch64-unknown-freebsd"), "levels of x86_64"),
        (linux(variants="x86-64-v3", binary_path="/tool"), "would overwrite one another"),
        (
            linux(variants="x86-64-v3", env={"RUSTFLAGS": "-C target-cpu=x86-64-v2"}),
            "no build runs everywhere",
        ),
        (
            linux(variants="x86-64-v3", env={"CARGO_ENCODED_RUSTFLAGS": "-Copt-level=3"}),
            "not beside CARGO_ENCODED_RUSTFLAGS",
        ),
    ],
)
def test_variants_that_cannot_be_built_are_refused(node: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse(node)


def test_a_variant_is_nobody_elses_name() -> None:
    with pytest.raises(ConfigError, match="would be called `linux-v3`"):
        parse(linux(variants="x86-64-v3"), linux(name="linux-v3"))


def planned(*, gains: tuple[str, ...] = (), nodes: tuple[str, ...] = (), rows: Any = ()) -> Any:
    inventory = parse(linux(variants="x86-64-v3"))
    request = ReleaseRequest(version=parse_version("1.0.0"), nodes=nodes)
    plan = plan_release(inventory, request, rows=rows, gains=gains)
    skipped = {skip.node: skip.reason for skip in plan.skipped}
    return [task.node.name for task in plan.tasks], skipped, plan


def test_a_variant_is_built_where_a_gain_was_measured_or_a_person_asks() -> None:
    tasks, skipped, _ = planned()
    assert tasks == ["linux"]
    assert "orchestrator bench --bench-variants linux" in skipped["linux-v3"]
    assert planned(gains=("linux-v3",))[0] == ["linux", "linux-v3"]
    assert planned(nodes=("linux-v3",))[0] == ["linux-v3"]


def test_a_variant_and_its_base_are_published_each_for_itself() -> None:
    assert planned(gains=("linux-v3",), rows=(BASE,))[0] == ["linux-v3"]
    assert planned(gains=("linux-v3",), rows=(FASTER,))[0] == ["linux"]
    assert planned(gains=("linux-v3",), rows=(BASE, FASTER))[0] == []


def test_a_plan_says_where_a_variant_goes() -> None:
    *_, plan = planned(gains=("linux-v3",))
    data: Any = plan_as_data(plan, store="s", channel="stable", rows=())
    _, faster = data["tasks"]
    assert faster["publishes"] == [
        f"releases/1.0.0/{LINUX}-v3/tool-1.0.0-{LINUX}-v3.tar.gz",
    ]


def test_the_most_demanding_build_comes_first_and_each_has_its_key() -> None:
    assert FASTER.key == RowKey(LINUX, "1.0.0", "-v3")
    assert FASTER.label == f"{LINUX}-v3"
    bound = row(OPENBSD, "1.0.0", Status.OK, "openbsd==7.8", "cpu>=2")
    assert bound.label == f"{OPENBSD}7.8-v2"
    for rows in permutations((BASE, FASTER, FASTEST)):
        assert sort_rows(rows) == (FASTEST, FASTER, BASE)
        assert merge_rows(rows, rows) == (FASTEST, FASTER, BASE)


def test_only_the_newest_of_each_stay() -> None:
    older = row(LINUX, "0.9.0", Status.OK, "cpu>=3")
    assert merge_rows((BASE, FASTER), (older,), keep=1) == (FASTER, BASE)


@pytest.mark.parametrize(
    ("cpu", "taken"), [("4", FASTEST), ("3", FASTER), ("2", BASE), ("1", BASE), (None, BASE)]
)
def test_a_host_gets_the_build_that_its_cpu_can_run(cpu: str | None, taken: Row) -> None:
    releases = {"glibc": "2.36", **({"cpu": cpu} if cpu else {})}
    found = resolve(
        sort_rows((BASE, FASTER, FASTEST)), Host(candidates=(LINUX,), releases=releases)
    )
    assert found.chosen == taken
    assert {passed.reason for passed in found.passed_over} <= {Reason.FLOOR}


def test_without_a_build_for_all_a_cpu_that_does_not_tell_tries() -> None:
    host = Host(candidates=(LINUX,), releases={"glibc": "2.36"})
    assert resolve((FASTER,), host).chosen == FASTER


def test_a_variant_is_a_platform_of_its_own_for_people() -> None:
    base, faster = platforms_of((FASTER, BASE))
    assert (base.name, base.title) == (LINUX, "Linux x86_64 (glibc)")
    assert (faster.name, faster.title) == (f"{LINUX}-v3", "Linux x86_64 (glibc), x86-64-v3")


def test_a_variant_that_is_behind_is_nobodys_newest() -> None:
    newer = row(LINUX, "1.1.0")
    assert newest_builds((newer, FASTER, BASE)) == (newer,)
    yanked = row(LINUX, "1.1.0", Status.YANKED)
    assert newest_builds((yanked, FASTER, BASE)) == (BASE, FASTER)
    taken_back = row(LINUX, "1.0.0", Status.YANKED, "cpu>=3")
    assert newest_builds((taken_back, BASE)) == (BASE,)
    assert newest_builds((FASTER,)) == (FASTER,)
