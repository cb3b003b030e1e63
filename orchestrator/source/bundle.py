"""One archive with all that a build needs: packed deterministically, kept, found again."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.core.errors import ConfigError
from orchestrator.source.cargo import VENDOR, VENDORED
from orchestrator.source.command import keep_going, off_loop
from orchestrator.source.tree import check_link

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterator

    from orchestrator.core.version import Version
    from orchestrator.source.pinned import Pinned

# In every cache key: a changed format must not find bundles of the old one.
_FORMAT: Final = "bundle 2"
# One time for all files, and not 0, which some tools take for "unknown".
_MTIME: Final = 1_000_000_000
_CHUNK_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 512
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the archive that is a gzip member of its own: a vendored crate, or what is not one.

    `crate` is its line in `.cargo/vendored`, "" for what every node needs.
    """

    crate: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A .tar.gz of `source/`, `vendor/`, `.cargo/config.toml` and `.cargo/vendored`.

    `digest` is the SHA-256 of the tar stream inside, `archive_sha256` that of the file at `path`,
    which is made of the `pieces`. `notes` say what a person should know: a changed lockfile, files
    that are in no commit.
    """

    path: Path
    digest: str
    archive_sha256: str
    size_bytes: int
    subdirectory: str
    revision: str | None
    is_dirty: bool
    description: str
    notes: tuple[str, ...]
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Digests of what was written: of the tar stream, and of the compressed file."""

    digest: str
    archive_sha256: str
    size_bytes: int
    pieces: tuple[Piece, ...]


class BundleCache:
    """Bundles on disk, named by their own SHA-256, and records that lead to them.

    `bundles/<sha256>.tar.gz` never changes. `records/<key>.json` says which bundle a source became,
    `names/<digest>.json` what a tag or crate version was when it was first made into one. All are
    written to a temporary name and moved, so that several makers at once are safe.
    """

    def __init__(self, folder: Path) -> None:
        self._bundles = folder.resolve() / "bundles"
        self._records = folder.resolve() / "records"
        self._names = folder.resolve() / "names"

    def check_unmoved(self, pinned: Pinned) -> None:
        """Raise ConfigError if the source's name has been used for something else before."""
        if pinned.name is None:
            return
        file = self._name_file(pinned.name)
        record = _read_json(file)
        now = list(pinned.identity or ())
        if record is not None and record.get("identity") != now:
            before = " ".join(record.get("identity", ()))
            raise ConfigError(
                f"{pinned.name} moved: it was {before}, it is {' '.join(now)}",
                hint="a released version never changes: give the new code a new version; "
                f"if nothing was published from the old one, remove {file}",
            )

    def key_of(self, pinned: Pinned, *, version: Version, binaries: tuple[str, ...]) -> str | None:
        """Return what the bundle depends on, as one word; None if it must not be cached."""
        if pinned.identity is None:
            return None
        facts = (_FORMAT, pinned.identity, pinned.subdirectory, pinned.lockfile, version, binaries)
        return _digest_of([str(fact) for fact in facts])

    async def find(self, key: str | None, pinned: Pinned) -> Bundle | None:
        """Return the bundle made for this key, if its file still has the bytes that it had."""
        record = None if key is None else _read_json(self._records / f"{key}.json")
        if record is None:
            return None
        bundle = self._bundle_of(record, pinned)
        found = await off_loop(lambda stop: _sha256_of(bundle.path, stop))
        return bundle if found == bundle.archive_sha256 else None

    async def add(
        self,
        key: str | None,
        pinned: Pinned,
        *,
        room: Path,
        revision: str | None,
        notes: tuple[str, ...],
    ) -> Bundle:
        """Pack the room's `source/`, `vendor/` and `.cargo/` and return the bundle."""
        for folder in (self._bundles, self._records, self._names):
            folder.mkdir(parents=True, exist_ok=True)
        packed = await off_loop(lambda stop: self._pack(room, stop))
        record = {
            "digest": packed.digest,
            "archive_sha256": packed.archive_sha256,
            "size_bytes": packed.size_bytes,
            "revision": revision,
            "notes": list(notes),
            "pieces": [[piece.crate, piece.size_bytes] for piece in packed.pieces],
        }
        if key is not None:
            _write_json(self._records / f"{key}.json", record)
        if pinned.name is not None:
            _write_json(self._name_file(pinned.name), {"identity": list(pinned.identity or ())})
        return self._bundle_of(record, pinned)

    def _pack(self, room: Path, stop: threading.Event) -> Packed:
        handle, name = tempfile.mkstemp(prefix="new-", dir=self._bundles)
        os.close(handle)
        file = Path(name)
        try:
            packed = pack(room, file, stop=stop)
            file.replace(self._bundles / f"{packed.archive_sha256}.tar.gz")
        finally:
            file.unlink(missing_ok=True)
        return packed

    def _name_file(self, name: str) -> Path:
        return self._names / f"{_digest_of([name])}.json"

    def _bundle_of(self, record: dict[str, Any], pinned: Pinned) -> Bundle:
        return Bundle(
            path=self._bundles / f"{record['archive_sha256']}.tar.gz",
            digest=record["digest"],
            archive_sha256=record["archive_sha256"],
            size_bytes=record["size_bytes"],
            subdirectory=pinned.subdirectory,
            revision=record["revision"],
            is_dirty=pinned.is_dirty,
            description=pinned.description,
            notes=tuple(record["notes"]),
            pieces=tuple(
                Piece(crate=crate, size_bytes=size_bytes) for crate, size_bytes in record["pieces"]
            ),
        )


def pack(room: Path, file: Path, *, stop: threading.Event) -> Packed:
    """Write the room's content to the .tar.gz; equal content gives an equal tar stream.

    Sorted names, one time, owner 0, modes 0644 and 0755. Compressed fast rather than small: it
    travels once to each host. Each vendored crate is a gzip member of its own, so that it can be
    left out where it is already; any gunzip reads them as one stream (RFC 1952, 2.2).
    """
    plain = hashlib.sha256()
    compressed = hashlib.sha256()
    pieces: list[Piece] = []
    with file.open("wb") as out:

        def write(data: bytes) -> int:
            compressed.update(data)
            return out.write(data)

        for crate, blocks in groupby(_tar_stream(room, stop), key=itemgetter(0)):
            # zlib's own gzip frame has no file name and no time in it.
            packer = zlib.compressobj(level=1, wbits=_GZIP)
            size_bytes = 0
            for _, block in blocks:
                plain.update(block)
                size_bytes += write(packer.compress(block))
            size_bytes += write(packer.flush())
            pieces.append(Piece(crate=crate, size_bytes=size_bytes))
        # A bundle is remembered by its digest, so it must be whole after a power cut too.
        os.fsync(out.fileno())
    return Packed(
        digest=plain.hexdigest(),
        archive_sha256=compressed.hexdigest(),
        size_bytes=sum(piece.size_bytes for piece in pieces),
        pieces=tuple(pieces),
    )


@contextmanager
def reduced(bundle: Bundle, have: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yield an archive without the crates whose lines are in `have`, and its SHA-256.

    It lies beside the bundle, until the end of the block.
    """
    digest = hashlib.sha256()
    with (
        bundle.path.open("rb") as whole,
        tempfile.NamedTemporaryFile(prefix="reduced-", dir=bundle.path.parent) as out,
    ):
        for piece in bundle.pieces:
            if piece.crate in have:
                whole.seek(piece.size_bytes, os.SEEK_CUR)
                continue
            left = piece.size_bytes
            while left and (data := whole.read(min(left, _CHUNK_BYTES))):
                left -= len(data)
                digest.update(data)
                out.write(data)
        out.flush()
        yield Path(out.name), digest.hexdigest()


def _tar_stream(room: Path, stop: threading.Event) -> Iterator[tuple[str, bytes]]:
    """Yield the blocks, each with the line of the vendored crate that it is of, or ""."""
    crates = _crates(room)
    for name in sorted(_names(room), key=os.fsencode):
        keep_going(stop)
        crate = crates.get("/".join(name.split("/", 2)[:2]), "")
        for block in _entry(name, room / name):
            yield crate, block
    yield "", bytes(2 * _BLOCK_BYTES)


def _crates(room: Path) -> dict[str, str]:
    """Return the line of each vendored crate, by its folder in the room."""
    file = room / VENDORED
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {f"{VENDOR}/{line.split(' ', 1)[1]}": line for line in lines}


def _entry(name: str, path: Path) -> Iterator[bytes]:
    if path.is_symlink():
        target = os.fspath(path.readlink())
        check_link(name.split("/", 1)[1], target)
        yield _header(name, kind=tarfile.SYMTYPE, mode=0o755, target=target)
    elif path.is_dir():
        yield _header(name + "/", kind=tarfile.DIRTYPE, mode=0o755)
    else:
        yield from _file(name, path)


def _names(room: Path) -> Iterator[str]:
    for top in (".cargo", "source", "vendor"):
        if not (room / top).is_dir():
            continue
        yield top
        for root, folders, files in os.walk(room / top):
            for name in (*folders, *files):
                yield (Path(root) / name).relative_to(room).as_posix()


def _file(name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        yield _header(name, kind=tarfile.REGTYPE, mode=mode, size_bytes=status.st_size)
        left = status.st_size
        while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    if left:
        raise ConfigError(f"a file of the source shrank while it was packed: {name}")
    yield bytes(-status.st_size % _BLOCK_BYTES)


def _header(name: str, *, kind: bytes, mode: int, size_bytes: int = 0, target: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    entry.mtime = _MTIME
    entry.size = size_bytes
    entry.linkname = target
    try:
        return entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:
        # Every tar reads ustar; only a name that does not fit pays with GNU's long-name entry.
        return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _sha256_of(file: Path, stop: threading.Event) -> str | None:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                keep_going(stop)
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def _digest_of(facts: list[str]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _write_json(file: Path, record: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(prefix="new-", dir=file.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(record, stream)
    Path(name).replace(file)
