"""A published site of our own to install from: index, archive and install.sh, all real."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.install_scripts import InstallScript
from benchmarks.report import OURS
from orchestrator.core.archive import ArchiveEntry, archive_name, pack_archive
from orchestrator.core.downloads import newest_builds
from orchestrator.core.index import (
    Index,
    Row,
    Status,
    join_signed,
    render_index,
    render_row,
    sort_rows,
)
from orchestrator.core.installer import InstallerValues, render_installer
from orchestrator.core.signature import index_namespace
from orchestrator.core.target import TARGETS
from orchestrator.core.version import parse_version
from orchestrator.signing import FileSigner

if TYPE_CHECKING:
    from orchestrator.core.signature import Signatures

_TEMPLATE: Final = Path(__file__).parent.parent / "install.sh.j2"
_PROJECT: Final = "tool"
_VERSIONS: Final = 10
_TARGET: Final = "x86_64-unknown-linux-gnu"


def lay_out(site: Path, url: str, program: bytes) -> InstallScript:
    """Write ten versions for all targets into the folder of a server, the newest with a program."""
    signer = FileSigner(Ed25519PrivateKey.generate())
    archive = pack_archive(
        archive_name(_PROJECT, f"1.{_VERSIONS}.0", _TARGET).removesuffix(".tar.gz"),
        [ArchiveEntry(name=_PROJECT, data=program, is_executable=True)],
    )
    rows = tuple(
        _row(target, f"1.{number}.0", archive)
        for target in TARGETS
        for number in range(1, _VERSIONS + 1)
    )
    mine = next(row for row in rows if row.target == _TARGET and f"{row.version}" == "1.10.0")
    file = site / f"{mine.path}"
    file.parent.mkdir(parents=True)
    file.write_bytes(archive)
    index, signatures = _index(rows, signer)
    (site / "stable.idx").write_text(join_signed(index, signatures.sshsig, signatures.minisig))
    values = InstallerValues(
        project=_PROJECT,
        binaries=(_PROJECT,),
        base_urls=(url,),
        channel="stable",
        ssh_keys=(signer.public.ssh,),
        minisign_keys=(signer.public.minisign,),
        newest=tuple(map(render_row, sort_rows(newest_builds(rows)))),
    )
    (site / "install.sh").write_text(render_installer(_TEMPLATE.read_text(), values))
    return InstallScript(
        tool=OURS,
        path="install.sh",
        installed=f".local/bin/{_PROJECT}",
        note="signed index, SHA-256, trial run",
    )


def _row(target: str, version: str, archive: bytes) -> Row:
    return Row(
        target=target,
        version=parse_version(version),
        status=Status.OK,
        size_bytes=len(archive),
        sha256=hashlib.sha256(archive).hexdigest(),
        path=f"releases/{version}/{target}/{archive_name(_PROJECT, version, target)}",
    )


def _index(rows: tuple[Row, ...], signer: FileSigner) -> tuple[str, Signatures]:
    today = datetime.now(UTC).date()
    text = render_index(
        Index(
            project=_PROJECT,
            channel="stable",
            serial=_VERSIONS,
            issued=today,
            expires=today + timedelta(days=90),
            rows=rows,
        )
    )
    namespace = index_namespace(_PROJECT)
    return text, signer.sign(text.encode(), namespace=namespace, comment="index")
