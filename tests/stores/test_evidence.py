from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.core.evidence import BuildRecord, Evidence, Machine
from orchestrator.core.provenance import seal
from orchestrator.stores.evidence import Notary, publish_evidence, read_statement
from orchestrator.stores.store import Created, ObjectKind, kind_of
from tests.fakes import MemoryStore, ToySigner, make_artifact, toy_verify_raw

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.provenance import Claims
    from orchestrator.core.result import Artifact

FOLDER = "releases/1.0.0/x86_64-unknown-netbsd"
ARCHIVE = f"{FOLDER}/demo-1.0.0-x86_64-unknown-netbsd.tar.gz"
PROVENANCE, SBOM = f"{FOLDER}/provenance.json", f"{FOLDER}/sbom.cdx.json"
MACHINE = Machine(node="n", system="NetBSD", release="10.1", arch="amd64")
RECORD = BuildRecord(
    project="demo",
    source=None,
    bundle_sha256=None,
    revision=None,
    command="make",
    environment=(),
    builder=MACHINE,
    gate=MACHINE,
    level=1,
    job="1" * 32,
    started=datetime(2026, 11, 25, tzinfo=UTC),
    ended=None,
    rustc=None,
    lockfile_sha256=None,
    orchestrator="0.1.0",
)
LATER = replace(RECORD, started=datetime(2026, 11, 26, tzinfo=UTC))


def bill(name: str = "demo", note: str = "") -> bytes:
    component = {"name": name, "bom-ref": f"pkg:cargo/{name}@1.0.0"}
    said = {"bomFormat": "CycloneDX", "metadata": {"component": component}, "note": note}
    return json.dumps(said).encode()


def notary(name: str = "toy", *trusted: str) -> Notary:
    keys = tuple(ToySigner(each).public for each in trusted or (name,))
    return Notary(signer=ToySigner(name), keys=keys, verify=toy_verify_raw)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path, evidence=Evidence(record=RECORD, sbom=bill()))


def with_evidence(artifact: Artifact, record: BuildRecord, sbom: bytes | None) -> Artifact:
    return replace(artifact, evidence=Evidence(record=record, sbom=sbom))


def claims_of(store: MemoryStore) -> Claims:
    data = store.objects[PROVENANCE].data
    return read_statement(data, keys=notary().keys, verify=toy_verify_raw)


async def publish(store: MemoryStore, artifact: Artifact, who: Notary | None = None) -> None:
    await publish_evidence(store, artifact, ARCHIVE, notary=who or notary())


async def test_the_bill_and_the_statement_lie_beside_the_archive(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, artifact)
    assert set(store.objects) == {PROVENANCE, SBOM}
    assert set(store.kinds.values()) == {ObjectKind.STATEMENT}
    assert kind_of(PROVENANCE) is kind_of(SBOM) is ObjectKind.STATEMENT
    claims = claims_of(store)
    assert claims.sbom_sha256 == hashlib.sha256(bill()).hexdigest()
    assert claims.subjects[ARCHIVE.rpartition("/")[2]] == artifact.sha256


async def test_the_same_run_again_writes_nothing(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, artifact)
    await publish(store, artifact)
    assert store.writes == 2


async def test_another_run_of_the_build_keeps_what_is_published(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, artifact)
    before = dict(store.objects)
    await publish(store, with_evidence(artifact, LATER, bill(note="other cargo")))
    await publish(store, with_evidence(artifact, LATER, None))
    assert store.objects == before


async def test_a_run_that_died_between_the_two_is_completed_with_its_bill(
    artifact: Artifact,
) -> None:
    store = MemoryStore()
    await store.create(SBOM, bill(), ObjectKind.STATEMENT)
    await publish(store, artifact)
    assert claims_of(store).sbom_sha256 == hashlib.sha256(bill()).hexdigest()


@pytest.mark.parametrize("planted", [b"", b"{}", bill("other"), bill(note="planted")])
async def test_a_bill_of_somebody_else_stays_and_nothing_vouches_for_it(
    artifact: Artifact, planted: bytes
) -> None:
    store = MemoryStore()
    await store.create(SBOM, planted, ObjectKind.STATEMENT)
    await publish(store, artifact)
    assert store.objects[SBOM].data == planted
    assert claims_of(store).sbom_sha256 is None


async def test_a_statement_that_another_trusted_key_signed_stays(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, artifact, notary("old"))
    before = store.objects[PROVENANCE]
    await publish(store, artifact, notary("new", "new", "old"))
    assert store.objects[PROVENANCE] == before


async def test_a_statement_of_a_stranger_is_a_conflict(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, artifact, notary("stranger"))
    with pytest.raises(StoreError, match=r"already holds other bytes as .*/provenance\.json"):
        await publish(store, artifact)


async def test_a_statement_about_another_archive_is_a_conflict(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, replace(artifact, sha256="0" * 64))
    with pytest.raises(StoreError, match=r"provenance\.json"):
        await publish(store, artifact)


async def test_an_artifact_that_nobody_can_tell_of_has_no_evidence(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, replace(artifact, evidence=None))
    assert store.objects == {}


async def test_a_build_without_a_bill_has_a_statement(artifact: Artifact) -> None:
    store = MemoryStore()
    await publish(store, with_evidence(artifact, RECORD, None))
    assert set(store.objects) == {PROVENANCE}


class Racing(MemoryStore):
    """Somebody else writes the statement first, between the look and the write."""

    theirs: Notary

    async def create(self, name: str, data: bytes, kind: ObjectKind) -> Created:
        if name == PROVENANCE and name not in self.objects:
            statement = json.loads(base64.b64decode(json.loads(data)["payload"]))
            statement["predicate"]["runDetails"]["metadata"]["startedOn"] = "2026-11-26T00:00:00Z"
            theirs = seal(json.dumps(statement).encode(), self.theirs.signer)
            await MemoryStore.create(self, name, theirs, kind)
        return await MemoryStore.create(self, name, data, kind)


async def test_who_is_outrun_keeps_what_the_other_wrote(artifact: Artifact) -> None:
    store = Racing()
    store.theirs = notary()
    await publish(store, artifact)
    assert store.writes == 2
    assert claims_of(store).subjects[ARCHIVE.rpartition("/")[2]] == artifact.sha256


async def test_who_is_outrun_by_a_stranger_says_so(artifact: Artifact) -> None:
    store = Racing()
    store.theirs = notary("stranger")
    with pytest.raises(StoreError, match=r"already holds other bytes as .*/provenance\.json"):
        await publish(store, artifact)


class Refusing(MemoryStore):
    async def create(self, name: str, data: bytes, kind: ObjectKind):  # type: ignore[no-untyped-def]  # noqa: ANN201 -- as its parent
        raise StoreError(f"{name} {kind} {len(data)}: no")


async def test_a_store_that_refuses_is_not_taken_for_a_race(artifact: Artifact) -> None:
    with pytest.raises(StoreError, match="no"):
        await publish(Refusing(), artifact)


class Forgetful(MemoryStore):
    async def holds(self, name: str, data: bytes) -> bool:
        return bool(name and data) and False


async def test_what_the_store_does_not_hold_is_not_announced(artifact: Artifact) -> None:
    with pytest.raises(StoreError, match="reads back"):
        await publish(Forgetful(), artifact)
