"""A .tar.gz at a URL: downloaded, compared with its digest, and only then unpacked, bounded."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import tarfile
import zlib
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self, cast

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.wording import redacted
from orchestrator.source.command import keep_going, off_loop
from orchestrator.source.pinned import Pinned, Unpacked
from orchestrator.source.tree import Entry, File, Limits, Link, plant
from orchestrator.web import WebError, is_allowed, open_url

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.core.inventory import ArchiveSource
    from orchestrator.core.version import Version

_CHUNK_BYTES: Final = 1 << 20
_MAX_HEADER_BYTES: Final = 1 << 20
_DOWNLOAD: Final = timedelta(minutes=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """How much and how long one download may be."""

    size_bytes: int = 512 << 20
    deadline: timedelta = _DOWNLOAD


def pin_archive(source: ArchiveSource, *, version: Version, room: Path) -> Pinned:
    """Return the archive that the inventory gives a digest for; ConfigError if it gives none."""
    digest = dict(source.sha256).get(str(version), "").lower()
    url = check_url(source.archive.replace("{version}", str(version)))
    if not digest:
        raise ConfigError(
            f"`source.sha256` has no digest for {version}",
            hint="download the archive, look at it, and add the output of `sha256sum`",
        )

    async def unpack(target: Path) -> Unpacked:
        file = room / "download.tar.gz"
        await off_loop(lambda stop: download(url, file, sha256=digest, stop=stop))
        await off_loop(lambda stop: unpack_archive(file, target, stop=stop))
        file.unlink()
        return Unpacked(revision=None)

    return Pinned(
        description=redacted(url),
        identity=("archive", digest),
        subdirectory=source.subdirectory,
        lockfile=source.lockfile,
        unpack=unpack,
    )


def check_url(url: str) -> str:
    """Return the URL; ConfigError unless it is https (or http on loopback)."""
    if not is_allowed(url):
        raise ConfigError(f"not an https URL: {redacted(url)[:200]!r}", hint="use https://")
    return url


def download(
    url: str,
    file: Path,
    *,
    sha256: str,
    stop: threading.Event,
    limits: DownloadLimits | None = None,
) -> None:
    """Write what the URL serves to the file; raise ConfigError unless it has this digest.

    NodeError if it cannot be had, is too large or takes too long.
    """
    place = redacted(url)
    try:
        found = _receive(url, file, stop=stop, limits=limits or DownloadLimits())
    except (OSError, WebError) as error:
        message = f"{place} cannot be downloaded: {error}"
        raise NodeError(message, hint="is the network slow or gone? try again") from None
    if not hmac.compare_digest(found, sha256):
        raise ConfigError(
            f"{place} has the SHA-256 {found}, not {sha256}",
            hint="somebody changed the archive, or the digest is for another one: do not just copy "
            "the new digest into `source.sha256`",
        )


def unpack_archive(
    file: Path, target: Path, *, stop: threading.Event, limits: Limits | None = None
) -> None:
    """Unpack what is in the archive's single top folder; ConfigError at the first unsafe entry.

    The standard library's extraction is not used: its `data` filter can be escaped before Python
    3.11.13, 3.12.11 and 3.13.4 (CVE-2025-4517).
    """
    limits = limits or Limits()
    try:
        with (
            gzip.open(file, "rb") as plain,
            tarfile.open(
                fileobj=cast("Any", _Capped(plain, limits)), mode="r|", tarinfo=_BoundedHeader
            ) as archive,
        ):
            plant(_entries(archive, stop), target, limits=limits)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ConfigError(f"the source archive cannot be unpacked: {error}") from error


def _receive(url: str, file: Path, *, stop: threading.Event, limits: DownloadLimits) -> str:
    digest = hashlib.sha256()
    with (
        open_url(url, limit_bytes=limits.size_bytes, timeout=limits.deadline) as answer,
        file.open("xb") as out,
    ):
        if answer.status != HTTPStatus.OK:
            raise NodeError(
                f"{redacted(url)} cannot be downloaded: the server says {answer.status} "
                f"{answer.reason}",
                hint="see `source.archive` in the inventory",
            )
        for chunk in answer.chunks:
            keep_going(stop)
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


class _Capped:
    """A decompressed stream that ends with an error instead of filling the disk or the memory."""

    def __init__(self, stream: gzip.GzipFile, limits: Limits) -> None:
        self._stream = stream
        # Beside its content, every entry has headers: 512 bytes and, rarely, a long name.
        self._left = limits.total_bytes + limits.files * 2048

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to more than a source may hold")
        return data


class _BoundedHeader(tarfile.TarInfo):
    """A header whose extension (a long name, a pax record) is never read into memory unbounded."""

    # The entry point that tarfile documents for subclasses, in a comment above its definition.
    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        if not self.isreg() and self.size > _MAX_HEADER_BYTES:
            raise ValueError("it has a header of absurd size")
        member: Self = super()._proc_member(archive)  # type: ignore[misc]  # typeshed leaves it out
        return member


def _entries(archive: tarfile.TarFile, stop: threading.Event) -> Iterator[Entry]:
    top: str | None = None
    for member in archive:
        keep_going(stop)
        first, _, name = member.name.removeprefix("./").rstrip("/").partition("/")
        if member.isdir() and not name and first in {".", ""}:
            continue
        if (top := top or first) != first or not first:
            raise ConfigError(
                f"the source archive has no single top folder: {top!r} and {first!r}",
                hint="pack it as NAME-VERSION/…, as `git archive --prefix` does",
            )
        if not member.isdir():
            yield _entry(archive, member, name)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Entry:
    if member.issym():
        return Link(name=name, target=member.linkname)
    if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.issparse():
        raise ConfigError(f"the source archive holds more than files and links: {member.name!r}")
    return File(
        name=name,
        content=_content(archive, member),
        is_executable=bool(member.mode & 0o100),
    )


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    stream = archive.extractfile(member)
    while stream is not None and (chunk := stream.read(_CHUNK_BYTES)):
        yield chunk
