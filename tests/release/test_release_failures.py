"""What a node that fails costs, and whom: policies, stand-by, gates, checks."""

from __future__ import annotations

import shutil
import socket
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.releases import VERSION, contents, host_target, needs_two_targets, other_target

if TYPE_CHECKING:
    from tests.releases import Desk, NodeEntry, SshNode


@pytest.fixture
def dead(tmp_path: Path) -> NodeEntry:
    """How to reach a node that is down: nobody listens on its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    identity = tmp_path / "identity"
    identity.touch(mode=0o600)
    return {"host": "127.0.0.1", "port": port, "connect_timeout": 5}


@needs_two_targets
@pytest.mark.thorough
def test_a_required_node_that_fails_holds_everything_back(desk: Desk) -> None:
    broken = desk.node("needed", policy="required", build="exit 1\n")
    desk.write(broken, desk.node("b", target=other_target()))
    outcome = desk.release()
    assert outcome.code == 4
    assert outcome.data["published"] == []
    assert outcome.data["held_back"] == [other_target()]
    assert desk.objects() == set()

    mended = desk.node("needed", policy="required")
    desk.write(mended, desk.node("b", target=other_target()))
    again = desk.release()
    assert again.code == 0
    assert again.data["published"] == [host_target(), other_target()]
    assert again.data["held_back"] == []
    assert desk.builds("b") == [VERSION]


@needs_two_targets
@pytest.mark.thorough
def test_nothing_is_published_before_the_required_node_has_delivered(desk: Desk) -> None:
    slow = f"while [ ! -e {desk.dist}/{VERSION}/b/tool-*.tar.gz ]; do sleep 0.05; done\n"
    look = f"sleep 0.3; ls {desk.store} >{desk.folder}/seen 2>&1 || :\n"
    desk.write(
        desk.node("b", target=other_target(), group="b"),
        desk.node("needed", policy="required", build=slow + look + desk.copy()),
    )
    outcome = desk.release()
    assert outcome.code == 0
    assert "releases" not in (desk.folder / "seen").read_text()
    assert outcome.data["published"] == [host_target(), other_target()]


@needs_two_targets
def test_a_best_effort_node_that_fails_is_named_and_costs_nothing(
    desk: Desk, dead: NodeEntry
) -> None:
    late = desk.node("b", target=other_target(), policy="best-effort", **dead)
    desk.write(desk.node(), late)
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 0
    assert f"b/{other_target()}" in outcome.out
    assert "refused" in outcome.out
    assert f"pending: {other_target()}" in outcome.out


@needs_two_targets
def test_a_late_target_is_pending_until_it_arrives(desk: Desk, ssh_node: SshNode) -> None:
    desk.write(desk.node(), desk.node("far", target=other_target(), **ssh_node.entry))
    ssh_node.stop()
    outcome = desk.release()
    assert outcome.code == 3
    assert outcome.results["far"]["class"] == "machine"
    assert outcome.data["published"] == [host_target()]
    assert outcome.data["pending"] == [other_target()]
    ssh_node.start()
    again = desk.release()
    assert again.code == 0
    assert again.data["published"] == [host_target(), other_target()]
    assert again.data["pending"] == []
    assert "pending" not in (desk.store / "stable.idx").read_text()
    assert desk.builds("here") == [VERSION]


@pytest.mark.thorough
def test_a_node_that_was_added_later_is_announced_as_late(desk: Desk, dead: NodeEntry) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    desk.write(desk.node(), desk.node("b", target="aarch64-unknown-openbsd", **dead))
    outcome = desk.release()
    assert outcome.code == 3
    assert outcome.data["published"] == [host_target()]
    assert outcome.data["pending"] == ["aarch64-unknown-openbsd"]


@needs_two_targets
def test_of_several_failures_the_lowest_code_wins(desk: Desk, dead: NodeEntry) -> None:
    desk.write(
        desk.node(build="exit 1\n"),
        desk.node("b", target=other_target(), **dead),
    )
    outcome = desk.release()
    assert {name: result["class"] for name, result in outcome.results.items()} == {
        "here": "build",
        "b": "machine",
    }
    assert outcome.code == outcome.data["exit_code"] == 3
    assert desk.objects() == set()


def test_a_standby_takes_over_from_a_dead_machine(desk: Desk, dead: NodeEntry) -> None:
    first = desk.node("first", policy="required", **dead)
    desk.write(first, desk.node("spare"), desk.node("third"))
    outcome = desk.release()
    assert outcome.code == 0, "the target was delivered"
    assert outcome.data["published"] == [host_target()]
    assert [result["result"] for result in outcome.results.values()] == [
        "failed",
        "built",
        "skipped",
    ]
    assert desk.builds("third") == []


def test_a_standby_never_takes_over_from_a_compile_error(desk: Desk) -> None:
    desk.write(desk.node("first", build="exit 1\n"), desk.node("spare"))
    outcome = desk.release()
    assert outcome.code == 4
    assert outcome.results["spare"]["result"] == "skipped"
    assert desk.builds("spare") == []


def test_an_expected_standby_counts_when_its_best_effort_first_fails(desk: Desk) -> None:
    desk.write(desk.node("first", build="exit 1\n", policy="best-effort"), desk.node("spare"))
    assert desk.release().code == 4


def test_a_compile_error_shows_the_last_lines_and_where_the_log_is(desk: Desk) -> None:
    lines = "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo line $i of it; done\n"
    fail = f"echo error: mismatched types >&2\n[ -e {desk.folder}/mended ] || exit 101\n"
    desk.write(desk.node(build=lines + fail + desk.copy()))
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 4
    assert "error: mismatched types" in outcome.out
    assert "line 22 of it" in outcome.out
    assert "line 21 of it" not in outcome.out
    log = desk.dist / VERSION / "here" / "build.log"
    assert str(log) in outcome.out, "in one piece, to be copied"
    assert "line 1 of it" in log.read_text()
    assert desk.objects() == set()
    followed = desk.run("logs", VERSION, "here", "-f")
    assert followed.code == 4
    assert "line 1 of it" in followed.out

    desk.let_go("mended")
    again = desk.release()
    assert again.code == 0
    assert not again.results["here"]["was_attached"], "a failure is tried again"
    assert desk.builds("here") == [VERSION, VERSION]


@needs_two_targets
def test_binaries_for_other_systems_or_with_a_failing_gate_are_not_published(desk: Desk) -> None:
    arch = host_target().partition("-")[0]
    other_os = f"{arch}-unknown-freebsd"
    other_cpu = f"{'aarch64' if arch == 'x86_64' else 'x86_64'}-unknown-linux-gnu"
    desk.project["gate"] = f"[ {{target}} = {other_target()} ] || {{binary}} spoken; "
    desk.project["gate"] += f"[ {{target}} = {other_target()} ]"
    speak = f"echo the build of $ORCHESTRATOR_OUT says\n{desk.copy()}"
    desk.write(
        desk.node("other-os", target=other_os, build=speak, gate_on="bsd"),
        desk.node("bsd", target=other_os, enabled=False),
        desk.node("other-cpu", target=other_cpu, build=speak),
        desk.node("ungated", build=speak),
        desk.node("good", target=other_target()),
    )
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 4
    assert f"{other_os} needs an executable for FreeBSD on {arch}" in outcome.out
    assert f"{other_cpu} needs an executable for Linux on" in outcome.out
    assert "exited with status 1" in outcome.out
    assert "SPOKEN" in outcome.out
    for name in ("other-os", "other-cpu", "ungated"):
        (job,) = (desk.folder / f"{name}-work" / "jobs").iterdir()
        assert f"the build of {job}/out says" in outcome.out
        assert str(desk.dist / VERSION / name / "build.log") in outcome.out
    status = desk.run("status", VERSION, "--json").data
    assert {row["target"]: row["status"] for row in status["published"]} == {
        other_target(): "ok",
        host_target(): "pending",
        other_os: "pending",
        other_cpu: "pending",
    }
    assert {path.parent.name for path in desk.store.rglob("*.tar.gz")} == {other_target()}


@pytest.mark.thorough
def test_a_stale_binary_is_not_published_and_built_again_when_asked(desk: Desk) -> None:
    version = "1.1.0-rc.1"
    fetched = desk.folder / "fetched"
    shutil.copy(desk.programs.program(), fetched)
    desk.write(desk.node(build=f"cp {fetched} $out/tool\n"))
    outcome = desk.release(version=version)
    assert outcome.code == 4
    assert f"does not say that it is version {version}" in outcome.results["here"]["message"]
    assert "--rebuild" in outcome.results["here"]["hint"]
    assert desk.objects() == set()
    shutil.copy(desk.programs.program(version), fetched)
    assert desk.release("--rebuild", version=version).code == 0


@needs_two_targets
def test_the_bytes_that_another_node_gated_are_published(desk: Desk, ssh_node: SshNode) -> None:
    desk.project["gate"] = f"cp {{binary}} {desk.folder}/gated-{{target}}"
    gate = desk.node("gate", enabled=False, target=host_target(), **ssh_node.entry)
    desk.write(desk.node(gate_on="gate"), desk.node("b", target=other_target()), gate)
    ssh_node.stop()
    outcome = desk.release()
    assert outcome.code == 3
    assert "no node for its gate" in outcome.results["here"]["message"]
    assert outcome.data["published"] == [other_target()]
    assert outcome.data["pending"] == [host_target()]
    assert not (desk.folder / f"gated-{host_target()}").exists()

    ssh_node.start()
    again = desk.release()
    assert again.code == 0
    assert again.results["here"]["was_attached"]
    assert again.data["pending"] == []
    assert desk.builds("here") == [VERSION]
    gated = (desk.folder / f"gated-{host_target()}").read_bytes()
    (archive,) = (desk.store / "releases" / VERSION / host_target()).glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        published = tar.extractfile(tar.getmembers()[-1])
        assert published is not None
        assert published.read() == gated


@pytest.mark.thorough
def test_a_second_gate_node_serves_when_the_first_is_down(
    desk: Desk, ssh_node: SshNode, dead: NodeEntry
) -> None:
    down = desk.node("down", enabled=False, **dead)
    up = desk.node("up", enabled=False, **ssh_node.entry)
    desk.write(desk.node(gate_on=["down", "up"]), down, up)
    assert desk.release().code == 0


def test_what_leaks_is_refused_if_the_project_says_so(desk: Desk) -> None:
    leak = f"{desk.copy()}printf %s $HOME >>$out/tool\n"
    desk.write(desk.node(build=leak))
    outcome = desk.release("--no-publish")
    assert outcome.code == 0
    warning, _ = outcome.results["here"]["warnings"]
    assert warning.startswith("tool holds the home path")
    desk.project["leaks"] = "refuse"
    desk.write(desk.node(build=leak))
    outcome = desk.release()
    assert outcome.code == 4
    assert "tool holds the home path" in outcome.results["here"]["message"]
    assert desk.objects() == set()


def test_a_node_with_another_host_key_is_not_trusted(desk: Desk, ssh_node: SshNode) -> None:
    other = Path(f"{ssh_node.entry['identity']}.pub").read_text().strip()
    desk.write(desk.node("far", **{**ssh_node.entry, "host_key": other}))
    outcome = desk.release()
    assert outcome.code == 3
    assert "HOST KEY" in outcome.results["far"]["message"]
    assert desk.builds("far") == []


@pytest.mark.thorough
def test_a_version_that_failed_everywhere_is_not_announced(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    published = contents(desk.store)
    desk.write(desk.node(build="exit 1\n"))
    outcome = desk.release(version="2.0.0")
    assert outcome.code == 4
    assert outcome.data["published"] == outcome.data["pending"] == []
    assert contents(desk.store) == published


@pytest.mark.thorough
def test_a_place_for_records_that_cannot_be_written_is_an_error_not_a_traceback(
    desk: Desk,
) -> None:
    desk.write(desk.node())
    desk.dist.touch()  # even root cannot make a folder in a file
    outcome = desk.release()
    assert outcome.code == 3
    assert outcome.err.startswith(f"error: cannot write to {desk.dist}/{VERSION}/here: ")
    desk.dist.unlink()
    again = desk.release()
    assert again.code == 0
    assert again.results["here"]["was_attached"]
    assert desk.builds("here") == [VERSION]
