"""Where an artifact comes from: an in-toto statement with SLSA's predicate, in a DSSE envelope.

docs/provenance.md says what each part means and what it does not prove. The same build gives the
same bytes: every time in it is the node's own, of the build.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from orchestrator.core.errors import StoreError
from orchestrator.core.inventory import ArchiveSource, CrateSource, GitSource, PathSource
from orchestrator.core.result import cpu_level
from orchestrator.core.sbom import SBOM_NAME, SBOM_TYPE
from orchestrator.core.wording import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from orchestrator.core.evidence import BuildRecord, Machine
    from orchestrator.core.inventory import Source
    from orchestrator.core.result import Artifact
    from orchestrator.core.signature import Signer

PROVENANCE_NAME: Final = "provenance.json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:orchestrator:build:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A signed payload and who claims to have signed it: nothing is verified yet."""

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def signed(self) -> bytes:
        """The bytes that the signatures were made over."""
        return encode_for_signing(self.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a statement says: digests by name, where it was built, and its bill of materials."""

    subjects: Mapping[str, str]
    builder: str
    sbom_sha256: str | None


def render_statement(
    artifact: Artifact, archive: str, record: BuildRecord, *, sbom_sha256: str | None
) -> bytes:
    """Return the statement of an artifact that is published under the archive's file name."""
    builder = _urn(record.project, record.builder.node)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            _subject(archive, artifact.sha256),
            *(_subject(binary.name, binary.sha256) for binary in artifact.binaries),
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "project": record.project,
                    "version": artifact.version,
                    "target": artifact.target.triple,
                    "source": _parameters(record.source, artifact.version),
                },
                "internalParameters": {
                    "command": record.command,
                    # Values of the environment may be secret; the CPU that they ask for is not.
                    **_cpu(artifact),
                    "environment": sorted(record.environment),
                    "node": _machine(record.builder),
                },
                "resolvedDependencies": _dependencies(record, artifact.version),
            },
            "runDetails": {
                "builder": {
                    "id": f"{builder}:slsa-build-l{record.level}",
                    "version": {"orchestrator": record.orchestrator},
                },
                "metadata": _told(
                    invocationId=record.job,
                    startedOn=_instant(record.started),
                    finishedOn=_instant(record.ended),
                ),
                "byproducts": _byproducts(artifact, record, sbom_sha256),
            },
        },
    }
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def _cpu(artifact: Artifact) -> Mapping[str, str]:
    level = cpu_level(artifact.floors)
    return {"cpu": f"x86-64-v{level}"} if level else {}


def encode_for_signing(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a statement."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, signer: Signer) -> bytes:
    """Return the statement in its envelope, signed, as it is published."""
    signature = signer.sign_raw(encode_for_signing(payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": signer.public.fingerprint,
                "sig": base64.b64encode(signature).decode(),
            }
        ],
    }
    return (json.dumps(envelope, indent=1) + "\n").encode()


def open_envelope(data: bytes) -> Envelope:
    """Return what an envelope holds; StoreError if it is none. Verify before `read_claims`."""
    with suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
        envelope = json.loads(data)
        if envelope["payloadType"] == PAYLOAD_TYPE:
            return Envelope(
                payload=_decoded(envelope["payload"]),
                signatures=tuple(
                    (str(each.get("keyid", "")), _decoded(each["sig"]))
                    for each in envelope["signatures"]
                ),
            )
    raise StoreError("it is not a DSSE envelope of an in-toto statement")


def read_claims(payload: bytes) -> Claims:
    """Return what a verified statement says; StoreError if it is not provenance."""
    with suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
        statement = json.loads(payload)
        details = statement["predicate"]["runDetails"]
        kinds = (statement["_type"], statement["predicateType"])
        if kinds == (STATEMENT_TYPE, PREDICATE_TYPE):
            return Claims(
                subjects={each["name"]: each["digest"]["sha256"] for each in statement["subject"]},
                builder=str(details["builder"]["id"]),
                sbom_sha256=next(
                    (
                        str(each["digest"]["sha256"])
                        for each in details.get("byproducts", ())
                        if each.get("name") == SBOM_NAME
                    ),
                    None,
                ),
            )
    raise StoreError("it is not an in-toto statement with SLSA provenance")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _subject(name: str, sha256: str) -> dict[str, object]:
    return {"name": name, "digest": {"sha256": sha256}}


def _urn(project: str, node: str) -> str:
    return f"urn:orchestrator:{project}:node:{node}"


def _told(**facts: object) -> dict[str, object]:
    return {name: fact for name, fact in facts.items() if fact is not None}


def _machine(machine: Machine) -> dict[str, object]:
    return _told(
        name=machine.node, system=machine.system, release=machine.release, arch=machine.arch
    )


def _instant(time: datetime | None) -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None


def _parameters(source: Source | None, version: str) -> dict[str, object] | None:
    """Return the source as the inventory has it; a folder of the operator's own is not named."""
    match source:
        case None:
            return None
        case CrateSource():
            return {"crate": source.crate}
        case GitSource():
            tag = source.tag.replace("{version}", version)
            return _told(git=_public(source.git), tag=tag, subdirectory=source.subdirectory or None)
        case ArchiveSource():
            place = redacted(source.archive).replace("{version}", version)
            return _told(archive=place, subdirectory=source.subdirectory or None)
        case PathSource():
            return _told(
                path=True,
                allowDirty=source.allow_dirty or None,
                subdirectory=source.subdirectory or None,
            )
        case _:
            assert_never(source)


def _public(address: str) -> str | None:
    """Return an address that others can use, None for a place on the operator's own disk."""
    return redacted(address) if "://" in address and not address.startswith("file:") else None


def _dependencies(record: BuildRecord, version: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    uri = _uri(record.source, version)
    # Cargo calls a crate's or a git source's commit by its SHA-1, or by its SHA-256.
    is_commit = record.revision and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", record.revision)
    digest = {"gitCommit": record.revision} if is_commit else None
    if uri or digest:
        found.append(_told(name="source", uri=uri, digest=digest))
    if record.bundle_sha256:
        found.append(_subject("source bundle", record.bundle_sha256))
    if record.lockfile_sha256:
        found.append(_subject("Cargo.lock", record.lockfile_sha256))
    if record.rustc:
        release = re.match(r"rustc ([0-9A-Za-z.+-]+)", record.rustc)
        found.append(
            {
                "name": "rustc",
                "uri": f"pkg:generic/rustc@{release[1]}" if release else "pkg:generic/rustc",
                "annotations": {"version": record.rustc},
            }
        )
    return found


def _uri(source: Source | None, version: str) -> str | None:
    match source:
        case None | PathSource():
            return None
        case CrateSource():
            return f"pkg:cargo/{source.crate}@{version}"
        case GitSource():
            public = _public(source.git)
            tag = source.tag.replace("{version}", version)
            return f"git+{public}@refs/tags/{tag}" if public else None
        case ArchiveSource():
            return redacted(source.archive).replace("{version}", version)
        case _:
            assert_never(source)


def _byproducts(
    artifact: Artifact, record: BuildRecord, sbom_sha256: str | None
) -> list[dict[str, object]]:
    gate: dict[str, object] = {
        "name": "gate",
        "uri": _urn(record.project, record.gate.node),
        "annotations": {
            "node": _machine(record.gate),
            "floors": [str(floor) for floor in artifact.floors],
        },
    }
    if sbom_sha256 is None:
        return [gate]
    return [{**_subject(SBOM_NAME, sbom_sha256), "mediaType": SBOM_TYPE}, gate]
