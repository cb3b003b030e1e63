"""An index that is far larger than any that a release leaves, and what is done with one."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.history import differences
from orchestrator.core.index import (
    Index,
    Row,
    Status,
    join_signed,
    parse_index,
    render_index,
    sort_rows,
)
from orchestrator.core.installer import InstallerValues, render_installer
from orchestrator.core.merge import merge_rows
from orchestrator.core.page import render_page
from orchestrator.core.resolve import Host, resolve
from orchestrator.core.signature import index_namespace
from orchestrator.core.target import TARGETS
from orchestrator.core.version import parse_version
from orchestrator.signing import FileSigner, verify_sshsig

_PROJECT: Final = "tool"
_TARGETS: Final = tuple(TARGETS)[:14]
_TEMPLATE: Final = Path(__file__).parent.parent / "install.sh.j2"


@dataclass(frozen=True, slots=True)
class LargeIndex:
    """The index, its text, and one version more that is not in it yet."""

    index: Index
    text: str
    newer: tuple[Row, ...]
    signer: FileSigner
    versions: int

    @classmethod
    def of(cls, *, versions: int) -> LargeIndex:
        """Return an index of so many versions of 14 targets."""
        numbers = range(1, versions + 1)
        rows = sort_rows(_row(target, number) for target in _TARGETS for number in numbers)
        today = datetime.now(UTC).date()
        index = Index(
            project=_PROJECT,
            channel="stable",
            serial=versions,
            issued=today,
            expires=today + timedelta(days=90),
            rows=rows,
        )
        newer = tuple(_row(target, versions + 1) for target in _TARGETS)
        signer = FileSigner(Ed25519PrivateKey.generate())
        return cls(index, render_index(index), newer, signer, versions)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.index.rows)

    @property
    def size_bytes(self) -> int:
        """How long its text is."""
        return len(self.text)

    def merge(self) -> object:
        """Add a version."""
        return merge_rows(self.index.rows, self.newer, keep=self.versions + 1)

    def render(self) -> object:
        """Write it, which reads it once more."""
        return render_index(self.index)

    def read(self) -> object:
        """Read it."""
        return parse_index(self.text)

    def sign_and_verify(self) -> object:
        """Sign it in both forms, and check the one of ssh."""
        namespace, data = index_namespace(_PROJECT), self.text.encode()
        signed = self.signer.sign(data, namespace=namespace, comment="index")
        verify_sshsig(data, signed.sshsig, keys=(self.signer.public,), namespace=namespace)
        return signed

    def resolve(self) -> object:
        """Find the build for a host."""
        host = Host(
            candidates=("x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"),
            releases={"glibc": "2.36", "linux": "6.1"},
        )
        found = resolve(self.index.rows, host)
        assert found.chosen is not None  # noqa: S101
        return found

    def differences(self) -> object:
        """Tell what the next version changes."""
        changes = differences(self.index.rows, (*self.newer, *self.index.rows))
        assert len(changes) == len(self.newer)  # noqa: S101
        return changes

    def page(self) -> object:
        """Write the page of downloads."""
        return render_page(self._values(), self.index, statements=frozenset())

    def plan(self) -> object:
        """Let install.sh read and verify it, and choose."""
        with tempfile.TemporaryDirectory() as folder:
            namespace = index_namespace(_PROJECT)
            signed = self.signer.sign(self.text.encode(), namespace=namespace, comment="index")
            whole = join_signed(self.text, signed.sshsig, signed.minisig)
            (Path(folder) / "stable.idx").write_text(whole)
            newest = self.newest("x86_64-unknown-linux-gnu")
            archive = Path(folder) / f"{newest.path}"
            archive.parent.mkdir(parents=True)
            archive.touch()
            script = render_installer(_TEMPLATE.read_text(), self._values())
            words = ["sh", "-s", "--", "--plan", "--from", folder]
            return subprocess.run(words, input=script.encode(), check=True, capture_output=True)

    def newest(self, target: str) -> Row:
        """Return the newest row of a target."""
        return next(row for row in self.index.rows if row.target == target)

    def _values(self) -> InstallerValues:
        return InstallerValues(
            project=_PROJECT,
            binaries=(_PROJECT,),
            base_urls=("https://example.org/tool",),
            channel="stable",
            ssh_keys=(self.signer.public.ssh,),
            minisign_keys=(self.signer.public.minisign,),
        )


def _row(target: str, number: int) -> Row:
    version = f"{number // 100}.{number % 100}.0"
    return Row(
        target=target,
        version=parse_version(version),
        status=Status.OK,
        size_bytes=5_000_000 + number,
        sha256=f"{number:064x}",
        path=f"releases/{version}/{target}/{_PROJECT}-{version}-{target}.tar.gz",
    )
