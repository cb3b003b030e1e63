"""What a release says of how its artifacts were made."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.test_sbom import validate
from tests.releases import ROOT, host_target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.releases import Desk

VERSION = "0.1.0"


def statement(desk: Desk) -> Any:
    (file,) = desk.store.rglob("provenance.json")
    return json.loads(base64.b64decode(json.loads(file.read_text())["payload"]))


def sbom(desk: Desk) -> Any:
    (file,) = desk.store.rglob("sbom.cdx.json")
    return json.loads(file.read_text())


def fetch_for_itself(desk: Desk, name: str = "here", **keys: Any) -> dict[str, Any]:
    """Return a node whose command brings the source itself, as in the article."""
    place = f"{desk.folder}/{name}-build"
    command = f"""\
rm -rf {place}
cp -R {ROOT}/examples/trajectory {place}
cd {place}
cargo build --release --offline
"""
    keys.setdefault("binary_path", f"{place}/target/release/trajectory")
    return desk.node(name, build_command=command, **keys)


def trajectory(desk: Desk) -> None:
    desk.project.update(
        name="trajectory",
        binaries=["trajectory"],
        gate="{binary} --velocity 800 --bc 0.45 --range 300",
    )


def test_a_command_that_fetches_for_itself_has_provenance_and_a_bill(desk: Desk) -> None:
    trajectory(desk)
    desk.write(fetch_for_itself(desk, env={"SECRET_WORD": "hush-hush"}))
    outcome = desk.release(version=VERSION)
    assert outcome.code == 0, outcome
    assert outcome.results["here"]["warnings"] == []
    said = statement(desk)
    details, definition = (said["predicate"][name] for name in ("runDetails", "buildDefinition"))
    (archive,) = desk.store.rglob("*.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert said["subject"][0] == {"name": archive.name, "digest": {"sha256": digest}}
    assert details["builder"]["id"] == "urn:orchestrator:trajectory:node:here:slsa-build-l1"
    assert definition["internalParameters"]["environment"] == ["SECRET_WORD"]
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]
    assert definition["externalParameters"]["source"] is None
    (lock, rustc) = definition["resolvedDependencies"]
    lockfile = (ROOT / "examples" / "trajectory" / "Cargo.lock").read_bytes()
    assert lock["digest"]["sha256"] == hashlib.sha256(lockfile).hexdigest()
    assert rustc["annotations"]["version"].startswith("rustc ")
    bill = sbom(desk)
    validate(bill)
    assert bill["metadata"]["component"]["purl"] == "pkg:cargo/trajectory@0.1.0"
    (published,) = desk.store.rglob("sbom.cdx.json")
    assert details["byproducts"][0]["digest"]["sha256"] == (
        hashlib.sha256(published.read_bytes()).hexdigest()
    )
    # Nothing in it leads to the node or to its user.
    public = json.dumps([said, bill])
    told = (os.uname().nodename, os.environ["HOME"], str(desk.folder / "here-work"), "hush-hush")
    assert [word for word in told if word in public] == []


@pytest.mark.thorough
def test_the_same_release_again_keeps_what_is_published(desk: Desk) -> None:
    trajectory(desk)
    desk.write(fetch_for_itself(desk))
    assert desk.release(version=VERSION).code == 0
    before = {path: path.read_bytes() for path in desk.store.rglob("*.json")}
    shutil.rmtree(desk.dist / VERSION)
    # Attached to the job that is there; and built anew, at another time.
    for option in ((), ("--rebuild",)):
        outcome = desk.release(*option, version=VERSION)
        assert outcome.code == 0, outcome
        assert {path: path.read_bytes() for path in desk.store.rglob("*.json")} == before


@pytest.mark.thorough
def test_an_attached_job_tells_the_same_as_the_one_that_was_followed(desk: Desk) -> None:
    trajectory(desk)
    desk.write(fetch_for_itself(desk))
    assert desk.release("--no-publish", version=VERSION).code == 0
    outcome = desk.release(version=VERSION)
    assert outcome.results["here"]["was_attached"]
    releases = desk.store / "releases"
    first = {path.name: path.read_bytes() for path in releases.rglob("*.json")}
    assert set(first) == {"provenance.json", "sbom.cdx.json"}
    shutil.rmtree(desk.store)
    assert desk.release(version=VERSION).code == 0
    assert {path.name: path.read_bytes() for path in releases.rglob("*.json")} == first


def test_a_node_that_cannot_say_what_it_built_is_warned_of(desk: Desk) -> None:
    desk.write(desk.node())
    outcome = desk.release()
    assert outcome.code == 0
    assert outcome.results["here"]["warnings"] == [
        "no bill of materials: there is no Cargo.lock at or above its binaries"
    ]
    assert list(desk.store.rglob("sbom.cdx.json")) == []
    byproducts = statement(desk)["predicate"]["runDetails"]["byproducts"]
    assert [each["name"] for each in byproducts] == ["gate"]


def test_a_planted_statement_is_a_conflict_and_nothing_is_announced(desk: Desk) -> None:
    desk.write(desk.node())
    folder = desk.store / "releases" / "1.0.0" / host_target()
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text("{}")
    outcome = desk.release()
    assert outcome.code == 5
    assert "provenance.json" in outcome.results["here"]["message"]
    assert not (desk.store / "stable.idx").exists()


@pytest.mark.thorough
def test_a_pushed_bundle_is_told_with_its_commit(desk: Desk) -> None:
    trajectory(desk)
    repository = desk.folder / "repository"
    example = ROOT / "examples" / "trajectory"
    shutil.copytree(example, repository, ignore=shutil.ignore_patterns("target"))
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-qm", "Release"),
        ("tag", f"v{VERSION}"),
    ):
        _git(repository, *words)
    commit = _git(repository, "rev-parse", "HEAD")
    desk.project["source"] = {"git": str(repository)}
    node = {"name": "here", "host": "local", "target": "host", "workdir": str(desk.folder / "w")}
    desk.write(node)
    outcome = desk.release(version=VERSION)
    assert outcome.code == 0, outcome
    assert outcome.results["here"]["warnings"] == []
    definition = statement(desk)["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"][0] == {
        "name": "source",
        "digest": {"gitCommit": commit},
    }
    assert [each["name"] for each in definition["resolvedDependencies"]] == [
        "source",
        "source bundle",
        "Cargo.lock",
        "rustc",
    ]
    assert "cd {source}" in definition["internalParameters"]["command"]
    assert str(desk.folder) not in json.dumps(definition)
    validate(sbom(desk))


def _git(folder: Path, *words: str) -> str:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
    said = subprocess.run(
        ["git", "-C", str(folder), *words],
        check=True,
        env=environment,
        capture_output=True,
        text=True,
    )
    return said.stdout.strip()
