"""A whole release through the command line: what is in the store, and what is said about it."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.index import parse_index, render_row, split_signed
from orchestrator.core.signature import artifact_namespace, index_namespace
from orchestrator.core.target import parse_target
from tests.releases import URL, VERSION, contents, host_target, needs_two_targets, other_target

if TYPE_CHECKING:
    from tests.releases import Desk, SshNode


@needs_two_targets
def test_two_nodes_release_into_one_signed_index(desk: Desk, ssh_node: SshNode) -> None:
    desk.publication["flat"] = True
    desk.write(desk.node(), desk.node("far", target=other_target(), **ssh_node.entry))
    outcome = desk.release()
    assert outcome.code == 0, outcome
    assert outcome.data["published"] == [host_target(), other_target()]
    assert outcome.data["pending"] == outcome.data["held_back"] == []

    text = (desk.store / "stable.idx").read_text()
    index = parse_index(split_signed(text)[0])
    assert {row.target for row in index.rows} == {host_target(), other_target()}
    for row in index.rows:
        program = desk.programs.program(target=row.target).read_bytes()
        archive = desk.store / str(row.path)
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == row.sha256
        assert archive.with_name(f"{archive.name}.sha256").read_text() == (
            f"{row.sha256}  {archive.name}\n"
        )
        with tarfile.open(archive) as tar:
            member = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/tool")
            assert member is not None
            assert member.read() == program
        flat = desk.store / VERSION / f"tool-{VERSION}-{parse_target(row.target).flat_name}"
        assert flat.with_name(f"{flat.name}.sha256").read_text() == (
            f"{hashlib.sha256(program).hexdigest()}  {flat.name}\n"
        )
        assert flat.read_bytes() == program
    script = (desk.store / "install.sh").read_text()
    assert URL in script
    # It begins to download what was the newest when it was made.
    assert all(render_row(row) in script for row in index.rows)
    assert VERSION in (desk.store / "index.html").read_text()

    before = desk.objects()
    again = desk.release()
    assert again.code == 0
    assert {result["reason"] for result in again.results.values()} == {
        f"{VERSION} is already published"
    }
    assert again.data["published"] == outcome.data["published"]
    assert again.data["serial"] == outcome.data["serial"] == index.serial
    assert desk.objects() == before
    assert desk.builds("here") == desk.builds("far") == [VERSION]

    ssh_node.stop()
    jobs = {job["node"]: job for job in desk.run("status", VERSION, "--json").data["jobs"]}
    assert (jobs["here"]["state"], jobs["far"]["state"]) == ("finished", "unknown")
    assert "refused" in jobs["far"]["evidence"]
    assert "refused" in desk.run("status", VERSION).out
    everything = desk.run("status")
    assert everything.code == 0
    assert "refused" in everything.out


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are of x86_64 CPUs")
def test_the_cpu_that_a_build_is_for_is_in_the_index(desk: Desk) -> None:
    desk.write(desk.node(env={"RUSTFLAGS": "-C target-cpu=x86-64-v2"}))
    assert desk.release().code == 0
    (row,) = parse_index(split_signed((desk.store / "stable.idx").read_text())[0]).rows
    assert "cpu>=2" in map(str, row.floors)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_keygen_accepts_what_was_published(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    public = (desk.folder / "key.pub").read_text()
    ssh = next(line for line in public.splitlines() if line.startswith("ssh-ed25519 "))
    signers = desk.folder / "signers"
    signers.write_text(f"maintainer {ssh}\n")
    text, sshsig, _ = split_signed((desk.store / "stable.idx").read_text())
    (desk.folder / "index.sshsig").write_text(sshsig)
    (archive,) = desk.store.rglob("*.tar.gz")
    for namespace, signature, data in (
        (index_namespace("tool"), desk.folder / "index.sshsig", text.encode()),
        (
            artifact_namespace("tool"),
            archive.with_name(f"{archive.name}.sshsig"),
            archive.read_bytes(),
        ),
    ):
        argv = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "maintainer"]
        argv += ["-n", namespace, "-s", str(signature)]
        subprocess.run(argv, input=data, check=True, capture_output=True)


def test_json_is_the_whole_report_and_nothing_else(desk: Desk) -> None:
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.err == ""
    (archive,) = desk.store.rglob("*.tar.gz")
    (packed,) = (path for path in desk.dist.rglob(archive.name) if path != archive)
    report = outcome.data
    (result,) = report.pop("results")
    assert report.pop("elapsed_seconds") >= result.pop("elapsed_seconds") > 0
    assert isinstance(result.pop("floors"), list)
    assert isinstance(result.pop("warnings"), list)
    assert report == {
        "version": VERSION,
        "exit_code": 0,
        "published": [host_target()],
        "pending": [],
        "held_back": [],
        "serial": 1,
        "url": URL,
        "github": None,
        "verified": "store",
        "unreadable": [],
        "drifts": [],
    }
    assert result == {
        "node": "here",
        "target": host_target(),
        "result": "built",
        "was_attached": False,
        "file": archive.name,
        "path": str(packed),
        "size_bytes": archive.stat().st_size,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }


def test_no_publish_builds_and_packs_and_the_next_run_publishes_that(desk: Desk) -> None:
    desk.write(desk.node())
    outcome = desk.release("--no-publish")
    assert outcome.code == 0
    assert not desk.store.exists()
    (archive,) = desk.dist.rglob("*.tar.gz")
    assert outcome.results["here"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert outcome.results["here"]["path"] == str(archive)
    published = desk.release()
    assert published.data["published"] == [host_target()]
    assert published.results["here"]["was_attached"]
    assert desk.builds("here") == [VERSION]


def test_without_a_key_nothing_is_built(desk: Desk) -> None:
    desk.write(desk.node())
    (desk.folder / "key").unlink()
    outcome = desk.release()
    assert outcome.code == 2
    assert "no signing key" in outcome.err
    assert "orchestrator keygen" in outcome.err
    assert desk.builds("here") == []


@needs_two_targets
@pytest.mark.thorough
def test_a_release_is_narrowed_to_nodes_and_completed_later(desk: Desk) -> None:
    desk.write(desk.node(), desk.node("also-here", target=other_target()))
    first = desk.release("--node", "here")
    assert first.code == 0
    assert first.data["published"] == [host_target()]
    assert first.data["pending"] == [other_target()]
    second = desk.release("--skip", "here")
    assert second.data["published"] == [host_target(), other_target()]
    assert second.data["pending"] == []
    assert desk.builds("here") == desk.builds("also-here") == [VERSION]


@pytest.mark.thorough
def test_a_prerelease_leaves_the_stable_channel_alone(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    stable = (desk.store / "stable.idx").read_bytes()
    derived = ("install.sh", "index.html", "versions.json", f"latest/{host_target()}.txt")
    before = [(desk.store / name).read_bytes() for name in derived]
    desk.write(desk.node(build=desk.copy("1.1.0-rc.1")))
    outcome = desk.release(version="1.1.0-rc.1")
    assert outcome.code == 0
    assert outcome.data["published"] == [host_target()]
    assert "1.1.0-rc.1" in (desk.store / "prerelease.idx").read_text()
    assert (desk.store / "stable.idx").read_bytes() == stable
    assert [(desk.store / name).read_bytes() for name in derived] == before
    assert outcome.data["url"] is None, "that installer leads to the stable version"


def test_an_index_that_was_tampered_with_stops_everything(desk: Desk) -> None:
    desk.write(desk.node())
    assert desk.release().code == 0
    index = desk.store / "stable.idx"
    index.write_text(index.read_text().replace("\tok\t", "\tyanked\t"))
    before = desk.objects()
    desk.write(desk.node(build=desk.copy("1.1.0-rc.1")))
    outcome = desk.release(version="1.1.0")
    assert outcome.code == 5
    assert "stable.idx" in outcome.err
    assert "cannot be trusted" in outcome.err
    assert desk.builds("here") == [VERSION]
    assert desk.objects() == before


@needs_two_targets
@pytest.mark.thorough
def test_an_index_that_is_tampered_with_while_nodes_build_stops_the_run(desk: Desk) -> None:
    forge = f"mkdir -p {desk.store} && echo forged >{desk.store}/stable.idx\n"
    desk.write(desk.node(build=desk.copy() + forge), desk.node("b", target=other_target()))
    outcome = desk.release()
    assert outcome.code == 5
    assert "cannot be trusted" in outcome.err
    assert "Traceback" not in outcome.err
    assert (desk.store / "stable.idx").read_text() == "forged\n"


@needs_two_targets
@pytest.mark.thorough
def test_a_store_that_refuses_one_artifact_gets_the_others(desk: Desk) -> None:
    desk.write(desk.node(), desk.node("b", target=other_target()))
    key = host_target()
    squatter = desk.store / "releases" / VERSION / key / f"tool-{VERSION}-{key}.tar.gz"
    squatter.parent.mkdir(parents=True)
    squatter.write_text("somebody else's")
    outcome = desk.release()
    assert outcome.code == 5
    assert outcome.data["published"] == [other_target()]
    assert outcome.data["pending"] == [host_target()]
    assert outcome.results["here"]["class"] == "store"
    assert squatter.name in outcome.results["here"]["message"]
    assert squatter.read_text() == "somebody else's"


def test_a_source_that_is_not_there_stops_the_run_with_one_error(desk: Desk) -> None:
    desk.project["source"] = {"path": str(desk.folder / "nowhere")}
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert desk.builds("here") == []


def test_a_person_reads_what_was_released_and_can_look_it_up(desk: Desk) -> None:
    desk.write(desk.node(build=f"echo a line of the build\n{desk.copy()}"))
    outcome = desk.run("release", "--version", VERSION)
    assert outcome.code == 0
    row = next(line for line in outcome.out.splitlines() if line.startswith("here "))
    assert row.split()[1:3] == [host_target(), "built"]
    assert f"published {VERSION}: {host_target()}" in outcome.out
    assert f"curl --proto '=https' --tlsv1.2 -sSf {URL}/install.sh | sh" in outcome.out
    assert f"here/{host_target()}: collecting" in outcome.err

    status = desk.run("status", VERSION, "--json").data
    assert [job["state"] for job in status["jobs"]] == ["finished"]
    assert [row["target"] for row in status["published"]] == [host_target()]
    assert "finished" in desk.run("status").out
    assert "a line of the build" in desk.run("logs", VERSION, "here").out
    # What is here is only a copy: the node knows it all.
    shutil.rmtree(desk.dist)
    assert desk.run("logs", VERSION, "here").out == "a line of the build\n"
    assert desk.run("logs", VERSION, "here", "--follow").out == "a line of the build\n"
    assert desk.run("status", VERSION, "--json").data["jobs"] == status["jobs"]
    none = desk.run("logs", "9.9.9", "here")
    assert none.code == 2
    assert "here has no job of 9.9.9" in none.err
    assert desk.run("status", "9.9.9", "--json").data["jobs"] == []


def test_quiet_leaves_the_summary_and_no_publish_needs_no_key(desk: Desk) -> None:
    desk.write(desk.node())
    (desk.folder / "key").unlink()
    outcome = desk.run("release", "--version", VERSION, "--quiet", "--no-publish")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"here  {host_target()}" in outcome.out
    assert f"published {VERSION}" not in outcome.out
    (archive,) = desk.dist.rglob("*.tar.gz")
    assert f"built, and not published:\n  {archive}\n" in outcome.out


@pytest.mark.thorough
def test_rebuild_builds_again_and_only_other_bytes_are_a_conflict(desk: Desk) -> None:
    build = f"{desk.copy()}[ ! -e {desk.folder}/changed ] || echo changed >>$out/tool\n"
    desk.write(desk.node(build=build))
    first = desk.release()
    same = desk.release("--rebuild")
    assert same.code == 0
    assert desk.builds("here") == [VERSION, VERSION]
    assert same.results["here"]["sha256"] == first.results["here"]["sha256"]
    assert same.data["serial"] == first.data["serial"]

    published = contents(desk.store)
    desk.let_go("changed")
    other = desk.release("--rebuild")
    assert other.code == 5
    assert other.results["here"]["class"] == "store"
    assert contents(desk.store) == published


def test_it_says_what_it_waited_for(desk: Desk) -> None:
    desk.write(desk.node())
    data = desk.release("--timings").data["timings"]
    assert data["slowest_build"] == "here"
    phases = [wait["phase"] for wait in data["waited_for"] if wait["node"] == "here"]
    assert {"connecting", "collecting", "gating"} <= set(phases)
    spent = sum(wait["seconds"] for wait in data["waited_for"])
    assert data["seconds"] - 0.1 < spent < data["seconds"] + 0.1
    shown = desk.run("release", "--version", VERSION, "--timings").out
    assert re.search(r"\nat +for +node +it waited for\n", shown)
    assert shown.endswith("s in all; nothing was built\n")
    assert "timings" not in desk.release().data
