"""Images of the systems' projects: downloaded, held against their digest, unpacked."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from contextlib import contextmanager
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlsplit

from orchestrator.core.errors import ConfigError, NodeError
from orchestrator.core.wording import human_size, redacted
from orchestrator.nodes.vm.lock import locked
from orchestrator.web import WebError, open_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.web import Stream

_MOST_BYTES: Final = 16 << 30
_MOST_UNPACKED_BYTES: Final = 128 << 30
_TIMEOUT: Final = timedelta(hours=6)
_BLOCK_BYTES: Final = 1 << 20
_OK: Final = 200


def fetch_image(url: str, *, sha256: str, folder: Path, say: Callable[[str], None]) -> Path:
    """Return the file of that digest, downloaded now if it is not in the folder.

    Raise ConfigError if what comes has another digest, NodeError if nothing whole comes; neither
    leaves anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, partial = folder / sha256, folder / f".part-{sha256}"
    # Two who need it download it once.
    with locked(folder / f".{sha256}.lock", say):
        if kept.is_file() and _digest(kept) == sha256:
            return kept
        try:
            found = _download(url, partial, say)
            if found != sha256:
                raise ConfigError(
                    f"{redacted(url)} is not what it should be: its SHA-256 digest is {found}",
                    hint="compare with the list that the project signs: is the digest of another "
                    "release, or is somebody between this machine and the server?",
                )
            partial.replace(kept)
        finally:
            partial.unlink(missing_ok=True)
    return kept


def unpack(source: Path, url: str, destination: Path) -> None:
    """Write what an image holds, by the end of its URL (.xz, .gz or neither), with holes for zeros.

    Raise NodeError if it is damaged.
    """
    path = urlsplit(url).path
    try:
        with _opened(source, path) as reader, destination.open("wb") as writer:
            _copy_sparsely(reader, writer)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise NodeError(
            f"what {redacted(url)} holds cannot be unpacked: {error}",
            hint="its digest is right: does its name end in what it is?",
        ) from error


def _download(url: str, partial: Path, say: Callable[[str], None]) -> str:
    try:
        with open_url(url, limit_bytes=_MOST_BYTES, timeout=_TIMEOUT) as stream:
            if stream.status != _OK:
                raise NodeError(
                    f"{redacted(url)} cannot be had: {stream.status} {stream.reason}",
                    hint="projects move old releases: correct `image.url`",
                )
            say(f"downloading {redacted(url)}{_size_of(stream)}")
            return _save(stream, partial)
    except WebError as error:
        raise NodeError(
            f"{redacted(url)} cannot be had: {error}", hint="run the same command again"
        ) from error


def _size_of(stream: Stream) -> str:
    told = stream.headers.get("content-length", "")
    return f" ({human_size(int(told))})" if told.isdecimal() else ""


def _save(stream: Stream, partial: Path) -> str:
    digest = hashlib.sha256()
    with partial.open("wb") as file:
        for chunk in stream.chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


@contextmanager
def _opened(source: Path, path: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    if path.endswith(".xz"):
        with lzma.open(source) as reader:
            yield reader
    elif path.endswith(".gz"):
        with gzip.open(source) as zipped:
            yield zipped
    else:
        with source.open("rb") as plain:
            yield plain


def _copy_sparsely(reader: IO[bytes] | gzip.GzipFile, writer: IO[bytes]) -> None:
    size = 0
    while block := reader.read(_BLOCK_BYTES):
        size += len(block)
        if size > _MOST_UNPACKED_BYTES:
            raise NodeError(f"it unpacks to more than {human_size(_MOST_UNPACKED_BYTES)}")
        if block.count(0) == len(block):
            writer.seek(len(block), 1)
        else:
            writer.write(block)
    writer.truncate(size)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
