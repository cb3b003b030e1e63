"""A folder as a store: real processes that race, real kills, and what a file system may refuse."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.errors import StoreError
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.store import Created, ObjectKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.stores.directory import Link

ARCHIVE = ObjectKind.ARCHIVE
INDEX = ObjectKind.INDEX
NAME = "releases/1.0.0/demo.tar.gz"

CREATOR = """
import asyncio, sys
from pathlib import Path
from orchestrator.core.errors import StoreError
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.store import ObjectKind
async def main(root, first, last):
    store = DirectoryStore(Path(root))
    async def create(writer):
        try:
            await store.create("a/name", b"%d" % writer * 50_000, ObjectKind.ARCHIVE)
        except StoreError:
            return
        print(writer)
    sys.stdin.readline()
    await asyncio.gather(*(create(writer) for writer in range(int(first), int(last))))
asyncio.run(main(*sys.argv[1:]))
"""

COUNTER = """
import asyncio, sys
from pathlib import Path
from orchestrator.stores.directory import DirectoryStore
from orchestrator.stores.store import ConflictError, ObjectKind
async def main(root, name):
    store = DirectoryStore(Path(root))
    async def count(writer):
        done = 0
        while done < 10:
            held = await store.read("count.idx", limit_bytes=100)
            number = int(held.data.split()[0]) if held else 0
            data = b"%d %s-%d" % (number + 1, name.encode(), writer)
            expected = held.generation if held else None
            try:
                await store.replace("count.idx", data, ObjectKind.INDEX, expected=expected)
            except ConflictError:
                continue
            done += 1
    sys.stdin.readline()
    await asyncio.gather(*(count(writer) for writer in range(4)))
asyncio.run(main(*sys.argv[1:]))
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_together(*processes: subprocess.Popen[str]) -> list[str]:
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def test_of_sixteen_in_two_processes_who_create_one_name_one_wins(tmp_path: Path) -> None:
    outputs = run_together(
        start(CREATOR, str(tmp_path), "10", "18"), start(CREATOR, str(tmp_path), "18", "26")
    )
    [winner] = "".join(outputs).split()
    assert (tmp_path / "a/name").read_bytes() == winner.encode() * 50_000
    assert names_in(tmp_path / "a") == ["name"]


def test_eight_writers_in_two_processes_count_to_eighty(tmp_path: Path) -> None:
    run_together(start(COUNTER, str(tmp_path), "a"), start(COUNTER, str(tmp_path), "b"))
    assert (tmp_path / "count.idx").read_text().split()[0] == "80"


async def test_files_and_folders_can_be_read_by_everyone_whatever_the_umask(
    tmp_path: Path,
) -> None:
    before = os.umask(0o077)
    try:
        store = DirectoryStore(tmp_path / "store")
        await store.create(NAME, b"x", ARCHIVE)
        await store.replace("stable.idx", b"x", INDEX, expected=None)
    finally:
        os.umask(before)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "store").rglob("*")
        if not path.name.startswith(".")
    }
    assert modes == {
        "store/releases": 0o755,
        "store/releases/1.0.0": 0o755,
        "store/" + NAME: 0o644,
        "store/stable.idx": 0o644,
    }
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o755


async def test_nothing_but_what_was_published_is_listed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.create(NAME, b"x", ARCHIVE)
    await store.replace("stable.idx", b"x", INDEX, expected=None)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").touch()
    (tmp_path / "releases/.demo.tar.gz.0011.part").touch()
    (tmp_path / "link.idx").symlink_to("stable.idx")
    (tmp_path / "linked").symlink_to("releases")
    assert await store.list("") == (NAME, "stable.idx")


async def test_links_inside_the_store_are_never_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "store", tmp_path / "outside"
    (outside / "1.0.0").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    store = DirectoryStore(root)
    await store.create("stable.idx", b"x", INDEX)
    (root / "releases").symlink_to(outside)
    (root / "secret.idx").symlink_to(outside / "secret")
    (root / "dangling.idx").symlink_to(outside / "new")
    for attempt in (
        store.create(NAME, b"x", ARCHIVE),
        store.read(NAME, limit_bytes=10),
        store.stat("releases/secret"),
        store.list("releases/"),
        store.read("secret.idx", limit_bytes=10),
        store.stat("secret.idx"),
        store.create("secret.idx", b"secret", INDEX),
        store.create("dangling.idx", b"x", INDEX),
        store.replace("secret.idx", b"x", INDEX, expected=None),
        store.replace("dangling.idx", b"x", INDEX, expected=None),
    ):
        with pytest.raises(StoreError) as caught:
            await attempt
        assert caught.value.hint
        assert caught.value.hint.startswith("the store follows no links")
    assert sorted(path.name for path in outside.rglob("*")) == ["1.0.0", "secret"]
    assert (outside / "secret").read_text() == "secret"


async def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to("disk")
    await DirectoryStore(tmp_path / "store").create(NAME, b"x", ARCHIVE)
    assert (tmp_path / "disk" / NAME).read_bytes() == b"x"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
async def test_what_is_not_a_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[str], None]
) -> None:
    make(str(tmp_path / "stable.idx"))
    store = DirectoryStore(tmp_path)
    for attempt in (
        store.read("stable.idx", limit_bytes=10),
        store.stat("stable.idx"),
        store.create("stable.idx", b"x", INDEX),
        store.replace("stable.idx", b"x", INDEX, expected=None),
    ):
        with pytest.raises(StoreError):
            await asyncio.wait_for(attempt, timeout=5)


def refusing(number: int) -> Link:
    def link(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        del src, dst, src_dir_fd, dst_dir_fd
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EACCES])
async def test_a_file_system_without_links_creates_each_name_once_too(
    tmp_path: Path, number: int
) -> None:
    stores = [DirectoryStore(tmp_path, link=refusing(number)) for _ in range(8)]
    outcomes = await asyncio.gather(
        *(store.create(NAME, b"racer %d" % i, ARCHIVE) for i, store in enumerate(stores)),
        return_exceptions=True,
    )
    [winner] = [i for i, outcome in enumerate(outcomes) if outcome is Created.NEW]
    assert (tmp_path / NAME).read_bytes() == b"racer %d" % winner
    assert await stores[0].create(NAME, b"racer %d" % winner, ARCHIVE) is Created.SAME
    assert names_in(tmp_path / "releases/1.0.0") == ["demo.tar.gz"]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "make room on the disk"),
        (errno.EDQUOT, "make room on the disk"),
        (errno.EROFS, "mount the file system"),
        (errno.EIO, "run the same command again"),
    ],
)
async def test_a_file_system_that_fails_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, number: int, hint: str
) -> None:
    with pytest.raises(StoreError, match=os.strerror(number)) as caught:
        await DirectoryStore(tmp_path, link=refusing(number)).create(NAME, b"x", ARCHIVE)
    assert caught.value.hint
    assert caught.value.hint.startswith(hint)
    assert names_in(tmp_path / "releases/1.0.0") == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_that_stops_half_way_is_never_seen(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.create("stable.idx", b"old", INDEX)
    old = await store.read("stable.idx", limit_bytes=10)
    assert old
    with file_size_limit(65536):
        with pytest.raises(StoreError, match="File too large") as caught:
            await store.create(NAME, b"x" * 200_000, ARCHIVE)
        with pytest.raises(StoreError, match="File too large"):
            await store.replace("stable.idx", b"x" * 200_000, INDEX, expected=old.generation)
    assert caught.value.hint
    assert caught.value.hint.startswith("make room")
    assert await store.list("") == ("stable.idx",)
    assert (tmp_path / "stable.idx").read_bytes() == b"old"
    assert names_in(tmp_path / "releases/1.0.0") == []
    assert await store.create(NAME, b"x" * 200_000, ARCHIVE) is Created.NEW


@contextmanager
def nobody() -> Iterator[None]:
    """Do without root's right to read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_folder_that_may_not_be_written_says_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o500)
    with nobody(), pytest.raises(StoreError, match="Permission denied") as caught:
        await DirectoryStore(root).create(NAME, b"x", ARCHIVE)
    assert caught.value.hint
    assert caught.value.hint.startswith("let the user who runs this read and write")
    assert names_in(root) == []


async def test_looking_whether_a_store_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    await DirectoryStore(tmp_path / "not/there/yet").check_writable()
    assert names_in(tmp_path) == []
    store = DirectoryStore(tmp_path)
    await store.create(NAME, b"x", ARCHIVE)
    before = sorted(tmp_path.rglob("*"))
    await store.check_writable()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
async def test_what_is_in_the_way_of_a_store_is_found(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "store")
    with pytest.raises(StoreError, match="store cannot be written"):
        await DirectoryStore(tmp_path / "store").check_writable()


@pytest.mark.parametrize("closed", ["", "releases", "index", ".lock"])
async def test_a_part_of_the_store_that_is_another_user_s_is_found_before_a_release(
    closed: str,
) -> None:
    # Not tmp_path: nobody else may enter that one.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "store"
        for part in ("", "releases", "index"):
            (root / part).mkdir()
            (root / part).chmod(0o777)
        (root / ".lock").touch()
        (root / ".lock").chmod(0o666)
        # Once before: nobody may not import what the first thread needs.
        await DirectoryStore(root).check_writable()
        with nobody():
            await DirectoryStore(root).check_writable()
        (root / closed).chmod(0o444 if closed == ".lock" else 0o555)
        with nobody(), pytest.raises(StoreError, match="cannot be written: Perm") as caught:
            await DirectoryStore(root).check_writable()
        assert "let the user who runs this read and write" in (caught.value.hint or "")


async def test_a_folder_that_may_not_be_read_is_an_error_and_not_an_empty_list() -> None:
    # Not tmp_path: nobody else may enter that one.
    with tempfile.TemporaryDirectory() as folder:
        store = DirectoryStore(Path(folder) / "store")
        await store.create(NAME, b"x", ARCHIVE)
        Path(folder).chmod(0o755)
        releases = Path(folder) / "store/releases"
        releases.chmod(0)
        try:
            with nobody():
                with pytest.raises(StoreError, match="Permission denied"):
                    await store.list("")
                assert await store.read("stable.idx", limit_bytes=1) is None
        finally:
            releases.chmod(0o755)


async def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await store.create("a/first", b"x", ARCHIVE)
    for name in (".second.0011.part", ".third.0011.part", "forth.part", ".keep"):
        (tmp_path / "a" / name).touch()
    (tmp_path / "a/.fifth.0011.part").symlink_to(tmp_path / "a/.keep")
    with (tmp_path / "a/.third.0011.part").open("wb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        await store.create("a/second", b"x", ARCHIVE)
    assert names_in(tmp_path / "a") == [
        ".fifth.0011.part",
        ".keep",
        ".third.0011.part",
        "first",
        "forth.part",
        "second",
    ]
