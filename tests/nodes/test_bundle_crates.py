"""Of the next version's source only what is not on the node already is sent."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import LinkError
from orchestrator.nodes.bundle import Parcel, Sending, push_bundle
from orchestrator.nodes.job import JOB_SH
from orchestrator.nodes.local import LocalTransport
from orchestrator.nodes.transport import OnWritten, ignore
from orchestrator.source.bundle import Bundle, pack, reduced
from orchestrator.source.cargo import VENDORED
from tests.nodes.bench import Bench, bench

if TYPE_CHECKING:
    from collections.abc import Mapping

SERDE = ("serde-1.0.0", "the first serde")
ITOA = ("itoa-1.0.1+meta", "itoa")
NEWER = ("serde-1.0.1", "another serde")


class WeighingTransport(LocalTransport):
    """Knows how many bytes were pushed each time, and breaks the first push off if told to."""

    def __init__(self) -> None:
        super().__init__(os.environ)
        self.pushed: list[int] = []
        self.breaks_after: int | None = None

    async def push(
        self, source: Path, destination: str, *, offset: int = 0, on_written: OnWritten = ignore
    ) -> None:
        self.pushed.append(source.stat().st_size - offset)
        if self.breaks_after is not None:
            Path(destination).write_bytes(source.read_bytes()[: self.breaks_after])
            on_written(self.breaks_after)
            self.breaks_after = None
            raise LinkError("cut")
        await super().push(source, destination, offset=offset, on_written=on_written)


@pytest.fixture
def node(scratch_home: Path) -> Bench:
    return bench(scratch_home, WeighingTransport())


def weights(node: Bench) -> list[int]:
    assert isinstance(node.transport, WeighingTransport)
    return node.transport.pushed


def bundle(folder: Path, text: str, *crates: tuple[str, str]) -> Bundle:
    """Pack a source with these crates, each of 100 kB that cannot be compressed."""
    room = folder / text
    (room / "source").mkdir(parents=True)
    (room / "source/main.rs").write_text(text)
    (room / ".cargo").mkdir()
    lines = []
    for name, content in crates:
        place = room / "vendor" / name / "src"
        place.mkdir(parents=True)
        noise = hashlib.shake_256(content.encode()).digest(100_000)
        (place / "lib.rs").write_bytes(noise)
        (place / "build.sh").write_text("#!/bin/sh\n")
        (place / "build.sh").chmod(0o755)
        (place / "link.rs").symlink_to("lib.rs")
        digest = hashlib.sha256(noise).hexdigest()
        (place.parent / ".cargo-checksum.json").write_text(digest)
        lines.append(f"{digest} {name}\n")
    (room / VENDORED).write_text("".join(lines))
    path = folder / f"{text}.tar.gz"
    packed = pack(room, path, stop=threading.Event())
    return Bundle(
        path=path,
        digest=packed.digest,
        archive_sha256=packed.archive_sha256,
        size_bytes=packed.size_bytes,
        subdirectory="",
        revision=None,
        is_dirty=False,
        description=text,
        notes=(),
        pieces=packed.pieces,
    )


async def push(node: Bench, made: Bundle, sending: Sending | None = None) -> Path:
    parcel = Parcel(
        archive=made.path,
        archive_sha256=made.archive_sha256,
        digest=made.digest,
        crates=frozenset(piece.crate for piece in made.pieces if piece.crate),
        reduced=partial(reduced, made),
    )
    return Path(await push_bundle(node.transport, node.facts, parcel, sending=sending))


def tree(folder: Path) -> Mapping[str, object]:
    """Everything below a folder: contents, modes, times and links."""
    return {
        str(path.relative_to(folder)): path.readlink()
        if path.is_symlink()
        else (path.stat().st_mode, path.stat().st_mtime, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


async def test_the_next_version_is_sent_without_the_crates_that_are_there(
    node: Bench, tmp_path: Path
) -> None:
    await push(node, bundle(tmp_path, "one", SERDE, ITOA))
    second = bundle(tmp_path, "two", NEWER, ITOA)
    folder = await push(node, second)
    whole, less = weights(node)
    assert whole > 200_000
    assert 100_000 < less < 110_000
    # It is what it would be had all of it been sent.
    shutil.rmtree(node.folder / "sources")
    assert tree(folder.parent) == {}
    kept = tree(await push(node, second))
    assert set(kept) >= {"vendor/itoa-1.0.1+meta/src/build.sh", "vendor/serde-1.0.1/src/lib.rs"}
    shutil.rmtree(node.folder / "sources")
    await push(node, bundle(tmp_path, "three", ITOA))
    assert tree(await push(node, second)) == kept


@pytest.mark.parametrize("has_links", [True, False])
async def test_crates_that_are_there_take_no_room_twice_where_that_can_be(
    node: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    if not has_links:
        # One that does not know the option, after it has begun.
        other = JOB_SH.replace('cp -RPpl "$@"', 'cp -RPp "$1" "$brought_into/" && false')
        assert other != JOB_SH
        monkeypatch.setattr("orchestrator.nodes.bundle.JOB_SH", other)
    first = await push(node, bundle(tmp_path, "one", SERDE, ITOA))
    second = await push(node, bundle(tmp_path, "two", SERDE, ITOA, NEWER))
    for name, _ in (SERDE, ITOA):
        file = Path("vendor", name, "src/lib.rs")
        assert (second / file).read_bytes() == (first / file).read_bytes()
        assert (second / file).samefile(first / file) is has_links


async def test_the_source_that_has_most_of_it_is_chosen(node: Bench, tmp_path: Path) -> None:
    await push(node, bundle(tmp_path, "all", NEWER, ITOA))
    await push(node, bundle(tmp_path, "some", NEWER))
    await push(node, bundle(tmp_path, "new", NEWER, ITOA, SERDE))
    assert weights(node)[-1] < 110_000


async def test_a_crate_of_the_same_name_and_other_files_is_sent(
    node: Bench, tmp_path: Path
) -> None:
    await push(node, bundle(tmp_path, "one", SERDE))
    folder = await push(node, bundle(tmp_path, "two", (SERDE[0], "patched")))
    assert weights(node)[-1] > 100_000
    noise = hashlib.shake_256(b"patched").digest(100_000)
    assert (folder / "vendor" / SERDE[0] / "src/lib.rs").read_bytes() == noise


async def test_what_a_node_lost_of_it_is_no_reason_to_fail(node: Bench, tmp_path: Path) -> None:
    first = await push(node, bundle(tmp_path, "one", SERDE, ITOA))
    shutil.rmtree(first / "vendor" / SERDE[0])
    second = bundle(tmp_path, "two", SERDE, ITOA)
    folder = await push(node, second)
    assert (folder / "vendor" / SERDE[0] / "src/lib.rs").exists()
    _, less, all_of_it = weights(node)
    assert less < 10_000
    assert all_of_it == second.size_bytes
    names = {path.name for path in (node.folder / "sources").iterdir()}
    assert not {name for name in names if name.endswith((".new", ".part"))}


async def test_a_push_that_was_broken_off_goes_on_with_the_same_rest(
    node: Bench, tmp_path: Path
) -> None:
    await push(node, bundle(tmp_path, "one", SERDE))
    second, sending = bundle(tmp_path, "two", SERDE, ITOA), Sending()
    assert isinstance(node.transport, WeighingTransport)
    node.transport.breaks_after = 50_000
    with pytest.raises(LinkError, match="cut"):
        await push(node, second, sending)
    # Another source that would fit better has come meanwhile.
    await push(node, bundle(tmp_path, "other", SERDE, ITOA))
    folder = await push(node, second, sending)
    assert weights(node)[-1] < 60_000
    assert (folder / "vendor" / ITOA[0] / "src/lib.rs").exists()
    assert (folder / "source/main.rs").read_text() == "two"
