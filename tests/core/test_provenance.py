from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # no __all__

from orchestrator.core.errors import StoreError
from orchestrator.core.evidence import BuildRecord, Machine, build_level
from orchestrator.core.inventory import ArchiveSource, CrateSource, GitSource, PathSource
from orchestrator.core.provenance import (
    encode_for_signing,
    open_envelope,
    read_claims,
    render_statement,
    seal,
)
from orchestrator.core.result import Floor
from orchestrator.signing import generate_key, load_signer, verify_raw
from tests.fakes import make_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.core.inventory import Source
    from orchestrator.core.result import Artifact
    from orchestrator.signing import FileSigner

RECORD = BuildRecord(
    project="demo",
    source=GitSource(git="https://example.org/demo.git"),
    bundle_sha256="b" * 64,
    revision="c" * 40,
    command="cd {source} && cargo build --release",
    environment=("RUSTFLAGS", "CC"),
    builder=Machine(node="netbsd", system="NetBSD", release="10.1", arch="amd64"),
    gate=Machine(node="guest", system="NetBSD", release="10.0", arch="amd64"),
    level=2,
    job="d" * 32,
    started=datetime(2026, 11, 25, 12, 0, 1, tzinfo=UTC),
    ended=datetime(2026, 11, 25, 12, 3, 2, tzinfo=UTC),
    rustc="rustc 1.95.0 (abc 2026-03-21)",
    lockfile_sha256="e" * 64,
    orchestrator="0.1.0",
)
ARCHIVE = "demo-1.0.0-x86_64-unknown-netbsd.tar.gz"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path, floors=(Floor(name="netbsd", operator=">=", release="10.0"),))


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    generate_key(tmp_path / "key", passphrase=None)
    return load_signer(tmp_path / "key", None)


def statement_of(artifact: Artifact, record: BuildRecord = RECORD) -> Any:
    return json.loads(render_statement(artifact, ARCHIVE, record, sbom_sha256="f" * 64))


def test_a_statement_says_what_was_made_of_what_and_where(artifact: Artifact) -> None:
    first, second = artifact.binaries
    machine = {"name": "netbsd", "system": "NetBSD", "release": "10.1", "arch": "amd64"}
    assert statement_of(artifact) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": ARCHIVE, "digest": {"sha256": artifact.sha256}},
            {"name": "demo", "digest": {"sha256": first.sha256}},
            {"name": "demo-extra", "digest": {"sha256": second.sha256}},
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:orchestrator:build:1",
                "externalParameters": {
                    "project": "demo",
                    "version": "1.0.0",
                    "target": "x86_64-unknown-netbsd",
                    "source": {"git": "https://example.org/demo.git", "tag": "v1.0.0"},
                },
                "internalParameters": {
                    "command": "cd {source} && cargo build --release",
                    "environment": ["CC", "RUSTFLAGS"],
                    "node": machine,
                },
                "resolvedDependencies": [
                    {
                        "name": "source",
                        "uri": "git+https://example.org/demo.git@refs/tags/v1.0.0",
                        "digest": {"gitCommit": "c" * 40},
                    },
                    {"name": "source bundle", "digest": {"sha256": "b" * 64}},
                    {"name": "Cargo.lock", "digest": {"sha256": "e" * 64}},
                    {
                        "name": "rustc",
                        "uri": "pkg:generic/rustc@1.95.0",
                        "annotations": {"version": "rustc 1.95.0 (abc 2026-03-21)"},
                    },
                ],
            },
            "runDetails": {
                "builder": {
                    "id": "urn:orchestrator:demo:node:netbsd:slsa-build-l2",
                    "version": {"orchestrator": "0.1.0"},
                },
                "metadata": {
                    "invocationId": "d" * 32,
                    "startedOn": "2026-11-25T12:00:01Z",
                    "finishedOn": "2026-11-25T12:03:02Z",
                },
                "byproducts": [
                    {
                        "name": "sbom.cdx.json",
                        "digest": {"sha256": "f" * 64},
                        "mediaType": "application/vnd.cyclonedx+json",
                    },
                    {
                        "name": "gate",
                        "uri": "urn:orchestrator:demo:node:guest",
                        "annotations": {
                            "node": {**machine, "name": "guest", "release": "10.0"},
                            "floors": ["netbsd>=10.0"],
                        },
                    },
                ],
            },
        },
    }


def test_a_statement_says_for_which_cpu_it_was_made(artifact: Artifact) -> None:
    cpu = Floor(name="cpu", operator=">=", release="3")
    statement = statement_of(replace(artifact, floors=(*artifact.floors, cpu)))
    parameters = statement["predicate"]["buildDefinition"]["internalParameters"]
    assert parameters["cpu"] == "x86-64-v3"


def test_what_nobody_knows_is_left_out(artifact: Artifact) -> None:
    unknown = replace(
        RECORD,
        source=None,
        bundle_sha256=None,
        revision=None,
        started=None,
        ended=None,
        rustc=None,
        lockfile_sha256=None,
        builder=replace(RECORD.builder, release=None),
    )
    said = json.loads(render_statement(artifact, ARCHIVE, unknown, sbom_sha256=None))
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["source"] is None
    assert definition["resolvedDependencies"] == []
    assert "release" not in definition["internalParameters"]["node"]
    details = said["predicate"]["runDetails"]
    assert details["metadata"] == {"invocationId": "d" * 32}
    assert [each["name"] for each in details["byproducts"]] == ["gate"]


@pytest.mark.parametrize(
    ("source", "parameters", "uri"),
    [
        (CrateSource(crate="demo"), {"crate": "demo"}, "pkg:cargo/demo@1.0.0"),
        (
            GitSource(git="ssh://git@example.org/x", tag="r{version}", subdirectory="cli"),
            {"git": "ssh://example.org/x", "tag": "r1.0.0", "subdirectory": "cli"},
            "git+ssh://example.org/x@refs/tags/r1.0.0",
        ),
        (GitSource(git="/home/alice/demo"), {"tag": "v1.0.0"}, None),
        (GitSource(git="file:///home/alice/demo"), {"tag": "v1.0.0"}, None),
        (
            ArchiveSource(archive="https://example.org/v{version}.tar.gz", sha256=()),
            {"archive": "https://example.org/v1.0.0.tar.gz"},
            "https://example.org/v1.0.0.tar.gz",
        ),
        (
            PathSource(path="/home/alice/demo", allow_dirty=True, subdirectory="cli"),
            {"path": True, "allowDirty": True, "subdirectory": "cli"},
            None,
        ),
    ],
)
def test_a_source_is_named_as_others_can_use_it(
    artifact: Artifact, *, source: Source, parameters: object, uri: str | None
) -> None:
    record = replace(RECORD, source=source, bundle_sha256=None)
    said = statement_of(artifact, record)["predicate"]["buildDefinition"]
    assert said["externalParameters"]["source"] == parameters
    found = said["resolvedDependencies"][0]
    assert found["digest"] == {"gitCommit": "c" * 40}
    assert found.get("uri") == uri
    assert "alice" not in json.dumps(said)


def test_a_revision_that_is_no_commit_is_not_called_one(artifact: Artifact) -> None:
    record = replace(RECORD, source=None, revision="main", rustc="nightly")
    found = statement_of(artifact, record)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["name"] for each in found] == ["source bundle", "Cargo.lock", "rustc"]
    assert found[2]["uri"] == "pkg:generic/rustc"


def test_only_a_dedicated_node_claims_more_than_the_first_level() -> None:
    assert (build_level(is_dedicated=False), build_level(is_dedicated=True)) == (1, 2)


def test_the_same_build_gives_the_same_envelope(artifact: Artifact, signer: FileSigner) -> None:
    one, two = (
        seal(render_statement(artifact, ARCHIVE, RECORD, sbom_sha256=None), signer)
        for _ in range(2)
    )
    assert one == two


def test_somebody_else_s_dsse_verifies_the_envelope(artifact: Artifact, signer: FileSigner) -> None:
    payload = render_statement(artifact, ARCHIVE, RECORD, sbom_sha256=None)
    theirs = TheirEnvelope.from_dict(json.loads(seal(payload, signer)))
    raw = base64.b64decode(signer.public.minisign)[-32:]
    id_ = signer.public.fingerprint
    key = SSlibKey(id_, "ed25519", "ed25519", {"public": raw.hex()})
    assert theirs.verify([key], 1).keys() == {id_}
    assert theirs.payload == payload
    assert theirs.pae() == encode_for_signing(payload)


def test_openssl_verifies_the_envelope_by_hand(
    artifact: Artifact, signer: FileSigner, tmp_path: Path
) -> None:
    sealed = seal(render_statement(artifact, ARCHIVE, RECORD, sbom_sha256=None), signer)
    envelope = open_envelope(sealed)
    raw = base64.b64decode(signer.public.minisign)[-32:]
    # RFC 8410: the fixed head of an ed25519 key in SubjectPublicKeyInfo.
    der = bytes.fromhex("302a300506032b6570032100") + raw
    (tmp_path / "key.der").write_bytes(der)
    (tmp_path / "signed").write_bytes(envelope.signed)
    (tmp_path / "signature").write_bytes(envelope.signatures[0][1])
    words = ("-verify", "-pubin", "-inkey", "key.der", "-keyform", "DER", "-rawin")
    said = subprocess.run(
        ["openssl", "pkeyutl", *words, "-in", "signed", "-sigfile", "signature"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Signature Verified Successfully" in said.stdout, said.stderr


def test_an_envelope_is_opened_and_its_claims_are_read(
    artifact: Artifact, signer: FileSigner
) -> None:
    payload = render_statement(artifact, ARCHIVE, RECORD, sbom_sha256="f" * 64)
    envelope = open_envelope(seal(payload, signer))
    assert envelope.payload == payload
    ((keyid, signature),) = envelope.signatures
    assert keyid == signer.public.fingerprint
    assert verify_raw(envelope.signed, signature, keys=(signer.public,)) == signer.public
    claims = read_claims(payload)
    assert claims.subjects[ARCHIVE] == artifact.sha256
    assert claims.builder == "urn:orchestrator:demo:node:netbsd:slsa-build-l2"
    assert claims.sbom_sha256 == "f" * 64


def test_a_statement_without_a_bill_claims_none(artifact: Artifact) -> None:
    payload = render_statement(artifact, ARCHIVE, RECORD, sbom_sha256=None)
    assert read_claims(payload).sbom_sha256 is None


def test_a_signature_over_other_bytes_is_none(signer: FileSigner, tmp_path: Path) -> None:
    generate_key(tmp_path / "other", passphrase=None)
    other = load_signer(tmp_path / "other", None)
    signature = signer.sign_raw(b"data")
    assert verify_raw(b"data", signature, keys=(other.public, signer.public)) == signer.public
    for data, keys in ((b"datb", (signer.public,)), (b"data", (other.public,)), (b"data", ())):
        with pytest.raises(StoreError, match="bad signature"):
            verify_raw(data, signature, keys=keys)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"payloadType": "text/plain", "payload": "", "signatures": []}',
        b'{"payloadType": "application/vnd.in-toto+json", "payload": "?", "signatures": []}',
        b'{"payloadType": "application/vnd.in-toto+json", "payload": "", "signatures": ["x"]}',
        b'{"payloadType": "application/vnd.in-toto+json", "payload": 1, "signatures": []}',
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="not a DSSE envelope"):
        open_envelope(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"_type": "x", "predicateType": "y", "subject": [], "predicate": {"runDetails": {}}}',
        b'{"_type": "x", "predicateType": "y", "subject": [], "predicate": {"runDetails": 1}}',
    ],
)
def test_what_is_no_provenance_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="not an in-toto statement"):
        read_claims(data)
