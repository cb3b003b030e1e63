"""What must not go wrong while a release waits, is watched, or is run again later."""

from __future__ import annotations

import shlex
import tarfile
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator import inspection, publication, wiring
from orchestrator.core.errors import NodeError, StoreError
from orchestrator.core.index import parse_index, split_signed
from orchestrator.core.inventory import Node
from orchestrator.core.target import parse_target
from orchestrator.nodes.local import LocalProcess, LocalTransport
from orchestrator.nodes.probe import NodeFacts
from tests.releases import VERSION, host_target, needs_two_targets, other_target

if TYPE_CHECKING:
    from tests.releases import Desk, SshNode


pytestmark = pytest.mark.thorough


def serial_and_expiry(desk: Desk) -> tuple[int, str]:
    index = parse_index(split_signed((desk.store / "stable.idx").read_text()).text)
    return index.serial, str(index.expires)


@needs_two_targets
def test_waiting_for_the_host_is_no_silence_of_the_build(desk: Desk) -> None:
    # Silent at first: a line that came with the end of the wait would hide how long that was.
    ticks = "sleep 0.5\nfor i in 1 2 3 4; do echo tick; sleep 0.7; done\n"
    desk.write(
        desk.node("a", build=ticks + desk.copy(), silence_timeout=2),
        desk.node(
            "b",
            build=ticks + desk.copy(target=other_target()),
            target=other_target(),
            silence_timeout=2,
        ),
    )
    assert desk.release().code == 0


def test_a_file_that_is_swapped_while_the_gate_runs_is_not_published(desk: Desk) -> None:
    other = desk.programs.program("6.6.6")
    desk.project["gate"] = [f"cp {other} {desk.dist}/{VERSION}/here/tool"]
    desk.write(desk.node())
    outcome = desk.release()
    # It is packed meanwhile: before it was swapped, or not at all.
    if outcome.code:
        assert outcome.code == 3
        assert "was changed after it was collected" in outcome.data["results"][0]["message"]
        assert not list(desk.store.rglob("*.tar.gz"))
    del desk.project["gate"]
    desk.write(desk.node())
    assert desk.release().code == 0
    with tarfile.open(next(desk.store.rglob("*.tar.gz"))) as archive:
        published = archive.extractfile(archive.getmembers()[-1])
        assert published is not None
        assert published.read() == desk.programs.program().read_bytes()


@needs_two_targets
def test_a_login_that_prints_fails_its_own_node_and_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = LocalTransport.open
    noisy = desk.node("noisy")
    quiet = desk.node("quiet", target=other_target())

    async def greeted(self: LocalTransport, script: str, *args: str) -> LocalProcess:
        is_noisy = any(arg.startswith(noisy["workdir"]) for arg in args)
        return await start(self, "echo Welcome to this host\n" * is_noisy + script, *args)

    monkeypatch.setattr(LocalTransport, "open", greeted)
    desk.write(noisy, quiet)
    outcome = desk.release()
    assert outcome.code == 3
    assert outcome.data["published"] == [other_target()]
    assert outcome.data["results"][0]["class"] == "machine"
    assert "Traceback" not in outcome.err


def test_a_version_that_differs_in_its_build_metadata_is_another_one(desk: Desk) -> None:
    desk.project["version_command"] = "{binary} --version; echo {version}"
    desk.write(desk.node(build=desk.copy()))
    assert desk.release(version="1.0.0+a").data["published"] == [host_target()]
    again = desk.release(version="1.0.0+b")
    assert again.data["results"][0]["result"] == "built"


def test_the_same_release_late_in_the_index_s_life_renews_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(desk.node())
    desk.release()
    first = serial_and_expiry(desk)
    assert desk.release().code == 0
    assert serial_and_expiry(desk) == first
    today = wiring._today
    monkeypatch.setattr(wiring, "_today", lambda: today() + timedelta(days=46))
    assert desk.release().code == 0
    assert serial_and_expiry(desk)[0] == first[0] + 1
    assert serial_and_expiry(desk)[1] > first[1]


def test_the_node_that_has_built_goes_on_even_if_another_is_faster_by_now(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = desk.folder / "built"
    desk.write(
        *(
            desk.node(name, build=f"echo {name} >>{shlex.quote(str(counter))}\n" + desk.copy())
            for name in ("a", "b")
        )
    )
    publish = publication.publish_index  # type: ignore[attr-defined]  # where it is looked up

    async def lost(*_: object, **__: object) -> None:
        raise StoreError("the store is out of reach")

    monkeypatch.setattr(publication, "publish_index", lost)
    assert desk.release().code == 5
    monkeypatch.setattr(publication, "publish_index", publish)
    # Measured meanwhile, by releases of other versions.
    (desk.dist / "timings.jsonl").write_text(
        '{"node": "b", "seconds": 1}\n{"node": "a", "seconds": 9}\n'
    )
    assert desk.release().code == 0
    assert counter.read_text().split() == ["a"]


@needs_two_targets
def test_a_group_builds_one_at_a_time_though_its_hosts_do_not_share_a_lock(
    desk: Desk, ssh_node: SshNode
) -> None:
    build = f"mkdir {desk.folder}/busy\nsleep 0.5\nrmdir {desk.folder}/busy\n"
    desk.write(
        desk.node("a", build=build + desk.copy(), group="rig"),
        desk.node(
            "b",
            build=build + desk.copy(target=other_target()),
            target=other_target(),
            group="rig",
            **ssh_node.entry,
        ),
    )
    assert desk.release().code == 0


@needs_two_targets
def test_a_gate_waits_for_its_turn_in_a_group_too(desk: Desk) -> None:
    busy = f"mkdir {desk.folder}/busy\nsleep 1\nrmdir {desk.folder}/busy\n"
    desk.project["gate"] = f"case {{target}} in {host_target()}) {busy};; esac"
    desk.write(
        desk.node("a", build=desk.copy(), group="rig", gate_on="guest", workdir=f"{desk.folder}/a"),
        desk.node("guest", group="rig", enabled=False, workdir=f"{desk.folder}/g"),
        desk.node(
            "b",
            build=busy + desk.copy(target=other_target()),
            target=other_target(),
            group="rig",
            workdir=f"{desk.folder}/b",
        ),
    )
    outcome = desk.release()
    assert outcome.code == 0, outcome


def test_a_taken_flat_name_costs_the_bare_binary_and_not_the_target(desk: Desk) -> None:
    desk.publication["flat"] = True
    desk.write(desk.node())
    flat_name = parse_target(host_target()).flat_name
    taken = desk.store / VERSION / f"tool-{VERSION}-{flat_name}"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"another build's")
    outcome = desk.release()
    assert outcome.code == 0
    assert outcome.data["published"] == [host_target()]
    assert taken.read_bytes() == b"another build's"


def test_a_cache_that_cannot_be_used_is_an_error_with_its_place(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = desk.folder / "source"
    source.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    desk.project["source"] = {"path": str(source), "allow_dirty": True}
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 3
    assert "cannot make the source bundle" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_binary_that_was_added_later_is_another_job(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release("--no-publish").code == 0
    desk.project["binaries"] = ["tool", "tool2"]
    desk.write(desk.node())
    outcome = desk.release("--no-publish")
    assert outcome.data["results"][0]["class"] == "build"


def facts(system: str, release: str | None) -> NodeFacts:
    return NodeFacts(**dict.fromkeys(NodeFacts.__slots__) | {"system": system, "release": release})  # type: ignore[arg-type]  # only these two are read


def test_the_gate_s_machine_says_which_release_a_binary_is_bound_to() -> None:
    openbsd = parse_target("x86_64-unknown-openbsd")
    node = Node(name="n", host="local", target=openbsd, os_release="7.8")
    assert inspection._os_release(node, facts("OpenBSD", "7.8")) == "7.8"
    with pytest.raises(NodeError, match=r"os_release: 7\.8.* runs 7\.9"):
        inspection._os_release(node, facts("OpenBSD", "7.9"))
    inspection._require_system(openbsd, facts("OpenBSD", "7.8"))
    with pytest.raises(NodeError, match="would run on Linux"):
        inspection._require_system(openbsd, facts("Linux", None))
