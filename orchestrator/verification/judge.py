"""What trusted keys say about an archive and about an index; every message names what is wrong."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.core.errors import StoreError
from orchestrator.core.index import parse_index, split_signed
from orchestrator.core.signature import (
    artifact_namespace,
    index_namespace,
    installer_namespace,
)
from orchestrator.core.verification import (
    INDEX,
    INSTALLER,
    MINISIGN_SIGNATURE,
    PROVENANCE,
    SBOM,
    SSH_SIGNATURE,
    Verdict,
    good,
    judge_checksum,
    judge_comment,
    judge_index,
    judge_row,
    unknown,
    wrong,
)
from orchestrator.stores.evidence import read_statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.core.index import Index
    from orchestrator.core.provenance import Claims
    from orchestrator.core.signature import PublicKey
    from orchestrator.core.verification import Check, IndexRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFiles:
    """An archive and what lies beside it; None is what is not there."""

    name: str
    version: str
    data: bytes
    sha256: bytes | None = None
    sshsig: bytes | None = None
    minisig: bytes | None = None
    provenance: bytes | None = None
    sbom: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Believes what these keys have signed for this project, and nothing else.

    `past` are keys that may not sign any more: what they signed is believed of an archive that a
    genuine index names, and of nothing else.
    """

    project: str
    keys: tuple[PublicKey, ...]
    past: tuple[PublicKey, ...] = ()

    def archive(
        self, files: ArchiveFiles, index: Index | None, *, is_for_use: bool
    ) -> Iterator[Check]:
        """Yield a check of each part that vouches for an archive; `is_for_use`: see judge_row."""
        digest = hashlib.sha256(files.data).hexdigest()
        row = unknown(files.name, INDEX)
        if index is not None:
            row = judge_row(
                files.name,
                index,
                sha256=digest,
                size_bytes=len(files.data),
                is_for_use=is_for_use,
            )
        yield judge_checksum(files.name, digest, files.sha256)
        judge = self
        if row.verdict is Verdict.GOOD:
            judge = replace(self, keys=(*self.keys, *self.past), past=())
        yield from judge.side_files(files, digest)
        yield row

    def side_files(self, files: ArchiveFiles, digest: str) -> Iterator[Check]:
        """Yield a check of each signed thing that lies beside an archive."""
        yield self._sshsig(files)
        yield self._minisig(files)
        provenance, claims = self._provenance(files, digest)
        yield provenance
        yield _sbom(files, claims)

    def claims(self, provenance: bytes) -> Claims:
        """Return what a genuine statement says; StoreError for any other."""
        from orchestrator.signing import verify_raw  # noqa: PLC0415 -- lazy: it imports for 0.2 s

        return read_statement(provenance, keys=self.keys, verify=verify_raw)

    def installer(self, subject: str, script: bytes, signature: bytes | None) -> Check:
        """Return whether the install.sh that people get now is signed."""
        if signature is None:
            # As older releases left it.
            return unknown(subject, INSTALLER, "not there: `orchestrator renew` writes it")
        problem = self._installer_problem(script, signature, self.keys)
        if problem:
            return wrong(subject, INSTALLER, f"{problem}; `orchestrator renew` writes both anew")
        return good(subject, INSTALLER)

    def installer_copy(self, subject: str, script: bytes, signature: bytes | None) -> Check:
        """Return whether the install.sh of one version is signed, which never changes."""
        if signature is None:
            return wrong(subject, INSTALLER, "it is not there")
        problem = self._installer_problem(script, signature, self.keys)
        if problem is None:
            return good(subject, INSTALLER)
        if self._installer_problem(script, signature, self.past) is None:
            return unknown(subject, INSTALLER, "by a key that may not sign any more")
        return wrong(subject, INSTALLER, problem)

    def index(
        self, subject: str, data: bytes, rules: IndexRules
    ) -> tuple[Index | None, list[Check]]:
        """Return the index if it is genuine and as the rules say, and what was found."""
        try:
            index = self._genuine(data)
        except StoreError as error:
            return None, [wrong(subject, INDEX, error.message)]
        problems = list(judge_index(subject, index, rules))
        if problems:
            return None, problems
        told = f"serial {index.serial}, good until {index.expires}"
        return index, [good(subject, INDEX, told)]

    def genuine(self, data: bytes) -> Index | None:
        """Return the index that is in the bytes, None unless a trusted key has signed it."""
        try:
            return self._genuine(data)
        except StoreError:
            return None

    def _installer_problem(
        self, script: bytes, signature: bytes, keys: tuple[PublicKey, ...]
    ) -> str | None:
        from orchestrator.signing import verify_sshsig  # noqa: PLC0415 -- lazy, see above

        namespace = installer_namespace(self.project)
        try:
            verify_sshsig(script, _ascii(signature), keys=keys, namespace=namespace)
        except StoreError as error:
            return error.message
        return None

    def _sshsig(self, files: ArchiveFiles) -> Check:
        from orchestrator.signing import verify_sshsig  # noqa: PLC0415 -- lazy, see above

        if files.sshsig is None:
            return unknown(files.name, SSH_SIGNATURE)
        namespace = artifact_namespace(self.project)
        try:
            text = _ascii(files.sshsig)
            verify_sshsig(files.data, text, keys=self.keys, namespace=namespace)
        except StoreError as error:
            return wrong(files.name, SSH_SIGNATURE, error.message)
        return good(files.name, SSH_SIGNATURE)

    def _minisig(self, files: ArchiveFiles) -> Check:
        from orchestrator.signing import verify_minisig  # noqa: PLC0415 -- lazy, see above

        if files.minisig is None:
            return unknown(files.name, MINISIGN_SIGNATURE)
        try:
            comment = verify_minisig(files.data, _ascii(files.minisig), keys=self.keys)
        except StoreError as error:
            return wrong(files.name, MINISIGN_SIGNATURE, error.message)
        problem = judge_comment(comment, files.name, files.version)
        if problem:
            return wrong(files.name, MINISIGN_SIGNATURE, problem)
        return good(files.name, MINISIGN_SIGNATURE, comment)

    def _provenance(self, files: ArchiveFiles, digest: str) -> tuple[Check, Claims | None]:
        if files.provenance is None:
            return unknown(files.name, PROVENANCE), None
        try:
            claims = self.claims(files.provenance)
        except StoreError as error:
            return wrong(files.name, PROVENANCE, error.message), None
        if claims.subjects.get(files.name) != digest:
            return wrong(files.name, PROVENANCE, "it is about another archive"), None
        return good(files.name, PROVENANCE, claims.builder), claims

    def _genuine(self, data: bytes) -> Index:
        from orchestrator.signing import verify_minisig, verify_sshsig  # noqa: PLC0415 -- lazy

        if not data.isascii():
            raise StoreError("it is not ASCII text")
        try:
            text, sshsig, minisig = split_signed(data.decode())
        except StoreError as error:
            raise StoreError(f"truncated, or not an index: {error.message}") from None
        namespace = index_namespace(self.project)
        held = []
        for step in (
            lambda: verify_sshsig(text.encode(), sshsig, keys=self.keys, namespace=namespace),
            lambda: verify_minisig(text.encode(), minisig, keys=self.keys),
        ):
            try:
                step()
                held.append(True)
            except StoreError:
                held.append(False)
        if not all(held):
            raise StoreError(self._why_not(minisig, is_half_good=any(held)))
        return parse_index(text)

    def _why_not(self, minisig: str, *, is_half_good: bool) -> str:
        if is_half_good:
            return "mixed: only one of its two signatures is over this text, by a trusted key"
        number = _key_number(minisig)
        known = {base64.b64decode(key.minisign)[2:10] for key in self.keys}
        if number is not None and number not in known:
            return f"signed by another key ({number[::-1].hex().upper()}), which is not trusted"
        return "it was changed after it was signed, or it is of another project"


def _sbom(files: ArchiveFiles, claims: Claims | None) -> Check:
    named = claims.sbom_sha256 if claims else None
    if files.sbom is None:
        return unknown(files.name, SBOM)
    if named is None:
        return unknown(files.name, SBOM, "no genuine provenance names it")
    if hashlib.sha256(files.sbom).hexdigest() != named:
        return wrong(files.name, SBOM, "it is not the one that the provenance names")
    return good(files.name, SBOM)


def _ascii(data: bytes) -> str:
    if not data.isascii():
        raise StoreError("it is not ASCII text")
    return data.decode()


def _key_number(minisig: str) -> bytes | None:
    try:
        return base64.b64decode(minisig.split("\n")[1], validate=True)[2:10]
    except (IndexError, ValueError):
        return None
