from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.core.forecast import forecast_line
from orchestrator.core.index import Row, Status
from orchestrator.core.inventory import CrateSource, Inventory, Node, Policy, Project, Publication
from orchestrator.core.plan import (
    BuildTask,
    NodeTask,
    ReleaseRequest,
    fill_command,
    fill_extra,
    plan_release,
)
from orchestrator.core.record import PastBuild, Record
from orchestrator.core.result import Floor
from orchestrator.core.target import parse_target
from orchestrator.core.version import parse_version

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = parse_version("1.2.3")
LINUX = "x86_64-unknown-linux-gnu"
FREEBSD = "x86_64-unknown-freebsd"
OPENBSD = "x86_64-unknown-openbsd"


def node(name: str, target: str = LINUX, **more: Any) -> Node:
    return Node(name=name, target=parse_target(target), **({"host": "local"} | more))


def inventory(*nodes: Node, **project: Any) -> Inventory:
    values: dict[str, Any] = {
        "name": "ballistics",
        "binaries": ("ballistics",),
        "source": CrateSource(crate="b"),
    }
    return Inventory(
        project=Project(**(values | project)),
        publication=Publication(),
        nodes=nodes,
    )


def request(**more: Any) -> ReleaseRequest:
    return ReleaseRequest(version=VERSION, **more)


def row(target: str, version: str = "1.2.3", *floors: Floor, status: Status = Status.OK) -> Row:
    is_there = status is not Status.PENDING
    return Row(
        target=target,
        version=parse_version(version),
        status=status,
        size_bytes=1 if is_there else None,
        sha256="0" * 64 if is_there else None,
        floors=floors,
        path="p" if is_there else None,
    )


def names(tasks: Sequence[BuildTask | NodeTask]) -> list[str]:
    return [task.node.name for task in tasks]


def test_each_target_has_one_task_in_the_order_of_the_file() -> None:
    plan = plan_release(
        inventory(node("a"), node("b", FREEBSD), node("c", enabled=False)), request()
    )
    assert names(plan.tasks) == ["a", "b"]
    assert [str(task.target) for task in plan.tasks] == [LINUX, FREEBSD]
    assert plan.version == VERSION


def test_other_nodes_of_a_target_stand_by_the_measured_and_fast_first() -> None:
    nodes = inventory(node("slow"), node("new"), node("fast"))
    builds = (
        PastBuild(node="slow", took=timedelta(minutes=9)),
        PastBuild(node="fast", took=timedelta(minutes=3)),
    )
    plan = plan_release(nodes, request(), record=Record(builds=builds))
    (task,) = plan.tasks
    assert task.node.name == "fast"
    assert names(task.standby) == ["slow", "new"]
    assert task.finish == timedelta(minutes=3)
    assert [spare.expected for spare in task.standby] == [timedelta(minutes=9), None]
    assert plan.critical is task


def test_a_plan_of_which_nothing_was_ever_measured_has_no_forecast() -> None:
    plan = plan_release(inventory(node("a")), request())
    assert plan.critical is None
    assert plan.tasks[0].finish is None
    assert forecast_line(plan) is None


def test_the_forecast_names_the_last_node_and_those_that_were_never_measured() -> None:
    nodes = inventory(
        node("a", slots=2), node("b", FREEBSD, slots=2), node("c", OPENBSD, host="d@192.0.2.1")
    )
    builds = (
        PastBuild(node="a", took=timedelta(minutes=9)),
        PastBuild(node="b", took=timedelta(minutes=3)),
    )
    plan = plan_release(nodes, request(), record=Record(builds=builds))
    assert forecast_line(plan) == ("expected to be built after 9m00s, last on a; never measured: c")
    alone = plan_release(inventory(node("a")), request(), record=Record(builds=builds))
    assert forecast_line(alone) == "expected to be built after 9m00s"


def test_nodes_on_different_openbsd_releases_do_not_stand_in_for_one_another() -> None:
    nodes = inventory(
        node("a", OPENBSD, os_release="7.8"),
        node("b", OPENBSD, os_release="7.9"),
        node("c", OPENBSD),
        node("d", OPENBSD, os_release="7.8"),
    )
    plan = plan_release(nodes, request())
    assert names(plan.tasks) == ["a", "b", "c"]
    assert names(plan.tasks[0].standby) == ["d"]


def test_the_default_command_builds_the_binaries_locked_and_offline() -> None:
    nodes = inventory(node("a", "x86_64-pc-windows-msvc"), binaries=("one", "two"))
    (task,) = plan_release(nodes, request()).tasks
    assert task.first.is_kept_warm
    assert fill_command(task.first, source="/w/s", jobs=4) == (
        "cd /w/s\n"
        "cargo build --release --locked --offline --target x86_64-pc-windows-msvc --jobs 4"
        " --bin one --bin two\n"
        'cp "$CARGO_TARGET_DIR/x86_64-pc-windows-msvc/release/one.exe"'
        ' "$CARGO_TARGET_DIR/x86_64-pc-windows-msvc/release/two.exe" "$ORCHESTRATOR_OUT/"\n'
    )


def test_a_nodes_own_command_wins_over_the_projects() -> None:
    nodes = inventory(
        node("a", build_command="make V={version} {name}"),
        node("b", FREEBSD),
        build_command="sh build.sh {target} ${HOME} {print $1}",
    )
    a, b = plan_release(nodes, request()).tasks
    assert fill_command(a.first, source=None, jobs=1) == "make V=1.2.3 ballistics"
    assert (
        fill_command(b.first, source=None, jobs=1)
        == f"sh build.sh {FREEBSD} ${{HOME}} {{print $1}}"
    )


def test_binary_paths_of_several_binaries_lie_beside_the_first() -> None:
    nodes = inventory(node("a", binary_path="/tmp/x-{version}/one"), binaries=("one", "two"))
    (task,) = plan_release(nodes, request(clean=True)).tasks
    assert task.first.binary_paths == ("/tmp/x-1.2.3/one", "/tmp/x-1.2.3/two")
    assert not task.first.is_kept_warm
    assert "rm -rf" not in task.first.command


def test_clean_empties_the_warm_folder_first() -> None:
    (task,) = plan_release(inventory(node("a")), request(clean=True)).tasks
    assert task.first.command.startswith('rm -rf "$CARGO_TARGET_DIR"\n')


def test_a_cross_built_target_is_gated_on_the_named_nodes() -> None:
    nodes = inventory(node("a", FREEBSD, gate_on=("b",)), node("b", FREEBSD, enabled=False))
    (task,) = plan_release(nodes, request()).tasks
    assert [gate.name for gate in task.first.gate_nodes] == ["b"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"nodes": ("b",)}, ["b"]),
        ({"skip": ("b",)}, ["a"]),
        ({"nodes": ("off",)}, ["off"]),
        ({"nodes": ("a", "b"), "skip": ("a",)}, ["b"]),
    ],
)
def test_node_and_skip_narrow_the_plan(given: dict[str, Any], expected: list[str]) -> None:
    nodes = inventory(
        node("a"), node("b", FREEBSD), node("off", "x86_64-unknown-netbsd", enabled=False)
    )
    assert names(plan_release(nodes, request(**given)).tasks) == expected


def test_unknown_names_are_all_reported_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_release(
            inventory(node("mac-mini")),
            request(nodes=("mac-min",), skip=("zzz",)),
        )
    assert caught.value.message.splitlines() == [
        "--node: no node is named `mac-min`, did you mean `mac-mini`?",
        "--skip: no node is named `zzz`",
    ]
    assert caught.value.hint == "the nodes are: mac-mini"


@pytest.mark.parametrize("skip", [(), ("a",)])
def test_nothing_enabled_is_an_error(skip: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="no node is left") as caught:
        plan_release(inventory(node("a", enabled=False)), request(skip=skip))
    assert "set `enabled: true`" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"skip": ("a", "b")}, "--skip leaves out every enabled node"),
        ({"nodes": ("a", "off"), "skip": ("off", "a")}, "--skip leaves out all that --node names"),
    ],
)
def test_a_choice_that_leaves_nothing_says_so(given: dict[str, Any], reason: str) -> None:
    nodes = inventory(node("a"), node("b"), node("off", enabled=False))
    with pytest.raises(ConfigError) as caught:
        plan_release(nodes, request(**given))
    assert caught.value.message == f"no node is left to build on: {reason}"
    hint = "the enabled nodes are: a, b; skip fewer, or name others with --node"
    assert caught.value.hint == hint


def test_what_is_published_is_not_built_again_unless_asked_for() -> None:
    nodes = inventory(node("a"), node("b", FREEBSD))
    rows = (
        row(LINUX),
        row(FREEBSD, status=Status.PENDING),
        row(FREEBSD, "1.2.2"),
    )
    plan = plan_release(nodes, request(), rows=rows)
    assert names(plan.tasks) == ["b"]
    assert [(skip.node, skip.reason) for skip in plan.skipped] == [
        ("a", "1.2.3 is already published")
    ]
    again = plan_release(nodes, request(rebuild=True), rows=rows)
    assert names(again.tasks) == ["a", "b"]


def test_an_openbsd_release_counts_as_published_only_for_nodes_on_it() -> None:
    nodes = inventory(node("a", OPENBSD, os_release="7.8"), node("b", OPENBSD, os_release="7.9"))
    floor = Floor(name="openbsd", operator="==", release="7.8")
    plan = plan_release(nodes, request(), rows=(row(OPENBSD, "1.2.3", floor),))
    assert names(plan.tasks) == ["b"]


def test_a_required_node_that_is_left_out_stops_the_release_before_it_starts() -> None:
    nodes = inventory(node("a", policy=Policy.REQUIRED), node("b", FREEBSD))
    with pytest.raises(ConfigError, match="`a` is required") as caught:
        plan_release(nodes, request(skip=("a",)))
    assert caught.value.hint is not None
    assert "--no-publish" in caught.value.hint
    plan = plan_release(nodes, request(skip=("a",), publish=False))
    assert names(plan.tasks) == ["b"]
    plan = plan_release(nodes, request(skip=("a",)), rows=(row(LINUX),))
    assert names(plan.tasks) == ["b"]


def test_extra_files_lie_below_the_source_unless_their_path_is_absolute() -> None:
    extras = ("man/{name}.1", "/made/{version}/{target}.fish")
    for source, prefix in ((CrateSource(crate="x"), "{source}/"), (None, "")):
        nodes = inventory(node("a"), source=source, extras=extras)
        (task,) = plan_release(nodes, request()).tasks
        found = task.first
        assert found.extra_paths == (
            f"{prefix}man/ballistics.1",
            f"/made/1.2.3/{found.node.target}.fish",
        )
        place = "/src" if source else None
        expected = "/src/man/ballistics.1" if source else "man/ballistics.1"
        assert fill_extra(found.extra_paths[0], source=place) == expected


def test_extra_files_of_one_name_in_this_version_are_refused() -> None:
    extras = ("a/1.2.3.md", "b/{version}.md")
    with pytest.raises(ConfigError, match=r"`b/1.2.3.md` has the same name"):
        plan_release(inventory(node("a"), extras=extras), request())


def test_a_comparison_builds_on_every_node_of_a_target_that_has_several() -> None:
    nodes = inventory(node("a"), node("b", FREEBSD), node("c"), node("d", enabled=False))
    plan = plan_release(nodes, request(compare=True, publish=False))
    assert names(plan.tasks) == ["a", "c"]
    assert [task.standby for task in plan.tasks] == [(), ()]


def test_a_comparison_of_one_node_for_each_target_is_none() -> None:
    with pytest.raises(ConfigError, match="there is nothing to compare"):
        plan_release(inventory(node("a"), node("b", FREEBSD)), request(compare=True, publish=False))
