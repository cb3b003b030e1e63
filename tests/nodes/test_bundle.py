from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.core.errors import LinkError, NodeError, PassingError
from orchestrator.nodes.bundle import Parcel, Sending, push_bundle, source_folder
from orchestrator.nodes.local import LocalTransport
from orchestrator.nodes.transport import OnWritten, ignore
from tests.nodes.bench import Bench, bench

DIGEST = "d" * 64


class CountingTransport(LocalTransport):
    """Counts pushes, and breaks the first of them off after some bytes if it is told to."""

    def __init__(self) -> None:
        super().__init__(os.environ)
        self.pushes = 0
        self.offsets: list[int] = []
        self.breaks_after: int | None = None

    async def push(
        self, source: Path, destination: str, *, offset: int = 0, on_written: OnWritten = ignore
    ) -> None:
        self.pushes += 1
        self.offsets.append(offset)
        if self.breaks_after is not None:
            Path(destination).write_bytes(source.read_bytes()[: self.breaks_after])
            on_written(self.breaks_after)
            self.breaks_after = None
            raise LinkError("cut")
        await super().push(source, destination, offset=offset, on_written=on_written)


@pytest.fixture
def node(scratch_home: Path) -> Bench:
    return bench(scratch_home, CountingTransport())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "tree/src").mkdir(parents=True)
    (tmp_path / "tree/src/main.rs").write_text("fn main() {}\n")
    subprocess.run(["tar", "-czf", "bundle.tar.gz", "-C", "tree", "."], cwd=tmp_path, check=True)
    return tmp_path / "bundle.tar.gz"


async def push(node: Bench, archive: Path, sending: Sending | None = None) -> str:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    parcel = Parcel(archive=archive, archive_sha256=sha256, digest=DIGEST)
    return await push_bundle(node.transport, node.facts, parcel, sending=sending)


def rest_of(node: Bench) -> list[str]:
    return sorted(path.name for path in (node.folder / "sources").iterdir())


async def test_a_bundle_is_pushed_once_and_unpacked_whole(node: Bench, archive: Path) -> None:
    folder = await push(node, archive)
    assert folder == source_folder(node.facts, DIGEST) == f"{node.folder}/sources/{DIGEST}"
    assert (Path(folder) / "src/main.rs").read_text() == "fn main() {}\n"
    assert await push(node, archive) == folder
    assert isinstance(node.transport, CountingTransport)
    assert node.transport.pushes == 1
    assert rest_of(node) == [DIGEST, f"{DIGEST}.complete", f"{DIGEST}.lock"]


async def test_a_push_that_was_broken_off_goes_on_at_the_byte(node: Bench, archive: Path) -> None:
    transport, sending = node.transport, Sending()
    assert isinstance(transport, CountingTransport)
    transport.breaks_after = 20
    with pytest.raises(LinkError, match="cut"):
        await push(node, archive, sending)
    assert sending.written_bytes == 20
    folder = await push(node, archive, sending)
    assert transport.offsets == [0, 20]
    assert (Path(folder) / "src/main.rs").read_text() == "fn main() {}\n"
    assert rest_of(node) == [DIGEST, f"{DIGEST}.complete", f"{DIGEST}.lock"]


async def test_a_part_that_was_damaged_is_sent_anew(node: Bench, archive: Path) -> None:
    transport, sending = node.transport, Sending()
    assert isinstance(transport, CountingTransport)
    transport.breaks_after = 20
    with pytest.raises(LinkError, match="cut"):
        await push(node, archive, sending)
    (part,) = (node.folder / "sources").glob(".*.part")
    part.write_bytes(b"x" * 20)
    with pytest.raises(PassingError, match="other bytes than were sent"):
        await push(node, archive, sending)
    await push(node, archive, sending)
    assert transport.offsets == [0, 20, 0]


async def test_a_look_at_a_bundle_is_a_use_of_it(node: Bench, archive: Path) -> None:
    mark = Path(f"{await push(node, archive)}.complete")
    os.utime(mark, (1, 1))
    await push(node, archive)
    assert mark.stat().st_mtime > 1_000_000


async def test_pushes_at_the_same_time_are_safe(node: Bench, archive: Path) -> None:
    folders = await asyncio.gather(*(push(node, archive) for _ in range(3)))
    assert len(set(folders)) == 1
    assert os.listdir(folders[0]) == ["src"]  # noqa: PTH208 -- names, not paths
    assert rest_of(node) == [DIGEST, f"{DIGEST}.complete", f"{DIGEST}.lock"]


async def test_a_half_made_folder_is_made_again(node: Bench, archive: Path) -> None:
    half = node.folder / "sources" / DIGEST
    half.mkdir(parents=True)
    (half / "half").touch()
    await push(node, archive)
    assert [path.name for path in half.iterdir()] == ["src"]


async def test_a_mark_without_its_folder_proves_nothing(node: Bench, archive: Path) -> None:
    (node.folder / "sources").mkdir()
    (node.folder / "sources" / f"{DIGEST}.complete").touch()
    assert (Path(await push(node, archive)) / "src/main.rs").exists()


async def test_other_bytes_than_were_sent_are_refused(node: Bench, archive: Path) -> None:
    with pytest.raises(NodeError, match="arrived with other bytes"):
        await push_bundle(
            node.transport,
            node.facts,
            Parcel(archive=archive, archive_sha256="0" * 64, digest=DIGEST),
        )
    assert rest_of(node) == []


async def test_what_cannot_be_unpacked_is_not_there(node: Bench, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"no archive")
    with pytest.raises(NodeError, match="cannot unpack the bundle"):
        await push(node, tmp_path / "bad")
    assert rest_of(node) == [f"{DIGEST}.lock"]


async def test_a_node_without_room_says_so(node: Bench, archive: Path) -> None:
    (node.folder / "sources").write_text("in the way")
    with pytest.raises(NodeError, match="could not make room for the source"):
        await push(node, archive)
