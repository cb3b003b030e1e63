"""A published site for tests of verification: real keys, a real store, real headers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.cli import main
from orchestrator.core.evidence import BuildRecord, Evidence, Machine
from orchestrator.core.installer import render_installer
from orchestrator.core.version import parse_version
from orchestrator.signing import verify_raw
from orchestrator.site import installer_values, renew_copy, script_signer
from orchestrator.stores.channel import publish_index
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.evidence import Notary, publish_evidence
from orchestrator.stores.installer import signature_pointer
from orchestrator.stores.pointers import INSTALL_SCRIPT, PAGE, Pointer, publish_pointers
from orchestrator.stores.publish import pending_rows, publish_artifact, publish_reissue
from orchestrator.stores.store import ObjectKind, kind_of
from orchestrator.wiring import Operator
from tests.fakes import make_artifact

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    import pytest

    from orchestrator.core.index import Index, Row
    from orchestrator.signing import FileSigner

NETBSD, LINUX = "x86_64-unknown-netbsd", "x86_64-unknown-linux-gnu"
SBOM = b'{"bomFormat": "CycloneDX", "metadata": {"component": {"name": "demo", "bom-ref": "d"}}}'


@dataclass(kw_only=True)
class Site:
    """An operator's folder, and what he has published from it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    publication: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def inventory(self) -> Path:
        return self.folder / "build-nodes.yaml"

    def write(self, key: str = "key", **publication: Any) -> None:
        """Write the inventory, and make its key."""
        self.folder.mkdir(exist_ok=True)
        self.publication.update(publication)
        data = {
            "project": {"name": "demo", "binaries": ["demo", "demo-extra"]},
            "publication": {
                "store": str(self.store),
                "signing": {"key": str(self.folder / key)},
                "flat": True,
                **self.publication,
            },
            "nodes": [
                {
                    "name": "n",
                    "host": "local",
                    "target": NETBSD,
                    "build_command": "true",
                    "binary_path": "/nowhere/demo",
                }
            ],
        }
        self.inventory.write_text(json.dumps(data))
        if not (self.folder / key).exists():
            assert main(["keygen", "--inventory", str(self.inventory)]) == 0

    @property
    def operator(self) -> Operator:
        return Operator.at(str(self.inventory))

    @property
    def signer(self) -> FileSigner:
        return self.operator.outlet(parse_version("1.0.0")).signer  # type: ignore[return-value]  # a key in a file

    def publish(
        self,
        version: str = "1.0.0",
        *,
        triples: tuple[str, ...] = (NETBSD, LINUX),
        pending: tuple[str, ...] = (),
        today: date | None = None,
        evidence: bool = True,
    ) -> Index:
        """Publish a version as a release does, without building anything."""
        return asyncio.run(
            self._publish(
                version,
                triples=triples,
                pending=pending,
                today=today or datetime.now(UTC).date(),
                evidence=evidence,
            )
        )

    async def _publish(
        self,
        version: str,
        *,
        triples: tuple[str, ...],
        pending: tuple[str, ...],
        today: date,
        evidence: bool,
    ) -> Index:
        outlet = self.operator.outlet(parse_version(version))
        store = DirectoryStore(self.store)
        notary = Notary(signer=outlet.signer, keys=outlet.channel.keys, verify=verify_raw)
        rows: list[Row] = []
        for triple in triples:
            artifact = make_artifact(
                self.folder / "stage",
                triple,
                version,
                evidence=Evidence(record=_record(), sbom=SBOM) if evidence else None,
            )
            row = await publish_artifact(
                store, artifact, channel=outlet.channel, signer=outlet.signer, flat=True
            )
            await publish_evidence(store, artifact, str(row.path), notary=notary)
            rows.append(row)
        for triple in pending:
            from orchestrator.core.target import parse_target  # noqa: PLC0415 -- rarely needed

            rows += pending_rows(parse_version(version), (parse_target(triple),))
        index = await publish_index(store, outlet.channel, rows, signer=outlet.signer, today=today)
        if outlet.url:
            values = installer_values(
                self.operator.inventory.project,
                outlet.url,
                outlet.channel,
                keys_serial=0,
                rows=index.rows,
            )
            script = render_installer(outlet.template, values).encode()
            pointers = (
                Pointer(INSTALL_SCRIPT, script, ObjectKind.SCRIPT),
                await signature_pointer(store, script, script_signer(outlet)),
                Pointer(PAGE, f"<p>serial {index.serial}</p>".encode(), ObjectKind.PAGE),
            )
            await publish_pointers(store, outlet.channel, pointers, serial=index.serial)
            inventory = self.operator.inventory
            await renew_copy(inventory, outlet, index, version=parse_version(version))
        return index

    def point(self, name: str, text: str) -> None:
        """Write an object that follows from the index."""
        kind = kind_of(name)
        assert kind is not None
        outlet = self.operator.outlet_of("stable")
        pointer = Pointer(name, text.encode(), kind)
        asyncio.run(publish_pointers(outlet.store, outlet.channel, (pointer,), serial=10**8))

    def reissue(self, version: str = "1.0.0", triple: str = NETBSD) -> Index:
        """Publish other bytes of a target beside the first ones, with their evidence."""

        async def run() -> Index:
            outlet = self.operator.outlet(parse_version(version))
            notary = Notary(signer=outlet.signer, keys=outlet.channel.keys, verify=verify_raw)
            artifact = make_artifact(
                self.folder / "again",
                triple,
                version,
                evidence=Evidence(record=_record(), sbom=SBOM),
            )
            data = b"another archive"
            artifact.path.write_bytes(data)
            artifact = replace(
                artifact, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
            row = await publish_reissue(
                outlet.store,
                artifact,
                channel=outlet.channel,
                signer=outlet.signer,
                flat=True,
                above=1,
            )
            await publish_evidence(outlet.store, artifact, str(row.path), notary=notary)
            return await publish_index(
                outlet.store, outlet.channel, [row], signer=outlet.signer, today=outlet.today()
            )

        return asyncio.run(run())

    def verify(self, what: object, *words: str) -> Said:
        """Run the command and return what it found."""
        self.capsys.readouterr()
        argv = ["verify", str(what), "--inventory", str(self.inventory), "--json", *words]
        code = main(argv)
        said = self.capsys.readouterr()
        return Said(code=code, data=json.loads(said.out) if said.out else {}, err=said.err)

    def archive(self, version: str = "1.0.0", triple: str = NETBSD) -> Path:
        folder = self.store / "releases" / version / triple
        return folder / f"demo-{version}-{triple}.tar.gz"

    def index(self, channel: str = "stable") -> Path:
        return self.store / f"{channel}.idx"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a verification said."""

    code: int
    data: Any
    err: str

    @property
    def problems(self) -> str:
        return "\n".join(self.data["problems"])

    def part(self, name: str, subject: str = "") -> set[str]:
        """Return the verdicts on one part."""
        return {
            check["verdict"]
            for check in self.data["checks"]
            if check["part"] == name and subject in check["subject"]
        }


def _record() -> BuildRecord:
    machine = Machine(node="n", system="NetBSD", release="10.1", arch="amd64")
    started = datetime(2026, 11, 25, 12, tzinfo=UTC)
    return BuildRecord(
        project="demo",
        source=None,
        bundle_sha256=None,
        revision=None,
        command="true",
        environment=(),
        builder=machine,
        gate=machine,
        level=1,
        job="1" * 32,
        started=started,
        ended=started + timedelta(minutes=1),
        rustc=None,
        lockfile_sha256=None,
        orchestrator="0.1.0",
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
